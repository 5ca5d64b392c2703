"""The artifact of a finished run: weights, tokenizer, chat template and card, in the run folder's root.

Plain `transformers` and `peft` code loads it. Files are written beside and renamed, the weights' config
last, so that half an artifact is never taken for one.
"""

from __future__ import annotations

import json
import os
import shutil
from collections.abc import Mapping, Sequence
from pathlib import Path
from typing import Any, cast

import peft
import safetensors.torch
import torch
from torch import Tensor
from transformers import PreTrainedModel

from hone.models import facts
from hone.models.load import quiet
from hone.models.source import read_config

_TOKENIZER_FILES = (
    "tokenizer.json",
    "special_tokens_map.json",
    "added_tokens.json",
    "vocab.json",
    "merges.txt",
    "tokenizer.model",
)
_LAST = ("adapter_config.json", "config.json")  # what makes a loader believe in the folder


def artifact_tensors(model: PreTrainedModel, adapted: peft.PeftModel | None) -> dict[str, Tensor]:
    """What the artifact's weights are written from, by name: the model's own parameters, not copies."""
    if adapted is None:
        return model.state_dict(keep_vars=True)
    return peft.get_peft_model_state_dict(adapted, state_dict=adapted.state_dict(keep_vars=True))


def write_artifact(
    folder: Path,
    *,
    base: Path,
    base_name: str,
    model: PreTrainedModel,
    adapted: peft.PeftModel | None,
    weights: Mapping[str, Tensor],
    template: str,
    stop_ids: Sequence[int],
    card: str,
) -> list[str]:
    """Write all files of the artifact into `folder`; returns their names.

    `base` is the model's folder and `base_name` what the user called it, `weights` is what `artifact_tensors`
    names, whole, `template` the chat template that
    was trained with, `stop_ids` the tokens that end a turn.
    """
    beside = folder / ".writing-artifact"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        if adapted is not None:
            _write_adapter(beside, adapted, weights, base_name)
        else:
            _write_full(beside, model, weights, base, stop_ids)
        _write_tokenizer(beside, base, template)
        (beside / "README.md").write_text(card, encoding="utf-8")
        mode = (beside / "README.md").stat().st_mode
        names = sorted(path.name for path in beside.iterdir())
        for name in sorted(names, key=lambda n: (n in _LAST, n)):
            (beside / name).chmod(mode)  # safetensors writes for the owner only
            _settle(beside / name, folder / name)
    finally:
        shutil.rmtree(beside, ignore_errors=True)
    return names


def _settle(path: Path, final: Path) -> None:
    with path.open("rb") as file:
        os.fsync(file.fileno())
    path.rename(final)


def _write_adapter(
    folder: Path, adapted: peft.PeftModel, weights: Mapping[str, Tensor], base_name: str
) -> None:
    safetensors.torch.save_file(
        {name: tensor.detach().contiguous().cpu() for name, tensor in weights.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config = adapted.peft_config["default"]
    config.base_model_name_or_path = base_name
    config.inference_mode = True
    config.save_pretrained(str(folder))


def _write_full(
    folder: Path,
    model: PreTrainedModel,
    weights: Mapping[str, Tensor],
    base: Path,
    stop_ids: Sequence[int],
) -> None:
    """Weights in the base's own precision; config as the base has it, its dropouts included."""
    raw = read_config(base)
    dtype = getattr(torch, str(raw.get("dtype") or raw.get("torch_dtype") or "float32"))
    state = {name: tensor.detach().to(dtype) for name, tensor in weights.items()}
    with quiet():
        model.save_pretrained(folder, state_dict=state)
    config = json.loads((folder / "config.json").read_bytes())
    config.update({key: raw[key] for key in facts.dropouts(raw) if key in raw})
    config["dtype"] = str(dtype).removeprefix("torch.")
    _write_json(folder / "config.json", config)
    path = folder / "generation_config.json"
    source = base / "generation_config.json"
    generation: dict[str, Any] = json.loads((source if source.is_file() else path).read_bytes())
    known: object = generation.get("eos_token_id")
    alone = [] if known is None else [known]
    ends = cast("list[object]", known) if isinstance(known, list) else alone
    generation["eos_token_id"] = [*ends, *(i for i in stop_ids if i not in ends)]
    _write_json(path, generation)


def _write_tokenizer(folder: Path, base: Path, template: str) -> None:
    """The base's files as they are, and the template that was trained with as the only one."""
    for name in _TOKENIZER_FILES:
        if (base / name).is_file():
            shutil.copyfile(base / name, folder / name)
    source = base / "tokenizer_config.json"
    config: dict[str, Any] = json.loads(source.read_bytes()) if source.is_file() else {}
    config.pop("chat_template", None)
    _write_json(folder / "tokenizer_config.json", config)
    (folder / "chat_template.jinja").write_text(template, encoding="utf-8")


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
