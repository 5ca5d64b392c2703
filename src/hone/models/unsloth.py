"""Weights loaded through Unsloth, which puts its own kernels into a family's layers as it loads. GPU only.

What it changes is found by the probe as with any family: where rows cannot share with its kernels they run one by one.
"""

from __future__ import annotations

import importlib
import importlib.util
from pathlib import Path
from typing import TYPE_CHECKING, Any

import torch

from hone.errors import EnvironmentFault, ModelError
from hone.models.load import Loaded, quiet
from hone.models.source import check_weights, read_config

if TYPE_CHECKING:
    from hone.config.sections import QuantizationSection

_PACKAGE = "unsloth"


def require_unsloth() -> None:
    """Raise EnvironmentFault where Unsloth is not installed, or has no GPU to work on."""
    lacks = [
        what
        for what, is_here in (
            ("the package unsloth", importlib.util.find_spec(_PACKAGE) is not None),
            ("a CUDA device", torch.cuda.is_available()),
        )
        if not is_here
    ]
    if lacks:
        raise EnvironmentFault(
            f"model.loader=unsloth needs {' and '.join(lacks)}",
            remedy="set model.loader=transformers (SFT-Play: tuning.backend: bnb), which trains the same; "
            "or install unsloth on a machine with a GPU",
        )


def load_with_unsloth(
    folder: Path,
    *,
    dtype: torch.dtype,
    quantization: QuantizationSection | None,
    longest: int,
) -> Loaded:
    """A causal language model as Unsloth loads it, without adapters: those are Hone's, so that a run is saved as any.

    `longest` is the longest row in tokens. Raises EnvironmentFault as `require_unsloth`, ModelError where Unsloth
    refuses the model.
    """
    require_unsloth()
    read_config(folder)
    check_weights(folder)
    bits = None if quantization is None else quantization.bits
    loader: Any = importlib.import_module(_PACKAGE).FastLanguageModel
    try:
        with quiet():
            model, _ = loader.from_pretrained(
                model_name=str(folder),
                max_seq_length=longest,
                dtype=dtype,
                load_in_4bit=bits == 4,
                load_in_8bit=bits == 8,
                trust_remote_code=False,
                local_files_only=True,
            )
    except (ValueError, NotImplementedError, RuntimeError) as error:
        first = str(error).strip().splitlines()[0] if str(error).strip() else type(error).__name__
        raise ModelError(
            f"Unsloth does not load this model: {first}",
            where=str(folder),
            remedy="set model.loader=transformers",
        ) from error
    return Loaded(model, ("the weights were loaded through Unsloth, with its kernels",))
