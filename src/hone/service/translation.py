"""What a job asks for, as Hone's configuration: hyperparameters and `x_hone.config`, over what the operator set.

It knows no database and reads no file. What cannot be honoured is refused with the parameter that asked for it.
"""

from __future__ import annotations

import json
import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from fnmatch import fnmatchcase
from typing import Any, Final, cast

from hone.config.fields import nearest_name, sections, settings
from hone.config.layers import Resolved, resolve_values
from hone.errors import ConfigError
from hone.trainable.defaults import default_hyperparameters

ALLOWED: Final = (
    "train.*",
    "tuning.*",
    "data.max_length",
    "data.too_long",
    "data.train_on",
    "data.shuffle",
    "data.validation_split",
    "compute.micro_batch_tokens",
    "compute.gradient_checkpointing",
    "compute.share_prefixes",
    "compute.pack",
    "compute.threads",
)
"""Settings that a job may say, as patterns; an operator may give others."""
NEVER: Final = ("model.*", "output.*", "data.path", "data.sources", "data.validation_path",
                "data.template*", "train.sample_*", "compute.deepspeed", "compute.launcher",
                "compute.n*", "compute.rdzv_endpoint")  # fmt: skip
"""Paths, templates, addresses and machines: refused whatever the operator allows."""
_WORDS: Final = {
    "tuning.lora.target_modules": "all-linear",
    "tuning.freeze.trainable_modules": "all",
}
"""Settings that take an expression over names too, which costs whoever matches it as much as its writer likes."""
_NUMBERS: Final[Mapping[str, tuple[str, type, float, float]]] = {
    "n_epochs": ("train.epochs", int, 1, 50),
    "batch_size": ("train.batch_size", int, 1, 256),
    "learning_rate_multiplier": ("train.learning_rate", float, 0, math.inf),
}
_X: Final = "x_hone.config"
_MOST_WARMUP: Final = 0.2
_CHECKPOINTS: Final = 10  # as many as a run makes where nobody says
_LONGEST_BYTES: Final = 16_384


class Refused(ConfigError):
    """A request that cannot be honoured; `param` names the field of its body."""

    def __init__(self, what: str, *, param: str, remedy: str | None = None) -> None:
        super().__init__(what, where=param, remedy=remedy)
        self.param = param


@dataclass(frozen=True)
class Settled:
    """A job in Hone's words, but for where its files lie."""

    config: dict[str, Any]
    """Every setting that the job or the service says, by its dotted name."""
    hyperparameters: dict[str, Any]
    """As numbers, under the API's names."""
    resolved: Resolved


def check_hyperparameters(said: Mapping[str, Any], place: str) -> dict[str, Any]:
    """The numbers that a request says, those that are `auto` left out. `place` is where they stand in the body."""
    found: dict[str, Any] = {}
    for name, value in said.items():
        param = f"{place}.{name}"
        if name not in _NUMBERS:
            raise Refused(
                f"{param} is not supported",
                param=param,
                remedy=f"allowed: {', '.join(_NUMBERS)}; Hone's own settings go in {_X}",
            )
        if value is None or value == "auto":
            continue
        _, kind, least, most = _NUMBERS[name]
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind is int:
            good = isinstance(value, int) and number and least <= value <= most
            wanted = f"'auto' or a whole number from {least:g} to {most:g}"
        else:
            good = number and math.isfinite(value) and value > least
            wanted = "'auto' or a number above 0"
        if not good:
            raise Refused(f"{param} is {wanted}; found {value!r}", param=param)
        found[name] = value
    return found


def check_config(said: object, allowed: Sequence[str] = ALLOWED) -> dict[str, Any]:
    """The settings of `x_hone.config` by their dotted names, each one that a job may say. Raises Refused."""
    if said is None:
        return {}
    if len(json.dumps(said)) > _LONGEST_BYTES:
        raise Refused(f"{_X} is longer than {_LONGEST_BYTES:,} bytes", param=_X)
    found: dict[str, Any] = {}
    _flatten(said, "", found)
    for name, value in found.items():
        param = f"{_X}.{name}"
        open_to_all = any(fnmatchcase(name, one) for one in allowed)
        if not open_to_all or any(fnmatchcase(name, one) for one in NEVER):
            may = [one for one in settings() if _may(one, allowed)]
            raise Refused(
                f"{param} is not for a job to say at this service",
                param=param,
                remedy=f"allowed: {', '.join(may)}",
            )
        if name in _WORDS and isinstance(value, str) and value != _WORDS[name]:
            raise Refused(
                f"{param} takes {_WORDS[name]!r} or a list of names; found {value!r}", param=param
            )
    return found


def _may(name: str, allowed: Sequence[str]) -> bool:
    """Whether a job may say a setting."""
    return any(fnmatchcase(name, one) for one in allowed) and not any(
        fnmatchcase(name, one) for one in NEVER
    )


