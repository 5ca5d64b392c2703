"""Freezing by layer and by name: what trains, and what is refused."""

from __future__ import annotations

import pytest

from hone.config.sections import FreezeSection
from hone.errors import ConfigError
from hone.models.freezing import freeze
from tests.tiny import FAMILIES


def trained(name: str, **settings: object) -> set[str]:
    model = FAMILIES[name].make()
    freeze(model, FreezeSection.model_validate(settings))
    return {key for key, parameter in model.named_parameters() if parameter.requires_grad}


def layers(names: set[str]) -> set[str]:
    return {part for name in names for part in name.split(".") if part.isdigit()}


def test_layers_count_from_the_end_or_with_a_minus_from_the_beginning() -> None:
    assert layers(trained("gemma3", trainable_layers=1)) == {"2"}
    assert layers(trained("gemma3", trainable_layers=2)) == {"1", "2"}
    assert layers(trained("gemma3", trainable_layers=-1)) == {"0"}
    assert all("layers.2." in name for name in trained("gemma3", trainable_layers=1))
    assert all(".h.1." in name for name in trained("gpt2", trainable_layers=1))


def test_modules_of_the_layers_are_chosen_by_name_or_expression() -> None:
    chosen = trained("llama", trainable_layers=1, trainable_modules=["self_attn"])
    assert chosen == {f"model.layers.1.self_attn.{p}_proj.weight" for p in "qkvo"}
    chosen = trained("llama", trainable_layers=1, trainable_modules=r".*\.(up|down)_proj")
    assert chosen == {f"model.layers.1.mlp.{p}_proj.weight" for p in ("up", "down")}


def test_extra_modules_train_beside_the_layers() -> None:
    assert trained("llama", trainable_layers=0, extra_modules=["head", "model.norm"]) == {
        "lm_head.weight",
        "model.norm.weight",
    }
    assert "transformer.wte.weight" in trained("gpt2", extra_modules=["embeddings"])


def test_one_tensor_in_two_places_is_said() -> None:
    model = FAMILIES["llama-tied"].make()
    told = freeze(model, FreezeSection(extra_modules=["head"]))
    assert told == ["the embeddings and the head of this model are one tensor: both train"]
    assert freeze(FAMILIES["llama-tied"].make(), FreezeSection()) == []


@pytest.mark.parametrize(
    ("settings", "what", "remedy"),
    [
        ({"trainable_layers": 3}, "the model has 2 layers", "to 2 or less"),
        ({"trainable_layers": -3}, "the model has 2 layers", "to 2 or less"),
        ({"trainable_layers": 0}, "nothing to train", "trainable_layers=2"),
        ({"extra_modules": ["lm_hed"]}, "names no module: 'lm_hed'", "'lm_head'"),
        ({"trainable_modules": ["self_atn"]}, "names no module: 'self_atn'", "'self_attn'"),
        ({"trainable_modules": "nothing.*"}, "matches no module", "allowed"),
        ({"trainable_modules": "(("}, "no regular expression", "list of names"),
        ({"trainable_modules": ["embed_tokens"]}, "matches nothing in the layers", "of these layers"),
    ],
)  # fmt: skip
def test_what_cannot_be_meant_is_refused(
    settings: dict[str, object], what: str, remedy: str
) -> None:
    with pytest.raises(ConfigError, match=what.replace("(", r"\(")) as caught:
        trained("llama", **settings)
    assert remedy in (caught.value.remedy or "")
