"""Block masks from minima and maxima against those that ask for every pair."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st
from torch.nn.attention.flex_attention import create_block_mask

from hone.data.layout import branch, lay_out
from hone.models.block_mask import BLOCK, block_mask, find_blocks, mask_function
from hone.pack import Pack, padded
from tests.tiny import rows_with_shared_beginnings

CPU = torch.device("cpu")


def pack_of(seed: int, *, longest: int = 300, share: bool = True, fill: int = 0) -> Pack:
    rows = rows_with_shared_beginnings(seed, longest=longest)
    made = [branch(i, row.input_ids, row.weight) for i, row in enumerate(rows)]
    (pack,) = lay_out([b for b in made if b], budget=10**6, share_prefixes=share, pack=True)
    return padded(pack, pack.num_tokens + fill)


def masks(pack: Pack, window: int | None):
    until = torch.from_numpy(pack.visible_until)
    function = mask_function(until, torch.from_numpy(pack.position_ids), window)
    tokens = pack.num_tokens
    want = create_block_mask(function, None, None, tokens, tokens, device="cpu")
    found = find_blocks(pack, window=window)
    return block_mask(found, function, tokens=tokens, device=CPU), want


def rows_of(count: torch.Tensor, places: torch.Tensor) -> list[list[int]]:
    """The listed blocks of each row; what stands behind the count means nothing."""
    return [row[:n].tolist() for n, row in zip(count.flatten(), places.flatten(0, 2), strict=True)]


@settings(deadline=None, max_examples=40)
@given(
    seed=st.integers(0, 10_000),
    longest=st.sampled_from([40, 150, 400, 900]),
    share=st.booleans(),
    fill=st.sampled_from([0, 1, 127, 300]),
)
def test_without_a_window_they_are_the_same_blocks(seed, longest, share, fill) -> None:
    got, want = masks(pack_of(seed, longest=longest, share=share, fill=fill), None)
    assert got.seq_lengths == want.seq_lengths
    for name in ("kv", "full_kv", "q", "full_q"):
        pair = [
            rows_of(getattr(mask, f"{name}_num_blocks"), getattr(mask, f"{name}_indices"))
            for mask in (got, want)
        ]
        assert pair[0] == pair[1], name


@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10_000),
    longest=st.sampled_from([150, 900]),
    window=st.sampled_from([1, 20, 128, 200, 5000]),
)
def test_with_a_window_no_visible_block_is_left_out(seed, longest, window) -> None:
    got, want = masks(pack_of(seed, longest=longest), window)
    full = [rows_of(mask.full_kv_num_blocks, mask.full_kv_indices) for mask in (got, want)]
    assert full[0] == full[1]
    assert bool((got.to_dense() >= want.to_dense()).all())


def test_a_window_leaves_out_what_is_far() -> None:
    row = branch(0, np.arange(4000, dtype=np.int32), np.ones(4000, dtype=np.float32))
    (pack,) = lay_out([row], budget=10**6, share_prefixes=True, pack=True)
    found = find_blocks(pack, window=256)
    each = (found.some | found.full).sum(axis=1)
    assert each.max() <= 256 // BLOCK + 2
    assert (find_blocks(pack).some | find_blocks(pack).full).sum(axis=1).max() == 32


@pytest.mark.parametrize("window", [None, 100])
def test_blocks_of_queries_that_nothing_reads_see_nothing(window) -> None:
    weight = np.zeros(1000, dtype=np.float32)
    weight[900:] = 1.0
    row = branch(0, np.arange(1000, dtype=np.int32), weight)
    (pack,) = lay_out([row], budget=10**6, share_prefixes=True, pack=True)
    found, read = find_blocks(pack, window=window), find_blocks(pack, window=window, only_read=True)
    asked = np.arange(8) >= 899 // BLOCK
    for all_, some in ((found.some, read.some), (found.full, read.full)):
        assert (some[asked] == all_[asked]).all()
        assert not some[~asked].any()
