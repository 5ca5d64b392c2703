"""What a step minimises: terms by their formulas, gradients as autograd takes them, and the same by row or by Pack."""

from __future__ import annotations

import contextlib
import math
from collections.abc import Iterator

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch import Tensor

import hone.engine.loss
from hone.data.layout import branch, lay_out
from hone.engine.loss import PackLoss
from hone.engine.objective import NLL, Objective, weighted_losses
from hone.models import attention
from tests.tiny import (
    FAMILIES,
    VOCAB,
    Row,
    gradients,
    loss_row_by_row,
    rows_with_shared_beginnings,
    worst_gradient_error,
)

attention.register()
torch.set_num_threads(1)

OBJECTIVES = st.builds(
    Objective,
    loss=st.sampled_from(("nll", "dft")),
    label_smoothing=st.sampled_from((0.0, 0.1, 0.7)),
    z_loss=st.sampled_from((0.0, 1e-3, 0.3)),
)


def terms(logits: Tensor, target: Tensor, objective: Objective) -> Tensor:
    """The published formulas, one prediction a row of `logits`, left to autograd."""
    smooth = objective.label_smoothing
    loss = torch.nn.functional.cross_entropy(
        logits, target, reduction="none", label_smoothing=smooth
    )
    if objective.loss == "dft":
        chosen = torch.softmax(logits, dim=-1).gather(1, target.unsqueeze(1)).squeeze(1)
        loss = chosen.detach() * loss
    return loss + objective.z_loss * torch.logsumexp(logits, dim=-1) ** 2


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 2**31), positions=st.integers(1, 9), predictions=st.integers(1, 25), objective=OBJECTIVES
)  # fmt: skip
def test_term_and_gradient_are_autograds_in_float64(
    seed: int, positions: int, predictions: int, objective: Objective
) -> None:
    """Several predictions at one position, some at none, some twice the same."""
    made = torch.Generator().manual_seed(seed)
    logits = torch.randn(positions, 17, generator=made, dtype=torch.float64) * 3
    logits.requires_grad_()
    source = torch.randint(positions, (predictions,), generator=made).sort().values
    target = torch.randint(17, (predictions,), generator=made)
    weight = torch.rand(predictions, generator=made, dtype=torch.float64)
    want = weight * terms(logits[source], target, objective)
    (slope,) = torch.autograd.grad(want.sum(), logits)
    found, grad = weighted_losses(logits.detach(), source, target, weight, objective, want=True)
    assert grad is not None
    torch.testing.assert_close(found, want.detach(), rtol=1e-12, atol=1e-12)
    torch.testing.assert_close(grad, slope, rtol=1e-10, atol=1e-12)
    alone, none = weighted_losses(logits.detach(), source, target, weight, objective, want=False)
    assert none is None
    assert torch.equal(alone, found)


def test_the_terms_by_hand() -> None:
    logits = torch.log(torch.tensor([[1.0, 3.0, 4.0]], dtype=torch.float64))  # Z = 8
    place, one = torch.tensor([0]), torch.ones(1, dtype=torch.float64)

    def term(**numbers: object) -> float:
        found, _ = weighted_losses(
            logits, place, torch.tensor([1]), one, Objective(**numbers), want=False  # type: ignore[arg-type]
        )  # fmt: skip
        return float(found)

    nll = math.log(8 / 3)
    assert term() == pytest.approx(nll)
    assert term(loss="dft") == pytest.approx(3 / 8 * nll)
    assert term(z_loss=0.1) == pytest.approx(nll + 0.1 * math.log(8) ** 2)
    uniform = (math.log(8) + nll + math.log(2)) / 3
    assert term(label_smoothing=0.3) == pytest.approx(0.7 * nll + 0.3 * uniform)


def row_by_row(model: torch.nn.Module, rows: list[Row], objective: Objective) -> Tensor:
    """The step's objective through the plain model, one row at a time, with its graph."""
    mass = sum(float(row.weight.sum(dtype="float64")) for row in rows)
    total = torch.zeros((), dtype=torch.float64)
    for row in rows:
        ids = torch.from_numpy(row.input_ids.astype(np.int64))
        logits = model(input_ids=ids.unsqueeze(0), use_cache=False).logits[0, :-1]
        wide = logits if logits.dtype == torch.float64 else logits.float()
        weight = torch.from_numpy(row.weight[1:])
        total = total + (weight * terms(wide, ids[1:], objective)).sum() / mass
    return total


