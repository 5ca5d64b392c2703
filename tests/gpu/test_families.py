"""Every family on a GPU: a step of shared rows equals the same rows one by one through the plain model."""

from __future__ import annotations

import copy

import pytest
import torch

from hone.engine.probe import probe
from hone.models import gpu_attention
from tests.gpu.small import adapt, apart, gradient_of, loss_of, model_of, packs_of, rows_of
from tests.tiny import FAMILIES, Row

EXPERTS = ("qwen3-moe", "mixtral", "gpt-oss")


def row_by_row(model, rows: list[Row], autocast: torch.dtype | None):
    """Loss and gradients of the plain model, eager attention, one row at a time."""
    model.set_attn_implementation("eager")
    model.zero_grad(set_to_none=True)
    mass = sum(float(row.weight.sum(dtype="float64")) for row in rows)
    total = 0.0
    for row in rows:
        ids = torch.from_numpy(row.input_ids).long().to(model.device)
        weight = torch.from_numpy(row.weight[1:]).to(model.device)
        with torch.autocast("cuda", autocast, enabled=autocast is not None):
            logits = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0, :-1]
        nll = torch.nn.functional.cross_entropy(logits.float(), ids[1:], reduction="none")
        term = (nll * weight).sum() / mass
        term.backward()
        total += float(term.detach())
    grads = {
        name: (torch.zeros_like(p) if p.grad is None else p.grad.detach().clone()).float()
        for name, p in model.named_parameters()
        if p.requires_grad
    }
    return total, grads


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("family", FAMILIES)
def test_in_float32(gpu, family: str, share: bool) -> None:
    model, rows = model_of(family, gpu), rows_of(3)
    want = row_by_row(model, rows, None)
    loss = loss_of(model)
    for budget in (10**6, 500):
        got = gradient_of(loss, packs_of(rows, budget=budget, share=share))
        assert abs(got[0] - want[0]) <= 1e-5 * max(1.0, want[0])
        assert apart(got[1], want[1]) <= 1e-4


@pytest.mark.parametrize("family", FAMILIES)
def test_in_bfloat16(gpu, family: str) -> None:
    model, rows = model_of(family, gpu), rows_of(4)
    exact, want = row_by_row(model, rows, None), row_by_row(model, rows, torch.bfloat16)
    rounding = apart(want[1], exact[1])  # what bf16 itself costs a model this small
    loss = loss_of(model, autocast=torch.bfloat16)
    for share in (True, False):
        got = gradient_of(loss, packs_of(rows, share=share))
        assert abs(got[0] - want[0]) <= 2e-2 * max(1.0, want[0])
        # Rounding may send a token to another expert.
        least = 1e-1 if family in EXPERTS else 3e-2
        assert apart(got[1], want[1]) <= max(least, 1.5 * rounding)


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi3"])
def test_adapters_beside_a_bfloat16_base(gpu, family: str) -> None:
    model, rows = model_of(family, gpu, dtype=torch.bfloat16), rows_of(5)
    adapt(model)
    assert all(p.dtype == torch.float32 for p in model.parameters() if p.requires_grad)
    want = row_by_row(model, rows, torch.bfloat16)
    exact = row_by_row(copy.deepcopy(model).float(), rows, None)
    got = gradient_of(loss_of(model, autocast=torch.bfloat16), packs_of(rows))
    assert abs(got[0] - want[0]) <= 2e-2 * max(1.0, want[0])
    assert apart(got[1], want[1]) <= max(4e-2, 1.5 * apart(want[1], exact[1]))


@pytest.mark.parametrize("family", ["llama", "gemma3", "qwen3-moe"])
def test_the_probe_passes_over_several_blocks(gpu, family: str) -> None:
    loss = loss_of(model_of(family, gpu))
    found = probe(loss, attention=gpu_attention.NAME, alone="eager", dtype=torch.float32)
    assert found.passed, found


def test_dropout_noise_is_the_same_in_every_layout(gpu) -> None:
    model, rows = model_of("llama", gpu), rows_of(6)
    adapt(model, dropout=0.3)
    loss = loss_of(model)
    loss.begin_step(3, 11)
    want = gradient_of(loss, packs_of(rows, share=False))
    got = gradient_of(loss, packs_of(rows, budget=600))
    assert abs(got[0] - want[0]) <= 1e-5 * max(1.0, want[0])
    assert apart(got[1], want[1]) <= 1e-4
