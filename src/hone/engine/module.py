"""What the loop needs of the thing it trains. It knows no model."""

from __future__ import annotations

from collections.abc import Iterator
from typing import Protocol

from torch import Tensor, nn

from hone.pack import Pack


class LossModule(Protocol):
    """`hone.engine.loss.PackLoss` is one; any torch module with this call will do."""

    def __call__(self, pack: Pack, scale: float, /) -> Tensor:
        """`scale * sum(weight * nll)` over the Pack's entries, a scalar with its graph."""
        ...

    @property
    def row_terms(self) -> Tensor | None:
        """[R] what each of the Pack's rows added to the last call's result, by `Pack.row`, on the device and without
        a graph; None where that is not told, and then losses are not known by source and by row."""
        ...

    def begin_step(self, step: int, seed: int, /) -> None:
        """Name the noise of the 0-based step, before its first forward."""
        ...

    def train(self, mode: bool = ...) -> object:
        """Noise on or off."""
        ...

    def named_parameters(self) -> Iterator[tuple[str, nn.Parameter]]:
        """All parameters, each once; those that require a gradient are trained."""
        ...
