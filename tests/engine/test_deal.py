"""Packs dealt to ranks: all of them once, evenly, alike on every rank, and the layout suited to so many."""

from __future__ import annotations

from hypothesis import given
from hypothesis import strategies as st

from hone.engine.cost import Speeds
from hone.engine.deal import Spread, deal, empty_pack, longest_hand, weight_of
from hone.engine.rehearsal import made_up_pack
from hone.engine.strategy import same_number
from tests.engine.stand_in import TinySource

BY_TOKENS = Speeds({1: 1.0})


@given(lengths=st.lists(st.integers(1, 40), min_size=0, max_size=12), world=st.integers(1, 5))
def test_every_pack_goes_to_one_rank_and_none_has_much_more(lengths: list[int], world: int) -> None:
    packs = [made_up_pack([length], vocab_size=9) for length in lengths]
    hands = deal(packs, world, BY_TOKENS)
    assert len(hands) == world
    assert sorted(id(p) for hand in hands for p in hand) == sorted(map(id, packs))
    loads = [sum(pack.num_tokens for pack in hand) for hand in hands]
    assert max(loads) - min(loads) <= max([*lengths, 0])
    again = deal(packs, world, BY_TOKENS)
    assert [[id(p) for p in h] for h in again] == [[id(p) for p in h] for h in hands]
    passes = [same_number(hands, rank, empty_pack()) for rank in range(world)]
    assert len({len(one) for one in passes}) == 1


def test_pairs_weigh_too() -> None:
    long, short = made_up_pack([64], vocab_size=9), made_up_pack([8] * 8, vocab_size=9)
    speeds = Speeds({1: 1e-3}, pair=1e-2)
    hands = deal([short, short, long], 2, speeds)
    assert [len(hand) for hand in hands] == [1, 2]
    assert hands[0] == (long,)


def test_one_pack_that_would_keep_one_rank_busy_is_laid_out_finer() -> None:
    source = TinySource(rows=12, batch=12)
    whole = source.step(0, 1000)
    assert len(whole.packs) == 1
    spread = Spread(source, 2, BY_TOKENS).step(0, 1000)
    hand = longest_hand(spread.packs, 2, BY_TOKENS)
    assert sum(pack.num_tokens for pack in hand) < 0.75 * whole.computed_tokens
    assert spread.weight == whole.weight
    assert spread.row_names == whole.row_names
    assert sum(pack.weight.sum() for pack in spread.packs) == whole.packs[0].weight.sum()


def test_a_layout_that_is_even_already_is_kept() -> None:
    source = TinySource(rows=12, batch=12)
    budget = max(weight_of(pack).tokens for pack in source.step(0, 20).packs)
    want = source.step(0, budget)
    got = Spread(source, 2, BY_TOKENS).step(0, budget)
    assert got.computed_tokens <= want.computed_tokens * 1.3


def test_an_empty_pack_is_a_pack() -> None:
    empty_pack().check()
    assert not empty_pack().weight.any()
