"""Hone teaches a language model by example; this is its public face, loaded when touched."""

from __future__ import annotations

from importlib import import_module
from typing import TYPE_CHECKING, Any, Final

if TYPE_CHECKING:
    from hone.config.dialects.flat import SFTConfig
    from hone.trainer.callbacks import (
        CheckpointCallback,
        SFTCallback,
        ValidationCallback,
        WandBCallback,
    )
    from hone.trainer.sft import SFTTrainer

__version__ = "0.1.0"

__all__ = [
    "CheckpointCallback",
    "SFTCallback",
    "SFTConfig",
    "SFTTrainer",
    "ValidationCallback",
    "WandBCallback",
    "__version__",
]

_HOMES: Final = {
    "CheckpointCallback": "hone.trainer.callbacks",
    "SFTCallback": "hone.trainer.callbacks",
    "SFTConfig": "hone.config.dialects.flat",
    "SFTTrainer": "hone.trainer.sft",
    "ValidationCallback": "hone.trainer.callbacks",
    "WandBCallback": "hone.trainer.callbacks",
}
"""Where each public name lives."""


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(import_module(_HOMES[name]), name)


def __dir__() -> list[str]:
    return sorted({*globals(), *_HOMES})
