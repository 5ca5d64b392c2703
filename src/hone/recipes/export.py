"""Export: what a run trained, in the form that another program wants; a new folder, whole or not there.

`safetensors`: a whole model for transformers and vLLM. `gguf`: one file for llama.cpp. `ollama`: that file with a
Modelfile. `peft`: the adapter alone, for PEFT and vLLM. `hub`: a folder to publish, its card without paths of this
machine.
"""

from __future__ import annotations

import importlib.util
import json
import shutil
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, Literal, cast

from hone.errors import ConfigError, EnvironmentFault, nearest
from hone.infer.place import Place, find_place
from hone.models.load import stored_dtype
from hone.models.saved_adapter import CONFIG as ADAPTER_CONFIG
from hone.models.saved_adapter import WEIGHTS as ADAPTER_WEIGHTS
from hone.models.saved_adapter import read_adapter
from hone.models.shape import read_weights
from hone.recipes.export_card import hub_card
from hone.recipes.merge import merge
from hone.recipes.new_folder import new_folder, refuse_full_disk, refuse_taken

Form = Literal["safetensors", "gguf", "ollama", "peft", "hub"]
FORMS: Final = ("safetensors", "gguf", "ollama", "peft", "hub")
GGUF_TYPES: Final = ("f32", "f16", "bf16", "q8_0")

_MODEL_FILES: Final = (
    "config.json", "generation_config.json", "model*.safetensors", "model.safetensors.index.json",
)  # fmt: skip
_TOKENIZER_FILES: Final = (
    "tokenizer.json", "tokenizer_config.json", "special_tokens_map.json", "added_tokens.json", "vocab.json",
    "merges.txt", "tokenizer.model", "chat_template.jinja",
)  # fmt: skip
_MERGED_AS: Final = {"f32": "fp32", "f16": "fp16", "bf16": "bf16"}
_VLLM_RANK: Final = 16  # vLLM's --max-lora-rank where nothing is said


@dataclass(frozen=True)
class Exported:
    """What an export wrote. `about` is what was measured on the way, by name."""

    form: str
    folder: Path
    files: tuple[str, ...]
    num_bytes: int
    about: dict[str, Any]
    sentences: tuple[str, ...]
    """What was compared, and what came of it."""
    notices: tuple[str, ...]

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "form": self.form,
            "folder": str(self.folder),
            "files": list(self.files),
            "bytes": self.num_bytes,
            **self.about,
            "notices": list(self.notices),
        }


@dataclass(frozen=True)
class Wanted:
    """What is asked of an export."""

    form: Form
    gguf_type: str = "f16"
    merged: bool = False
    """`hub`: the whole model, not the adapter."""
    base_id: str | None = None
    """`hub` and `peft`: the base's hub id, where the run knows it as a folder of this machine."""


def export(name: str, wanted: Wanted, out: Path | None = None) -> Exported:
    """Write what `name` stands for (a run, an adapter's folder, a model) in the form that is wanted to `out`.

    By default that is a folder of the form's name in the run, or `NAME-FORM` here. Raises what merging raises,
    ConfigError, ModelError, DiskError, EnvironmentFault.
    """
    if wanted.form not in FORMS:
        raise ConfigError(f"--to: no form {wanted.form!r}", remedy=nearest(wanted.form, FORMS))
    place = find_place(name)
    _refuse_unfit(place, wanted)
    out = out or _default_folder(place, wanted.form)
    refuse_taken(out, remedy="name another folder with --out, or move what is there")
    with new_folder(out) as folder:
        match wanted.form:
            case "gguf" | "ollama":
                said = _gguf(place, name, wanted, folder)
            case "peft":
                said = _adapter(place, wanted, folder)
            case "hub" if place.kind == "adapter" and not wanted.merged:
                said = _adapter(place, wanted, folder)
            case _:
                said = _whole(place, name, folder)
        _write_card(place, folder, said)
        files = sorted(path for path in folder.iterdir() if path.is_file())
        size = sum(path.stat().st_size for path in files)
    names = tuple(path.name for path in files)
    return Exported(wanted.form, out, names, size, said.about, tuple(said.sentences), tuple(said.notices))  # fmt: skip


@dataclass
class _Said:
    about: dict[str, Any]
    sentences: list[str]
    notices: list[str]


def _default_folder(place: Place, form: str) -> Path:
    if place.config is not None or place.kind == "adapter":
        return place.folder / form
    return Path(f"{place.folder.resolve().name}-{form}")


def _refuse_unfit(place: Place, wanted: Wanted) -> None:
    if place.kind == "checkpoint":
        raise ConfigError(
            "an unfinished run has no model to export yet",
            where=str(place.folder),
            remedy="let it finish: the command that began it goes on",
        )
    if wanted.form == "peft" and place.kind != "adapter":
        raise ConfigError(
            "there is no adapter: every weight was trained, or this is a model",
            where=str(place.folder),
            remedy="hone export --to safetensors",
        )
    if wanted.gguf_type not in GGUF_TYPES:
        raise ConfigError(
            f"--gguf-type: no type {wanted.gguf_type!r}",
            remedy=nearest(wanted.gguf_type, GGUF_TYPES),
        )
    if wanted.form in ("gguf", "ollama") and importlib.util.find_spec("gguf") is None:
        raise EnvironmentFault(
            "a GGUF file needs the package gguf, which is not installed",
            remedy="pip install 'hone[export]'",
        )
    local = place.kind == "adapter" and _base_is_local(place)
    if wanted.form == "hub" and local and not wanted.merged and wanted.base_id is None:
        raise ConfigError(
            "the adapter knows its base as a folder of this machine, which nobody else has",
            where=str(place.folder / ADAPTER_CONFIG),
            remedy="add --base USER/NAME, the base's id on the hub, or --merged for a whole model",
        )


