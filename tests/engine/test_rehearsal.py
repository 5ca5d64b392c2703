"""The rehearsal's choice of layers to recompute: none where memory is enough, as few as are needed where it is not."""

from __future__ import annotations

import pytest

from hone.engine.cost import Weight
from hone.engine.loss import PackLoss
from hone.engine.rehearsal import made_up_pack, rehearse
from hone.engine.room import activation_bytes_per_token
from hone.errors import OutOfMemory
from hone.models import attention
from hone.models.recompute import recompute, recomputed
from tests.tiny import FAMILIES, VOCAB

attention.register()
LONGEST, LAYERS = 100, 6


@pytest.fixture
def loss() -> PackLoss:
    model = FAMILIES["llama"].make(num_hidden_layers=LAYERS)
    model.set_attn_implementation(attention.NAME)
    return PackLoss(model)


@pytest.fixture
def per_token(loss: PackLoss) -> tuple[float, float]:
    """Bytes a token with no layer recomputed, and with all."""
    pack, found = made_up_pack([LONGEST], vocab_size=VOCAB), []
    for count in (0, LAYERS):
        recompute(loss.model, count)
        found.append(activation_bytes_per_token(loss, pack))
    recompute(loss.model, 0)
    return found[0], found[1]


def rehearsed(loss: PackLoss, monkeypatch, room: float, **settings: object):
    """With `room` bytes for activations."""
    free = int(room / 0.75) + 1
    monkeypatch.setattr("hone.engine.rehearsal.available_bytes", lambda _, sharers: free)
    return rehearse(
        loss,
        longest=LONGEST,
        wanted=settings.pop("wanted", None),
        state_bytes=0,
        trained_share=0.5,
        layout=lambda budget: [Weight(min(budget, 400), 400)] * 2,
        **settings,
    )


def test_where_memory_is_enough_nothing_is_recomputed(loss, per_token, monkeypatch) -> None:
    found = rehearsed(loss, monkeypatch, 1e9, layers=None)
    assert found.recomputed == 0 == recomputed(loss.model)
    assert found.peak_bytes is None
    assert found.bytes_per_token == pytest.approx(per_token[0], rel=0.01)


@pytest.mark.parametrize("layers", [2, 3, 5])
def test_as_few_layers_as_the_longest_row_asks_for(loss, per_token, monkeypatch, layers) -> None:
    kept, again = per_token
    one = (kept - again) / LAYERS
    room = LONGEST * (kept - one * (layers - 1) + 1e-3 * one)  # what so many layers just fit in
    found = rehearsed(loss, monkeypatch, room, layers=None)
    assert found.recomputed == layers == recomputed(loss.model)
    assert found.micro_batch_tokens <= LONGEST * 1.2
    assert found.bytes_per_token == pytest.approx(kept - one * layers, rel=0.01)


def test_what_is_set_is_kept(loss, monkeypatch) -> None:
    for layers in (0, 2, LAYERS):
        found = rehearsed(loss, monkeypatch, 1e9, layers=layers, wanted=256)
        assert found.recomputed == layers == recomputed(loss.model)
        assert found.micro_batch_tokens == 256


def test_what_never_fits_is_refused_with_what_would(loss, per_token, monkeypatch) -> None:
    with pytest.raises(OutOfMemory, match="longest row has 100 tokens"):
        rehearsed(loss, monkeypatch, LONGEST * per_token[1] * 0.9, layers=None)
    with pytest.raises(OutOfMemory, match="longest row"):
        rehearsed(loss, monkeypatch, LONGEST * per_token[0] * 0.9, layers=0)
