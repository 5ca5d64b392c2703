"""Tokens that are added to a model's tokenizer: their ids, what knows of them, and what transformers reads."""

from __future__ import annotations

import json
from pathlib import Path

import pytest
from tokenizers import Tokenizer
from transformers import AutoTokenizer

from hone.config.layers import resolve
from hone.config.sections import DataSection
from hone.data.conversation import Conversation, Message
from hone.data.example import Origin
from hone.data.prepare import prepare
from hone.data.render import Renderer
from hone.data.template import load_template
from hone.data.tokenizer import TextTokenizer
from hone.data.tokenizer_files import write_tokenizer
from hone.errors import ConfigError
from hone.recipes.preview import preview
from tests.folders import CHATML, chat_rows, tokenizer_folder

ADDED = [("purple", False), ("the cat", False), ("<|note|>", True)]


@pytest.fixture
def folder(tmp_path: Path) -> Path:
    return tokenizer_folder(tmp_path / "model")


def test_ids_follow_the_last_one_in_the_order_of_asking(folder: Path) -> None:
    plain = TextTokenizer.load(folder)
    tokenizer = TextTokenizer.load(folder, ADDED)
    first = plain.vocab_size
    assert [(t.text, t.id, t.special) for t in tokenizer.new] == [
        ("purple", first, False),
        ("the cat", first + 1, False),
        ("<|note|>", first + 2, True),
    ]
    assert tokenizer.vocab_size == first + 3
    for token in tokenizer.new:
        assert plain.decode(token.pieces) == token.text
    assert tokenizer.encode("purple<|note|>the cat") == [first, first + 2, first + 1]
    assert tokenizer.decode([first + 1]) == "the cat"
    assert tokenizer.fingerprint != plain.fingerprint
    other = TextTokenizer.load(folder, [(text, False) for text, _ in ADDED])
    assert other.fingerprint != tokenizer.fingerprint


def test_tokens_that_are_known_are_left_as_they_are(folder: Path) -> None:
    tokenizer = TextTokenizer.load(folder, [("<|im_end|>", False), ("a", False), ("purple", False)])
    assert tokenizer.known == ("<|im_end|>", "a")
    assert [token.text for token in tokenizer.new] == ["purple"]
    assert tokenizer.added == (*TextTokenizer.load(folder).added, tokenizer.added[-1])


def test_a_message_spells_a_control_token_and_writes_an_ordinary_one(folder: Path) -> None:
    tokenizer = TextTokenizer.load(folder, ADDED)
    renderer = Renderer(tokenizer, load_template(tokenizer))
    said = Conversation(
        (Message("user", "purple <|note|>"), Message("assistant", "the cat")), Origin("x", 1)
    )
    (example,) = renderer.render(said)
    ids = example.input_ids.tolist()
    assert tokenizer.new[0].id in ids
    assert tokenizer.new[1].id in ids
    assert tokenizer.new[2].id not in ids


@pytest.mark.parametrize("listed", [False, True])
def test_transformers_reads_what_is_written(folder: Path, tmp_path: Path, listed: bool) -> None:
    if listed:  # as older versions of transformers save it
        config = json.loads((folder / "tokenizer_config.json").read_bytes())
        config["added_tokens_decoder"] = {"1": {"content": "<|im_start|>", "special": True}}
        (folder / "tokenizer_config.json").write_text(json.dumps(config))
        (folder / "added_tokens.json").write_text(json.dumps({"<|im_start|>": 1}))
        backend = Tokenizer.from_file(str(folder / "tokenizer.json"))
        backend.enable_truncation(max_length=77)
        backend.save(str(folder / "tokenizer.json"))
    tokenizer = TextTokenizer.load(folder, ADDED)
    out = tmp_path / "out"
    out.mkdir()
    write_tokenizer(tokenizer, out, template=CHATML)
    theirs = AutoTokenizer.from_pretrained(out)
    assert len(theirs) == tokenizer.vocab_size
    for text in ("a purple cat", "<|note|>the cat<|im_end|>", "the purple", "purplepurple"):
        assert theirs(text, add_special_tokens=False).input_ids == tokenizer.encode(text)
    end = tokenizer.new[2].id
    assert theirs.decode([end], skip_special_tokens=True) == ""
    assert theirs.apply_chat_template([{"role": "user", "content": "x"}], tokenize=False)
    again = TextTokenizer.load(out)
    assert again.vocab_size == tokenizer.vocab_size
    assert again.chat_template == CHATML
    saved = json.loads((out / "tokenizer.json").read_bytes())
    assert (saved["truncation"] is not None) == listed
    if listed:
        assert json.loads((out / "added_tokens.json").read_bytes())["<|note|>"] == end


def test_without_additions_the_files_are_the_model_s_own(folder: Path, tmp_path: Path) -> None:
    write_tokenizer(TextTokenizer.load(folder), tmp_path, template=CHATML)
    assert (tmp_path / "tokenizer.json").read_bytes() == (folder / "tokenizer.json").read_bytes()


@pytest.mark.parametrize("workers", [0, 2])
def test_prepared_rows_have_them_and_another_place_in_the_cache(
    folder: Path, tmp_path: Path, workers: int
) -> None:
    rows = chat_rows(tmp_path / "rows.jsonl")
    section = DataSection(path=str(rows), workers=workers)
    keys, found = [], []
    for added in ([], ADDED, ADDED[:1]):
        tokenizer = TextTokenizer.load(folder, added)
        prepared = prepare(
            section,
            tokenizer=tokenizer,
            template=load_template(tokenizer),
            max_length=200,
            cache_dir=tmp_path / "cache" / "data",
            say=lambda event, told: None,
        )
        keys.append(prepared.train.fingerprint)
        found.append(
            {int(i) for row in range(3) for e in prepared.train.examples(row) for i in e.input_ids}
        )
        prepared.close()
        if added:
            assert (tokenizer.new[-1].id in found[-1]) is False
    assert len(set(keys)) == 3
    the_cat = TextTokenizer.load(folder, ADDED).new[1].id
    assert [the_cat in ids for ids in found] == [False, True, False]


def test_preview_shows_them(folder: Path, tmp_path: Path) -> None:
    rows = chat_rows(tmp_path / "rows.jsonl")
    wanted = [f"data.path={rows}", f"model.name={folder}", "model.new_tokens=[the cat]"]
    shown = preview(resolve(overrides=wanted).config, rows=1)
    (token,) = shown.tokenizer.new
    assert token.id in shown.rows[0].examples[0].input_ids


@pytest.mark.parametrize(
    ("words", "what"),
    [
        (["model.new_tokens=[a, a]"], "name 'a' twice"),
        (["model.new_tokens=[a]", "model.new_special_tokens=[a]"], "name 'a' twice"),
        (["model.new_tokens=['']"], "cannot be used"),
        (["model.new_tokens=['  ']"], "cannot be used"),
        (["model.new_tokens=[a]", "model.adapter=x"], "exclude each other"),
    ],
)
def test_what_cannot_be_a_new_token_is_refused(words: list[str], what: str) -> None:
    with pytest.raises(ConfigError, match=what):
        resolve(overrides=words)
