"""DeepSpeed's own JSON configuration, read against ours: what says `auto` is filled, what contradicts is refused.

It knows neither torch nor DeepSpeed: settings in, settings out. Files written for LLaMA-Factory or the transformers
Trainer are understood.
"""

from __future__ import annotations

import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from hone.config.deepspeed_keys import check_names
from hone.config.sections import TrainSection
from hone.errors import ConfigError, nearest

_BUCKET: Final = 200_000_000  # numbers reduced or gathered at a time
_OFFLOAD: Final = {"device": "cpu", "pin_memory": False}

_OPTIMIZERS: Final = {"adamw": ("adam", "adamw")}  # what files call them

PRESETS: Final[Mapping[str, Mapping[str, Any]]] = {
    "zero1": {"stage": 1},
    "zero2": {"stage": 2},
    "zero2-offload": {"stage": 2, "offload_optimizer": _OFFLOAD},
    "zero3": {"stage": 3},
    "zero3-offload": {"stage": 3, "offload_optimizer": _OFFLOAD, "offload_param": _OFFLOAD},
}
"""What `compute.deepspeed` may name instead of a file: the section `zero_optimization`."""


@dataclass(frozen=True)
class Facts:
    """What the file is read against."""

    train: TrainSection
    precision: str
    """In force: `fp32` or `bf16`."""
    learning_rate: float
    betas: tuple[float, float]
    world: int
    hidden_size: int


@dataclass
class DeepSpeed:
    """Settings for DeepSpeed, with nothing left at `auto`."""

    stage: int
    settings: dict[str, Any]
    notices: list[str] = field(default_factory=list[str])
    """What of the file has no effect, in words."""


def read_deepspeed(choice: str) -> dict[str, Any]:
    """The settings that `compute.deepspeed` names: one of the presets, or a JSON file.

    Raises ConfigError for a file that is none, and for what no run of ours can be.
    """
    if choice in PRESETS:
        return {"zero_optimization": dict(PRESETS[choice])}
    path = Path(choice).expanduser()
    if not path.is_file():
        raise ConfigError(
            f"compute.deepspeed: no file {choice!r}",
            remedy=f"{nearest(choice, PRESETS)}; or the path of a JSON file",
        )
    try:
        told: object = json.loads(path.read_bytes())
    except ValueError as error:
        raise ConfigError(f"compute.deepspeed: not JSON: {error}", where=choice) from error
    if not isinstance(told, dict):
        raise ConfigError("compute.deepspeed: the file holds no object", where=choice)
    settings = cast("dict[str, Any]", told)
    check_names(settings, choice)
    zero_stage(settings, choice)
    return settings


def zero_stage(settings: Mapping[str, Any], where: str) -> int:
    """The stage that settings ask for, 0 to 3; 0 is every rank holding everything."""
    section: object = settings.get("zero_optimization", {})
    stage: object = (
        cast("dict[str, Any]", section).get("stage", 0) if isinstance(section, dict) else None
    )
    if not isinstance(stage, int) or not 0 <= stage <= 3:
        raise ConfigError(
            f"zero_optimization.stage is {stage!r}", where=where, remedy="allowed: 0, 1, 2, 3"
        )
    return int(stage)


def resolve_deepspeed(settings: Mapping[str, Any], facts: Facts, *, where: str) -> DeepSpeed:
    """Fill `auto`, check the rest against our configuration. Raises ConfigError where they contradict."""
    found = DeepSpeed(
        zero_stage(settings, where), {k: v for k, v in settings.items() if not k.startswith("_")}
    )
    found.notices += check_names(settings, where)
    reader = _Reader(found, facts, where)
    reader.batch()
    reader.precision()
    reader.clipping()
    reader.optimizer()
    reader.zero()
    return found


