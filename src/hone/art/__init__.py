"""ART's face over Hone's trainable models: a script written for ART runs when `import art` becomes `from hone import art`.

Its other imports change alike: `art.local` becomes `hone.art.local`, and so `serverless.backend`, `utils.sft` and
`dev`. What is here are Hone's own classes. What belongs to reinforcement learning is not here, and is refused by name.
"""

from __future__ import annotations

from typing import NoReturn

from hone.art import dev
from hone.art.serverless.backend import ServerlessBackend
from hone.trainable.backend import Backend
from hone.trainable.backend import SFTResult as LocalTrainResult
from hone.trainable.model import TrainableModel
from hone.trainable.settings import LoRAConfig, TrainSFTConfig
from hone.trainable.trajectory import Trajectory

__all__ = [
    "Backend",
    "LoRAConfig",
    "LocalTrainResult",
    "ServerlessBackend",
    "TrainSFTConfig",
    "TrainableModel",
    "Trajectory",
    "dev",
]

_REINFORCEMENT = frozenset(
    {
        "Model",
        "ServerlessTrainResult",
        "TrainConfig",
        "TrainResult",
        "TrajectoryGroup",
        "gather_trajectories",
        "gather_trajectory_groups",
        "retry",
    }
)


def __getattr__(name: str) -> NoReturn:
    if name in _REINFORCEMENT:
        raise AttributeError(
            f"hone.art has no {name}: it is for reinforcement learning, and Hone trains on examples"
        )
    raise AttributeError(f"module 'hone.art' has no attribute {name!r}")
