"""Hone teaches a language model by example; this is its public face, loaded when touched."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hone.backends.local import LocalBackend
    from hone.backends.serverless import ServerlessBackend
    from hone.config.dialects.flat import SFTConfig
    from hone.trainable.backend import Backend, SFTResult
    from hone.trainable.chunks import SFTChunk, create_sft_dataset_iterator
    from hone.trainable.file import get_file_row_count, iterate_file, train_sft_from_file
    from hone.trainable.model import TrainableModel
    from hone.trainable.schedule import create_lr_schedule
    from hone.trainable.settings import LoRAConfig, TrainSFTConfig
    from hone.trainable.trajectory import Trajectory
    from hone.trainer.callbacks import (
        CheckpointCallback,
        SFTCallback,
        ValidationCallback,
        WandBCallback,
    )
    from hone.trainer.sft import SFTTrainer

__version__ = "0.1.0"

__all__ = [
    "Backend",
    "CheckpointCallback",
    "LoRAConfig",
    "LocalBackend",
    "SFTCallback",
    "SFTChunk",
    "SFTConfig",
    "SFTResult",
    "SFTTrainer",
    "ServerlessBackend",
    "TrainSFTConfig",
    "TrainableModel",
    "Trajectory",
    "ValidationCallback",
    "WandBCallback",
    "__version__",
    "create_lr_schedule",
    "create_sft_dataset_iterator",
    "get_file_row_count",
    "iterate_file",
    "train_sft_from_file",
]

_HOMES: Final = {
    "Backend": "hone.trainable.backend",
    "CheckpointCallback": "hone.trainer.callbacks",
    "LoRAConfig": "hone.trainable.settings",
    "LocalBackend": "hone.backends.local",
    "SFTCallback": "hone.trainer.callbacks",
    "SFTChunk": "hone.trainable.chunks",
    "SFTConfig": "hone.config.dialects.flat",
    "SFTResult": "hone.trainable.backend",
    "SFTTrainer": "hone.trainer.sft",
    "ServerlessBackend": "hone.backends.serverless",
    "TrainSFTConfig": "hone.trainable.settings",
    "TrainableModel": "hone.trainable.model",
    "Trajectory": "hone.trainable.trajectory",
    "ValidationCallback": "hone.trainer.callbacks",
    "WandBCallback": "hone.trainer.callbacks",
    "create_lr_schedule": "hone.trainable.schedule",
    "create_sft_dataset_iterator": "hone.trainable.chunks",
    "get_file_row_count": "hone.trainable.file",
    "iterate_file": "hone.trainable.file",
    "train_sft_from_file": "hone.trainable.file",
}
"""Where each public name lives."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
