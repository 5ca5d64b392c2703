"""A checkpoint of a run as an adapter folder, so that it stands beside other adapters on one base. No torch model.

Only checkpoints of plain low-rank runs can: others hold more than an adapter, or stand on a changed base.
"""

from __future__ import annotations

import json
from pathlib import Path

import safetensors.torch

from hone.config.sections import Config
from hone.errors import ModelError
from hone.models.saved_adapter import CONFIG, WEIGHTS

_UNIT, _ADAPTER = "model.", ".default."
_FILE = "weights.safetensors"


def is_plain(config: Config) -> bool:
    """Whether the checkpoints of a run with these settings are adapters of the base as it is."""
    lora = config.tuning.lora
    return (
        config.tuning.method == "lora"
        and config.model.adapter is None
        and not config.model.additions
        and not lora.modules_to_save
        and not lora.dora
        and lora.init == "default"
    )


def write_adapter(checkpoint: Path, config: Config, base: Path, folder: Path) -> None:
    """Write the adapter of a checkpoint into `folder`, as PEFT saves one. Raises ModelError for other weights."""
    lora = config.tuning.lora
    state = safetensors.torch.load_file(checkpoint / _FILE)
    strangers = [n for n in state if not n.startswith(_UNIT) or ".lora_" not in n]
    if strangers or not state:
        raise ModelError(
            "the checkpoint holds more than an adapter"
            if strangers
            else "the checkpoint holds no weights",
            where=str(checkpoint),
            remedy="let the run finish, and serve it whole",
        )
    names = {name.removeprefix(_UNIT): tensor for name, tensor in state.items()}
    targets = sorted({name.partition(".lora_")[0] for name in names})
    said = {
        "peft_type": "LORA",
        "task_type": "CAUSAL_LM",
        "base_model_name_or_path": str(base),
        "r": lora.r,
        "lora_alpha": lora.alpha,
        "lora_dropout": 0.0,
        "use_rslora": lora.rslora,
        "target_modules": targets,
        "inference_mode": True,
        "bias": "none",
    }
    safetensors.torch.save_file(
        {f"base_model.model.{n.replace(_ADAPTER, '.')}": t for n, t in names.items()},
        folder / WEIGHTS,
        metadata={"format": "pt"},
    )
    (folder / CONFIG).write_text(json.dumps(said), encoding="utf-8")