def _flatten(said: object, name: str, found: dict[str, Any]) -> None:
    if name in settings():
        found[name] = said
        return
    param = f"{_X}.{name}" if name else _X
    if name and name not in sections():
        near = nearest_name(name)
        raise Refused(
            f"{param}: there is no such setting",
            param=param,
            remedy=f"did you mean {near}?" if near else "`hone config show` lists all settings",
        )
    if not isinstance(said, Mapping):
        raise Refused(f"{param} is an object of settings; found {said!r}", param=param)
    for key, value in cast("Mapping[str, Any]", said).items():
        _flatten(value, f"{name}.{key}" if name else key, found)


def settle(
    numbers: Mapping[str, Any],
    config: Mapping[str, Any],
    *,
    place: str,
    seed: int,
    rows: int,
    has_validation: bool = False,
    operator: Mapping[str, Any] | None = None,
) -> Settled:
    """Every setting of a job over so many rows. `numbers` and `config` are what the two checks returned.

    `operator` holds settings of the service by their dotted names, which a job's own go before. Raises Refused.
    """
    for name in numbers:
        setting = _NUMBERS[name][0]
        if setting in config:
            raise Refused(
                f"{place}.{name} and {_X}.{setting} say the same", param=f"{_X}.{setting}",
                remedy="say one of them",
            )  # fmt: skip
    values = {**_defaults(numbers, config, rows), **(operator or {}), **config}
    values |= _of_numbers(numbers)
    values.setdefault("train.seed", seed)
    held_out = {"data.validation_path": "valid.jsonl"} if has_validation else {}
    places = {"model.name": "model", "data.path": "train.jsonl", **held_out}
    resolved = _resolved({**values, **places}, numbers, config, place)
    multiplier = numbers.get("learning_rate_multiplier")
    base_rate = _base_rate(resolved)
    if multiplier is not None:
        values["train.learning_rate"] = base_rate * multiplier
        resolved = _resolved({**values, **places}, numbers, config, place)
    return Settled(values, _reported(resolved, rows, base_rate), resolved)


def _of_numbers(numbers: Mapping[str, Any]) -> dict[str, Any]:
    return {
        setting: numbers[name]
        for name, (setting, kind, _, _) in _NUMBERS.items()
        if name in numbers and kind is int
    }


def _defaults(
    numbers: Mapping[str, Any], config: Mapping[str, Any], rows: int
) -> dict[str, object]:
    """What the documents' formulas give for so many rows, and what upstream does with rows that are too long.

    Where epochs or batches are the user's own, the warmup is of as many steps, but at most a fifth of all.
    """
    formula = default_hyperparameters(max(1, rows))
    batch = numbers.get("batch_size", config.get("train.batch_size", formula.batch_size))
    epochs = numbers.get("n_epochs", config.get("train.epochs", formula.epochs))
    warmup = formula.warmup_ratio
    try:
        steps = max(1, math.ceil(rows * float(epochs) / batch))
        whole = math.ceil(rows * formula.epochs / formula.batch_size)
        warmup = formula.warmup_ratio * whole / steps
    except (TypeError, ValueError, ZeroDivisionError, OverflowError):
        warmup = 0.0  # what they hold is no number, which the validation says
    found: dict[str, object] = {
        "train.batch_size": formula.batch_size,
        "train.schedule": formula.schedule_type,
        "train.save_total_limit": _CHECKPOINTS,
        "data.too_long": "cut",
    }
    if "train.max_steps" not in config:
        found["train.epochs"] = formula.epochs
    if "train.warmup_steps" not in config:
        found["train.warmup_ratio"] = round(min(warmup, _MOST_WARMUP), 4)
    return found


def _resolved(
    values: Mapping[str, object],
    numbers: Mapping[str, Any],
    config: Mapping[str, Any],
    place: str,
) -> Resolved:
    origins = {name: f"{_X}.{name}" for name in config}
    origins |= {_NUMBERS[name][0]: f"{place}.{name}" for name in numbers}
    try:
        return resolve_values(values, origins)
    except ConfigError as error:
        text = f"{error.what}\n{error.where or ''}"
        param = next((one for one in origins.values() if one in text), None)
        param = param or next((f"{_X}.{one}" for one in config if one in text), _X)
        raise Refused(error.what, param=param, remedy=error.remedy) from error


def _base_rate(resolved: Resolved) -> float:
    """What a multiplier of 1 means: the rate that is taken where nobody says one."""
    train = resolved.config.train.model_copy(update={"learning_rate": None})
    return resolved.config.model_copy(update={"train": train}).learning_rate


def _reported(resolved: Resolved, rows: int, base_rate: float) -> dict[str, Any]:
    train = resolved.config.train
    epochs = train.epochs
    if train.max_steps is not None:
        epochs = train.max_steps * train.batch_size / max(1, rows)
    multiplier = resolved.config.learning_rate / base_rate
    return {
        "n_epochs": max(1, math.ceil(epochs - 1e-9)),
        "batch_size": train.batch_size,
        "learning_rate_multiplier": float(f"{multiplier:.12g}"),
    }
