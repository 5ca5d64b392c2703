"""Asking a model in the middle of its training, and leaving it as it was. It knows no prompts and no engine."""

from __future__ import annotations

import contextlib
import sys
from collections.abc import Generator
from typing import Any, Final

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hone.models.load import quiet

_OURS: Final = "hone"  # how the names of our own attention functions begin
_Kept = tuple[nn.Module, bool, dict[str, Any], dict[str, tuple[Tensor, Tensor]]]


@contextlib.contextmanager
def visit(model: PreTrainedModel) -> Generator[None]:
    """For as long as it lasts the model is in evaluation mode, with an attention of the family's own, nothing compiled.

    Afterwards everything that a forward pass may change is as before, bit for bit: modes, buffers and plain
    attributes of modules (dynamic rotary scaling remembers the longest row that it saw), the generation settings
    and torch's generators.
    """
    kept = [_kept(module) for module in model.modules()]
    generation = model.generation_config
    attention = str(getattr(model.config, "_attn_implementation", None) or "")
    random, devices = torch.get_rng_state(), _device_states()
    try:
        if attention.startswith(_OURS):
            _set_attention(model, stock_attention(model))
        model.eval()
        with _uncompiled():
            yield
    finally:
        if attention.startswith(_OURS):
            _set_attention(model, attention)
        model.generation_config = generation
        for module, training, plain, buffers in kept:
            _put_back(module, training, plain, buffers)
        torch.set_rng_state(random)
        if devices:
            torch.cuda.set_rng_state_all(devices)


def _uncompiled() -> contextlib.AbstractContextManager[object]:
    """Compiled layers run as they are written: one prompt after the other would compile them anew."""
    if "torch._dynamo" not in sys.modules:
        return contextlib.nullcontext()
    stance: Any = torch.compiler.set_stance("force_eager")
    return stance


def stock_attention(model: PreTrainedModel) -> str:
    """The fastest attention of transformers that the family takes: its sdpa path knows no soft cap."""
    capped = getattr(model.config.get_text_config(), "attn_logit_softcapping", None) is not None
    return "sdpa" if getattr(model, "_supports_sdpa", False) and not capped else "eager"


def _set_attention(model: PreTrainedModel, name: str) -> None:
    with quiet():
        model.set_attn_implementation(name)


def _device_states() -> list[Tensor]:
    return torch.cuda.get_rng_state_all() if torch.cuda.is_initialized() else []


def _kept(module: nn.Module) -> _Kept:
    """What a forward pass may leave in a module that has buffers: they, and attributes that are plain values."""
    own = dict(module.named_buffers(recurse=False))
    buffers = {name: (buffer, buffer.detach().clone()) for name, buffer in own.items()}
    plain = {
        name: value
        for name, value in vars(module).items()
        if own and isinstance(value, bool | int | float | str | Tensor | None)
    }
    return module, module.training, plain, buffers


def _put_back(
    module: nn.Module,
    training: bool,
    plain: dict[str, Any],
    buffers: dict[str, tuple[Tensor, Tensor]],
) -> None:
    vars(module).update(plain)
    module.training = training
    for name, (buffer, content) in buffers.items():
        with torch.no_grad():
            buffer.copy_(content)
        setattr(module, name, buffer)
