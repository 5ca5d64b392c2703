"""Mixing by weight: the proportions asked for, every row equally often, the same on every machine."""

from __future__ import annotations

from collections import Counter
from fractions import Fraction

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.mix import mixed_order, rows_of_mixed_step, rows_per_epoch, source_of
from hone.data.order import epoch_order, steps_per_epoch


@st.composite
def mixes(draw) -> tuple[tuple[int, ...], tuple[float, ...] | None]:
    counts = tuple(draw(st.lists(st.integers(1, 60), min_size=1, max_size=5)))
    weight = st.floats(1e-6, 1e6, allow_nan=False)
    some = st.lists(weight, min_size=len(counts), max_size=len(counts)).map(tuple)
    return counts, draw(st.none() | some)


@given(mixes())
def test_an_epoch_has_as_many_rows_as_there_are_in_the_proportions_asked_for(mix):
    counts, weights = mix
    given_rows = rows_per_epoch(counts, weights)
    assert int(given_rows.sum()) == sum(counts)
    if weights is None:
        assert given_rows.tolist() == list(counts)
        return
    whole = sum(map(Fraction, weights))
    for rows, weight in zip(given_rows.tolist(), weights, strict=True):
        assert abs(rows - sum(counts) * Fraction(weight) / whole) < 1


@settings(max_examples=60)
@given(mixes(), st.integers(0, 2**32 - 1), st.integers(0, 4), st.booleans())
def test_an_epoch_holds_what_each_source_gives(mix, seed, epoch, shuffle):
    counts, weights = mix
    order = mixed_order(counts, weights, seed, epoch, shuffle)
    source, row = source_of(order, counts)
    assert np.bincount(source, minlength=len(counts)).tolist() == (
        rows_per_epoch(counts, weights).tolist()
    )
    assert (row >= 0).all()
    assert (row < np.asarray(counts)[source]).all()
    assert mixed_order.__wrapped__(counts, weights, seed, epoch, shuffle).tolist() == order.tolist()


@settings(max_examples=60)
@given(mixes(), st.integers(0, 2**32 - 1), st.integers(1, 6), st.booleans())
def test_no_row_of_a_source_is_favoured_over_time(mix, seed, epochs, shuffle):
    counts, weights = mix
    drawn = [mixed_order(counts, weights, seed, e, shuffle) for e in range(epochs)]
    used = Counter(np.concatenate(drawn).tolist())
    start = 0
    for count in counts:
        times = [used[start + row] for row in range(count)]
        assert max(times) - min(times) <= 1
        start += count


@settings(max_examples=60)
@given(mixes(), st.integers(0, 2**32 - 1), st.integers(0, 3))
def test_unshuffled_sources_keep_their_order_and_interleave_evenly_by_weight(mix, seed, epoch):
    counts, weights = mix
    source, row = source_of(mixed_order(counts, weights, seed, epoch, False), counts)
    given_rows = rows_per_epoch(counts, weights)
    for one, count in enumerate(counts):
        start = epoch * int(given_rows[one])
        wanted = (np.arange(start, start + int(given_rows[one])) % count).tolist()
        assert row[source == one].tolist() == wanted
        if weights is None:  # one after the other, as one file of all rows
            assert source.tolist() == sorted(source.tolist())
            continue
        so_far = np.cumsum(source == one)
        even = np.arange(1, len(source) + 1) * int(given_rows[one]) / len(source)
        assert np.abs(so_far - even).max() <= len(counts)


@settings(max_examples=40)
@given(mixes(), st.integers(0, 2**32 - 1), st.integers(1, 20), st.booleans())
def test_steps_cut_the_order_and_nothing_else(mix, seed, batch, shuffle):
    counts, weights = mix
    steps = steps_per_epoch(sum(counts), batch)
    for epoch in (0, 2):
        found = [
            rows_of_mixed_step(
                step,
                row_counts=counts,
                weights=weights,
                batch_size=batch,
                seed=seed,
                shuffle=shuffle,
            )
            for step in range(epoch * steps, (epoch + 1) * steps)
        ]
        assert np.concatenate(found).tolist() == (
            mixed_order(counts, weights, seed, epoch, shuffle).tolist()
        )


@pytest.mark.parametrize("counts", [(7,), (3, 4), (1, 5, 1)])
def test_without_weights_the_order_is_that_of_one_file(counts):
    for epoch in (0, 1):
        assert mixed_order(counts, None, 3, epoch, True).tolist() == (
            epoch_order(7, 3, epoch, True).tolist()
        )


def test_nine_to_one():
    counts, weights = (1000, 3000), (0.9, 0.1)
    source, _ = source_of(mixed_order(counts, weights, 0, 0, True), counts)
    assert np.bincount(source).tolist() == [3600, 400]
    assert (
        300 < np.bincount(source[:400])[0] < 400
    )  # spread over the epoch, not one after the other


def test_each_pass_over_a_source_is_shuffled_anew_and_unlike_its_neighbour():
    counts, weights = (5, 5), (4.0, 1.0)
    orders = [mixed_order(counts, weights, 0, e, True) for e in range(3)]
    assert len({tuple(o.tolist()) for o in orders}) == 3
    # A pinned order: changing it would make every stored run resume with other rows.
    assert orders[0].tolist() == PINNED


def test_a_tiny_source_repeated_often_is_quick():
    order = mixed_order((1, 2, 200_000), (1.0, 1.0, 1.0), 0, 0, True)
    assert np.bincount(order[order < 3]).min() > 30_000


@pytest.mark.parametrize(
    ("counts", "weights"),
    [
        ((), None),
        ((0, 0), None),
        ((3, 0), (1.0, 1.0)),
        ((3, 2), (1.0,)),
        ((3, 2), (1.0, 0.0)),
        ((3,), (float("nan"),)),
    ],
)
def test_what_is_no_mix_is_refused(counts, weights):
    with pytest.raises(ValueError, match="source"):
        rows_per_epoch(counts, weights)


PINNED = [0, 2, 1, 0, 8, 3, 1, 7, 4, 3]


@pytest.mark.parametrize("shuffle", [True, False])
def test_a_source_may_have_no_rows_where_every_row_is_given_once(shuffle: bool) -> None:
    order = mixed_order((3, 0, 2), None, 7, 0, shuffle)
    assert sorted(order.tolist()) == [0, 1, 2, 3, 4]
    with pytest.raises(ValueError, match="source"):
        mixed_order((3, 0, 2), (1.0, 1.0, 1.0), 7, 0, shuffle)
