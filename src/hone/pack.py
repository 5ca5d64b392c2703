"""The Pack: what the data road hands to the engine. It knows neither rows nor models, only arrays.

Legend: T tokens of a Pack, S positions that predict, N predictions (one position may predict several
targets, where rows part), M nodes of the prefix tree.
"""

from __future__ import annotations

from dataclasses import dataclass, replace
from functools import cached_property

import numpy as np
from numpy.typing import NDArray

Int64 = NDArray[np.int64]
Int32 = NDArray[np.int32]
Float32 = NDArray[np.float32]
UInt64 = NDArray[np.uint64]


@dataclass(frozen=True, eq=False)
class Node:
    """One unbranched run of the prefix tree: tokens [start, end) attend causally to themselves, and
    every token of [end, until) is a descendant that sees all of them."""

    start: int
    end: int
    until: int


@dataclass(frozen=True, eq=False)
class Pack:
    """Rows of one step laid out depth first over their prefix tree.

    Token j is seen by token i exactly when `j <= i < visible_until[j]`. The loss is
    `sum(weight[n] * -log p(target[n] | source[n]))`; entries are never merged, so two rows with the
    same trained beginning are two entries.
    """

    input_ids: Int64  # [T]
    position_ids: Int64  # [T] depth of the token in its own row
    visible_until: Int64  # [T]
    predict: Int64  # [S] positions that predict something, ascending, each once
    source: Int64  # [N] index into predict
    target: Int64  # [N] token to be predicted
    weight: Float32  # [N]
    row: Int32  # [N] row of the step it belongs to

    @property
    def num_tokens(self) -> int:
        """Tokens to compute, shared beginnings once."""
        return int(self.input_ids.shape[0])

    @property
    def num_rows(self) -> int:
        """One more than the highest row of the step that it holds; those that it does not hold are counted."""
        return int(self.row.max(initial=-1)) + 1

    @property
    def visible_pairs(self) -> int:
        """Pairs (i, j) of tokens in which j is seen by i, where nothing narrows the window."""
        return int((self.visible_until - np.arange(self.num_tokens)).sum())

    @cached_property
    def nodes(self) -> tuple[Node, ...]:
        """The prefix tree as unbranched runs, in depth-first order."""
        until = self.visible_until
        starts = np.flatnonzero(np.concatenate(([True], until[1:] != until[:-1])))
        ends = np.append(starts[1:], until.shape[0])
        return tuple(Node(int(a), int(b), int(until[a])) for a, b in zip(starts, ends, strict=True))

    @cached_property
    def shares(self) -> bool:
        """Whether any node has descendants: False for rows alone and for plain packing."""
        return any(node.until > node.end for node in self.nodes)

    @cached_property
    def prefix_hash(self) -> UInt64:
        """[T] a 64-bit name of each token together with all that its row holds before it.

        Equal beginnings have equal names in whatever Pack they stand, which is what makes noise drawn
        by prefix independent of the layout. A polynomial hash modulo 2**64, finished by splitmix64.
        """
        depth = self.position_ids
        powers = np.ones(int(depth.max()) + 1, dtype=np.uint64)
        powers[1:] = np.uint64(0x9E3779B97F4A7C15)
        powers = np.cumprod(powers, dtype=np.uint64)
        terms = (self.input_ids.astype(np.uint64) + np.uint64(1)) * powers[depth]
        total = np.empty_like(terms)
        path = np.zeros(
            int(depth.max()) + 2, dtype=np.uint64
        )  # path[d] = sum of the d tokens before
        for node in self.nodes:
            first = int(depth[node.start])
            run = np.cumsum(terms[node.start : node.end], dtype=np.uint64) + path[first]
            total[node.start : node.end] = run
            path[first + 1 : first + 1 + run.shape[0]] = run
        return splitmix64(total ^ (depth.astype(np.uint64) << np.uint64(40)))

    def check(self) -> None:
        """Raise ValueError naming the first broken rule of the layout (used by tests and rehearsals)."""
        tokens = self.num_tokens
        places = np.arange(tokens)
        rules = {
            "a Pack holds at least one token": tokens > 0,
            "arrays over tokens have one length": self.position_ids.shape
            == self.visible_until.shape
            == self.input_ids.shape,
            "visible_until lies in (j, T]": bool(
                np.all((self.visible_until > places) & (self.visible_until <= tokens))
            ),
            "predict is strictly ascending and in range": bool(
                np.all(np.diff(self.predict) > 0)
                and (self.predict.size == 0 or 0 <= self.predict[0] <= self.predict[-1] < tokens)
            ),
            "arrays over predictions have one length": self.source.shape
            == self.target.shape
            == self.weight.shape
            == self.row.shape,
            "every source is an index into predict": bool(
                np.all((self.source >= 0) & (self.source < max(1, self.predict.shape[0])))
            ),
            "subtrees nest": _subtrees_nest(self.nodes),
        }
        for rule, holds in rules.items():
            if not holds:
                raise ValueError(f"broken Pack: {rule}")


def padded(pack: Pack, tokens: int) -> Pack:
    """The same Pack with tokens at its end that see only themselves, predict nothing and weigh nothing.

    It computes the same loss and gradients; `tokens` is its length in all.
    """
    more = tokens - pack.num_tokens
    if more <= 0:
        return pack
    nothing = np.zeros(more, dtype=np.int64)
    return replace(
        pack,
        input_ids=np.concatenate((pack.input_ids, nothing)),
        position_ids=np.concatenate((pack.position_ids, nothing)),
        visible_until=np.concatenate(
            (pack.visible_until, np.arange(pack.num_tokens + 1, tokens + 1))
        ),
    )


def _subtrees_nest(nodes: tuple[Node, ...]) -> bool:
    open_until: list[int] = []
    for node in nodes:
        while open_until and open_until[-1] <= node.start:
            open_until.pop()
        if open_until and node.until > open_until[-1]:
            return False
        open_until.append(node.until)
    return True


def splitmix64(x: UInt64) -> UInt64:
    """The finaliser of Steele, Lea and Flood's SplitMix64 (OOPSLA 2014), elementwise."""
    with np.errstate(over="ignore"):
        x = (x ^ (x >> np.uint64(30))) * np.uint64(0xBF58476D1CE4E5B9)
        x = (x ^ (x >> np.uint64(27))) * np.uint64(0x94D049BB133111EB)
        return x ^ (x >> np.uint64(31))


@dataclass(frozen=True, eq=False)
class Step:
    """The rows of one optimizer step, laid out as Packs within a token budget.

    `row_names[r]` is where row r came from ("chat.jsonl:17"); `tokens` counts the rows as given,
    `computed_tokens` what the Packs hold after sharing.
    """

    index: int  # 0-based
    packs: tuple[Pack, ...]
    row_names: tuple[str, ...]
    tokens: int
    trained_tokens: int
    weight: float  # sum of all entries' weights, the denominator of the loss
    sources: tuple[str, ...] = ()  # names of the sources that the run's rows come from
    row_sources: tuple[
        int, ...
    ] = ()  # [rows] index into `sources`; both are empty where there is but one

    @property
    def computed_tokens(self) -> int:
        """What is left of `tokens` after prefix sharing."""
        return sum(pack.num_tokens for pack in self.packs)
