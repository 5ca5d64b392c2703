"""Laying out rows as Packs: grouping them by common beginnings, and writing the prefix tree depth first.

It knows no files, no tokenizer and no model: token ids and weights in, Packs out.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import pairwise

import numpy as np

from hone.pack import Float32, Int32, Int64, Pack


@dataclass(frozen=True, eq=False)
class Branch:
    """One Example on its way into a Pack: only the inputs that a trained prediction can see.

    `input_ids` is int32[L] where token L is the last trained target: what comes later, and the last
    target itself, are never inputs of anything.
    """

    row: int
    input_ids: Int32  # [L]
    source: Int64  # [N] depth of the predicting token
    target: Int64  # [N]
    weight: Float32  # [N]
    key: bytes  # input_ids in an encoding whose byte order is the tokens' order

    @property
    def length(self) -> int:
        """Tokens that a step computes for it."""
        return int(self.input_ids.shape[0])


def branch(row: int, input_ids: Int32, weight: Float32) -> Branch | None:
    """Cut an Example to what a step computes; None where nothing is trained."""
    trained = np.flatnonzero(weight[1:] != 0) + 1
    if trained.size == 0:
        return None
    inputs = input_ids[: int(trained[-1])]
    return Branch(
        row=row,
        input_ids=inputs,
        source=(trained - 1).astype(np.int64),
        target=input_ids[trained].astype(np.int64),
        weight=weight[trained].astype(np.float32),
        key=inputs.astype(">u4").tobytes(),
    )


def lay_out(
    branches: Sequence[Branch], *, budget: int, share_prefixes: bool, pack: bool
) -> tuple[Pack, ...]:
    """Packs of at most `budget` tokens (a longer Example stands alone in its own).

    Two groupings are tried, and the one that computes fewer tokens is taken: longest Example first
    into the Pack with the longest common beginning that still fits, and the order of the tree.
    """
    ordered = sorted(branches, key=lambda item: (item.key, item.row))
    if not pack:
        return tuple(write_pack([item], share_prefixes=False) for item in ordered)
    lengths = np.asarray([item.length for item in ordered], dtype=np.int64)
    common = _common_with_previous(ordered) if share_prefixes else np.zeros(len(ordered), np.int64)
    groups = _group_longest_first(lengths, common, budget)
    if share_prefixes and len(groups) > 1:
        by_tree = _group_in_tree_order(lengths, common, budget)
        if _computed(by_tree, lengths, common) < _computed(groups, lengths, common):
            groups = by_tree
    return tuple(
        write_pack([ordered[i] for i in sorted(group)], share_prefixes=share_prefixes)
        for group in groups
    )


def _common_with_previous(ordered: Sequence[Branch]) -> Int64:
    """[B] tokens that each Example shares with the one before it in sorted order (0 for the first)."""
    common = np.zeros(len(ordered), dtype=np.int64)
    for i in range(1, len(ordered)):
        common[i] = common_length(ordered[i - 1].input_ids, ordered[i].input_ids)
    return common


def common_length(a: Int32, b: Int32) -> int:
    """Number of tokens that two rows share from their beginning."""
    shorter = min(a.shape[0], b.shape[0])
    apart = np.flatnonzero(a[:shorter] != b[:shorter])
    return int(apart[0]) if apart.size else shorter


def _common_with_all(i: int, common: Int64) -> Int64:
    """[B] tokens that Example i shares with each other one: the least step between them."""
    shared = np.empty(common.shape[0], dtype=np.int64)
    shared[i + 1 :] = np.minimum.accumulate(common[i + 1 :])
    shared[:i] = np.minimum.accumulate(common[i:0:-1])[::-1]
    shared[i] = 0
    return shared


def _group_longest_first(lengths: Int64, common: Int64, budget: int) -> list[list[int]]:
    groups: list[list[int]] = []
    sizes: list[int] = []
    for i in np.argsort(-lengths, kind="stable"):
        shared = _common_with_all(int(i), common)
        best, best_shared = -1, -1
        for g, members in enumerate(groups):
            longest = int(shared[members].max())
            room = max(budget, sizes[g]) - sizes[g]
            if longest > best_shared and lengths[i] - longest <= room:
                best, best_shared = g, longest
        if best < 0:
            groups.append([int(i)])
            sizes.append(int(lengths[i]))
        else:
            groups[best].append(int(i))
            sizes[best] += int(lengths[i]) - best_shared
    return groups


def _group_in_tree_order(lengths: Int64, common: Int64, budget: int) -> list[list[int]]:
    groups: list[list[int]] = []
    size = 0
    for i in range(lengths.shape[0]):
        added = int(lengths[i] - common[i])
        if groups and size + added <= budget:
            groups[-1].append(i)
            size += added
        else:
            groups.append([i])
            size = int(lengths[i])
    return groups


def _computed(groups: list[list[int]], lengths: Int64, common: Int64) -> int:
    """Tokens that a grouping computes, over all its Packs."""
    total = 0
    for group in groups:
        members = sorted(group)
        total += int(lengths[members].sum())
        for before, after in pairwise(members):
            total -= int(common[before + 1 : after + 1].min())
    return total


def write_pack(ordered: Sequence[Branch], *, share_prefixes: bool) -> Pack:
    """One Pack from Examples in sorted order, its tokens depth first over their prefix tree."""
    deepest = max(item.length for item in ordered)
    upper = sum(item.length for item in ordered)
    ids = np.empty(upper, dtype=np.int64)
    depth = np.empty(upper, dtype=np.int64)
    until = np.empty(upper, dtype=np.int64)
    path = np.empty(
        deepest, dtype=np.int64
    )  # path[d] = place of the current row's token at depth d
    place, open_depth = 0, 0
    places: list[Int64] = []
    previous: Branch | None = None
    for item in ordered:
        shared = (
            common_length(previous.input_ids, item.input_ids) if previous and share_prefixes else 0
        )
        until[path[shared:open_depth]] = place
        end = place + item.length - shared
        ids[place:end] = item.input_ids[shared:]
        depth[place:end] = np.arange(shared, item.length)
        path[shared : item.length] = np.arange(place, end)
        places.append(path[item.source])
        place, open_depth, previous = end, item.length, item
    until[path[:open_depth]] = place
    predict, source = np.unique(np.concatenate(places), return_inverse=True)
    return Pack(
        input_ids=ids[:place],
        position_ids=depth[:place],
        visible_until=until[:place],
        predict=predict.astype(np.int64),
        source=source.astype(np.int64),
        target=np.concatenate([item.target for item in ordered]),
        weight=np.concatenate([item.weight for item in ordered]),
        row=np.concatenate(
            [np.full(item.target.shape[0], item.row, dtype=np.int32) for item in ordered]
        ),
    )
