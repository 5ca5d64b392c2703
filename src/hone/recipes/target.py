"""On what a run is planned: this machine, or cards by name, and how its ranks share the model. No torch."""

from __future__ import annotations

from dataclasses import dataclass, replace
from typing import Any, Final, Literal, cast

from hone.config.deepspeed import read_deepspeed
from hone.config.sections import Config
from hone.engine import machine, nvidia
from hone.engine.cards import Card, card_called, read_cards
from hone.engine.demand import Subject
from hone.errors import ConfigError
from hone.recipes.holding import asked_strategy, strategy_for


@dataclass(frozen=True)
class Sharing:
    """What of the model each of several devices holds a share of."""

    weights: bool
    gradients: bool
    optimizer: bool


SHARDINGS: Final = {
    "ddp": Sharing(weights=False, gradients=False, optimizer=False),
    "zero1": Sharing(weights=False, gradients=False, optimizer=True),
    "zero2": Sharing(weights=False, gradients=True, optimizer=True),
    "zero3": Sharing(weights=True, gradients=True, optimizer=True),
    "fsdp": Sharing(weights=True, gradients=True, optimizer=True),
}
"""ZeRO's stages (Rajbhandari et al., 2020); FSDP shards as stage 3 does."""


@dataclass(frozen=True)
class Target:
    """Where a step would be computed."""

    kind: Literal["cpu", "cuda"]
    name: str
    count: int
    """Ranks in all, each on a device of its own or a part of the processor."""
    free_bytes: int
    """Of one rank."""
    card: Card | None
    is_here: bool
    sharding: str | None
    """A key of `SHARDINGS`; None where one rank holds everything, or where the model's size decides."""
    local: int = 1
    """Ranks on one machine."""
    optimizer_outside: bool = False
    """Whether the optimizer's share lies in the host's memory, not on the card."""
    weights_outside: bool = False
    """And that of the weights."""

    @property
    def sharing(self) -> Sharing:
        """What each rank holds a share of."""
        return SHARDINGS[self.sharding or "ddp"]

    def share(self, num_bytes: float, *, divided: bool) -> float:
        """What one rank holds of so many bytes."""
        return num_bytes / self.count if divided else num_bytes

    def __str__(self) -> str:
        shared = f" ({self.sharding})" if self.sharding else ""
        if self.count == 1:
            return f"{self.name}{shared}"
        if self.card is None:
            here = "" if self.local == self.count else f"{self.local} each, "
            return f"{self.count} ranks on {here}{self.name}{shared}"
        return f"{self.count} x {self.name}{shared}"


def find_target(config: Config, *, gpu: str | None = None, started: int = 1) -> Target:
    """The cards that `gpu` names, such as `h100:8`; else what this machine would train on. With ranks as
    `compute.nproc`, `compute.nnodes` and the strategy say.

    `started` ranks of this machine hold the memory already that this process holds. Raises ConfigError.
    """
    found = _cards_named(config, gpu) or _cards_here(config) or _processor_here(config, started)
    return asked(found, config)


def asked(target: Target, config: Config) -> Target:
    """The same devices, with the strategy that is set or follows from the number of ranks."""
    name = asked_strategy(config.compute, target.count)
    optimizer, weights = _outside(config)
    on_card = target.kind == "cuda"
    return replace(
        target,
        sharding=None if name == "alone" else name,
        optimizer_outside=optimizer and on_card,
        weights_outside=weights and on_card,
    )


def settled(target: Target, who: Subject, *, base_bytes: int) -> Target:
    """With the strategy that the model's size decides, where none is set: `ddp` where a rank has room for all of
    it, else `fsdp`."""
    if target.count == 1 or target.sharding is not None:
        return target
    needed = who.weight_bytes + who.adapter_bytes + who.gradient_bytes + who.state_bytes
    room = target.free_bytes - (base_bytes if target.kind == "cpu" else 0)
    return replace(target, sharding=strategy_for(needed, room))


def _outside(config: Config) -> tuple[bool, bool]:
    """Whether DeepSpeed keeps the optimizer's share, and that of the weights, in the host's memory."""
    if not config.compute.deepspeed:
        return False, False
    zero = read_deepspeed(config.compute.deepspeed).get("zero_optimization", {})

    def lies_outside(key: str) -> bool:
        section: object = zero.get(key)
        if not isinstance(section, dict):
            return False
        return cast("dict[str, Any]", section).get("device", "none") != "none"

    return lies_outside("offload_optimizer"), lies_outside("offload_param")


def _cards_named(config: Config, gpu: str | None) -> Target | None:
    if gpu is None:
        return None
    card, local = read_cards(gpu)
    ranks = config.compute.nproc
    if ranks != "auto":
        if ":" in gpu and ranks != local:
            raise ConfigError(
                f"--gpu {gpu} is {local} ranks on a machine, and compute.nproc is {ranks}",
                remedy="leave one of the two numbers out",
            )
        local = ranks
    count = local * config.compute.nnodes
    return Target("cuda", card.name, count, card.memory_bytes, card, False, None, local)


def _processor_here(config: Config, started: int) -> Target:
    name = f"this machine's CPU ({machine.allowed_cores()} cores)"
    ranks = config.compute.nproc
    local = 1 if ranks == "auto" else ranks
    held = started * machine.resident_bytes(own=True)  # these processes are in the plan
    free = (machine.available_bytes() + held) // local
    return Target("cpu", name, local * config.compute.nnodes, free, None, True, None, local)


def _cards_here(config: Config) -> Target | None:
    """The cards of this machine, where training would take them."""
    if config.compute.device == "cpu":
        return None
    cards = nvidia.ask().cards
    ranks = config.compute.nproc
    local = len(cards) if ranks == "auto" else ranks
    if not cards or local > len(cards):
        return None
    first = cards[0]
    known = card_called(first.name) or Card(first.name, first.name, first.total_mib, None, 0.0, "")
    free = min(card.free_mib for card in cards[:local]) * 2**20
    count = local * config.compute.nnodes
    return Target("cuda", first.name, count, free, known, True, None, local)
