"""How the ranks of a run hold its model: what the configuration asks for, turned into a strategy of the engine."""

from __future__ import annotations

from typing import Literal

from hone.config.sections import ComputeSection
from hone.engine.loss import PackLoss
from hone.engine.ranks import Ranks
from hone.engine.room import available_bytes
from hone.engine.strategy import Replicated, Strategy

StrategyName = Literal["alone", "ddp", "fsdp"]

_FULL_SHARE = (
    0.8  # of free memory that weights, gradients and optimizer may take; the rest is for Packs
)
_UPDATE_BYTES = 12  # of gradient and two moments, for each trained number


def asked_strategy(compute: ComputeSection, world: int) -> StrategyName | None:
    """The strategy that is set or follows from the number of ranks; None where the model's size decides."""
    if compute.strategy == "fsdp":
        return "fsdp"
    if world == 1:
        return "alone"
    return None if compute.strategy == "auto" else "ddp"


def fitting_strategy(loss: PackLoss, ranks: Ranks) -> tuple[StrategyName, str]:
    """`ddp` where every rank has room for the whole of it, else `fsdp`; and why, in words."""
    held = sum(p.numel() * p.element_size() for p in loss.parameters())
    moved = sum(p.numel() for p in loss.parameters() if p.requires_grad)
    needed = held + _UPDATE_BYTES * moved
    # Where ranks compute in the machine's own memory, each holds its weights there already.
    free = available_bytes(ranks.device, sharers=ranks.local_world)
    room = free + (held if ranks.device.type == "cpu" else 0)
    sizes = f"{needed / 2**30:.1f} GiB of weights, gradients and optimizer, {room / 2**30:.1f} GiB of memory a rank"
    return ("ddp" if needed <= _FULL_SHARE * room else "fsdp"), sizes


def is_sharded(name: StrategyName) -> bool:
    """Whether ranks wait for each other inside every pass."""
    return name == "fsdp"


def make_strategy(name: StrategyName, loss: PackLoss, ranks: Ranks) -> Strategy:
    """Lay the model over the ranks. It is changed in place where it is cut into slices."""
    if name == "fsdp":
        from hone.engine.sharded import Sharded

        return Sharded(loss, ranks)
    return Replicated(loss, ranks)
