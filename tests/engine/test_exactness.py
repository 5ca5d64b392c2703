"""A step's loss and gradients equal those of the same rows run one at a time through the plain model."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.config.sections import LoraSection
from hone.data.layout import branch, lay_out, write_pack
from hone.engine.loss import PackLoss
from hone.engine.noise import PrefixDropout
from hone.models import attention
from hone.models.adapters import attach_lora, set_dropout
from hone.models.fused_norm import fuse_norms
from tests.tiny import (
    FAMILIES,
    Row,
    gradients,
    loss_row_by_row,
    rows_with_shared_beginnings,
    worst_gradient_error,
)

attention.register()
torch.set_num_threads(1)


def step_gradients(
    loss: PackLoss, rows: list[Row], *, budget: int, share: bool = True, pack: bool = True
) -> tuple[float, dict[str, torch.Tensor]]:
    mass = sum(float(row.weight.sum(dtype="float64")) for row in rows)
    branches = [branch(i, row.input_ids, row.weight) for i, row in enumerate(rows)]
    total = 0.0
    loss.zero_grad()
    for made in lay_out([b for b in branches if b], budget=budget, share_prefixes=share, pack=pack):
        term = loss(made, 1 / mass)
        term.backward()
        total += term.item()
    return total, gradients(loss.model)


def check(name: str, seed: int, budget: int, share: bool, *, checkpointing: bool = False) -> None:
    model = FAMILIES[name].make(seed=seed % 7)
    rows = rows_with_shared_beginnings(seed)
    reference = loss_row_by_row(model, rows)
    reference.backward()
    want = gradients(model)
    model.set_attn_implementation(attention.NAME)
    fuse_norms(model)  # as a run does
    if checkpointing:
        model.activation_checkpointing_enable()
    loss = PackLoss(model)
    loss.least_saved = 1 if seed % 2 else 100  # so that the last layer leaves something out
    total, got = step_gradients(loss, rows, budget=budget, share=share)
    assert abs(total - reference.item()) <= 1e-6 * max(1.0, reference.item())
    assert worst_gradient_error(got, want) <= 1e-5


@pytest.mark.parametrize("name", FAMILIES)
@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 10_000), budget=st.integers(8, 300), share=st.booleans())
def test_family_equals_row_by_row(name: str, seed: int, budget: int, share: bool) -> None:
    check(name, seed, budget, share)


@pytest.mark.slow
@pytest.mark.parametrize("name", FAMILIES)
@settings(deadline=None, max_examples=100)
@given(seed=st.integers(0, 10**6), budget=st.integers(8, 300), share=st.booleans())
def test_family_equals_row_by_row_at_length(name: str, seed: int, budget: int, share: bool) -> None:
    check(name, seed, budget, share)


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gpt2", "qwen3-moe"])
def test_gradient_checkpointing_changes_nothing(name: str) -> None:
    check(name, 5, 60, True, checkpointing=True)


@settings(deadline=None, max_examples=15)
@given(seed=st.integers(0, 10_000), budget=st.integers(8, 300), share=st.booleans())
def test_equal_to_1e_10_in_float64(seed: int, budget: int, share: bool) -> None:
    """GPT-2: the family whose own modules keep to float64 throughout."""
    model = FAMILIES["gpt2"].make(seed=seed % 7, dtype=torch.float64)
    model.set_attn_implementation("sdpa")
    rows = rows_with_shared_beginnings(seed)
    reference = loss_row_by_row(model, rows)
    reference.backward()
    want = gradients(model)
    model.set_attn_implementation(attention.NAME)
    total, got = step_gradients(PackLoss(model), rows, budget=budget, share=share)
    assert abs(total - reference.item()) <= 1e-10 * max(1.0, reference.item())
    assert worst_gradient_error(got, want) <= 1e-10


def test_head_in_many_chunks_equals_one(monkeypatch: pytest.MonkeyPatch) -> None:
    model = FAMILIES["gemma2"].make()
    model.set_attn_implementation(attention.NAME)
    rows = rows_with_shared_beginnings(2)
    whole, want = step_gradients(PackLoss(model), rows, budget=300)
    monkeypatch.setattr("hone.engine.loss.CHUNK_BYTES", 4 * 61 * 3)
    pieces, got = step_gradients(PackLoss(model), rows, budget=300)
    assert abs(whole - pieces) <= 1e-6 * max(1.0, whole)
    assert worst_gradient_error(got, want) <= 1e-5


def test_bfloat16_stays_near_bfloat16_row_by_row() -> None:
    model = FAMILIES["qwen3"].make()
    rows = rows_with_shared_beginnings(4, rows=8)
    with torch.autocast("cpu", torch.bfloat16):
        loss_row_by_row(model, rows).backward()
    want = gradients(model)
    model.set_attn_implementation(attention.NAME)
    _, got = step_gradients(PackLoss(model, autocast=torch.bfloat16), rows, budget=300)
    apart = torch.sqrt(sum(((got[k] - want[k]) ** 2).sum() for k in want))
    assert apart <= 3e-2 * torch.sqrt(sum((want[k] ** 2).sum() for k in want))


def lora_model(name: str, dropout: float, *, seed: int = 0) -> torch.nn.Module:
    model = FAMILIES[name].make(seed=seed)
    section = LoraSection(r=4, alpha=8, dropout=dropout)
    adapted = attach_lora(model, section, seed=seed)
    set_dropout(model, PrefixDropout)
    torch.manual_seed(seed)
    for key, parameter in adapted.named_parameters():
        if "lora_B" in key:
            torch.nn.init.normal_(parameter, std=0.2)
    return model


@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "gpt2", "phi3"])
@pytest.mark.parametrize("dropout", [0.0, 0.3])
@settings(deadline=None, max_examples=5)
@given(seed=st.integers(0, 10_000), budget=st.integers(8, 300), share=st.booleans())
def test_lora_equals_row_by_row_with_and_without_dropout(
    name: str, dropout: float, seed: int, budget: int, share: bool
) -> None:
    model = lora_model(name, dropout, seed=seed % 7)
    rows = rows_with_shared_beginnings(seed)
    loss = PackLoss(model)
    loss.begin_step(3, 11)

    def alone(row: Row) -> None:
        whole = branch(0, np.append(row.input_ids, 3), np.ones(row.input_ids.shape[0] + 1))
        pack = write_pack([whole], share_prefixes=False)
        for module in model.modules():
            if isinstance(module, PrefixDropout):
                module.begin_pack(pack)

    reference = loss_row_by_row(model, rows, before=alone)
    reference.backward()
    want = gradients(model)
    model.set_attn_implementation(attention.NAME)
    total, got = step_gradients(loss, rows, budget=budget, share=share)
    assert abs(total - reference.item()) <= 1e-6 * max(1.0, reference.item())
    assert worst_gradient_error(got, want) <= 1e-5


def test_dropout_drops_its_share_and_differs_by_step_and_site() -> None:
    pack = write_pack(
        [branch(0, np.arange(400, dtype=np.int32), np.ones(400, np.float32))],
        share_prefixes=False,
    )
    kept = {}
    for site in ("a", "b"):
        for step in (0, 1):
            dropout = PrefixDropout(0.3, site)
            dropout.begin_step(step, 5)
            dropout.begin_pack(pack)
            kept[site, step] = dropout(torch.ones(1, 399, 130))
    for out in kept.values():
        assert abs(float((out == 0).float().mean()) - 0.3) < 0.01
        assert abs(float(out.mean()) - 1.0) < 0.02
        rows, columns = (out == 0).float().mean(dim=2), (out == 0).float().mean(dim=1)
        assert float(rows.max()) < 0.5
        assert float(columns.max()) < 0.45
    assert len({tuple(out.flatten()[:200].tolist()) for out in kept.values()}) == 4
    still = PrefixDropout(0.3, "a").eval()
    assert torch.equal(still(torch.ones(2, 3)), torch.ones(2, 3))
