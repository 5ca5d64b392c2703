"""How the ranks of a run hold its model, by name: what the configuration asks for, and what goes with it. No torch."""

from __future__ import annotations

import importlib.util
from typing import Final, Literal

from hone.config.deepspeed import read_deepspeed, zero_stage
from hone.config.sections import ComputeSection, Config
from hone.engine.moments import ELEMENTWISE
from hone.errors import ConfigError, EnvironmentFault

StrategyName = Literal["alone", "ddp", "fsdp", "zero1", "zero2", "zero3"]

_FULL_SHARE: Final = (
    0.8  # of free memory that weights, gradients and optimizer may take; the rest is for Packs
)
_ZERO: Final[dict[int, StrategyName]] = {1: "zero1", 2: "zero2", 3: "zero3"}


def asked_strategy(compute: ComputeSection, world: int) -> StrategyName | None:
    """The strategy that is set or follows from the number of ranks; None where the model's size decides."""
    if compute.strategy == "fsdp":
        return "fsdp"
    if compute.deepspeed:
        stage = zero_stage(read_deepspeed(compute.deepspeed), compute.deepspeed)
        if stage:
            return _ZERO[stage]
    if world == 1:
        return "alone"
    return None if compute.strategy == "auto" and not compute.deepspeed else "ddp"


def strategy_for(needed_bytes: float, room_bytes: float) -> StrategyName:
    """`ddp` where weights, gradients and optimizer leave a rank enough of its memory for Packs, else `fsdp`."""
    return "ddp" if needed_bytes <= _FULL_SHARE * room_bytes else "fsdp"


def is_sharded(name: str | None) -> bool:
    """Whether ranks hold parts of the model, and wait for each other inside every pass."""
    return name not in (None, "alone", "ddp")


def is_zero(name: StrategyName) -> bool:
    """Whether DeepSpeed holds the weights."""
    return name.startswith("zero")


def has_deepspeed() -> bool:
    """Whether its package is installed here."""
    return importlib.util.find_spec("deepspeed") is not None


def refuse_in_parts(config: Config, name: str | None) -> None:
    """Raise ConfigError for settings that need whole weights on a rank, where `name` leaves it none; EnvironmentFault
    where its package is not installed."""
    if is_sharded(name) and name != "fsdp" and not has_deepspeed():
        raise EnvironmentFault(
            "compute.deepspeed needs the package deepspeed, which is not installed",
            remedy="pip install 'hone[distributed]', or take compute.strategy=fsdp instead",
        )
    refuse_settings_in_parts(config, name)


def refuse_settings_in_parts(config: Config, name: str | None) -> None:
    """Raise ConfigError for settings that need whole weights on a rank, where `name` leaves it none."""
    if not is_sharded(name):
        return
    if config.train.optimizer not in ELEMENTWISE:
        raise ConfigError(
            f"train.optimizer={config.train.optimizer} looks at whole weights, and under {name} a rank holds "
            "parts of them",
            remedy=f"set train.optimizer to {' or '.join(sorted(ELEMENTWISE))}, or compute.strategy=ddp",
        )
    if name == "zero3" and config.tuning.method == "qlora":
        raise ConfigError(
            "tuning.method=qlora: ZeRO stage 3 cuts weights of floating-point numbers only",
            remedy="set compute.strategy=fsdp, which cuts quantised ones, or compute.deepspeed=zero2",
        )
    if config.train.sample_steps is not None:
        raise ConfigError(
            f"train.sample_steps needs a rank that holds the whole model, and under {name} none does",
            remedy="leave train.sample_steps out, or set compute.strategy=ddp",
        )
