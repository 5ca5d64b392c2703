"""A reply stops at the token that ends a trained turn."""

from __future__ import annotations

import json
from pathlib import Path

from hone.data.render import Renderer
from hone.data.template import ChatTemplate, load_template
from hone.data.tokenizer import TextTokenizer
from hone.infer.stops import stop_ids
from tests.folders import tokenizer_folder


def renderer_of(folder: Path, template: str | None = None) -> Renderer:
    tokenizer = TextTokenizer.load(folder)
    chosen = load_template(tokenizer) if template is None else ChatTemplate(template)
    return Renderer(tokenizer, chosen)


def test_the_end_of_turn_is_read_off_the_template_not_off_the_tokenizer(tmp_path: Path) -> None:
    folder = tokenizer_folder(tmp_path)
    path = folder / "tokenizer_config.json"
    config = json.loads(path.read_bytes())
    path.write_text(json.dumps({**config, "eos_token": "<|endoftext|>"}))
    assert stop_ids(renderer_of(folder), folder) == (0, 2)


def test_what_the_models_files_name_is_added(tmp_path: Path) -> None:
    folder = tokenizer_folder(tmp_path)
    (folder / "generation_config.json").write_text('{"eos_token_id": [2, 7]}')
    (folder / "config.json").write_text('{"eos_token_id": 9}')
    assert stop_ids(renderer_of(folder), folder) == (2, 7, 9)
    (folder / "generation_config.json").write_text("damaged")
    (folder / "config.json").write_text('{"eos_token_id": null}')
    assert stop_ids(renderer_of(folder), folder) == (2,)


def test_a_template_whose_turns_end_in_plain_text_leaves_the_tokenizers_end(tmp_path: Path) -> None:
    folder = tokenizer_folder(tmp_path)
    plain = "{% for m in messages %}{{ m['role'] + ': ' + m['content'] + '\n' }}{% endfor %}"
    assert stop_ids(renderer_of(folder, plain), folder) == (2,)
    refuses = "{{ raise_exception('no') }}"
    assert stop_ids(renderer_of(folder, refuses), folder) == (2,)
