"""ServerlessBackend: trainable models on a training service elsewhere. Its service is not there yet, and it says so."""

from __future__ import annotations

from collections.abc import Iterable
from typing import NoReturn

from hone.errors import EnvironmentFault
from hone.trainable.backend import Endpoint, SFTResult
from hone.trainable.model import TrainableModel
from hone.trainable.settings import TrainSFTConfig
from hone.trainable.trajectory import Trajectory


class ServerlessBackend:
    """The face of a backend that trains on a service. `register` refuses: this version has no service to speak to."""

    def __init__(self, *, api_key: str | None = None, base_url: str | None = None) -> None:
        """`api_key` and `base_url` name the service; a key is best left to the environment."""
        self._has_key = api_key is not None
        self._base_url = base_url

    async def register(self, model: TrainableModel) -> None:
        """Raises EnvironmentFault."""
        self._refuse(model)

    async def train_sft(
        self,
        model: TrainableModel,
        trajectories: Iterable[Trajectory],
        config: TrainSFTConfig,
        *,
        verbose: bool,
        log_metrics: bool,
    ) -> SFTResult:
        """Raises EnvironmentFault."""
        del trajectories, config, verbose, log_metrics
        self._refuse(model)

    async def get_step(self, model: TrainableModel) -> int:
        """Raises EnvironmentFault."""
        self._refuse(model)

    def inference_name(self, model: TrainableModel, step: int | None) -> str:
        """Raises EnvironmentFault."""
        del step
        self._refuse(model)

    def endpoint(self, model: TrainableModel) -> Endpoint:
        """Raises EnvironmentFault."""
        self._refuse(model)

    async def delete_checkpoints(self, model: TrainableModel, keep: frozenset[int]) -> None:
        """Raises EnvironmentFault."""
        del keep
        self._refuse(model)

    async def close(self) -> None:
        """Nothing runs, so nothing ends."""

    def _refuse(self, model: TrainableModel) -> NoReturn:
        raise EnvironmentFault(
            f"{model.project}/{model.name}: ServerlessBackend has no service to train on in this version of Hone",
            where=self._base_url,
            remedy="take LocalBackend: from hone import LocalBackend",
        )
