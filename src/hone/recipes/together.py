"""How the ranks of a run hold its model: what the configuration asks for, turned into a strategy of the engine."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from hone.config.deepspeed import Facts, read_deepspeed, resolve_deepspeed
from hone.config.sections import Config
from hone.engine.loss import PackLoss
from hone.engine.moments import OptimizerName
from hone.engine.optimizer import places_of, trained_parameters, update_bytes
from hone.engine.ranks import Ranks
from hone.engine.rehearsal import Measured, measure_footprint
from hone.engine.room import available_bytes
from hone.engine.strategy import Replicated, Strategy
from hone.recipes.holding import (
    StrategyName,
    asked_strategy,
    is_sharded,
    is_zero,
    refuse_in_parts,
    strategy_for,
)
from hone.runs.events import Say


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
    return strategy_for(needed, room), sizes


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
