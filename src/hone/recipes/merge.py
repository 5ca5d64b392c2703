"""Merging: an adapter taken into its base's weights, as a model folder of its own for plain transformers to load.

The base is the unquantised one, whatever the adapter was trained beside. The sum is taken in float32 and
rounded once, to the type that the base is kept in.
"""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import torch
from transformers import PreTrainedModel

from hone.data.render import Renderer
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError, DiskError
from hone.infer.place import Place, find_place
from hone.infer.stops import stop_ids
from hone.models.load import load_model, quiet
from hone.models.new_tokens import grow
from hone.models.quantization import stored_quantization
from hone.models.saved_adapter import put_adapter, read_adapter, rows_wanted
from hone.models.source import read_config
from hone.models.tuning import Tuned
from hone.recipes.artifact import artifact_tensors, write_artifact
from hone.recipes.memory_fault import memory_faults


def merge(name: str, out: Path) -> list[str]:
    """Write the base of the adapter `name` (a run, or an adapter's folder) with the adapter merged into it to `out`.

    Returns the names of the files. Raises ConfigError where there is no adapter, or one that fits a quantised base
    only; ModelError where they do not fit each other; DiskError; OutOfMemory (the base is held in float32).
    """
    place = find_place(name)
    _refuse_unmergeable(place)
    tokenizer = TextTokenizer.load(place.tokenizer_folder)
    template = load_template(tokenizer)
    with memory_faults(lambda: "merging"):
        model = load_model(place.base, dtype=torch.float32).model
        grow(model, max(rows_wanted(place.folder), tokenizer.vocab_size))
        adapted = cast(Any, put_adapter(model, place.folder))
        with quiet():
            merged = cast(PreTrainedModel, adapted.merge_and_unload(safe_merge=True))
        try:
            out.mkdir(parents=True, exist_ok=True)
            return write_artifact(
                out,
                base=place.base,
                base_name=str(place.base),
                model=merged,
                tuned=Tuned(None),
                weights=artifact_tensors(merged, Tuned(None)),
                tokenizer=tokenizer,
                template=template.source,
                stop_ids=stop_ids(Renderer(tokenizer, template), place.base),
                card=_card(place),
            )
        except OSError as error:
            raise DiskError(
                f"cannot write the merged model: {error.strerror or error}",
                where=str(out),
                remedy="free some space, or choose another folder",
            ) from error


def _refuse_unmergeable(place: Place) -> None:
    if place.kind != "adapter":
        what = "a checkpoint of a run" if place.kind == "checkpoint" else "a whole model"
        raise ConfigError(
            f"there is no adapter to merge: this is {what}",
            where=str(place.folder),
            remedy="name a finished run that trained an adapter, or an adapter's folder",
        )
    tuning = None if place.config is None else place.config.tuning
    if tuning is not None and tuning.method == "qlora" and tuning.lora.init == "loftq":
        raise ConfigError(
            "this adapter holds what rounding took from the base (LoftQ): merged into the unquantised one, that part "
            "would count twice",
            where=str(place.folder),
            remedy="use it beside the base quantised in the same way",
        )
    if stored_quantization(read_config(place.base)) is not None:
        raise ConfigError(
            "the adapter's base is quantised itself, and nothing can be added to its rounded weights",
            where=str(place.base),
            remedy="set base_model_name_or_path in adapter_config.json to the unquantised base",
        )


def _card(place: Place) -> str:
    named = str(read_adapter(place.folder)["base_model_name_or_path"])
    return (
        f"# {Path(named).name} with an adapter merged into it\n\n"
        f"Merged with Hone: `{Path(named).name}` plus the adapter in `{place.folder.resolve().name}`, added in "
        "float32 and kept in the type of the base. Plain `transformers` loads it.\n"
    )
