"""The order of rows: which rows a step holds, from (seed, epoch) alone. It knows no row's content."""

from __future__ import annotations

from functools import lru_cache

import numpy as np

from hone.pack import Int64, splitmix64


def steps_per_epoch(num_rows: int, batch_size: int) -> int:
    """Steps in one pass; the last one may be shorter."""
    return -(-num_rows // batch_size)


@lru_cache(maxsize=4)
def epoch_order(num_rows: int, seed: int, epoch: int, shuffle: bool) -> Int64:
    """[num_rows] a permutation of the rows.

    Rows are sorted by a hash of (seed, epoch, row): the same on every machine and library version,
    unlike a generator's shuffle.
    """
    rows = np.arange(num_rows, dtype=np.int64)
    if not shuffle:
        return rows
    with np.errstate(over="ignore"):
        stream = splitmix64(splitmix64(np.asarray([seed], dtype=np.uint64)) + np.uint64(epoch))
        keys = splitmix64(stream + rows.astype(np.uint64) * np.uint64(0x9E3779B97F4A7C15))
    return np.argsort(keys, kind="stable").astype(np.int64)


def rows_of_step(step: int, *, num_rows: int, batch_size: int, seed: int, shuffle: bool) -> Int64:
    """The rows of 0-based `step`, at most `batch_size` of them."""
    epoch, within = divmod(step, steps_per_epoch(num_rows, batch_size))
    order = epoch_order(num_rows, seed, epoch, shuffle)
    return order[within * batch_size : (within + 1) * batch_size]
