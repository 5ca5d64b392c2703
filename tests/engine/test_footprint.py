"""How many layers must recompute, by the arithmetic of what they give up."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hone.engine.footprint import Footprint


@given(
    kept=st.integers(2, 1000),
    share=st.floats(0.05, 0.95),
    layers=st.integers(1, 80),
    tokens=st.integers(1, 10_000),
    room=st.floats(1, 1e7),
)
def test_the_fewest_layers_are_enough_and_one_less_is_not(kept, share, layers, tokens, room):
    footprint = Footprint(float(kept), kept * share, layers)
    fewest = footprint.fewest(tokens, room)
    if fewest is None:
        assert footprint.in_all(tokens, layers) > room * (1 - 1e-9)
        return
    assert footprint.in_all(tokens, fewest) <= room * (1 + 1e-9)
    if fewest > 1:
        assert footprint.in_all(tokens, fewest - 1) > room * (1 - 1e-9)
    if fewest:
        assert footprint.in_all(tokens, 0) > room
    assert tokens <= footprint.longest(room, fewest) + 1


def test_a_footprint_that_cannot_change_fits_or_does_not():
    fixed = Footprint(10.0, 10.0, 0)
    assert fixed.fewest(10, 100) == 0
    assert fixed.fewest(11, 100) is None
    assert fixed.per_token(0) == 10


def test_recomputing_all_layers_leaves_what_was_measured_then():
    footprint = Footprint(320.0, 32.0, 16)
    assert footprint.per_token(0) == 320
    assert footprint.per_token(16) == 32
    assert footprint.in_all(2, 16) == 2 * (32 + 18)
