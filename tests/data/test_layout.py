"""Laying rows out as Packs: nothing is lost, nothing is computed twice, the budget holds."""

import numpy as np
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.layout import Branch, branch, common_length, lay_out
from hone.pack import Pack
from tests.tiny import Row, rows_with_shared_beginnings

budgets = st.integers(5, 400)
seeds = st.integers(0, 100_000)


def _branches(rows: list[Row]) -> list[Branch]:
    return [b for i, row in enumerate(rows) if (b := branch(i, row.input_ids, row.weight))]


def _path(pack: Pack, place: int) -> list[int]:
    """What a place sees, read from the definition of `visible_until` alone."""
    return [int(pack.input_ids[j]) for j in range(place + 1) if place < pack.visible_until[j]]


@settings(deadline=None, max_examples=80)
@given(seeds, budgets, st.booleans(), st.booleans())
def test_every_prediction_stands_once_behind_its_own_row(
    seed: int, budget: int, share: bool, pack: bool
) -> None:
    rows = rows_with_shared_beginnings(seed)
    got: list[tuple[int, tuple[int, ...], int, float]] = []
    for made in lay_out(_branches(rows), budget=budget, share_prefixes=share, pack=pack):
        made.check()
        for n in range(made.target.shape[0]):
            seen = _path(made, int(made.predict[made.source[n]]))
            got.append((int(made.row[n]), tuple(seen), int(made.target[n]), float(made.weight[n])))
    want = [
        (r, tuple(int(x) for x in row.input_ids[:i]), int(row.input_ids[i]), float(row.weight[i]))
        for r, row in enumerate(rows)
        for i in range(1, row.input_ids.shape[0])
        if row.weight[i]
    ]
    assert sorted(got) == sorted(want)


@settings(deadline=None, max_examples=80)
@given(seeds, budgets)
def test_budget_holds_and_positions_are_depths(seed: int, budget: int) -> None:
    branches = _branches(rows_with_shared_beginnings(seed))
    for made in lay_out(branches, budget=budget, share_prefixes=True, pack=True):
        longest = max(b.length for b in branches if b.row in set(made.row.tolist()))
        assert made.num_tokens <= max(budget, longest)
        for place in range(made.num_tokens):
            assert made.position_ids[place] == len(_path(made, place)) - 1


@settings(deadline=None, max_examples=50)
@given(seeds)
def test_one_pack_computes_each_distinct_beginning_once(seed: int) -> None:
    rows = rows_with_shared_beginnings(seed)
    branches = _branches(rows)
    beginnings = {tuple(b.input_ids[: d + 1].tolist()) for b in branches for d in range(b.length)}
    (made,) = lay_out(branches, budget=10**6, share_prefixes=True, pack=True)
    assert made.num_tokens == len(beginnings)
    (apart,) = lay_out(branches, budget=10**6, share_prefixes=False, pack=True)
    assert apart.num_tokens == sum(b.length for b in branches)
    assert not apart.shares


@settings(deadline=None, max_examples=50)
@given(seeds, budgets)
def test_sharing_never_computes_more_than_plain_packing(seed: int, budget: int) -> None:
    branches = _branches(rows_with_shared_beginnings(seed))
    shared, apart = (
        sum(p.num_tokens for p in lay_out(branches, budget=budget, share_prefixes=s, pack=True))
        for s in (True, False)
    )
    assert shared <= apart


def test_what_no_trained_prediction_sees_is_not_computed() -> None:
    ids = np.arange(10, 20, dtype=np.int32)
    weight = np.zeros(10, np.float32)
    weight[4] = 1
    made = branch(0, ids, weight)
    assert made is not None
    assert made.input_ids.tolist() == [10, 11, 12, 13]
    assert branch(0, ids, np.zeros(10, np.float32)) is None


@given(st.lists(st.integers(0, 3), max_size=12), st.lists(st.integers(0, 3), max_size=12))
def test_common_length(a: list[int], b: list[int]) -> None:
    length = common_length(np.asarray(a, np.int32), np.asarray(b, np.int32))
    assert a[:length] == b[:length]
    assert length == min(len(a), len(b)) or a[length] != b[length]
