"""Merging: an adapter taken into its base's weights, as a model folder of its own for plain transformers to load.

The base is the unquantised one, whatever the adapter was trained beside; only an adapter that holds what rounding
took (LoftQ) is merged into the base as that rounding left it. Each sum is taken in float32 and rounded once. What is
written is read again and compared with the adapter on its base, before the folder gets its name.
"""

from __future__ import annotations

import gc
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

import torch
from peft import PeftModel
from torch import Tensor
from transformers import PreTrainedModel

from hone.config.sections import Config
from hone.data.render import Renderer
from hone.data.template import ChatTemplate, load_template
from hone.data.tokenizer import TextTokenizer
from hone.engine.machine import available_bytes
from hone.errors import ConfigError, ModelError, OutOfMemory
from hone.infer.place import Place, find_place
from hone.infer.stops import stop_ids
from hone.models import facts
from hone.models.load import load_model, stored_dtype
from hone.models.merging import merge_layers, restore_quantized
from hone.models.new_tokens import grow
from hone.models.quantization import stored_quantization
from hone.models.saved_adapter import put_adapter, rows_wanted
from hone.models.shape import read_shape
from hone.models.source import read_config
from hone.models.tuning import Tuned
from hone.recipes.artifact import artifact_tensors, write_artifact
from hone.recipes.export_card import merged_card
from hone.recipes.likeness import Likeness, compare, logits_of, tolerance
from hone.recipes.memory_fault import memory_faults
from hone.recipes.new_folder import new_folder, refuse_full_disk, refuse_taken
from hone.recipes.probe_rows import ProbeRows, probe_rows

DTYPES: Final = {"bf16": torch.bfloat16, "fp16": torch.float16, "fp32": torch.float32}
_NAMES: Final = {dtype: name for name, dtype in DTYPES.items()}
_SHARD_BYTES: Final = 4 * 10**9  # the largest file, which is copied once while it is written
_SPARE_BYTES: Final = 2**29


@dataclass(frozen=True)
class Merged:
    """What a merge wrote, and how it compares with the adapter on its base."""

    folder: Path
    files: tuple[str, ...]
    dtype: str
    likeness: Likeness
    sum_difference: float
    """Between adapter beside base and their sum before it is rounded, as `Likeness.difference`."""
    probes: str
    notices: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "folder": str(self.folder),
            "files": list(self.files),
            "dtype": self.dtype,
            "probes": self.probes,
            "notices": list(self.notices),
            "sum_difference": self.sum_difference,
            **self.likeness.to_json(),
        }


def merge(
    name: str, out: Path | None = None, *, dtype: str | None = None, replace: bool = False
) -> Merged:
    """Write the base of the adapter `name` (a run, or an adapter's folder) with the adapter merged into it to `out`.

    `out` is by default `merged` in the adapter's folder, with the type in its name where one is named; `dtype` is
    `bf16`, `fp16` or `fp32`, by default the base's own. Nothing that stands there is overwritten, unless `replace`.

    The base is held in float32 where memory allows, else in the type that is written (only where that is its
    own). Raises ConfigError where there is no adapter or something stands in the way, ModelError where adapter
    and base do not fit each other or the merged model says something else, DiskError, OutOfMemory.
    """
    place = find_place(name)
    refuse_unmergeable(place)
    out = out or place.folder / ("merged" if dtype is None else f"merged-{dtype}")
    if not replace:
        refuse_taken(out, remedy="name another folder with --to, or move what is there")
    kept = stored_dtype(place.base)
    wanted = kept if dtype is None else DTYPES[dtype]
    if wanted not in _NAMES:
        raise ConfigError(
            f"the base is kept in {wanted}",
            remedy="say --dtype bf16, fp16 or fp32 for the merged model",
        )
    refuse_full_disk(out, _parameters(place) * wanted.itemsize)
    held = _held(place, wanted, kept)
    with memory_faults(lambda: "merging"), new_folder(out, replace=replace) as folder:
        return _merge(place, folder, out, wanted, held)


def _merge(place: Place, folder: Path, out: Path, wanted: torch.dtype, held: torch.dtype) -> Merged:
    tokenizer = TextTokenizer.load(place.tokenizer_folder)
    template = load_template(tokenizer)
    config = read_config(place.base)
    layers = read_shape(place.base, config).layers
    probes = probe_rows(place.config, tokenizer, limit=facts.longest_row(config))
    model, before, base = _summed(place, held, tokenizer, probes)
    # Before anything is rounded, so that a wrong sum cannot hide behind rounding.
    summed = compare(
        before, logits_of(model.eval(), probes.rows), base, within=tolerance(held, held, layers)
    )
    summed.check("the sum of base and adapter")
    model.to(cast(Any, wanted))
    files = _written(folder, place, model, tokenizer, template, wanted)
    del model
    gc.collect()
    after = logits_of(load_model(folder, dtype=held).model.eval(), probes.rows)
    found = compare(before, after, base, within=tolerance(wanted, held, layers))
    found.check("the merged model")
    notices = _notices(place, found, wanted, held)
    name = _NAMES[wanted]
    merged = Merged(out, tuple(files), name, found, summed.difference, probes.source, notices)
    (folder / "README.md").write_text(
        merged_card(place, dtype=merged.dtype, likeness=found, probes=probes.source),
        encoding="utf-8",
    )
    return merged


