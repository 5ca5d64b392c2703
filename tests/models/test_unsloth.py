"""Weights through Unsloth: refused with the remedy where it cannot be had, asked rightly where it is (a stand-in here)."""

from __future__ import annotations

import sys
from pathlib import Path
from types import ModuleType, SimpleNamespace
from typing import Any

import pytest
import torch

from hone.config.layers import resolve
from hone.config.sections import QuantizationSection
from hone.errors import EnvironmentFault, ModelError
from hone.models import unsloth as module
from hone.models.load import load_model
from hone.models.unsloth import load_with_unsloth, require_unsloth
from hone.recipes.train import train
from tests.folders import chat_rows, model_folder


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "model")


@pytest.fixture
def asked(folder: Path, monkeypatch: pytest.MonkeyPatch) -> list[dict[str, Any]]:
    """What a stand-in for Unsloth, on a machine with a GPU, was asked."""
    found: list[dict[str, Any]] = []

    def from_pretrained(**words: Any) -> tuple[Any, None]:
        found.append(words)
        return load_model(folder, dtype=words["dtype"]).model, None

    stand_in = ModuleType("unsloth")
    stand_in.FastLanguageModel = SimpleNamespace(from_pretrained=from_pretrained)  # type: ignore[attr-defined]
    monkeypatch.setitem(sys.modules, "unsloth", stand_in)
    monkeypatch.setattr(module.importlib.util, "find_spec", lambda _: object())
    monkeypatch.setattr(module.torch.cuda, "is_available", lambda: True)
    return found


def test_without_it_a_run_ends_before_anything_is_written(folder: Path, tmp_path: Path) -> None:
    with pytest.raises(EnvironmentFault, match="needs the package unsloth") as caught:
        require_unsloth()
    assert "tuning.backend: bnb" in str(caught.value.remedy)
    rows = chat_rows(tmp_path / "rows.jsonl", 4)
    words = ["model.loader=unsloth", f"model.name={folder}", f"data.path={rows}", f"output.dir={tmp_path / 'run'}"]  # fmt: skip
    with pytest.raises(EnvironmentFault, match="unsloth"):
        train(resolve(overrides=words))
    assert not (tmp_path / "run").exists()


@pytest.mark.parametrize("bits", [None, 4, 8])
def test_what_it_is_asked(folder: Path, asked: list[dict[str, Any]], bits: Any) -> None:
    section = None if bits is None else QuantizationSection(bits=bits)
    loaded = load_with_unsloth(folder, dtype=torch.bfloat16, quantization=section, longest=77)
    (words,) = asked
    assert (words["model_name"], words["max_seq_length"]) == (str(folder), 77)
    assert (words["load_in_4bit"], words["load_in_8bit"]) == (bits == 4, bits == 8)
    assert words["trust_remote_code"] is False
    assert loaded.model.dtype == torch.bfloat16
    assert "Unsloth" in loaded.notices[0]


def test_a_folder_of_an_enemy_never_reaches_it(folder: Path, asked: list[dict[str, Any]]) -> None:
    (folder / "model.safetensors").rename(folder / "pytorch_model.bin")
    with pytest.raises(ModelError, match="pickled"):
        load_with_unsloth(folder, dtype=torch.float32, quantization=None, longest=8)
    assert asked == []
