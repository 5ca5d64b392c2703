"""Whose loss it is: parts by row and by source add up to the whole, however rows are laid out."""

from __future__ import annotations

from collections.abc import Sequence

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.layout import branch, lay_out
from hone.engine.cost import Speeds
from hone.engine.evaluate import evaluate
from hone.engine.loss import PackLoss
from hone.engine.numbers import read_numbers
from hone.engine.parts import RowLosses, parts_of
from hone.engine.stop import never
from hone.engine.strategy import Replicated
from hone.models import attention
from hone.pack import Step
from tests.engine.stand_in import VOCABULARY, TinyLoss
from tests.tiny import FAMILIES, Row, rows_with_shared_beginnings

SOURCES = ("code", "prose", "data/maths.jsonl")


def step_of(
    rows: Sequence[Row], sources: Sequence[int], *, budget: int, share: bool = True, index: int = 0
) -> Step:
    cuts = [
        cut for i, r in enumerate(rows) if (cut := branch(i, r.input_ids, r.weight)) is not None
    ]
    return Step(
        index=index,
        packs=lay_out(cuts, budget=budget, share_prefixes=share, pack=True),
        row_names=tuple(f"rows.jsonl:{i + 1}" for i in range(len(rows))),
        tokens=sum(len(row.input_ids) for row in rows),
        trained_tokens=sum(len(cut.target) for cut in cuts),
        weight=float(sum(row.weight.sum(dtype="float64") for row in rows)),
        sources=SOURCES,
        row_sources=tuple(sources),
    )


def row_losses(module: TinyLoss | PackLoss, step: Step, scale: float) -> tuple[float, RowLosses]:
    """The step's loss as the loop takes it, and the rows' parts from the same read."""
    terms, rows = [], []
    for pack in step.packs:
        terms.append(module(pack, scale).detach())
        assert module.row_terms is not None
        assert not module.row_terms.requires_grad
        rows.append(module.row_terms)
    numbers = read_numbers([*terms, *rows])
    return sum(numbers[: len(terms)]), RowLosses.of(
        step, step.packs, numbers[len(terms) :], scale=scale
    )


@settings(max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    rows=st.integers(1, 9),
    budget=st.sampled_from([1, 20, 60, 10_000]),
    share=st.booleans(),
)
def test_parts_weighted_by_their_weights_are_the_whole(
    seed: int, rows: int, budget: int, share: bool
) -> None:
    made = rows_with_shared_beginnings(seed, rows=rows, longest=14, vocab=VOCABULARY)
    sources = np.random.default_rng(seed).integers(0, 3, rows).tolist()
    step = step_of(made, sources, budget=budget, share=share)
    loss, by_row = row_losses(TinyLoss(), step, 1 / step.weight)
    parts = parts_of([by_row])
    assert set(parts) == {SOURCES[s] for s in sources}
    total = sum(part.loss * part.weight for part in parts.values())
    weight = sum(part.weight for part in parts.values())
    assert weight == pytest.approx(step.weight)
    assert total / weight == pytest.approx(loss, rel=1e-6)
    for place, name in enumerate(SOURCES):
        own = [
            row.weight.sum() for row, source in zip(made, sources, strict=True) if source == place
        ]
        if own:
            assert parts[name].weight == pytest.approx(float(sum(own)), rel=1e-6)


@pytest.mark.parametrize("family", ["llama", "gemma2", "qwen3"])
def test_a_row_has_the_loss_that_it_has_alone(family: str) -> None:
    attention.register()
    model = FAMILIES[family].make()
    model.set_attn_implementation(attention.NAME)
    loss = PackLoss(model)
    rows = rows_with_shared_beginnings(3, rows=7)
    step = step_of(rows, [0, 1, 0, 2, 1, 0, 2], budget=10_000)
    assert any(pack.shares for pack in step.packs)
    whole, together = row_losses(loss, step, 1 / step.weight)
    for place, row in enumerate(rows):
        alone, _ = row_losses(loss, step_of([row], [0], budget=10_000), 1.0)
        assert together.total[place] == pytest.approx(alone, rel=1e-5)
    assert whole == pytest.approx(float(together.total.sum()) / step.weight, rel=1e-6)
    means = dict(together.worst)
    assert list(means.values()) == sorted(means.values(), reverse=True)


def test_an_evaluation_has_parts_over_all_its_steps() -> None:
    rows = rows_with_shared_beginnings(5, rows=12, longest=14, vocab=VOCABULARY)
    sources = [i % 3 for i in range(12)]

    class HeldOut:
        steps_per_epoch = 3

        def step(self, index: int, micro_batch_tokens: int) -> Step:
            own = slice(4 * index, 4 * index + 4)
            return step_of(rows[own], sources[own], budget=micro_batch_tokens, index=index)

    module = TinyLoss()
    found = evaluate(
        module,
        HeldOut(),
        Replicated(module),
        speeds=Speeds({1: 1.0}),
        micro_batch_tokens=30,
        lower=lambda *_: pytest.fail("memory is not short"),
        should_stop=never,
    )
    assert found is not None
    parts = found.sources
    assert tuple(parts) == SOURCES
    weight = sum(part.weight for part in parts.values())
    assert sum(p.loss * p.weight for p in parts.values()) / weight == pytest.approx(
        found.loss, rel=1e-6
    )
    mine = [rows[i] for i in range(12) if sources[i] == 1]
    alone = step_of(mine, [0] * 4, budget=10_000)
    want, _ = row_losses(module, alone, 1 / alone.weight)
    assert parts["prose"].loss == pytest.approx(want, rel=1e-5)


def test_one_source_has_no_parts_and_foreign_terms_are_refused() -> None:
    rows = rows_with_shared_beginnings(1, rows=3, longest=14, vocab=VOCABULARY)
    step = step_of(rows, [0, 0, 0], budget=100)
    plain = Step(
        step.index, step.packs, step.row_names, step.tokens, step.trained_tokens, step.weight
    )
    _, by_row = row_losses(TinyLoss(), plain, 1.0)
    assert parts_of([by_row]) == {}
    with pytest.raises(ValueError, match="other Packs"):
        RowLosses.of(plain, plain.packs, [0.0] * 99)


def test_numbers_are_read_in_one_go_and_in_order() -> None:
    read = read_numbers([torch.tensor(1.5), torch.tensor([2.0, 3.0]), torch.tensor(4.0).double()])
    assert read == [1.5, 2.0, 3.0, 4.0]
    assert read_numbers([]) == []
