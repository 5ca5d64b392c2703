"""Liger's kernels in place of our own modules: the same numbers, forward and backward."""

from __future__ import annotations

import pytest
import torch

from hone.models.kernels import KERNELS, KernelGate, KernelNorm, put_kernels, why_not
from tests.gpu.small import adapt, apart, gradient_of, loss_of, model_of, packs_of, rows_of


@pytest.mark.parametrize("names", [("rms_norm",), ("activation",), KERNELS])
@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "gemma3", "olmo2"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.bfloat16])
def test_the_same_numbers(gpu, names, family: str, dtype: torch.dtype) -> None:
    reason = why_not(gpu)
    if reason is not None:
        pytest.skip(reason)
    model = model_of(family, gpu, dtype=dtype)
    if dtype == torch.bfloat16:
        adapt(model)
    loss = loss_of(model, autocast=None if dtype == torch.float32 else dtype)
    packs = packs_of(rows_of(1))
    want = gradient_of(loss, packs)
    put_kernels(model, names)
    assert any(isinstance(m, KernelNorm | KernelGate) for m in model.modules())
    got = gradient_of(loss, packs)
    tolerance = 1e-5 if dtype == torch.float32 else 2e-2
    assert abs(got[0] - want[0]) <= tolerance * max(1.0, want[0])
    assert apart(got[1], want[1]) <= 10 * tolerance if dtype == torch.float32 else 4e-2
