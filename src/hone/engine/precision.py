"""Which arithmetic is fastest here: the same small step tried in each. It knows no configuration."""

from __future__ import annotations

import time
from collections.abc import Callable

import torch

from hone.engine.loss import PackLoss
from hone.engine.rehearsal import made_up_pack

Precision = str  # "fp32" or "bf16"
DTYPES = {"fp32": torch.float32, "bf16": torch.bfloat16}
_TRIALS = 3
_TRIAL_ROWS = (128, 128, 128)  # tokens


def seconds_by_precision(make: Callable[[Precision], PackLoss]) -> dict[Precision, float]:
    """Best of three forward and backward passes of a small Pack, in fp32 and in bf16.

    `make(precision)` gives a cut-down model of the same shapes; its weights do not matter.
    """
    found: dict[Precision, float] = {}
    for precision in ("fp32", "bf16"):
        loss = make(precision)
        pack = made_up_pack(_TRIAL_ROWS, vocab_size=loss.head.vocab_size)
        seconds: list[float] = []
        for _ in range(_TRIALS + 1):
            start = time.perf_counter()
            loss(pack, 1.0).backward()
            if loss.head.device.type == "cuda":
                torch.cuda.synchronize()
            seconds.append(time.perf_counter() - start)
            loss.zero_grad(set_to_none=True)
        found[precision] = min(seconds[1:])  # the first pass warms up
    return found
