"""What a backend does for a trainable model: the protocol between the two. It knows no backend."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

from hone.trainable.settings import TrainSFTConfig
from hone.trainable.trajectory import Trajectory

if TYPE_CHECKING:
    from hone.trainable.model import TrainableModel


@dataclass(frozen=True)
class SFTResult:
    """What a call of `train_sft` came to."""

    step: int
    """The training step now: the newest checkpoint's number."""
    gradient_steps: int
    """Gradient steps of this call; 0 where nothing was to train, and then no checkpoint was written."""
    loss: float | None
    """Loss of the last one."""
    checkpoint: Path | None
    """The folder that was written, on backends that keep it on this machine."""


@dataclass(frozen=True)
class Endpoint:
    """Where a model answers: an OpenAI-compatible address that ends with `/v1/`, and the key that it wants."""

    base_url: str
    api_key: str


class Backend(Protocol):
    """Where a trainable model is trained and served. All of it may be called from any thread or event loop."""

    async def register(self, model: TrainableModel) -> None:
        """Make the model known; a new one gets its checkpoint of step 0, an old one goes on."""
        ...

    async def train_sft(
        self,
        model: TrainableModel,
        trajectories: Iterable[Trajectory],
        config: TrainSFTConfig,
        *,
        verbose: bool,
        log_metrics: bool,
    ) -> SFTResult:
        """Train on all of them; what was trained is kept when it returns. Raises HoneError."""
        ...

    async def get_step(self, model: TrainableModel) -> int:
        """The newest checkpoint's number."""
        ...

    def inference_name(self, model: TrainableModel, step: int | None) -> str:
        """What the endpoint calls the model at a step; None is the newest."""
        ...

    def endpoint(self, model: TrainableModel) -> Endpoint:
        """Where the model answers; what serves it is started where it does not run yet."""
        ...

    async def delete_checkpoints(self, model: TrainableModel, keep: frozenset[int]) -> None:
        """Let go of all checkpoints but these and the newest."""
        ...

    async def close(self) -> None:
        """End all that was started: no process, port or lock is left."""
        ...
