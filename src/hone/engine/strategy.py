"""How ranks hold the weights of one model and make one gradient of a step. It knows no rows and no run folder.

`Replicated` is here: every rank holds everything (one rank alone, or DDP). `hone.engine.sharded` (FSDP2) keeps to
the same protocol.
"""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import replace
from pathlib import Path
from typing import Any, Protocol, cast

import torch
from torch import Tensor, nn

from hone.engine.cost import Speeds
from hone.engine.deal import deal
from hone.engine.module import LossModule
from hone.engine.moments import Place
from hone.engine.optimizer import (
    clip_gradients,
    gradient_norm,
    places_of,
    trained_parameters,
)
from hone.engine.progress import Progress
from hone.engine.ranks import Ranks
from hone.engine.shards import is_in_parts, read_parts, read_weight_parts
from hone.engine.state import (
    optimizer_tensors,
    read_random_state,
    read_state,
    read_weights,
    state_bytes,
    write_random_state,
    write_state,
)
from hone.pack import Pack, Step


class Strategy(Protocol):
    """What the loop needs of it. All ranks call the same methods in the same order."""

    @property
    def ranks(self) -> Ranks:
        """Who shares the step."""
        ...

    @property
    def redoes(self) -> bool:
        """Whether a step in which memory ran out can be redone: nobody waits inside a pass."""
        ...

    @property
    def trained(self) -> Mapping[str, nn.Parameter]:
        """What this rank's optimizer moves, by name, in master precision."""
        ...

    @property
    def places(self) -> Mapping[str, Place]:
        """Where in the model each of these stands."""
        ...

    @property
    def optimizer(self) -> torch.optim.Optimizer | None:
        """What was adopted, if anything yet."""
        ...

    @property
    def loss_scale(self) -> float:
        """How many times the scale that `backward` gets the module is called with."""
        ...

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer of `trained`, before the first step."""
        ...

    def passes(self, hands: Sequence[Sequence[Pack]]) -> Sequence[Pack]:
        """The Packs that this rank runs, of those that were dealt to each rank."""
        ...

    def forward(self, pack: Pack, scale: float) -> Tensor:
        """A Pack's term of the loss, where no gradient is wanted."""
        ...

    def backward(self, pack: Pack, scale: float, *, last: bool) -> Tensor:
        """Add the gradient of a Pack's term, the `last` of the step or not; returns the term, detached."""
        ...

    def reduce(self) -> None:
        """Make the step's gradient out of every rank's part."""
        ...

    def norm(self) -> Tensor | None:
        """The global 2-norm of the step's gradient; None where only the update learns it."""
        ...

    def update(self, norm: Tensor | None, norm_value: float, max_norm: float) -> float:
        """Clip where the norm is above `max_norm` (0: never) and let the optimizer move; returns the norm.

        Where the norm was not known before and is not finite, nothing moves.
        """
        ...

    def discard(self) -> None:
        """Forget the gradients."""
        ...

    def state_bytes(self) -> int:
        """About how many bytes a checkpoint takes, all ranks together."""
        ...

    def write(self, folder: Path, progress: Progress) -> None:
        """Write this rank's part of the training state into `folder`."""
        ...

    def read(self, folder: Path) -> Progress:
        """Fill weights, moments and random state from a checkpoint of any number of ranks."""
        ...

    def read_weights(self, folder: Path) -> None:
        """Fill only the weights."""
        ...

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """Whole tensors of the model, one after the other, in the first rank's memory; empty elsewhere."""
        ...


