"""On what a run is planned: this machine, or cards by name, and how several share the model. No torch."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Final, Literal

from hone.config.sections import Config
from hone.engine import machine, nvidia
from hone.engine.cards import Card, card_called, read_cards
from hone.errors import ConfigError, nearest
from hone.recipes.identity import flat


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
    free_bytes: int
    """Of one device."""
    card: Card | None
    is_here: bool
    sharding: str | None
    """A key of `SHARDINGS`; None where one device holds everything."""

    @property
    def sharing(self) -> Sharing:
        """What each device holds a share of."""
        return SHARDINGS[self.sharding or "ddp"]

    def share(self, num_bytes: float, *, divided: bool) -> float:
        """What one device holds of so many bytes."""
        return num_bytes / self.count if divided else num_bytes

    def __str__(self) -> str:
        if self.card is None:
            return self.name
        shared = f" ({self.sharding})" if self.sharding else ""
        return f"{self.count} x {self.name}{shared}" if self.count > 1 else self.name


def find_target(config: Config, *, gpu: str | None, sharding: str | None) -> Target:
    """The cards that `gpu` names, such as `h100:8`; else what this machine would train on. Raises ConfigError."""
    if sharding is not None and sharding not in SHARDINGS:
        raise ConfigError(
            f"no sharding is called {sharding!r}", remedy=nearest(sharding, SHARDINGS)
        )
    if gpu is not None:
        card, count = read_cards(gpu)
        shared = sharding or ("ddp" if count > 1 else None)
        return Target("cuda", card.name, count, card.memory_bytes, card, False, shared)
    if sharding is not None:
        raise ConfigError(
            "--sharding needs the cards that it is for", remedy="add --gpu, e.g. --gpu h100:8"
        )
    return _cards_here(config) or _processor_here()


def _processor_here() -> Target:
    name = f"this machine's CPU ({machine.allowed_cores()} cores)"
    free = machine.available_bytes() + machine.resident_bytes(
        own=True
    )  # this process is in the plan
    return Target("cpu", name, 1, free, None, True, None)


def _cards_here(config: Config) -> Target | None:
    """The cards of this machine, where training would take them."""
    if flat(config.model_dump(mode="json")).get("compute.device", "cpu") == "cpu":
        return None
    cards = nvidia.ask().cards
    if not cards:
        return None
    first = cards[0]
    known = card_called(first.name) or Card(first.name, first.name, first.total_mib, None, 0.0, "")
    free = min(card.free_mib for card in cards) * 2**20
    shared = "ddp" if len(cards) > 1 else None
    return Target("cuda", first.name, len(cards), free, known, True, shared)