@contextlib.contextmanager
def chunks_of(positions: int) -> Iterator[None]:
    before = hone.engine.loss.CHUNK_BYTES
    hone.engine.loss.CHUNK_BYTES = 4 * VOCAB * positions
    try:
        yield
    finally:
        hone.engine.loss.CHUNK_BYTES = before


def in_packs(
    loss: PackLoss, rows: list[Row], *, budget: int, share: bool
) -> tuple[float, dict[str, Tensor]]:
    mass = sum(float(row.weight.sum(dtype="float64")) for row in rows)
    branches = [branch(i, row.input_ids, row.weight) for i, row in enumerate(rows)]
    packs = lay_out([b for b in branches if b], budget=budget, share_prefixes=share, pack=True)
    loss.zero_grad()
    total = 0.0
    for pack in packs:
        term = loss(pack, 1 / mass)
        term.backward()
        total += term.item()
    return total, gradients(loss.model)


LAYOUTS = {
    "seed": st.integers(0, 10_000),
    "budget": st.integers(8, 300),
    "share": st.booleans(),
    "chunk": st.sampled_from((1, 3, 50)),
    "objective": OBJECTIVES,
}


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gemma2", "granite"])
@settings(deadline=None, max_examples=8)
@given(**LAYOUTS)
def test_packs_equal_row_by_row(
    name: str, seed: int, budget: int, share: bool, chunk: int, objective: Objective
) -> None:
    """A tied head, a capped one and a scaled one among them."""
    model = FAMILIES[name].make(seed=seed % 7)
    rows = rows_with_shared_beginnings(seed)
    reference = row_by_row(model, rows, objective)
    reference.backward()
    want = gradients(model)
    model.set_attn_implementation(attention.NAME)
    with chunks_of(chunk):
        total, got = in_packs(
            PackLoss(model, objective=objective), rows, budget=budget, share=share
        )
    assert abs(total - reference.item()) <= 1e-6 * max(1.0, reference.item())
    assert worst_gradient_error(got, want) <= 1e-5


@settings(deadline=None, max_examples=10)
@given(**LAYOUTS)
def test_packs_equal_row_by_row_to_1e_10_in_float64(
    seed: int, budget: int, share: bool, chunk: int, objective: Objective
) -> None:
    model = FAMILIES["gpt2"].make(seed=seed % 7, dtype=torch.float64)
    model.set_attn_implementation("sdpa")
    rows = rows_with_shared_beginnings(seed)
    reference = row_by_row(model, rows, objective)
    reference.backward()
    want = gradients(model)
    model.set_attn_implementation(attention.NAME)
    with chunks_of(chunk):
        total, got = in_packs(
            PackLoss(model, objective=objective), rows, budget=budget, share=share
        )
    assert abs(total - reference.item()) <= 1e-10 * max(1.0, reference.item())
    assert worst_gradient_error(got, want) <= 1e-10


def test_out_of_training_it_is_the_plain_likelihood() -> None:
    """Whatever was trained on: what held-out rows are measured by, and what the probe compares."""
    model = FAMILIES["llama"].make()
    rows = rows_with_shared_beginnings(3)
    plain = loss_row_by_row(model, rows).item()
    model.set_attn_implementation(attention.NAME)
    other = PackLoss(model, objective=Objective("dft", label_smoothing=0.2, z_loss=0.1))
    trained, _ = in_packs(other, rows, budget=300, share=True)
    assert abs(trained - plain) > 0.1 * plain
    other.train(False)
    assert in_packs(other, rows, budget=300, share=True)[0] == pytest.approx(plain, rel=1e-6)


def test_the_default_is_the_plain_likelihood() -> None:
    assert PackLoss(FAMILIES["llama"].make()).objective == NLL == Objective("nll", 0.0, 0.0)