class Replicated:
    """Every rank holds all weights. Gradients stay local until all ranks have theirs, then are added up once."""

    redoes = True

    def __init__(self, module: LossModule, ranks: Ranks | None = None) -> None:
        self._module = module
        self.ranks = ranks if ranks is not None else Ranks()
        self.loss_scale = 1.0
        self.trained = trained_parameters(module)
        self.places = places_of(module, self.trained)
        self._parameters = list(self.trained.values())
        self.optimizer: torch.optim.Optimizer | None = None
        self.ranks.share_(parameter.data for parameter in self._parameters)

    def adopt(self, optimizer: torch.optim.Optimizer) -> None:
        """Take the optimizer."""
        self.optimizer = optimizer

    def passes(self, hands: Sequence[Sequence[Pack]]) -> Sequence[Pack]:
        """What was dealt to this rank, be it nothing."""
        return hands[self.ranks.rank]

    def forward(self, pack: Pack, scale: float) -> Tensor:
        """As the module gives it."""
        return self._module(pack, scale)

    def backward(self, pack: Pack, scale: float, *, last: bool) -> Tensor:
        """Add up locally."""
        del last
        term = self._module(pack, scale)
        cast("Any", term).backward()
        return term.detach()

    def reduce(self) -> None:
        """One sum over all ranks, of the parameters that any rank has reached."""
        if self.ranks.is_alone:
            return
        reached = [float(parameter.grad is not None) for parameter in self._parameters]
        wanted = self.ranks.sums(reached)
        held = [p for p, count in zip(self._parameters, wanted, strict=True) if count > 0]
        for parameter in held:
            if parameter.grad is None:
                parameter.grad = torch.zeros_like(parameter)
        self.ranks.sum_all_([cast(Tensor, p.grad) for p in held], "the step's gradient")

    def norm(self) -> Tensor:
        """The same bits on every rank: the gradients are."""
        return gradient_norm(self._parameters)

    def update(self, norm: Tensor | None, norm_value: float, max_norm: float) -> float:
        """The same update on every rank."""
        if norm is not None and 0 < max_norm < norm_value:
            clip_gradients(self._parameters, norm, max_norm)
        cast("Any", self.optimizer).step()
        self.discard()
        return norm_value

    def discard(self) -> None:
        """Forget the gradients."""
        for parameter in self._parameters:
            parameter.grad = None

    def state_bytes(self) -> int:
        """The first rank writes everything."""
        return state_bytes(self.trained, cast(torch.optim.Optimizer, self.optimizer))

    def write(self, folder: Path, progress: Progress) -> None:
        """The first rank writes all but the others' random numbers: they hold the same."""
        if self.ranks.is_first:
            optimizer = cast(torch.optim.Optimizer, self.optimizer)
            write_state(folder, trained=self.trained, optimizer=optimizer, progress=progress)
        else:
            write_random_state(folder, rank=self.ranks.rank, world=self.ranks.world)

    def read(self, folder: Path) -> Progress:
        """Every rank reads everything."""
        optimizer = cast(torch.optim.Optimizer, self.optimizer)
        if is_in_parts(folder):
            kept = optimizer_tensors(self.trained, optimizer)
            return read_parts(folder, weights=self._weights, kept=kept, shards={}, ranks=self.ranks)
        progress = read_state(folder, trained=self.trained, optimizer=optimizer)
        read_random_state(folder, rank=self.ranks.rank, world=self.ranks.world)
        return progress

    def read_weights(self, folder: Path) -> None:
        """Every rank reads all weights."""
        if is_in_parts(folder):
            read_weight_parts(folder, weights=self._weights, shards={})
        else:
            read_weights(folder, trained=self.trained)

    def gather(self, tensors: Mapping[str, Tensor]) -> dict[str, Tensor]:
        """They lie there already."""
        return dict(tensors) if self.ranks.is_first else {}

    @property
    def _weights(self) -> dict[str, Tensor]:
        return {name: p.detach() for name, p in self.trained.items()}


def own_packs(
    module: LossModule, strategy: Strategy, speeds: Speeds
) -> Callable[[Step], object] | None:
    """What a module is told of a step that was laid out ahead: this rank's own Packs. None where it asks for nothing."""
    prepare: Callable[[Step], object] | None = getattr(module, "prepare", None)
    if prepare is None or strategy.ranks.is_alone:
        return prepare

    def ready(step: Step) -> None:
        mine = deal(step.packs, strategy.ranks.world, speeds)[strategy.ranks.rank]
        prepare(replace(step, packs=mine))

    return ready


def same_number(hands: Sequence[Sequence[Pack]], rank: int, empty: Pack) -> list[Pack]:
    """A rank's Packs, filled up with empty ones to as many as the rank with the most has."""
    most = max(len(hand) for hand in hands)
    mine = list(hands[rank])
    return mine + [empty] * (most - len(mine))
