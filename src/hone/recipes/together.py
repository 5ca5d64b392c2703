"""How the ranks of a run hold its model: what the configuration asks for, turned into a strategy of the engine."""

from __future__ import annotations

import importlib.util
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Literal

from hone.config.deepspeed import Facts, read_deepspeed, resolve_deepspeed, zero_stage
from hone.config.sections import ComputeSection, Config
from hone.engine.loss import PackLoss
from hone.engine.moments import ELEMENTWISE, OptimizerName
from hone.engine.optimizer import places_of, trained_parameters, update_bytes
from hone.engine.ranks import Ranks
from hone.engine.rehearsal import Measured, measure_footprint
from hone.engine.room import available_bytes
from hone.engine.strategy import Replicated, Strategy
from hone.errors import ConfigError, EnvironmentFault
from hone.runs.events import Say

StrategyName = Literal["alone", "ddp", "fsdp", "zero1", "zero2", "zero3"]

_FULL_SHARE = (
    0.8  # of free memory that weights, gradients and optimizer may take; the rest is for Packs
)
_ZERO: dict[int, StrategyName] = {1: "zero1", 2: "zero2", 3: "zero3"}


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


def fitting_strategy(
    loss: PackLoss, ranks: Ranks, optimizer: OptimizerName
) -> tuple[StrategyName, str]:
    """`ddp` where every rank has room for the whole of it, else `fsdp`; and why, in words."""
    held = sum(p.numel() * p.element_size() for p in loss.parameters())
    trained = trained_parameters(loss)
    needed = held + update_bytes(optimizer, trained, places_of(loss, trained))
    # Where ranks compute in the machine's own memory, each holds its weights there already.
    free = available_bytes(ranks.device, sharers=ranks.local_world)
    room = free + (held if ranks.device.type == "cpu" else 0)
    sizes = f"{needed / 2**30:.1f} GiB of weights, gradients and optimizer, {room / 2**30:.1f} GiB of memory a rank"
    return ("ddp" if needed <= _FULL_SHARE * room else "fsdp"), sizes


def is_sharded(name: StrategyName | None) -> bool:
    """Whether ranks hold parts of the model, and wait for each other inside every pass."""
    return name not in (None, "alone", "ddp")


def refuse_in_parts(config: Config, name: StrategyName | None) -> None:
    """Raise ConfigError for settings that need whole weights on a rank, where `name` leaves it none; EnvironmentFault
    where its package is not installed."""
    if not is_sharded(name):
        return
    if name != "fsdp" and importlib.util.find_spec("deepspeed") is None:
        raise EnvironmentFault(
            "compute.deepspeed needs the package deepspeed, which is not installed",
            remedy="pip install 'hone[distributed]', or take compute.strategy=fsdp instead",
        )
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


@dataclass(frozen=True)
class Together:
    """A model, laid over the ranks."""

    name: StrategyName
    strategy: Strategy
    trained_parameters: int
    """Numbers that the optimizers of all ranks move."""
    measured: Measured | None
    """What a token keeps, measured before weights were cut; None where the rehearsal can."""

    def to_allocate(self, optimizer: OptimizerName) -> int:
        """Bytes of gradients and moments that this rank has still to allocate."""
        if is_zero(self.name):
            return 0  # DeepSpeed allocates before the rehearsal
        return update_bytes(optimizer, self.strategy.trained, self.strategy.places)


def choose_strategy(
    config: Config, loss: PackLoss, ranks: Ranks, *, held: Sequence[Any] | None, say: Say
) -> StrategyName:
    """As set, as before, or by the model's size; the same on every rank. `held` is [ranks, strategy] of the run so far.

    Raises ConfigError for settings that need whole weights, where no rank will have them.
    """
    name = asked_strategy(config.compute, ranks.world)
    if name is None and held and held[0] == ranks.world and held[1] in ("ddp", "fsdp"):
        name = held[1]
    if name is None:
        fitting, sizes = fitting_strategy(loss, ranks, config.train.optimizer)
        name = "fsdp" if ranks.any(fitting == "fsdp") else fitting
        say("notice", code="strategy", message=f"compute.strategy: {name} ({sizes})")
    refuse_in_parts(config, name)
    return name


def lay_over(
    name: StrategyName,
    config: Config,
    loss: PackLoss,
    ranks: Ranks,
    *,
    precision: str,
    longest: int | None,
    layers: int | None,
    say: Say,
) -> Together:
    """Lay a model over the ranks; it is changed in place where it is cut.

    `longest`, where a rehearsal will follow, are the tokens of the longest row, and `layers` those to recompute.
    Raises ConfigError where a DeepSpeed file contradicts the configuration.
    """
    trained = sum(p.numel() for p in loss.parameters() if p.requires_grad)
    measured = None
    if is_sharded(name) and longest is not None and ranks.device.type == "cpu":
        free = float(available_bytes(ranks.device, sharers=ranks.local_world))
        measured = measure_footprint(loss, longest, room_bytes=free, layers=layers)
    zero: dict[str, Any] = {}
    if config.compute.deepspeed:
        zero = _zero_settings(config, loss, ranks, precision=precision, say=say)
    return Together(name, _make(name, loss, ranks, zero), trained, measured)


def is_zero(name: StrategyName) -> bool:
    """Whether DeepSpeed holds the weights."""
    return name.startswith("zero")


def _make(name: StrategyName, loss: PackLoss, ranks: Ranks, zero: Mapping[str, Any]) -> Strategy:
    if name == "fsdp":
        from hone.engine.sharded import Sharded

        return Sharded(loss, ranks)
    if is_zero(name):
        from hone.engine.zero import Zero

        return Zero(loss, ranks, zero)
    return Replicated(loss, ranks)


def _zero_settings(
    config: Config, loss: PackLoss, ranks: Ranks, *, precision: str, say: Say
) -> dict[str, Any]:
    choice = str(config.compute.deepspeed)
    facts = Facts(
        train=config.train,
        precision=precision,
        learning_rate=config.learning_rate,
        betas=config.betas,
        world=ranks.world,
        hidden_size=int(getattr(loss.model.config.get_text_config(), "hidden_size", 4096)),
    )
    found = resolve_deepspeed(read_deepspeed(choice), facts, where=choice)
    for message in found.notices:
        say("notice", code="deepspeed", message=message)
    if not found.stage:
        message = (
            "compute.deepspeed: stage 0 is every rank holding everything: Hone does that itself"
        )
        say("notice", code="deepspeed", message=message)
    return found.settings
