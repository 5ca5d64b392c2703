"""Rows behind one another for flash attention: their bounds, and what each version of the kernel is told."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.layout import branch, lay_out
from hone.models.varlen import arguments, is_here, row_bounds
from hone.pack import Pack, padded
from tests.tiny import rows_with_shared_beginnings

TORCH_2_11 = frozenset({"query", "key", "value", "return_aux", "scale", "window_size"})
LATER = TORCH_2_11 | {"enable_gqa", "seqused_k"}


def apart(seed: int) -> Pack:
    rows = rows_with_shared_beginnings(seed)
    made = [branch(i, row.input_ids, row.weight) for i, row in enumerate(rows)]
    (pack,) = lay_out([b for b in made if b], budget=10**6, share_prefixes=False, pack=True)
    return pack


@settings(deadline=None, max_examples=60)
@given(seed=st.integers(0, 10_000), fill=st.integers(0, 40))
def test_bounds_give_what_the_pack_says_is_visible(seed: int, fill: int) -> None:
    pack = apart(seed)
    filled = padded(pack, pack.num_tokens + fill)
    bounds = row_bounds(filled)
    assert bounds[0] == 0
    assert bounds[-1] == filled.num_tokens
    assert (np.diff(bounds) > 0).all()
    lengths = np.diff(bounds)
    until = np.repeat(bounds[1:], lengths)
    real = pack.num_tokens
    assert (until[:real] == pack.visible_until).all()
    assert (
        pack.position_ids == (np.arange(filled.num_tokens) - np.repeat(bounds[:-1], lengths))[:real]
    ).all()
    assert len(bounds) - 1 == len(pack.nodes) + (fill > 0)


def test_a_pack_without_predictions_has_bounds_too() -> None:
    one = np.zeros(1, dtype=np.int64)
    nothing = np.zeros(0, dtype=np.int64)
    pack = Pack(
        one,
        one,
        one + 1,
        nothing,
        nothing,
        nothing,
        nothing.astype(np.float32),
        nothing.astype(np.int32),
    )
    assert row_bounds(pack).tolist() == [0, 1]


def test_the_kernel_is_told_what_its_version_knows() -> None:
    assert arguments(TORCH_2_11, scale=0.5, window=None, shares_heads=True) == {
        "scale": 0.5,
        "window_size": (-1, 0),
    }
    told = arguments(LATER, scale=0.5, window=64, shares_heads=True)
    assert told == {"scale": 0.5, "window_size": (63, 0), "enable_gqa": True}
    assert "enable_gqa" not in arguments(LATER, scale=0.5, window=64, shares_heads=False)


def test_this_torch_has_the_kernel() -> None:
    assert is_here(), torch.__version__
