"""Packs on their way to the device: predictions by source, one copy, made ready ahead only for a GPU."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st

from hone.engine.noise import PrefixDropout, mixed
from hone.engine.placed import Placing
from hone.models.visible import Visible
from hone.pack import splitmix64
from tests.engine.test_padding import pack_of


def placing(**settings: bool) -> Placing:
    return Placing(device=torch.device("cpu"), shared=True, last_layer=1, **settings)


@given(seed=st.integers(0, 10_000))
def test_predictions_stand_by_source_with_what_belongs_to_them(seed: int) -> None:
    pack = pack_of(seed)
    placed = placing().take(pack, least_saved=1)
    assert isinstance(placed.visible, Visible)
    assert placed.source.tolist() == sorted(pack.source.tolist()) == placed.sources.tolist()
    entries = zip(pack.source, pack.target, pack.weight, strict=True)
    want = sorted((int(s), int(t), float(w)) for s, t, w in entries)
    found = zip(placed.source.tolist(), placed.target.tolist(), placed.weight.tolist(), strict=True)
    assert sorted(found) == want
    assert placed.prefix is None


def test_names_of_beginnings_travel_where_noise_wants_them() -> None:
    pack = pack_of(4)
    placed = placing(wants_prefix=True).take(pack, least_saved=1)
    assert placed.prefix is not None
    assert np.array_equal(placed.prefix.numpy().view(np.uint64), pack.prefix_hash)


@given(st.lists(st.integers(0, 2**64 - 1), min_size=1, max_size=50))
def test_hashes_are_the_same_on_the_device(numbers: list[int]) -> None:
    x = np.asarray(numbers, dtype=np.uint64)
    got = mixed(torch.from_numpy(x.view(np.int64))).numpy().view(np.uint64)
    assert np.array_equal(got, splitmix64(x))


def test_noise_is_the_same_from_names_on_the_device_or_on_the_host() -> None:
    pack = pack_of(5)
    dropout, found = PrefixDropout(0.5, "a"), []
    dropout.begin_step(1, 2)
    x = torch.ones(1, pack.num_tokens, 9)
    for prefix in (None, torch.from_numpy(pack.prefix_hash.view(np.int64))):
        dropout.begin_pack(pack, prefix)
        found.append(dropout(x))
    assert torch.equal(*found)


def test_a_cpu_prepares_nothing_ahead() -> None:
    held = placing()
    held.prepare([pack_of(1)], least_saved=1)
    assert not held._ready
