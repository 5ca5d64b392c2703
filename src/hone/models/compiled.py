"""Compiled layers: attention, norms and feed-forward of each layer through `torch.compile`, each a graph of its own.

A layer's parts are compiled, not the layer, so that recomputation and the Pack's attention stay outside of any graph
(as `hone.models.gpu_attention` is), and all layers of one kind share their graphs. It knows no Packs.
"""

from __future__ import annotations

import sys
from collections.abc import Iterable
from typing import Any, cast

import torch
from torch import nn
from transformers import AttentionInterface, PreTrainedModel

from hone.models import attention
from hone.models.layers import decoder_layers

_GRAPHS = (
    64  # of one function; torch.compile's default of 8 is few for parts that many layers share
)
_BY_CHOICE = ("Expert", "Router", "SparseMoe")
"""In names of classes whose course depends on the numbers: which expert gets how many tokens."""


def compile_layers(
    model: PreTrainedModel, *, backend: str = "inductor", deterministic: bool = False
) -> tuple[int, tuple[str, ...]]:
    """Compile what can be compiled of each layer; how many parts, and the kinds of those that were left alone.

    Nothing is compiled yet when this returns: the first forward and backward pass do it, and fail where it cannot
    be done. `undo` takes it back. `deterministic` keeps the compiler from choosing kernels by timing them.
    """
    dynamo: Any = _dynamo().config
    dynamo.recompile_limit = max(dynamo.recompile_limit, _GRAPHS)
    dynamo.fail_on_recompile_limit_hit = True  # going on uncompiled would be a silent fallback
    AttentionInterface.register(attention.NAME, torch.compiler.disable(attention.pack_attention))
    options = settings(backend, deterministic=deterministic)
    left: set[str] = set()
    count = 0
    for layer in decoder_layers(model):
        for part in cast("Iterable[nn.Module]", layer.children()):
            if _goes_by_choice(part):
                left.add(type(part).__name__)
            else:
                part.compile(**options)
                count += 1
    return count, tuple(sorted(left))


def settings(backend: str, *, deterministic: bool) -> dict[str, Any]:
    """What `torch.compile` is told."""
    if deterministic and backend == "inductor":
        return {"backend": backend, "options": {"deterministic": True}}
    return {"backend": backend}


def undo(model: PreTrainedModel) -> None:
    """Let all layers run as they are written."""
    for layer in decoder_layers(model):
        for part in cast("Iterable[nn.Module]", layer.children()):
            part._compiled_call_impl = None  # pyright: ignore[reportPrivateUsage]


def graphs() -> int:
    """How many graphs torch.compile has made in this process, those of flex attention among them."""
    if "torch._dynamo.utils" not in sys.modules:
        return 0
    counters: Any = sys.modules["torch._dynamo.utils"].counters
    return int(counters["stats"]["unique_graphs"])


def _goes_by_choice(part: nn.Module) -> bool:
    return any(word in type(inner).__name__ for inner in part.modules() for word in _BY_CHOICE)


def _dynamo() -> Any:
    import torch._dynamo

    return torch._dynamo
