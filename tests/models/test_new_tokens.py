"""New tokens: rows where they are lacking, a beginning that is a mean, and rows that train as PEFT's own do."""

from __future__ import annotations

import pytest
import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer

from hone.config.layers import resolve
from hone.errors import ConfigError
from hone.models.new_tokens import NewRow, TrainedRows, begin, grow, row_count
from hone.models.tuning import Start, tune
from tests.tiny import FAMILIES, VOCAB

IDS = torch.tensor([[3, VOCAB, 5, VOCAB + 1, VOCAB, 9]])
NEW = (NewRow(VOCAB, (4, 9)), NewRow(VOCAB + 1, ()))


def tables(model) -> list[torch.Tensor]:
    embeddings, head = model.get_input_embeddings(), model.get_output_embeddings()
    return (
        [embeddings.weight]
        if head.weight is embeddings.weight
        else [embeddings.weight, head.weight]
    )


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gemma3", "gpt2"])
@pytest.mark.parametrize("how", ["pieces", "mean"])
def test_rows_begin_at_a_mean_and_others_stay(name: str, how: str) -> None:
    model = FAMILIES[name].make()
    before = [table.clone() for table in tables(model)]
    assert grow(model, VOCAB + 2) == 2
    assert grow(model, VOCAB) == 0
    begin(model, NEW, how)
    assert row_count(model) == model.config.vocab_size == VOCAB + 2
    assert len(tables(model)) == len(before)
    for table, old in zip(tables(model), before, strict=True):
        assert torch.equal(table[:VOCAB], old)
        every = old.mean(dim=0)
        torch.testing.assert_close(table[VOCAB + 1], every)
        want = old[[4, 9]].mean(dim=0) if how == "pieces" else every
        torch.testing.assert_close(table[VOCAB], want)


def test_growing_draws_nothing_from_the_run_s_randomness() -> None:
    torch.manual_seed(1)
    state = torch.get_rng_state()
    grow(FAMILIES["llama"].make(seed=2), VOCAB + 5)
    torch.manual_seed(1)
    assert torch.equal(torch.get_rng_state(), state)


def tuned(name: str, *settings: str, new=NEW, tokens: int = VOCAB + 2):
    model = FAMILIES[name].make()
    config = resolve(overrides=["tuning.lora.r=2", *settings]).config
    return model, tune(model, config, start=Start(new=new, tokens=tokens))


@pytest.mark.parametrize("name", ["llama", "llama-tied", "gemma3", "gpt2"])
def test_trained_rows_equal_peft_s_own_layer(name: str, monkeypatch: pytest.MonkeyPatch) -> None:
    found = []
    for own in (True, False):
        if not own:
            monkeypatch.setattr(
                TrainedRows, "forward_adapters", TrainableTokensLayer.forward_adapters
            )
        model, _ = tuned(name)
        torch.manual_seed(0)
        with torch.no_grad():
            for key, parameter in model.named_parameters():
                if "trainable_tokens" in key:
                    parameter.add_(torch.randn_like(parameter))
        layers = [m for m in model.modules() if isinstance(m, TrainableTokensLayer)]
        assert [type(layer) for layer in layers] == [TrainedRows, TrainedRows]
        logits = model(IDS, use_cache=False).logits
        logits.square().sum().backward()
        grads = {n: p.grad for n, p in model.named_parameters() if "trainable_tokens" in n}
        assert len(grads) == len(tables(FAMILIES[name].make()))
        found.append((logits.detach(), grads))
    torch.testing.assert_close(found[0][0], found[1][0], rtol=1e-4, atol=1e-4)
    for key, grad in found[1][1].items():
        assert grad.any()
        torch.testing.assert_close(found[0][1][key] / grad.norm(), grad / grad.norm())


def test_only_the_rows_of_new_tokens_train_beside_the_adapters() -> None:
    model, result = tuned("llama")
    rows = {
        key: tuple(p.shape)
        for key, p in model.named_parameters()
        if p.requires_grad and "lora_" not in key
    }
    assert set(rows.values()) == {(2, 32)}
    assert len(rows) == 2
    assert result.notices == (f"new tokens: 2, which train; rows added to the model's {VOCAB}: 2",)


def test_spare_rows_are_taken_and_said_and_tokens_without_a_row_get_one() -> None:
    model, result = tuned("llama", new=[NewRow(58), NewRow(59), NewRow(VOCAB)], tokens=VOCAB + 1)
    assert f"rows added to the model's {VOCAB}: 1, spare ones taken: 2" in result.notices[0]
    assert row_count(model) == VOCAB + 1
    model, result = tuned("llama", new=[NewRow(VOCAB + 3)], tokens=VOCAB + 4)
    assert "that had no row, and train too: 3" in result.notices[0]
    (layer, _) = [m for m in model.modules() if isinstance(m, TrainedRows)]
    assert layer.token_indices["default"] == [VOCAB, VOCAB + 1, VOCAB + 2, VOCAB + 3]


def test_modules_that_train_whole_hold_their_new_rows_themselves() -> None:
    model, _ = tuned("llama", "tuning.lora.modules_to_save=[embeddings]")
    layers = [name for name, m in model.named_modules() if isinstance(m, TrainedRows)]
    assert layers == ["lm_head.token_adapter"]
    assert model.get_input_embeddings().modules_to_save["default"].weight.shape[0] == VOCAB + 2


def test_a_head_with_a_bias_cannot_train_some_rows_alone() -> None:
    model = FAMILIES["llama"].make()
    head = torch.nn.Linear(32, VOCAB)
    model.set_output_embeddings(head)
    config = resolve(overrides=[]).config
    with pytest.raises(ConfigError, match="has a bias") as caught:
        tune(model, config, start=Start(new=NEW, tokens=VOCAB + 2))
    assert "modules_to_save=[embeddings, head]" in (caught.value.remedy or "")


def test_frozen_embeddings_would_not_learn_new_tokens() -> None:
    with pytest.raises(ConfigError, match="would not be learnt") as caught:
        tuned("llama", "tuning.method=freeze", "tuning.freeze.extra_modules=[head]")
    assert "extra_modules=[embeddings, head]" in (caught.value.remedy or "")
    model, _ = tuned(
        "llama-tied", "tuning.method=freeze", "tuning.freeze.extra_modules=[embeddings]"
    )
    assert model.get_input_embeddings().weight.requires_grad
