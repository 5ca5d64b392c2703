"""Layers that are computed again: some, all or none give the same loss and gradients, and hold less."""

from __future__ import annotations

from itertools import pairwise

import pytest
import torch

from hone.engine.loss import PackLoss
from hone.engine.rehearsal import made_up_pack
from hone.engine.room import activation_bytes_per_token
from hone.models import attention
from hone.models.layers import decoder_layers
from hone.models.offload import Offload
from hone.models.recompute import can_recompute, recompute, recomputed
from tests.engine.test_exactness import lora_model
from tests.tiny import FAMILIES, VOCAB, gradients, worst_gradient_error

attention.register()
PACK = made_up_pack([30, 18], vocab_size=VOCAB)


def reading(loss: PackLoss) -> tuple[float, dict[str, torch.Tensor]]:
    loss.zero_grad()
    value = loss(PACK, 0.1)
    value.backward()
    return value.item(), gradients(loss.model)


def loss_of(name: str, **numbers: int) -> PackLoss:
    model = FAMILIES[name].make(**numbers)
    model.set_attn_implementation(attention.NAME)
    return PackLoss(model)


@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_says_its_layers(name: str) -> None:
    model = FAMILIES[name].make()
    assert len(decoder_layers(model)) == model.config.num_hidden_layers
    assert can_recompute(model)


@pytest.mark.parametrize("name", ["llama", "gemma3", "gpt2", "qwen3-moe"])
def test_as_many_layers_as_asked_change_nothing(name: str) -> None:
    loss = loss_of(name)
    want = reading(loss)
    for count in (1, len(decoder_layers(loss.model)), 0):
        assert recompute(loss.model, count) == count == recomputed(loss.model)
        got = reading(loss)
        assert got[0] == want[0]
        assert worst_gradient_error(got[1], want[1]) <= 1e-6


def test_adapters_need_no_gradient_of_the_embedding() -> None:
    model = lora_model("llama", 0.0)
    model.set_attn_implementation(attention.NAME)
    loss = PackLoss(model)
    want = reading(loss)
    recompute(model, 2)
    got = reading(loss)
    assert worst_gradient_error(got[1], want[1]) <= 1e-6
    assert got[1].keys() == want[1].keys()


def test_each_layer_gives_up_as_much_as_any() -> None:
    loss = loss_of("llama", num_hidden_layers=4)
    held = []
    for count in range(5):
        recompute(loss.model, count)
        held.append(activation_bytes_per_token(loss, PACK))
    steps = [before - after for before, after in pairwise(held)]
    assert min(steps) > 0
    assert max(steps) <= 1.2 * min(steps), held


def test_what_is_sent_away_comes_back_the_same() -> None:
    for count in (0, 2):
        loss = loss_of("llama")
        recompute(loss.model, count)
        want = reading(loss)
        loss.offload = Offload(torch.device("cpu"), least_bytes=1)
        got = reading(loss)
        assert loss.offload.moved_bytes > 0
        assert got[0] == want[0]
        assert all(torch.equal(got[1][key], want[1][key]) for key in want[1])


def test_weights_stay_and_a_tensor_kept_twice_goes_once() -> None:
    torch.manual_seed(0)
    weight = torch.randn(8, 8, requires_grad=True)
    x = torch.randn(4, 8, requires_grad=True)
    offload = Offload(torch.device("cpu"), least_bytes=1)
    with offload.saving(frozenset({weight.untyped_storage().data_ptr()})):
        y = x @ weight.T
        z = (y * torch.sin(y)).sum()
    # x for the product, and once y, sin(y) beside it
    assert offload.moved_bytes == 3 * x.nbytes
    z.backward()
    got = x.grad, weight.grad
    x.grad = weight.grad = None
    y = x @ weight.T
    (y * torch.sin(y)).sum().backward()
    assert torch.equal(got[0], x.grad)
    assert torch.equal(got[1], weight.grad)


def test_a_tensor_that_was_changed_since_is_another_one() -> None:
    x = torch.ones(300, requires_grad=True)
    offload = Offload(torch.device("cpu"), least_bytes=1)
    with offload.saving():
        y = x * 2
        first = torch.sin(y.detach().requires_grad_())
        with torch.no_grad():
            y.add_(1.0)
        leaf = y.detach().requires_grad_()
        second = torch.sin(leaf)
    second.sum().backward()
    assert torch.equal(leaf.grad, torch.cos(torch.full((300,), 3.0)))
    assert first.shape == second.shape


def test_a_family_without_layers_is_refused() -> None:
    model = FAMILIES["llama"].make()
    model.config.num_hidden_layers = 5  # no list of modules has so many
    assert not can_recompute(model)
    assert recompute(model, 0) == 0
    with pytest.raises(ValueError, match="no layers"):
        recompute(model, 1)
