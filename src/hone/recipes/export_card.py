"""The model card of what leaves a run: merged models, GGUF files, folders for the hub.

It takes result, rows and settings from the run's own card, without the folders of the machine that trained it.
"""

from __future__ import annotations

import json
import re
from collections.abc import Sequence
from pathlib import Path
from typing import Final

from hone.config.sections import Config
from hone.infer.place import Place
from hone.models.saved_adapter import read_adapter
from hone.models.source import read_config
from hone.recipes.likeness import Likeness

_ABOUT_THE_RUN: Final = ("Result", "Rows", "Settings")
_LOCAL_PATH: Final = re.compile(r'(?<=[\s"`(])(?:~|\.{0,2})/(?:[^\s"`()/]+/)*([^\s"`()/]+)')


def merged_card(place: Place, *, dtype: str, likeness: Likeness, probes: str) -> str:
    """The card of a merged model."""
    base = base_label(place)
    return _card(
        place,
        title=f"{base} with an adapter merged into it",
        library="transformers",
        relation="finetune",
        about=[
            f"`{base}` plus an adapter, each sum taken in float32 and rounded once to {dtype}. Plain `transformers` "
            "loads it.",
            f"Beside the adapter on its base, on {probes}: {likeness.sentence()}.",
        ],
    )


def hub_card(place: Place, *, files: Sequence[str], about: Sequence[str] = ()) -> str:
    """The card of a folder for the hub: a whole model, an adapter, or GGUF files."""
    base = base_label(place)
    is_adapter = "adapter_config.json" in files
    is_gguf = any(name.endswith(".gguf") for name in files)
    library = "peft" if is_adapter else "gguf" if is_gguf else "transformers"
    return _card(
        place,
        title=f"{base} tuned on {_rows(place.config)}",
        library=library,
        relation="adapter" if is_adapter else "quantized" if is_gguf else "finetune",
        about=about,
    )


def base_label(place: Place) -> str:
    """What the base is called: its hub id, or the last part of its folder."""
    named = str(place.base)
    if place.kind == "adapter":
        named = str(read_adapter(place.folder)["base_model_name_or_path"])
    elif place.config is not None:
        named = place.config.model.name
    elif isinstance(said := read_config(place.base).get("_name_or_path"), str) and said:
        named = said
    path = Path(named).expanduser()
    is_local = path.is_absolute() or path.is_dir() or named.count("/") > 1
    return path.resolve().name if is_local else named


def without_local_paths(text: str) -> str:
    """`text` with the last part alone of each path of this machine."""
    return _LOCAL_PATH.sub(r"\1", text)


def _card(place: Place, *, title: str, library: str, relation: str, about: Sequence[str]) -> str:
    base = base_label(place)
    head = [
        "---",
        f"base_model: {json.dumps(base)}",
        f"base_model_relation: {relation}",
        f"library_name: {library}",
        "pipeline_tag: text-generation",
        "tags: [hone, sft]",
        "---",
        "",
        f"# {title}",
        "",
        *(line for sentence in about for line in (sentence, "")),
        *_method(place.config),
    ]
    return without_local_paths("\n".join([*head, *_of_the_run(place), ""]))


def _method(config: Config | None) -> list[str]:
    if config is None:
        return []
    return [f"Supervised fine-tuning ({config.tuning.method}) with Hone.", ""]


def _rows(config: Config | None) -> str:
    if config is None:
        return "rows that its folder does not name"
    if config.data.path:
        return Path(config.data.path).name
    return ", ".join(one.name or Path(one.path).name for one in config.data.sources)


def _of_the_run(place: Place) -> list[str]:
    """What the run's own card says of result, rows and settings; nothing where there is none."""
    path = place.folder / "README.md"
    if place.config is None or not path.is_file():
        return []
    found: list[str] = []
    for section in path.read_text(encoding="utf-8").split("\n## ")[1:]:
        name, _, text = section.partition("\n")
        if name.strip() in _ABOUT_THE_RUN:
            found += [f"## {name.strip()}", text.rstrip("\n"), ""]
    return found