def _summed(
    place: Place, held: torch.dtype, tokenizer: TextTokenizer, probes: ProbeRows
) -> tuple[PreTrainedModel, Tensor, Tensor]:
    """The merged model in `held`, the logits of the adapter on its base, and those of the base alone."""
    rounded = _rounding_of(place.config)
    model = load_model(place.base, dtype=held, quantization=rounded).model
    if rounded is not None:
        restore_quantized(model)
    grow(model, max(rows_wanted(place.folder), tokenizer.vocab_size))
    adapted: PeftModel = put_adapter(model, place.folder)
    adapted.eval()
    before = logits_of(adapted, probes.rows)
    with adapted.disable_adapter():
        base = logits_of(adapted, probes.rows)
    try:
        return merge_layers(adapted), before, base
    except ValueError as error:
        raise ModelError(
            f"the adapter cannot be merged: {str(error).splitlines()[0]}",
            where=str(place.folder),
            remedy="keep it beside its base; if its numbers are not finite, train it again",
        ) from error


def _written(
    folder: Path,
    place: Place,
    model: PreTrainedModel,
    tokenizer: TextTokenizer,
    template: ChatTemplate,
    dtype: torch.dtype,
) -> list[str]:
    return write_artifact(
        folder,
        base=place.base,
        base_name=str(place.base),
        model=model,
        tuned=Tuned(None),
        weights=artifact_tensors(model, Tuned(None)),
        tokenizer=tokenizer,
        template=template.source,
        stop_ids=stop_ids(Renderer(tokenizer, template), place.base),
        card="",
        dtype=dtype,
    )


def _held(place: Place, wanted: torch.dtype, kept: torch.dtype) -> torch.dtype:
    """In which type the base is held; OutOfMemory where there is room for none."""
    count, free = _parameters(place), available_bytes()
    needed = {
        dtype: count * dtype.itemsize + min(_SHARD_BYTES, count * wanted.itemsize) + _SPARE_BYTES
        for dtype in (torch.float32, wanted)
    }
    if needed[torch.float32] <= free:
        return torch.float32
    if wanted == kept and _rounding_of(place.config) is None and needed[wanted] <= free:
        return wanted
    least = min(needed.values()) if wanted == kept else needed[torch.float32]
    raise OutOfMemory(
        f"merging {count:,} weights takes {least:,} bytes of memory, and {free:,} are free",
        remedy="free memory, merge on a larger machine"
        + (
            ""
            if wanted == kept
            else f", or keep the base's own type (--dtype {_NAMES.get(kept, kept)})"
        ),
    )


def _parameters(place: Place) -> int:
    return read_shape(place.base, read_config(place.base)).parameters


def _rounding_of(config: Config | None) -> Any:
    """How the base was rounded where the adapter holds what that took from it; None elsewhere."""
    if config is None or config.tuning.method != "qlora" or config.tuning.lora.init != "loftq":
        return None
    return config.tuning.quantization


def _notices(
    place: Place, found: Likeness, wanted: torch.dtype, held: torch.dtype
) -> tuple[str, ...]:
    told: list[str] = []
    config = place.config
    if held != torch.float32:
        told.append(
            f"held in {_NAMES[held]}: there was no memory for float32; the sums are float32 all the same"
        )
    if _rounding_of(config) is not None:
        told.append(
            "LoftQ: merged into the base as its rounding left it, which the adapter makes good"
        )
    elif config is not None and config.tuning.method == "qlora":
        told.append(
            f"merged into the unquantised base; in training it was held in {config.tuning.quantization.bits} bits, so "
            "replies are near those of the run, not equal"
        )
    if found.is_drowned:
        told.append(
            f"rounding to {_NAMES[wanted]} changes the logits more than the adapter does: write it with --dtype fp32"
        )
    return tuple(told)


def refuse_unmergeable(place: Place) -> None:
    """Raise ConfigError where `place` holds no adapter, or one whose base holds small integers."""
    if place.kind != "adapter":
        what = "a checkpoint of a run" if place.kind == "checkpoint" else "a whole model"
        raise ConfigError(
            f"there is no adapter to merge: this is {what}",
            where=str(place.folder),
            remedy="name a finished run that trained an adapter, or an adapter's folder",
        )
    if stored_quantization(read_config(place.base)) is not None:
        raise ConfigError(
            "the adapter's base is quantised itself, and nothing can be added to its rounded weights",
            where=str(place.base),
            remedy="set base_model_name_or_path in adapter_config.json to the unquantised base",
        )
