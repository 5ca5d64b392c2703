"""The order of an epoch that is mixed from several sources. It knows counts and weights, no rows and no names.

The rows of all sources are numbered through: those of source i begin at the sum of the counts before it. As in
`hone.data.order`, everything follows from hashes of (seed, epoch, place), so it is the same on every machine.
"""

from __future__ import annotations

from fractions import Fraction
from functools import lru_cache

import numpy as np
from numpy.typing import NDArray

from hone.data.order import epoch_order, steps_per_epoch
from hone.pack import Int64, UInt64, splitmix64

Float64 = NDArray[np.float64]
_GOLDEN = np.uint64(0x9E3779B97F4A7C15)


def rows_per_epoch(row_counts: tuple[int, ...], weights: tuple[float, ...] | None) -> Int64:
    """[sources] how many rows each source gives to an epoch; their sum is the sum of the counts.

    Weights are proportions, rounded by largest remainder (the first of two equal remainders wins).
    Without weights every row is given once, and a source may have none, as where none of its rows is held out.
    A source whose weight is too small for one row gives 0 in every epoch: the caller refuses or says it.
    Raises ValueError for no rows at all, for weights on a source without rows or not above 0, or unequal lengths.
    """
    if not sum(row_counts) or min(row_counts) < (0 if weights is None else 1):
        raise ValueError("every source needs at least one row")
    if weights is None:
        return np.asarray(row_counts, dtype=np.int64)
    if len(weights) != len(row_counts) or not all(weight > 0 for weight in weights):
        raise ValueError("one weight above 0 is wanted for each source")
    exact = [
        Fraction(weight) for weight in weights
    ]  # a float's own value: nothing is rounded twice
    shares = [sum(row_counts) * weight / sum(exact) for weight in exact]
    given = np.asarray([int(share) for share in shares], dtype=np.int64)
    missing = sum(row_counts) - int(given.sum())
    by_remainder = sorted(range(len(shares)), key=lambda i: (int(shares[i]) - shares[i], i))
    given[by_remainder[:missing]] += 1
    return given


@lru_cache(maxsize=4)
def mixed_order(
    row_counts: tuple[int, ...],
    weights: tuple[float, ...] | None,
    seed: int,
    epoch: int,
    shuffle: bool,
) -> Int64:
    """[sum of row_counts] the rows of an epoch, in order, numbered through all sources.

    Each source is an endless stream: one permutation of its rows after the other (file order, again and
    again, without `shuffle`). With n rows an epoch, epoch e takes the places [e * n, (e + 1) * n) of it,
    so after any number of epochs two rows of a source have been used equally often, or once more.
    Shuffled, the epoch's rows are permuted together. Unshuffled, each source keeps its order and they
    interleave evenly. Without weights both are `epoch_order` of one file that holds all rows, one source after
    the other.
    """
    if weights is None:
        return epoch_order(sum(row_counts), seed, epoch, shuffle)
    given = rows_per_epoch(row_counts, weights)
    first = np.concatenate(([0], np.cumsum(row_counts)[:-1])).astype(np.int64)
    drawn = [
        first[i] + _stream(count, _seed_of(seed, i), epoch * n, (epoch + 1) * n, shuffle)
        for i, (count, n) in enumerate(zip(row_counts, given.tolist(), strict=True))
    ]
    every: Int64 = np.concatenate(drawn)
    if shuffle:
        return every[epoch_order(every.shape[0], seed, epoch, True)]
    # Draw j of n stands at (j + 1/2) / n of the way; where two stand alike, the first source leads.
    source = np.repeat(np.arange(len(row_counts)), given)
    place = np.concatenate([_middles(n) for n in given.tolist()])
    return every[np.lexsort((source, place))]


def rows_of_mixed_step(
    step: int,
    *,
    row_counts: tuple[int, ...],
    weights: tuple[float, ...] | None,
    batch_size: int,
    seed: int,
    shuffle: bool,
) -> Int64:
    """The rows of 0-based `step`, at most `batch_size` of them, numbered through all sources."""
    epoch, within = divmod(step, steps_per_epoch(sum(row_counts), batch_size))
    order = mixed_order(row_counts, weights, seed, epoch, shuffle)
    return order[within * batch_size : (within + 1) * batch_size]


def source_of(rows: Int64, row_counts: tuple[int, ...]) -> tuple[Int64, Int64]:
    """For rows numbered through: [rows] the source of each, and [rows] its number in that source."""
    ends = np.cumsum(row_counts)
    source = np.searchsorted(ends, rows, side="right").astype(np.int64)
    return source, (rows - (ends - np.asarray(row_counts))[source]).astype(np.int64)


def _middles(n: int) -> Float64:
    """[n] the middles of n equal parts of the way from 0 to 1."""
    return (2.0 * np.arange(n, dtype=np.float64) + 1.0) / max(2.0 * n, 1.0)


def _seed_of(seed: int, source: int) -> int:
    """A seed of its own for each source, so that two of one size are not shuffled alike."""
    return int(splitmix64(_hashed(seed) + np.asarray([source + 1], dtype=np.uint64) * _GOLDEN)[0])


def _stream(count: int, seed: int, start: int, stop: int, shuffle: bool) -> Int64:
    """Places [start, stop) of a source's endless stream of its rows 0 .. count - 1."""
    if start == stop:
        return np.zeros(0, dtype=np.int64)
    if not shuffle:
        return np.arange(start, stop, dtype=np.int64) % count
    passes = np.arange(start // count, (stop - 1) // count + 1, dtype=np.uint64)
    rows = np.arange(count, dtype=np.uint64)
    with np.errstate(over="ignore"):  # row p is `epoch_order(count, seed, p, True)`, many at once
        streams = splitmix64(_hashed(seed) + passes)
        keys = splitmix64(streams[:, None] + rows[None, :] * _GOLDEN)
    order = np.argsort(keys, axis=1, kind="stable").astype(np.int64).ravel()
    skipped = start - int(passes[0]) * count
    return order[skipped : skipped + stop - start]


def _hashed(seed: int) -> UInt64:
    return splitmix64(np.asarray([seed], dtype=np.uint64))
