"""A model as a GGUF file for llama.cpp, and with a Modelfile for Ollama: layout, tokenizer and template put together."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from hone.config.sections import Config
from hone.data.gguf_vocabulary import Vocabulary, read_vocabulary
from hone.data.render import Renderer
from hone.data.template import ChatTemplate, load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError
from hone.infer.stops import stop_ids
from hone.models.gguf_file import Form, Written, gguf_bytes, write_gguf
from hone.models.gguf_layout import Layout, Value, read_layout
from hone.recipes.go_template import go_template
from hone.recipes.new_folder import refuse_full_disk

MODELFILE: Final = "Modelfile"
_QUANTIZATION_VERSION: Final = 2  # of ggml's blocks, as the GGUF specification wants it said
_CONTEXT: Final = 8192  # tokens that Ollama is told to keep room for, at most
_IDS: Final = {"bos": "bos", "eos": "eos", "eot": "eot", "unk": "unknown", "pad": "padding"}
_SAMPLING: Final = {"temperature": "temperature", "top_p": "top_p", "top_k": "top_k", "repetition_penalty": "repeat_penalty"}  # fmt: skip


@dataclass(frozen=True)
class GgufFile:
    """A written file, and what a user should hear of it."""

    written: Written
    notices: tuple[str, ...]


def write_gguf_file(
    folder: Path, out: Path, *, name: str, form: Form, config: Config | None = None
) -> GgufFile:
    """Write the model in `folder` to `out`, a file; `config` are the settings of its run.

    Raises ModelError for a model or tokenizer that llama.cpp would read otherwise, DiskError.
    """
    layout = read_layout(folder)
    refuse_full_disk(out, gguf_bytes(layout, form))
    tokenizer = TextTokenizer.load(folder)
    template = load_template(tokenizer)
    ends = stop_ids(Renderer(tokenizer, template), folder)
    vocabulary = read_vocabulary(tokenizer, rows=layout.rows, stop_ids=ends)
    notices = [*layout.notices, *vocabulary.notices]
    source = _chat_template(template, tokenizer, config)
    fields = _fields(name, vocabulary, source)
    written = write_gguf(out, folder, layout, fields, form)
    if written.wider:
        notices.append(
            f"{len(written.wider)} weights are kept in f16: their rows are no multiple of 32"
        )
    return GgufFile(written, tuple(notices))


def write_modelfile(
    folder: Path, model: Path, gguf_name: str, *, context: int | None, config: Config | None = None
) -> tuple[str, ...]:
    """Write the Modelfile into `folder` beside the GGUF file; `model` is the model's own folder.

    Returns what a user should hear. Raises ConfigError for a chat template that Ollama cannot have.
    """
    tokenizer = TextTokenizer.load(model)
    variables = None if config is None else config.data.template_kwargs
    template = load_template(tokenizer, variables=variables)
    bos = (tokenizer.bos_token or "") if tokenizer.adds_bos else ""
    made = go_template(template, leave_out=bos)
    lines = [f"FROM ./{gguf_name}", f'TEMPLATE """{made.text}"""']
    for i in stop_ids(Renderer(tokenizer, template), model):
        text = tokenizer.token(i)
        if '"' in text or "\n" in text:
            raise ConfigError(f"the stop text {text!r} cannot stand in a Modelfile")
        lines.append(f'PARAMETER stop "{text}"')
    if context:
        lines.append(f"PARAMETER num_ctx {min(context, _CONTEXT)}")
    lines += [f"PARAMETER {key} {value}" for key, value in _sampling(model).items()]
    (folder / MODELFILE).write_text("\n".join(lines) + "\n", encoding="utf-8")
    return made.notices


def context_of(layout: Layout) -> int:
    """The longest text, in tokens, that a layout names."""
    return int(cast(int, layout.fields[f"{layout.architecture}.context_length"]))


def file_name(name: str, form: str) -> str:
    """Such as `my-run-f16.gguf`."""
    plain = re.sub(r"[^A-Za-z0-9._-]+", "-", name).strip("-.") or "model"
    return f"{plain}-{form}.gguf"


def _fields(name: str, vocabulary: Vocabulary, template: str) -> dict[str, Value]:
    """What a GGUF file says beside the model's own numbers."""
    fields: dict[str, Value] = {
        "general.name": name,
        "general.type": "model",
        "general.quantization_version": _QUANTIZATION_VERSION,
        "tokenizer.ggml.model": vocabulary.model,
        "tokenizer.ggml.pre": vocabulary.pre,
        "tokenizer.ggml.tokens": list(vocabulary.tokens),
        "tokenizer.ggml.token_type": [int(kind) for kind in vocabulary.kinds],
        "tokenizer.ggml.add_bos_token": vocabulary.adds_bos,
        "tokenizer.chat_template": template,
    }
    if vocabulary.model == "llama":
        fields["tokenizer.ggml.scores"] = list(vocabulary.scores)
        fields["tokenizer.ggml.add_space_prefix"] = vocabulary.space_prefix
    else:
        fields["tokenizer.ggml.merges"] = list(vocabulary.merges)
    for ours, theirs in _IDS.items():
        if ours in vocabulary.ids:
            fields[f"tokenizer.ggml.{theirs}_token_id"] = vocabulary.ids[ours]
    return fields


def _chat_template(template: ChatTemplate, tokenizer: TextTokenizer, config: Config | None) -> str:
    """The template's source, with what the run gave it and what llama.cpp would give it otherwise."""
    given: dict[str, Any] = {} if config is None else dict(config.data.template_kwargs)
    if tokenizer.bos_token is None and template.mentions("bos_token"):
        given["bos_token"] = ""  # llama.cpp has a default for a token that is not there
    head = "".join(f"{{%- set {key} = {_literal(value)} -%}}" for key, value in given.items())
    return head + template.source


def _literal(value: Any) -> str:
    """A value in Jinja's language."""
    if value is None:
        return "none"
    if isinstance(value, Mapping):
        pairs = cast("Mapping[str, Any]", value).items()
        return "{" + ", ".join(f"{json.dumps(k)}: {_literal(v)}" for k, v in pairs) + "}"
    if isinstance(value, Sequence) and not isinstance(value, str):
        return "[" + ", ".join(map(_literal, cast("Sequence[Any]", value))) + "]"
    return json.dumps(value, ensure_ascii=False)


def _sampling(model: Path) -> dict[str, float]:
    """How replies are drawn, as the model's own files wish it."""
    path = model / "generation_config.json"
    said: dict[str, Any] = json.loads(path.read_bytes()) if path.is_file() else {}
    if said.get("do_sample") is False:
        return {"temperature": 0}
    return {
        name: said[key] for key, name in _SAMPLING.items() if isinstance(said.get(key), int | float)
    }
