"""Packs rounded up to their buckets compute what the unpadded ones do, and few lengths are left."""

from __future__ import annotations

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.config.sections import LoraSection
from hone.data.layout import branch, lay_out
from hone.engine.buckets import bucket
from hone.engine.loss import PackLoss
from hone.engine.noise import PrefixDropout
from hone.models import attention
from hone.models.adapters import attach_lora, set_dropout
from hone.pack import Pack, padded
from tests.tiny import FAMILIES, gradients, rows_with_shared_beginnings, worst_gradient_error

attention.register()


def pack_of(seed: int) -> Pack:
    rows = rows_with_shared_beginnings(seed)
    made = [branch(i, row.input_ids, row.weight) for i, row in enumerate(rows)]
    (pack,) = lay_out([b for b in made if b], budget=10**6, share_prefixes=True, pack=True)
    return pack


@given(tokens=st.integers(1, 300_000))
def test_a_bucket_holds_the_pack_and_little_more(tokens: int) -> None:
    size = bucket(tokens)
    assert tokens <= size <= tokens + max(128, tokens / 8)
    assert size % 128 == 0
    assert bucket(size) == size


def test_a_budget_that_is_a_power_of_two_is_never_exceeded() -> None:
    for power in range(7, 17):
        assert bucket(2**power) == 2**power
    assert len({bucket(tokens) for tokens in range(8192, 16385)}) == 17


@given(seed=st.integers(0, 10_000), more=st.integers(0, 50))
def test_a_padded_pack_is_a_pack(seed: int, more: int) -> None:
    pack = pack_of(seed)
    longer = padded(pack, pack.num_tokens + more)
    longer.check()
    assert longer.num_tokens == pack.num_tokens + more
    assert longer.shares == pack.shares
    assert (longer.prefix_hash[: pack.num_tokens] == pack.prefix_hash).all()
    assert padded(pack, pack.num_tokens - 1) is pack


@pytest.mark.parametrize("name", ["llama", "gemma2", "gpt2", "qwen3-moe", "gpt-oss"])
@settings(deadline=None, max_examples=3)
@given(seed=st.integers(0, 10_000))
def test_loss_and_gradients_are_those_of_the_unpadded_pack(name: str, seed: int) -> None:
    model = FAMILIES[name].make(seed=seed % 5)
    model.set_attn_implementation(attention.NAME)
    loss, pack, found = PackLoss(model), pack_of(seed), []
    for rounds_up in (False, True):
        loss.placing.rounds_up = rounds_up
        assert loss.placing.take(pack, least_saved=1).pack.num_tokens == (
            bucket(pack.num_tokens) if rounds_up else pack.num_tokens
        )
        loss.zero_grad()
        value = loss(pack, 0.5)
        value.backward()
        found.append((value.item(), gradients(model)))
    (want, want_grads), (got, got_grads) = found
    assert abs(got - want) <= 1e-6 * max(1.0, abs(want))
    assert worst_gradient_error(got_grads, want_grads) <= 1e-5


def test_noise_falls_on_the_same_tokens() -> None:
    model = FAMILIES["llama"].make()
    attach_lora(model, LoraSection(r=4, dropout=0.4), seed=1)
    set_dropout(model, PrefixDropout)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)
    model.set_attn_implementation(attention.NAME)
    loss, pack, values = PackLoss(model), pack_of(3), []
    for rounds_up in (False, True):
        loss.placing.rounds_up = rounds_up
        loss.begin_step(2, 9)
        values.append(loss(pack, 1.0).item())
    assert values[1] == pytest.approx(values[0], rel=1e-6)
    loss.begin_step(3, 9)
    assert abs(loss(pack, 1.0).item() - values[0]) > 1e-3


def test_padding_predicts_nothing_and_weighs_nothing() -> None:
    pack = pack_of(1)
    longer = padded(pack, 256)
    for name in ("predict", "source", "target", "weight", "row"):
        assert np.array_equal(getattr(longer, name), getattr(pack, name))
