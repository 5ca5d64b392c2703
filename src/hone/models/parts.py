"""Parts of a model by name: its decoder layers, its embeddings, its head, and modules that a user names.

It knows no tuning method.
"""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from typing import Any, Final, cast

from torch import nn
from transformers import PreTrainedModel

from hone.errors import ConfigError, nearest

EMBEDDINGS: Final = "embeddings"
HEAD: Final = "head"
ALL_LINEAR: Final = "all-linear"
ALL: Final = "all"


def modules(model: nn.Module) -> list[tuple[str, nn.Module]]:
    """Every module with its whole name."""
    return list(cast("Iterable[tuple[str, nn.Module]]", model.named_modules()))


def embeddings_of(model: PreTrainedModel) -> nn.Module:
    """The module that turns ids into vectors."""
    return model.get_input_embeddings()


def head_of(model: PreTrainedModel) -> nn.Module:
    """The module that turns vectors into logits."""
    return cast(nn.Module, model.get_output_embeddings())


def embeddings_name(model: PreTrainedModel) -> str:
    """Whole name of the module that turns ids into vectors."""
    return _name_of(model, embeddings_of(model))


def head_name(model: PreTrainedModel) -> str:
    """Whole name of the module that turns vectors into logits."""
    return _name_of(model, head_of(model))


def is_tied(model: PreTrainedModel) -> bool:
    """Whether embeddings and head are one tensor."""
    return cast(Any, head_of(model)).weight is cast(Any, embeddings_of(model)).weight


def _name_of(model: PreTrainedModel, wanted: nn.Module) -> str:
    return next(name for name, module in modules(model) if module is wanted)


def decoder_layers(model: PreTrainedModel) -> list[str]:
    """Whole names of the decoder layers, first to last."""
    count = int(model.config.get_text_config().num_hidden_layers)
    for name, module in modules(model):  # outer modules come first
        if isinstance(module, nn.ModuleList) and len(module) == count:
            return [f"{name}.{i}" for i in range(count)]
    raise ConfigError(
        "the decoder layers of this model cannot be told apart",
        remedy="take tuning.method=lora without tuning.lora.layers, or full",
    )


def is_linear(module: nn.Module) -> bool:
    """Whether an adapter can stand beside it; GPT-2's Conv1D is a linear layer, transposed."""
    return isinstance(module, nn.Linear) or type(module).__name__ == "Conv1D"


def linear_names(model: PreTrainedModel) -> list[str]:
    """Last names of all linear layers but the head, each once."""
    head = head_of(model)
    found = (n for n, m in modules(model) if is_linear(m) and m is not head)
    return sorted({name.rsplit(".", 1)[-1] for name in found})


def named(model: PreTrainedModel, names: Sequence[str], *, setting: str) -> list[str]:
    """Whole names of the modules that `names` name: `embeddings`, `head`, whole names, or their ends.

    Raises ConfigError for a name that matches nothing.
    """
    known = [name for name, _ in modules(model) if name]
    found: list[str] = []
    for name in names:
        if name == EMBEDDINGS:
            here = [embeddings_name(model)]
        elif name == HEAD:
            here = [head_name(model)]
        else:
            here = [one for one in known if one == name or one.endswith(f".{name}")]
        if not here:
            ends = {one.rsplit(".", 1)[-1] for one in known}
            words = {one for one in ends if not one.isdigit()} | {EMBEDDINGS, HEAD}
            raise ConfigError(f"{setting} names no module: {name!r}", remedy=nearest(name, words))
        found += here
    return list(dict.fromkeys(found))


def matching(model: PreTrainedModel, pattern: str | Sequence[str], *, setting: str) -> list[str]:
    """Whole names of the modules that a regular expression describes wholly, or that a list names.

    Raises ConfigError where that is none, or where the expression is none.
    """
    if not isinstance(pattern, str):
        return named(model, pattern, setting=setting)
    try:
        found = [name for name, _ in modules(model) if re.fullmatch(pattern, name)]
    except re.error as error:
        raise ConfigError(
            f"{setting} is no regular expression: {pattern!r} ({error})",
            remedy="write one over whole module names, or a list of names",
        ) from error
    if not found:
        words = {name.rsplit(".", 1)[-1] for name, _ in modules(model) if name}
        raise ConfigError(
            f"{setting} matches no module: {pattern!r}",
            remedy=nearest(pattern, {one for one in words if not one.isdigit()}),
        )
    return found
