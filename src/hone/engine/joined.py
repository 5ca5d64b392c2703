"""Several optimizers that share a model's weights among them, as one. It knows no rule of theirs."""

from __future__ import annotations

from collections.abc import Callable
from typing import Any, cast

import torch


class Joined(torch.optim.Optimizer):
    """Steps each part in turn. Groups and state are the parts' own: what is set here, they see."""

    def __init__(self, *parts: torch.optim.Optimizer) -> None:
        super().__init__([group for part in parts for group in part.param_groups], {})
        self.parts = parts
        for part in parts:
            self.state.update(part.state)
        for part in parts:
            part.state = self.state

    def load_state_dict(self, state_dict: dict[str, Any]) -> None:
        """Not possible: the parts hold the very tensors, which are filled in place instead."""
        raise NotImplementedError("fill the tensors of a joined optimizer in place")

    @torch.no_grad()
    def step(self, closure: Callable[[], float] | None = None) -> None:  # type: ignore[override]
        """One step of every part. There is no closure to call again."""
        if closure is not None:
            raise ValueError("joined optimizers take no closure")
        for part in self.parts:
            cast("Any", part).step()