def _base_is_local(place: Place) -> bool:
    named = str(read_adapter(place.folder)["base_model_name_or_path"])
    return Path(named).expanduser().exists() or named.startswith((".", "/", "~"))


def _whole(place: Place, name: str, folder: Path) -> _Said:
    """A whole model: merged, or the run's own files."""
    if place.kind == "adapter":
        merged = merge(name, folder / "merged")
        for path in (folder / "merged").iterdir():
            path.rename(folder / path.name)
        (folder / "merged").rmdir()
        sentence = f"compared on {merged.probes}: {merged.likeness.sentence()}"
        about = {"dtype": merged.dtype, "probes": merged.probes, **merged.likeness.to_json()}
        return _Said(about, [sentence], list(merged.notices))
    refuse_full_disk(folder, sum(one.num_bytes for one in read_weights(place.folder)))
    _copy(place.folder, folder, (*_MODEL_FILES, *_TOKENIZER_FILES))
    return _Said({}, [], [])


def _adapter(place: Place, wanted: Wanted, folder: Path) -> _Said:
    """The adapter as PEFT reads it, with the tokenizer that it was trained with."""
    _copy(place.folder, folder, (ADAPTER_WEIGHTS, *_TOKENIZER_FILES))
    config = read_adapter(place.folder)
    if wanted.base_id is not None:
        config["base_model_name_or_path"] = wanted.base_id
    text = json.dumps(config, indent=2, ensure_ascii=False)
    (folder / ADAPTER_CONFIG).write_text(text + "\n", encoding="utf-8")
    told = _vllm_limits(config)
    settings = place.config
    if (
        settings is not None
        and settings.tuning.method == "qlora"
        and settings.tuning.lora.init == "loftq"
    ):
        told.append(
            "LoftQ: use it beside the base quantised as in training only, or export --to safetensors"
        )
    return _Said({}, [], told)


def _vllm_limits(config: dict[str, Any]) -> list[str]:
    """What vLLM does not serve of an adapter, so that nobody finds out there."""
    told: list[str] = []
    odd = [
        key for key in ("use_dora", "modules_to_save", "trainable_token_indices") if config.get(key)
    ]
    if odd:
        told.append(f"vLLM serves no adapter with {', '.join(odd)}: there, serve the merged model")
    elif int(config.get("r") or 0) > _VLLM_RANK:
        told.append(f"vLLM needs --max-lora-rank {config['r']} for this adapter")
    return told


def _gguf(place: Place, name: str, wanted: Wanted, folder: Path) -> _Said:
    from hone.models.gguf_layout import read_layout
    from hone.recipes.gguf_export import context_of, file_name, write_gguf_file, write_modelfile

    said, model = _Said({}, [], []), place.folder
    if place.kind == "adapter":
        model = folder / ".merged"
        merged = merge(name, model, dtype=_merged_type(place, wanted.gguf_type))
        said.sentences.append(f"merged, compared on {merged.probes}: {merged.likeness.sentence()}")
        said.notices += merged.notices
        said.about["merged"] = merged.likeness.to_json()
    called = place.folder.resolve().name
    file = file_name(called, wanted.gguf_type)
    form = cast(Any, wanted.gguf_type)
    made = write_gguf_file(model, folder / file, name=called, form=form, config=place.config)
    said.notices += made.notices
    about = made.written.to_json() | {"file": file}
    said.about["gguf"] = about
    said.sentences.append(
        f"read back: {about['tensors']:,} weights and {about['fields']:,} fields are what they were made from "
        f"(largest rounding {about['largest_error']:.1e} of a row's largest number)"
    )
    if wanted.form == "ollama":
        context = context_of(read_layout(model))
        said.notices += write_modelfile(folder, model, file, context=context, config=place.config)
    shutil.rmtree(folder / ".merged", ignore_errors=True)
    return said


def _merged_type(place: Place, gguf_type: str) -> str | None:
    """The type of the merged model between adapter and file, so that each sum is rounded once."""
    if gguf_type in _MERGED_AS:
        return _MERGED_AS[gguf_type]
    kept = str(stored_dtype(place.base)).removeprefix("torch.")
    return {"float32": "fp32", "bfloat16": "bf16", "float16": "fp16"}.get(kept)


def _copy(source: Path, folder: Path, patterns: tuple[str, ...]) -> None:
    for pattern in patterns:
        for path in sorted(source.glob(pattern)):
            if path.is_file():
                shutil.copyfile(path, folder / path.name)  # what a link points to, never the link


def _write_card(place: Place, folder: Path, said: _Said) -> None:
    files = [path.name for path in folder.iterdir()]
    text = hub_card(place, files=files, about=[_sentence(one) for one in said.sentences])
    (folder / "README.md").write_text(text, encoding="utf-8")


def _sentence(text: str) -> str:
    return text[:1].upper() + text[1:] + "."
