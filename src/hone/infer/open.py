"""From a name to something that answers: weights loaded, adapters put on, tokenizer and template beside.

It knows the kinds of places (`place.py`) and no conversation.
"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TypeVar

import safetensors.torch
import torch
from peft import PeftModel
from torch import nn
from transformers import PreTrainedModel

from hone.config.sections import Config, ModelSection, QuantizationSection
from hone.data.render import Renderer
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError, ModelError
from hone.infer.local import LocalCompleter
from hone.infer.place import Place, find_place
from hone.infer.stops import stop_ids
from hone.models import facts
from hone.models.load import load_model, stored_dtype
from hone.models.new_tokens import grow
from hone.models.saved_adapter import put_adapter, rows_wanted
from hone.models.source import find_model, read_config
from hone.models.tuning import Start, narrow, tune

_CHECKPOINT_WEIGHTS = "weights.safetensors"
_Model = TypeVar("_Model", bound=nn.Module)
_UNIT = "model."  # what the engine's unit puts before the name of each weight


@dataclass(frozen=True)
class Opened:
    """What answers, the base beside it where that was asked for, and what a user should hear."""

    completer: LocalCompleter
    base: LocalCompleter | None
    notices: tuple[str, ...]


def open_model(
    name: str, *, revision: str | None = None, with_base: bool = False, root: Path = Path("runs")
) -> Opened:
    """Open what `name` stands for (see `find_place`).

    `with_base` gives the base as well: for an adapter the same weights with the adapter left out, for a fully
    tuned run its own base model. Raises ConfigError where there is no base, ModelError where files do not fit.
    """
    return open_place(find_place(name, revision=revision, root=root), with_base=with_base)


def open_place(place: Place, *, with_base: bool = False) -> Opened:
    """Load what lies at `place`."""
    notices = list(place.notices)
    quantization = _quantization(place)
    dtype = _dtype(place.base)
    loaded = load_model(place.base, dtype=dtype, quantization=quantization)
    notices += loaded.notices
    if quantization is not None:
        notices.append(f"the base is held in {quantization.bits} bits, as it was in training")
    tokenizer = _tokenizer(place)
    model: PreTrainedModel | PeftModel = loaded.model
    if place.kind == "adapter":
        grow(loaded.model, max(rows_wanted(place.folder), tokenizer.vocab_size))
        model = put_adapter(loaded.model, place.folder)
    elif place.kind == "checkpoint" and place.config is not None:
        model = _with_checkpoint(loaded.model, place.folder, place.config, tokenizer)
        narrow(loaded.model.requires_grad_(False), dtype)
    completer = _completer(model, place, tokenizer)
    base = _base_of(completer, place) if with_base else None
    return Opened(completer, base, tuple(notices))


def _quantization(place: Place) -> QuantizationSection | None:
    """How the base was held in training, where an adapter or a checkpoint of a run is opened."""
    config = place.config
    if config is None or place.kind == "model" or config.tuning.method != "qlora":
        return None
    return config.tuning.quantization


def _tokenizer(place: Place) -> TextTokenizer:
    """An artifact's own tokenizer; for a checkpoint the base's, with what the run added to it."""
    if place.kind != "checkpoint" or place.config is None:
        return TextTokenizer.load(place.tokenizer_folder)
    model = place.config.model
    adapter = _adapter_of(model)
    has_own = adapter is not None and (adapter / "tokenizer.json").is_file()
    home = adapter if adapter is not None and has_own else place.tokenizer_folder
    return TextTokenizer.load(home, model.additions)


def _adapter_of(model: ModelSection) -> Path | None:
    """The folder of the adapter that a run began with."""
    return None if model.adapter is None else find_model(ModelSection(name=model.adapter))


@dataclass(frozen=True)
class Reading:
    """How a model is asked, and what its replies may be: everything beside the weights."""

    renderer: Renderer
    stop_ids: tuple[int, ...]
    limit: int | None
    """Most tokens of prompt and reply together."""
    batches: bool
    """Whether its rows may stand in one batch."""


def reading_of(place: Place, tokenizer: TextTokenizer | None = None) -> Reading:
    """Tokenizer, template and limits of what lies at `place`."""
    tokenizer = tokenizer or _tokenizer(place)
    config = place.config
    # An artifact carries the template that was trained with; a checkpoint's is still only named.
    choice = config.data.template if config is not None and place.kind == "checkpoint" else None
    variables = config.data.template_kwargs if config is not None else None
    renderer = Renderer(tokenizer, load_template(tokenizer, choice=choice, variables=variables))
    shape = read_config(place.base)
    limit = facts.longest_row(shape)
    alone = facts.why_rows_run_alone(shape, longest=limit or 0)
    return Reading(renderer, stop_ids(renderer, place.base), limit, alone is None)


def _completer(
    model: PreTrainedModel | PeftModel, place: Place, tokenizer: TextTokenizer
) -> LocalCompleter:
    read = reading_of(place, tokenizer)
    return LocalCompleter(
        _placed(model),
        read.renderer,
        stop_ids=read.stop_ids,
        limit=read.limit,
        batches=read.batches,
    )


def load_base(folder: Path) -> PreTrainedModel:
    """The weights of a model folder as they are served: in their own type where this machine computes in it."""
    return _placed(load_model(folder, dtype=_dtype(folder)).model)


def _base_of(completer: LocalCompleter, place: Place) -> LocalCompleter:
    beside = completer.without_adapter()
    if beside is not None:
        return beside
    if place.config is None:
        raise ConfigError(
            f"nothing to compare with: {place.folder} is a model, not a tuned one",
            remedy="name a run, or an adapter folder",
        )
    folder = find_model(place.config.model)
    model = load_base(folder)
    # The same prompts for both: what differs is what training made of the weights.
    return LocalCompleter(
        model,
        completer.renderer,
        stop_ids=completer.stop_ids,
        limit=completer.limit,
    )


def _with_checkpoint(
    model: PreTrainedModel, folder: Path, config: Config, tokenizer: TextTokenizer
) -> PreTrainedModel | PeftModel:
    """The base with the trained weights of a checkpoint."""
    start = Start(_adapter_of(config.model), tokenizer.new, tokenizer.vocab_size)
    adapted = tune(model, config, start=start).adapted
    saved = safetensors.torch.load_file(folder / _CHECKPOINT_WEIGHTS)
    trained = {f"{_UNIT}{name}": p for name, p in model.named_parameters()}
    strangers = sorted(saved.keys() - trained.keys())
    if strangers:
        raise ModelError(
            f"the checkpoint does not fit its base: no place for {strangers[0]}",
            where=str(folder),
            remedy="name the base that the run began from",
        )
    with torch.no_grad():
        for name, tensor in saved.items():
            trained[name].copy_(tensor)
    return model if adapted is None else adapted


def _placed(model: _Model) -> _Model:
    """The model, moved to a GPU where there is one."""
    if torch.cuda.is_available():
        model.to("cuda")
    return model


def _dtype(folder: Path) -> torch.dtype:
    """As the weights are kept; on a CPU without bf16 arithmetic, and for half precision there, float32."""
    kept = stored_dtype(folder)
    if torch.cuda.is_available():
        return kept
    return torch.bfloat16 if kept == torch.bfloat16 and _has_bf16() else torch.float32


def _has_bf16() -> bool:
    """Whether this CPU multiplies bf16 itself."""
    try:
        flags = Path("/proc/cpuinfo").read_text(encoding="ascii", errors="replace")
    except OSError:
        return False
    return "avx512_bf16" in flags or "amx_bf16" in flags or " bf16" in flags
