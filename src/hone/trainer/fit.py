"""Fits a flat configuration to its rows, its model and this machine, and says what was fitted. No torch until a device is asked for."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Final

from hone.config.dialects.flat import SFTConfig, in_flat_words
from hone.config.layers import Resolved, resolve_values
from hone.errors import ConfigError, DataError
from hone.trainer.callbacks import SFTCallback, ValidationCallback, WandBCallback

_SHAPES: Final = {
    "chat": ("messages", "sharegpt", "conversations"),
    "completion": ("text", "completion", "prompt-completion"),
}


def fit(config: SFTConfig, callbacks: Sequence[object]) -> Resolved:
    """The one configuration that is trained. Its remarks say what could not be taken as it was written.

    Raises ConfigError, DataError and ModelError, in the words of `config`.
    """
    values, origins, remarks = config.in_ours(), config.origins(), list[str]()
    _fit_devices(config, callbacks, remarks)
    _fit_validation(config, callbacks, values, remarks)
    _fit_wandb(config, callbacks, values, remarks)
    _fit_rows(config, values)
    _fit_length(config, values, remarks)
    _fit_optimizer(config, values, remarks)
    if config.packing:
        remarks.append(
            "packing has no effect on the result: rows stand together in one pass anyway and see nothing of each "
            "other, and batch_size counts rows"
        )
    if config.save_merged_model and not config.use_lora:
        remarks.append(
            "save_merged_model has no effect: use_lora is false, and output_dir is the model"
        )
    try:
        resolved = resolve_values(values, origins)
    except ConfigError as error:
        raise in_flat_words(error) from None
    return replace(resolved, remarks=tuple(remarks))


def _fit_devices(config: SFTConfig, callbacks: Sequence[object], remarks: list[str]) -> None:
    """Several devices train in processes of their own, where nothing of a caller's can be called."""
    if config.num_devices == 1:
        return
    others = [one for one in callbacks if not isinstance(one, ValidationCallback | WandBCallback)]
    if others:
        rows = config.gradient_accumulation_steps * config.num_devices
        raise ConfigError(
            f"num_devices={config.num_devices}: {type(others[0]).__name__} would be called in this process, and several "
            "devices train in others",
            remedy=f"leave it out; or, for the same rows a step, num_devices=1 and gradient_accumulation_steps={rows}",
        )
    if any(isinstance(one, ValidationCallback) and one.eval_on_epoch_end for one in callbacks):
        remarks.append(
            f"num_devices={config.num_devices}: held-out rows are gone through every eval_steps steps and after the "
            "last, not at the end of each epoch"
        )


def _fit_validation(
    config: SFTConfig, callbacks: Sequence[object], values: dict[str, object], remarks: list[str]
) -> None:
    """Held-out rows, and when they are gone through: as the first ValidationCallback says."""
    given = [one for one in callbacks if isinstance(one, ValidationCallback)]
    files = {one.val_dataset for one in given if one.val_dataset is not None}
    if len(files) > 1:
        raise ConfigError(
            f"two ValidationCallbacks name different rows: {', '.join(sorted(files))}",
            remedy="name one file",
        )
    if files:
        if "validation_split" in config.changed and config.validation_split:
            remarks.append(
                "validation_split has no effect: ValidationCallback brings rows of its own"
            )
        values |= {"data.validation_path": files.pop(), "data.validation_split": 0.0}
    elif not config.validation_split:
        if given:
            remarks.append("ValidationCallback has no effect: validation_split is 0")
        if config.eval_steps is not None:
            remarks.append("eval_steps has no effect: validation_split is 0")
        return
    if given:
        values["train.eval_steps"] = given[0].eval_steps
        if config.eval_steps not in (None, given[0].eval_steps):
            remarks.append(
                f"eval_steps={config.eval_steps} has no effect: ValidationCallback has "
                f"eval_steps={given[0].eval_steps}"
            )


