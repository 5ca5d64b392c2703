"""Numbers on the device, read by the host in one wait. It knows nothing of what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor


def read_numbers(tensors: Sequence[Tensor]) -> list[float]:
    """The values of scalars and vectors of one device, one after the other; float32 and float64 come over exactly."""
    if not tensors:
        return []
    together = torch.cat([tensor.double().reshape(-1) for tensor in tensors])
    return cast("list[float]", together.tolist())  # pyright: ignore[reportUnknownMemberType]
