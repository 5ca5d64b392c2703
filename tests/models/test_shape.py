"""The shape of a model as its files tell it, against the model itself; and files that lie."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from transformers import AutoModelForCausalLM

from hone.errors import ModelError
from hone.models.shape import read_shape, read_weights
from hone.models.source import check_weights, read_config
from tests.folders import model_folder
from tests.tiny import FAMILIES


@pytest.mark.parametrize("family", sorted(FAMILIES))
def test_every_parameter_is_counted_once_and_stands_under_a_part(
    tmp_path: Path, family: str
) -> None:
    model = FAMILIES[family].make()
    model.save_pretrained(tmp_path)
    shape = read_shape(tmp_path, read_config(tmp_path))
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    parts = shape.by_part()
    assert sum(parts.values()) == shape.parameters
    assert parts["embedding"] > 0
    assert parts["attention"] > 0
    assert parts["mlp"] > 0
    assert (parts["head"] == 0) == bool(model.config.tie_word_embeddings) == shape.tied
    assert shape.layers == model.config.num_hidden_layers
    assert shape.vocabulary == model.config.vocab_size


def test_weights_in_several_files_are_found_by_the_index(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "one")
    AutoModelForCausalLM.from_pretrained(folder).save_pretrained(
        tmp_path / "many", max_shard_size="20KB"
    )
    assert len(list((tmp_path / "many").glob("*.safetensors"))) > 1
    assert read_weights(tmp_path / "many") == read_weights(folder)


@pytest.mark.parametrize("name", ["../one/model.safetensors", "/etc/passwd", "a/b.safetensors", 3])
def test_an_index_that_names_a_file_elsewhere_is_refused(tmp_path: Path, name: object) -> None:
    folder = model_folder(tmp_path / "one")
    index = folder / "model.safetensors.index.json"
    index.write_text(json.dumps({"weight_map": {"lm_head.weight": name}}))
    for read in (read_weights, check_weights):
        with pytest.raises(ModelError, match="outside its folder"):
            read(folder)


@pytest.mark.parametrize("damage", [b"", b"\xff" * 40, b"\x02\x00\x00\x00\x00\x00\x00\x00[]"])
def test_a_file_without_a_readable_header_is_refused(tmp_path: Path, damage: bytes) -> None:
    folder = model_folder(tmp_path / "one")
    (folder / "model.safetensors").write_bytes(damage)
    with pytest.raises(ModelError, match="safetensors"):
        read_weights(folder)


def test_a_config_without_sizes_is_refused(tmp_path: Path) -> None:
    folder = model_folder(tmp_path / "one")
    with pytest.raises(ModelError, match="how many layers"):
        read_shape(folder, {"model_type": "unheard-of"})
