"""What trains of a model, by each tuning method: adapters, some layers, or everything; and the rows of new tokens.

It composes the other files of this room; it knows no rows of data, no optimizer and no run.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import TYPE_CHECKING, Protocol

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from hone.errors import ConfigError
from hone.models.adapters import ADAPTER, attach_lora, beginning_of, whole_modules
from hone.models.freezing import freeze
from hone.models.new_tokens import NewRow, begin, grow, row_count, settle_rows, trained_rows
from hone.models.parts import embeddings_of, head_of, is_tied, modules
from hone.models.quantization import is_quantized
from hone.models.saved_adapter import continue_adapter, read_adapter, rows_wanted

if TYPE_CHECKING:
    from hone.config.sections import Config


class Token(Protocol):
    """A token that was added to a tokenizer."""

    @property
    def id(self) -> int:
        """Its number."""
        ...

    @property
    def pieces(self) -> tuple[int, ...]:
        """The numbers of what spelled it before."""
        ...


@dataclass(frozen=True)
class Start:
    """What a run begins with beside its base model and its settings."""

    adapter: Path | None = None
    """The folder of an adapter that is trained further."""
    new: Sequence[Token] = ()
    """Tokens that were added to the tokenizer, ids ascending."""
    tokens: int = 0
    """How many tokens the tokenizer has."""


@dataclass(frozen=True)
class Tuned:
    """How a model was made ready to train."""

    adapted: PeftModel | None
    """The model with its adapters, where the method trains adapters."""
    beginning: Mapping[str, Tensor] = field(default_factory=dict[str, Tensor])
    """Low-rank weights at their start, where the base was left without them; see `adapters.plain_state`."""
    notices: tuple[str, ...] = ()


def tune(
    model: PreTrainedModel,
    config: Config,
    *,
    start: Start,
    originals: Mapping[str, Tensor] | None = None,
) -> Tuned:
    """Make `model` ready to train as `config` says: what trains requires a gradient and is float32.

    `originals` are the linear weights before quantisation, which `tuning.lora.init=loftq` wants. Raises
    ConfigError where settings do not fit this model, ModelError where an adapter does not.
    """
    tuning = config.tuning
    rows, notices = _add_rows(model, config, start)
    adapted, beginning = None, dict[str, Tensor]()
    if start.adapter is not None:
        adapted = continue_adapter(model, start.adapter)
    elif tuning.is_adapter:
        whole = whole_modules(model, tuning.lora.modules_to_save)
        if len(whole) > len(tuning.lora.modules_to_save) and is_tied(model):
            notices.append("the embeddings and the head of this model are one tensor: both train")
        adapted = attach_lora(
            model,
            tuning.lora,
            seed=config.train.seed,
            trained_rows=trained_rows(model, rows, whole=whole),
        )
        beginning = beginning_of(adapted, tuning.lora)
        if originals is not None:
            from hone.models.rounding import make_good

            make_good(model, originals, ADAPTER)
    elif tuning.method == "freeze":
        notices += freeze(model, tuning.freeze)
        if rows:
            _refuse_frozen_rows(model)
    settle_rows(model)
    widen(model)
    return Tuned(adapted, beginning, tuple(notices))


def widen(model: PreTrainedModel) -> None:
    """Hold what trains in float32: these are the master weights."""
    for parameter in model.parameters():
        if parameter.requires_grad and parameter.dtype in (torch.bfloat16, torch.float16):
            parameter.data = parameter.data.float()


def narrow(model: PreTrainedModel, dtype: torch.dtype) -> None:
    """Hold what is frozen in `dtype`, but for quantised layers and what the family keeps in float32."""
    kept = set(getattr(model, "_keep_in_fp32_modules_strict", None) or ())
    for name, module in modules(model):
        if is_quantized(module) or kept & set(name.split(".")):
            continue
        for parameter in module.parameters(recurse=False):
            if not parameter.requires_grad and parameter.is_floating_point():
                parameter.data = parameter.data.to(dtype)


def trains_base(config: Config, start: Start) -> bool:
    """Whether some of the base's own weights train, from the values that the base has."""
    if not config.tuning.is_adapter:
        return True
    adapter = {} if start.adapter is None else read_adapter(start.adapter)
    own = config.tuning.lora.modules_to_save or start.new
    return bool(own or adapter.get("modules_to_save") or adapter.get("trainable_token_indices"))


def _add_rows(
    model: PreTrainedModel, config: Config, start: Start
) -> tuple[list[NewRow], list[str]]:
    """A row for each token, and a beginning for each that had none; these, and what a user should hear."""
    before = row_count(model)
    if start.adapter is not None:
        grow(model, max(start.tokens, rows_wanted(start.adapter)))
        return [], []
    if not start.new:
        return [], []
    new = [NewRow(token.id, token.pieces) for token in start.new]
    # A tokenizer may have had more tokens already than the model has rows: they are as new to the model.
    lacking = [NewRow(i) for i in range(before, new[0].id)]
    added = grow(model, start.tokens)
    rows = [*lacking, *new]
    begin(model, rows, config.model.new_token_init)
    said = f"new tokens: {len(new)}, which train; rows added to the model's {before:,}: {added}"
    if spare := sum(row.id < before for row in new):
        said += f", spare ones taken: {spare}"
    if lacking:
        said += f"; tokens of the tokenizer that had no row, and train too: {len(lacking)}"
    return rows, [said]


def _refuse_frozen_rows(model: PreTrainedModel) -> None:
    parts = (embeddings_of(model), head_of(model))
    if all(parameter.requires_grad for part in parts for parameter in part.parameters()):
        return
    names = "[embeddings]" if is_tied(model) else "[embeddings, head]"
    raise ConfigError(
        "new tokens would not be learnt: tuning.method=freeze freezes their embeddings",
        remedy=f"set tuning.freeze.extra_modules={names}, or tuning.method=lora",
    )