class _Reader:
    """Goes over the sections of one file."""

    def __init__(self, found: DeepSpeed, facts: Facts, where: str) -> None:
        self.found = found
        self.out = found.settings
        self.facts = facts
        self.where = where

    def batch(self) -> None:
        """Rows: ours are per step, over all ranks, and a step is cut by tokens."""
        rows, world = self.facts.train.batch_size, self.facts.world
        whole = _said(self.out.get("train_batch_size"))
        micro = _said(self.out.get("train_micro_batch_size_per_gpu"))
        times = _said(self.out.get("gradient_accumulation_steps"))
        if whole is None and micro is not None and times is not None:
            whole = micro * times * world
        if whole is not None and whole != rows:
            self.contradiction("train_batch_size", whole, "train.batch_size", rows)
        if micro is not None or times is not None:
            self.found.notices.append(
                "compute.deepspeed: train_micro_batch_size_per_gpu and gradient_accumulation_steps have no "
                "effect: a step is cut by compute.micro_batch_tokens"
            )
        # What DeepSpeed is told: one pass, of which we alone know how many Packs it has.
        self.out["train_batch_size"] = world
        self.out["train_micro_batch_size_per_gpu"] = 1
        self.out["gradient_accumulation_steps"] = 1

    def precision(self) -> None:
        """Arithmetic: ours is cast in the forward pass, over float32 weights."""
        half, brain = self.enabled("fp16"), self.enabled("bf16")
        precision = self.facts.precision
        if half is True:
            raise ConfigError(
                "fp16.enabled is true: Hone trains in fp32 or bf16",
                where=self.where,
                remedy="set it to false or auto, and train.precision=bf16",
            )
        if brain is not None and brain != (precision == "bf16"):
            self.contradiction("bf16.enabled", brain, "train.precision", precision)
        types: object = self.out.get("data_types")
        kind = (
            cast("dict[str, Any]", types).get("grad_accum_dtype")
            if isinstance(types, dict)
            else None
        )
        if kind not in (None, "fp32"):
            self.contradiction("data_types.grad_accum_dtype", kind, "gradients", "fp32")
        self.out["fp16"] = {"enabled": False}
        self.out["bf16"] = {"enabled": False}

    def clipping(self) -> None:
        """Always written: DeepSpeed's own default of 1.0 would change the result."""
        said, ours = _said(self.out.get("gradient_clipping")), self.facts.train.max_grad_norm
        if said is not None and float(said) != ours:
            self.contradiction("gradient_clipping", said, "train.max_grad_norm", ours)
        self.out["gradient_clipping"] = float(ours)

    def optimizer(self) -> None:
        """Optimizer and schedule are ours."""
        section: dict[str, Any] = self.out.pop("optimizer", None) or {}
        chosen = self.facts.train.optimizer
        kind = str(_said(section.get("type")) or chosen)
        if kind.lower() not in _OPTIMIZERS.get(chosen, (chosen,)):
            self.contradiction("optimizer.type", kind, "train.optimizer", chosen)
        params: dict[str, Any] = section.get("params") or {}
        ours = {
            "lr": ("train.learning_rate", self.facts.learning_rate),
            "weight_decay": ("train.weight_decay", self.facts.train.weight_decay),
            "betas": ("train.betas", list(self.facts.betas)),
        }
        for key, (name, value) in ours.items():
            said = _said(params.get(key))
            if said is not None and said != value:
                self.contradiction(f"optimizer.params.{key}", said, name, value)
        schedule: dict[str, Any] = self.out.pop("scheduler", None) or {}
        if _said(schedule.get("type")) is not None:
            params = cast("dict[str, Any]", schedule.get("params") or {})
            if any(value != "auto" for value in params.values()):
                self.contradiction(
                    "scheduler", schedule["type"], "train.schedule", self.facts.train.schedule
                )
        if self.out.get("zero_force_ds_cpu_optimizer"):
            self.found.notices.append(
                "compute.deepspeed: zero_force_ds_cpu_optimizer has no effect: the optimizer is Hone's own"
            )
        self.out["zero_force_ds_cpu_optimizer"] = False
        self.out["zero_allow_untested_optimizer"] = True

    def zero(self) -> None:
        """The section of ZeRO itself: `auto` by the model's width, as the transformers Trainer fills it."""
        section: dict[str, Any] = dict(self.out.get("zero_optimization") or {})
        width = self.facts.hidden_size
        filled = {
            "reduce_bucket_size": width * width,
            "stage3_prefetch_bucket_size": int(0.9 * width * width),
            "stage3_param_persistence_threshold": 10 * width,
        }
        for key, value in filled.items():
            if section.get(key) == "auto":
                section[key] = value
        if self.found.stage < 3:
            section.setdefault("allgather_bucket_size", _BUCKET)
            section.setdefault("reduce_bucket_size", _BUCKET)
        for key in ("offload_optimizer", "offload_param"):
            offload = cast("dict[str, Any]", section.get(key) or {})
            device: object = offload.get("device", "none")
            if device not in ("none", "cpu"):
                raise ConfigError(
                    f"zero_optimization.{key}.device is {device!r}",
                    where=self.where,
                    remedy="allowed: none, cpu",
                )
        left = sorted(key for key, value in section.items() if value == "auto")
        left += sorted(key for key, value in self.out.items() if value == "auto")
        if left:
            raise ConfigError(
                f"{left[0]} is 'auto', and nothing here says what it should be",
                where=self.where,
                remedy="write a number, or remove it",
            )
        self.out["zero_optimization"] = section
        self.out.setdefault("steps_per_print", 10**9)

    def enabled(self, key: str) -> bool | None:
        """Whether a section is switched on; None where that is left to us."""
        section: object = self.out.get(key)
        said = cast("dict[str, Any]", section).get("enabled") if isinstance(section, dict) else None
        return None if said in (None, "auto") else bool(said)

    def contradiction(self, key: str, said: object, name: str, ours: object) -> None:
        """Raise ConfigError: the two say different things."""
        raise ConfigError(
            f"{key} is {said!r} in the DeepSpeed file, and {name} is {ours!r}",
            where=self.where,
            remedy=f'make them equal, or write {key}: "auto" in the file',
        )


def _said(value: Any) -> Any:
    """A value that was meant; None for an absent one and for `auto`."""
    return None if value == "auto" else value
