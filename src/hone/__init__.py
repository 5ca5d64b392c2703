"""Hone teaches a language model by example; this is its public face, loaded when touched."""

from __future__ import annotations

import importlib
from typing import TYPE_CHECKING, Any

if TYPE_CHECKING:
    from hone import art as art
    from hone.backends.local import LocalBackend as LocalBackend
    from hone.backends.serverless import ServerlessBackend as ServerlessBackend
    from hone.trainable.backend import Backend as Backend
    from hone.trainable.backend import SFTResult as SFTResult
    from hone.trainable.chunks import SFTChunk as SFTChunk
    from hone.trainable.chunks import create_sft_dataset_iterator as create_sft_dataset_iterator
    from hone.trainable.file import get_file_row_count as get_file_row_count
    from hone.trainable.file import iterate_file as iterate_file
    from hone.trainable.file import train_sft_from_file as train_sft_from_file
    from hone.trainable.model import TrainableModel as TrainableModel
    from hone.trainable.schedule import create_lr_schedule as create_lr_schedule
    from hone.trainable.settings import LoRAConfig as LoRAConfig
    from hone.trainable.settings import TrainSFTConfig as TrainSFTConfig
    from hone.trainable.trajectory import Trajectory as Trajectory

__version__ = "0.1.0"

# By name: a static import would tie every room to every other one, and load them all.
_WHERE = {
    "Backend": "hone.trainable.backend",
    "LoRAConfig": "hone.trainable.settings",
    "LocalBackend": "hone.backends.local",
    "SFTChunk": "hone.trainable.chunks",
    "SFTResult": "hone.trainable.backend",
    "ServerlessBackend": "hone.backends.serverless",
    "TrainSFTConfig": "hone.trainable.settings",
    "TrainableModel": "hone.trainable.model",
    "Trajectory": "hone.trainable.trajectory",
    "create_lr_schedule": "hone.trainable.schedule",
    "create_sft_dataset_iterator": "hone.trainable.chunks",
    "get_file_row_count": "hone.trainable.file",
    "iterate_file": "hone.trainable.file",
    "train_sft_from_file": "hone.trainable.file",
}

__all__ = [
    "Backend",
    "LoRAConfig",
    "LocalBackend",
    "SFTChunk",
    "SFTResult",
    "ServerlessBackend",
    "TrainSFTConfig",
    "TrainableModel",
    "Trajectory",
    "__version__",
    "create_lr_schedule",
    "create_sft_dataset_iterator",
    "get_file_row_count",
    "iterate_file",
    "train_sft_from_file",
]


def __getattr__(name: str) -> Any:
    if name in _WHERE:
        return getattr(importlib.import_module(_WHERE[name]), name)
    raise AttributeError(f"module 'hone' has no attribute {name!r}")


def __dir__() -> list[str]:
    return sorted([*globals(), *_WHERE])
