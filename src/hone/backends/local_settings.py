"""What a trainable model says, as Hone's configuration, with the base model found. No torch is loaded."""

from __future__ import annotations

import importlib.util
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from hone.backends.gpus import visible_gpus
from hone.config.layers import Resolved
from hone.config.sections import Config
from hone.errors import ConfigError
from hone.models.source import find_model
from hone.recipes.continued import continued
from hone.runs.disk import Disk
from hone.trainable.folder import ModelFolder
from hone.trainable.model import TrainableModel
from hone.trainable.settings import LoRAConfig

_BETAS: Final = (0.9, 0.99)
_MAX_GRAD_NORM: Final = 1.0
_SEED: Final = 3407
_TEMPLATE: Final = "chat_template.jinja"
_ALONE: Final = ("deepspeed", "launcher", "nnodes", "node_rank", "nproc", "rendezvous", "strategy")


@dataclass(frozen=True)
class Opened:
    """A registered model."""

    folder: ModelFolder
    config: Config
    """With the base model as a folder on this machine."""
    base_name: str
    """What an adapter calls its base: a hub id as it is, a folder as a whole path."""
    about: dict[str, Any]
    """What `model.json` says."""
    notices: tuple[str, ...]
    told: set[str] = field(default_factory=set[str])
    """Notices that the user has heard."""


def open_model(model: TrainableModel, folder: ModelFolder, compute: Mapping[str, Any]) -> Opened:
    """Find the base model (a hub id is downloaded) and settle what it is trained with.

    What was settled when the model was new stays: whether the base is held in 4 bits, and the optimizer. Raises
    ConfigError, ModelError.
    """
    before = folder.read_model() or {}
    kept: dict[str, Any] = before.get("hone") or {}
    asked = model.internals.init_args.get("load_in_4bit")
    bits = asked if asked is not None else kept.get("load_in_4bit", _has_quantizer())
    if not isinstance(bits, bool):
        raise ConfigError(f"init_args: load_in_4bit is True or False; found {bits!r}")
    optimizer = kept.get("optimizer") or ("paged_adamw_8bit" if _has_quantizer() else "adamw")
    tree = _tree(model, folder, bits=bits, optimizer=optimizer, compute=compute)
    try:
        config = Config.model_validate(tree)
    except ValueError as error:
        raise _refused(error) from error
    config = continued(Resolved(config, {})).config
    base = find_model(config.model)
    base_name = (
        str(base.resolve()) if Path(config.model.name).expanduser().is_dir() else config.model.name
    )
    found = config.model.model_copy(update={"name": str(base.resolve())})
    config = config.model_copy(update={"model": found})
    tuning = config.tuning.model_dump(mode="json")
    if kept and kept.get("tuning") != tuning:
        raise ConfigError(
            f"{model.project}/{model.name} was registered with other settings of its adapter or its base",
            where=str(folder.path / "model.json"),
            remedy="give the lora_config and init_args that it was registered with, or another name",
        )
    about = {
        "name": model.name,
        "project": model.project,
        "base_model": model.base_model,
        "config": _plain(model.config),
        "hone": {"load_in_4bit": bits, "optimizer": optimizer, "tuning": tuning},
    }
    return Opened(
        folder, config, base_name, about, tuple(_notices(model, asked, bits, optimizer, kept))
    )


def _refused(error: ValueError) -> ConfigError:
    """What the configuration does not take, by the name that it has there."""
    listed: list[dict[str, Any]] = cast(Any, error).errors()
    first = listed[0]
    place = ".".join(map(str, first["loc"]))
    return ConfigError(
        f"{place}: {first['msg']}", remedy="see `hone config show` for what it takes"
    )


def _tree(
    model: TrainableModel,
    folder: ModelFolder,
    *,
    bits: bool,
    optimizer: str,
    compute: Mapping[str, Any],
) -> dict[str, Any]:
    """The configuration as plain data."""
    if several := [key for key in compute if key in _ALONE]:
        raise ConfigError(
            f"compute: {several[0]} is for several ranks, and a trainable model is trained by one process",
            remedy="remove it; `hone train` trains on several devices",
        )
    init = model.internals.init_args
    is_adapter = (Path(model.base_model).expanduser() / "adapter_config.json").is_file()
    if is_adapter and model.lora_config is not None:
        raise ConfigError(
            "base_model is an adapter, which keeps the settings that it began with",
            where=model.base_model,
            remedy="remove lora_config",
        )
    source = {"adapter": model.base_model} if is_adapter else {"name": model.base_model}
    lora = {} if is_adapter else (model.lora_config or LoRAConfig()).as_setting()
    return {
        "model": {**source, "revision": init.get("revision")},
        "tuning": {"method": "qlora" if bits else "lora", "lora": lora},
        "data": {
            "max_length": init.get("max_seq_length"),
            "too_long": "drop",
            "template": _template(model, folder),
            "template_kwargs": dict(model.internals.chat_template_kwargs),
        },
        "train": {
            "epochs": 1,
            "optimizer": optimizer,
            "betas": list(_BETAS),
            "weight_decay": 0.0,
            "max_grad_norm": _MAX_GRAD_NORM,
            "schedule": "constant",
            "precision": model.internals.precision,
            "seed": _SEED,
        },
        "compute": dict(compute),
    }


def _template(model: TrainableModel, folder: ModelFolder) -> str | None:
    """The chat template as `data.template` names it; one given as text is kept as a file."""
    said = model.internals
    if said.chat_template_path:
        return str(Path(said.chat_template_path).expanduser().resolve())
    if not said.chat_template:
        return None
    path = folder.path / _TEMPLATE
    Disk().replace_file(path, said.chat_template.encode())
    return str(path.resolve())


def _notices(
    model: TrainableModel, asked: object, bits: bool, optimizer: str, kept: Mapping[str, Any]
) -> list[str]:
    told: list[str] = []
    if not kept and asked is None and not bits:
        told.append(
            "bitsandbytes is not installed: the base is not held in 4 bits and AdamW keeps whole moments, for the "
            "life of this model; pip install 'hone[quantize]' before a model is registered gives both"
        )
    if not kept and asked and optimizer == "adamw":
        told.append("bitsandbytes is not installed: AdamW keeps whole moments")
    why = "what serves it has no such setting" if visible_gpus() else "no GPU"
    told += [
        f"engine_args: {key}={value!r} is not applicable here: {why}"
        for key, value in model.internals.engine_args.items()
    ]
    return told


def _has_quantizer() -> bool:
    return importlib.util.find_spec("bitsandbytes") is not None


def _plain(said: object) -> Any:
    """A user's own object beside the model, as far as JSON holds it."""
    dump = getattr(said, "model_dump", None)
    return json.loads(json.dumps(dump() if dump is not None else said, default=str))