def _fit_wandb(
    config: SFTConfig, callbacks: Sequence[object], values: dict[str, object], remarks: list[str]
) -> None:
    """Weights & Biases: by its callback or by keys; where it is not installed, that is said."""
    given = [one for one in callbacks if isinstance(one, WandBCallback)]
    if len(given) > 1:
        raise ConfigError("two WandBCallbacks were given", remedy="give one")
    if given:
        if config.wandb_project not in (None, given[0].project):
            raise ConfigError(
                f"wandb_project is {config.wandb_project!r}, and WandBCallback has project={given[0].project!r}",
                remedy="say it in one place",
            )
        name = config.wandb_run_name or config.run_name
        values |= {"output.track.name": name, "output.track.entity": config.wandb_entity}
        values |= given[0].settings()
    if "output.trackers" not in values:
        asked = [
            key for key in ("wandb_entity", "wandb_run_name", "run_name") if getattr(config, key)
        ]
        remarks += [f"{key} has no effect: wandb_project is unset" for key in asked]
    elif importlib.util.find_spec("wandb") is None:
        for key in [key for key in values if key.startswith("output.track")]:
            del values[key]
        remarks.append(
            "wandb is not installed, so Weights & Biases is told nothing: pip install 'hone[training]'; afterwards "
            f"`hone runs track {config.output_dir} wandb` tells it this run"
        )


def _fit_rows(config: SFTConfig, values: dict[str, object]) -> None:
    """The shape of rows that are given by kind; rows of another kind are refused."""
    shapes = _SHAPES.get(config.dataset_format)
    local = Path(config.dataset_name).expanduser()
    if config.dataset_split == "train" and not local.is_file():
        values["data.split"] = None
    if shapes is None or config.dataset_text_field:
        return
    from hone.recipes.shape import first_row

    values["data.format"] = "auto"
    section = resolve_values(values, {}).config.data
    shape, row, where = first_row(section)
    if shape not in shapes:
        kind = (
            "alpaca"
            if shape == "alpaca"
            else next((name for name, known in _SHAPES.items() if shape in known), None)
        )
        raise DataError(
            f"dataset_format is {config.dataset_format!r}, and this row is of shape {shape!r}",
            where=where,
            remedy=f"set dataset_format={kind!r}"
            if kind
            else f"`hone convert` turns it into one of {', '.join(shapes)}",
        )
    if (
        shape == "prompt-completion"
        and isinstance(row.get("prompt"), list)
        and config.template_name is None
    ):
        raise ConfigError(
            "prompt and completion are lists of messages, whose roles the plain template does not write",
            where=where,
            remedy="name a chat template, e.g. template_name='chatml'",
        )
    values["data.format"] = shape


def _fit_length(config: SFTConfig, values: dict[str, object], remarks: list[str]) -> None:
    """A default length beyond what the model takes becomes the model's limit."""
    from hone.config.sections import ModelSection
    from hone.models.facts import longest_row
    from hone.models.source import find_model, read_config

    limit = longest_row(read_config(find_model(ModelSection(name=config.base_model))))
    if (
        limit is not None
        and limit < config.max_seq_length
        and "max_seq_length" not in config.changed
    ):
        values["data.max_length"] = limit
        remarks.append(
            f"max_seq_length is {limit}, the model's own limit, instead of {config.max_seq_length}"
        )


def _fit_optimizer(config: SFTConfig, values: dict[str, object], remarks: list[str]) -> None:
    """Paging is for a GPU's memory; without one the same numbers are kept in ordinary memory."""
    if config.optimizer_type != "paged_adamw_32bit":
        return
    from hone.engine.device import resolve_device

    on_gpu = resolve_device(config.device_map).type == "cuda"
    installed = importlib.util.find_spec("bitsandbytes") is not None
    if on_gpu and installed:
        return
    why = "bitsandbytes is not installed" if on_gpu else "no GPU"
    values["train.optimizer"] = "adamw"
    remarks.append(
        f"optimizer_type=paged_adamw_32bit: paging is not applicable here ({why}); adamw moves the weights alike"
    )


def with_own(config: SFTConfig, callbacks: Sequence[Any]) -> list[Any]:
    """The callbacks with those that the keys of `config` ask for."""
    from hone.trainer.callbacks import CheckpointCallback

    own: list[SFTCallback] = []
    has_validation = any(isinstance(one, ValidationCallback) for one in callbacks)
    if config.validation_split and not has_validation:
        own.append(ValidationCallback(eval_steps=config.eval_steps or 500))
    where = config.checkpoint_dir
    standard = Path(config.output_dir) / "checkpoints"
    if where is not None and Path(where).resolve() != standard.resolve():
        own.append(CheckpointCallback(where, config.save_steps, config.save_total_limit))
    return [*own, *callbacks]
