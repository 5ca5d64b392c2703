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

from hone.data.tokenizer import TextTokenizer
from hone.data.tokenizer_files import write_tokenizer
from hone.models import facts
from hone.models.adapters import plain_state, state_of
from hone.models.load import quiet, stored_dtype
from hone.models.source import read_config
from hone.models.tuning import Tuned

_SHARD = "4GB"  # a file's tensors are copied once more while it is written
_LAST = ("adapter_config.json", "config.json")  # what makes a loader believe in the folder


def artifact_tensors(model: PreTrainedModel, tuned: Tuned) -> dict[str, Tensor]:
    """What the artifact's weights are written from, by name: the model's own parameters, not copies."""
    if tuned.adapted is None:
        return model.state_dict(keep_vars=True)
    return state_of(tuned.adapted)


def write_artifact(
    folder: Path,
    *,
    base: Path,
    base_name: str,
    model: PreTrainedModel,
    tuned: Tuned,
    weights: Mapping[str, Tensor],
    tokenizer: TextTokenizer,
    template: str,
    stop_ids: Sequence[int],
    card: str,
    dtype: torch.dtype | None = None,
) -> list[str]:
    """Write all files of the artifact into `folder`; returns their names.

    `base` is the model's folder and `base_name` what the user called it, `weights` is what `artifact_tensors`
    names, whole, `tokenizer` and `template` (of the chat) what was trained with, `stop_ids` the tokens that end
    a turn. A whole model is kept in `dtype`; unset: in the base's own.
    """
    beside = folder / ".writing-artifact"
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    try:
        if tuned.adapted is not None:
            _write_adapter(beside, tuned, weights, base_name)
        else:
            _write_full(beside, model, weights, base, stop_ids, dtype or stored_dtype(base))
        write_tokenizer(tokenizer, beside, template=template)
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
    folder: Path, tuned: Tuned, weights: Mapping[str, Tensor], base_name: str
) -> None:
    """An adapter for the base as it is, whatever training began with."""
    adapted = cast(peft.PeftModel, tuned.adapted)
    config, state = plain_state(adapted, tuned.beginning, weights)
    safetensors.torch.save_file(
        {name: tensor.detach().to("cpu", copy=True).contiguous() for name, tensor in state.items()},
        folder / "adapter_model.safetensors",
        metadata={"format": "pt"},
    )
    config.base_model_name_or_path = base_name
    config.inference_mode = True
    config.save_pretrained(str(folder))


def _write_full(
    folder: Path,
    model: PreTrainedModel,
    weights: Mapping[str, Tensor],
    base: Path,
    stop_ids: Sequence[int],
    dtype: torch.dtype,
) -> None:
    """Weights in `dtype`; config as the base has it, its dropouts included."""
    raw = read_config(base)
    state = {name: tensor.detach().to(dtype) for name, tensor in weights.items()}
    with quiet():
        model.save_pretrained(folder, state_dict=state, max_shard_size=_SHARD)
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


def _write_json(path: Path, content: dict[str, Any]) -> None:
    path.write_text(json.dumps(content, indent=2, ensure_ascii=False) + "\n", encoding="utf-8")
