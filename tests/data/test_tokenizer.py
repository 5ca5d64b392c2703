"""A model folder's tokenizer without transformers, and equal to it."""

from __future__ import annotations

import json

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.tokenizer import TextTokenizer
from hone.errors import ModelError
from tests.data.small import CHATML, NAMES, byte_level, family, sentence_piece, text_tokenizer


def folder(tmp_path, backend, config=None, **files):
    backend.save(str(tmp_path / "tokenizer.json"))
    if config is not None:
        (tmp_path / "tokenizer_config.json").write_text(json.dumps(config), encoding="utf-8")
    for name, text in files.items():
        (tmp_path / name.replace("__", ".")).write_text(text, encoding="utf-8")
    return tmp_path


def test_names_of_special_tokens(tmp_path):
    config = {
        "eos_token": {"content": "<|im_end|>", "lstrip": False},
        "bos_token": None,
        "pad_token": "<|im_start|>",
    }
    tokenizer = TextTokenizer.load(folder(tmp_path, byte_level(), config))
    assert tokenizer.eos_token == "<|im_end|>"
    assert tokenizer.eos_id == tokenizer.id_of("<|im_end|>")
    assert tokenizer.bos_token is None
    assert tokenizer.bos_id is None
    assert tokenizer.special_names["pad_token"] == "<|im_start|>"


def test_names_from_the_older_file(tmp_path):
    path = folder(
        tmp_path, byte_level(), None, special_tokens_map__json='{"eos_token": "<|im_end|>"}'
    )
    assert TextTokenizer.load(path).eos_token == "<|im_end|>"


@pytest.mark.parametrize("source", ["config", "named", "jinja", "json"])
def test_where_chat_templates_lie(tmp_path, source):
    config: dict = {}
    files: dict = {}
    if source == "config":
        config["chat_template"] = "T"
    elif source == "named":
        config["chat_template"] = [
            {"name": "default", "template": "T"},
            {"name": "tool_use", "template": "U"},
        ]
    elif source == "jinja":
        config["chat_template"] = "older"
        files["chat_template__jinja"] = "T"
    else:
        files["chat_template__json"] = json.dumps({"chat_template": "T"})
    tokenizer = TextTokenizer.load(folder(tmp_path, byte_level(), config, **files))
    assert tokenizer.chat_template == "T"
    assert tokenizer.tool_template == ("U" if source == "named" else None)


def test_flags_and_tokens_of_the_configuration_count(tmp_path):
    from transformers import AutoTokenizer

    backend = byte_level(["<a>", "<b>"], plain=["<c>"])
    at = {text: backend.token_to_id(text) for text in ("<a>", "<b>", "<c>")}
    flags = {"lstrip": False, "rstrip": False, "normalized": False, "single_word": False}
    config = {
        "tokenizer_class": "PreTrainedTokenizerFast",
        "eos_token": "<a>",
        "bos_token": "<new>",
        "additional_special_tokens": ["<e>", "the"],
        "added_tokens_decoder": {
            str(at["<a>"]): {
                "content": "<a>",
                **flags,
                "lstrip": True,
                "rstrip": True,
                "special": True,
            },
            str(at["<c>"]): {"content": "<c>", **flags, "special": True},
            str(backend.get_vocab_size()): {"content": "<d>", **flags, "special": False},
        },
    }
    path = folder(tmp_path, backend, config)
    ours, theirs = TextTokenizer.load(path), AutoTokenizer.from_pretrained(path)
    assert {(t.id, t.content, t.special, t.lstrip, t.rstrip) for t in ours.added} == {
        (i, t.content, t.special, t.lstrip, t.rstrip)
        for i, t in theirs.added_tokens_decoder.items()
    }
    for text in ("x <a> y", "the <c>the<d> <e><new>", "<a><b> <c>"):
        assert ours.encode(text) == theirs.encode(text, add_special_tokens=False)


def test_who_adds_the_beginning_of_text(tmp_path):
    from tokenizers.processors import TemplateProcessing

    backend = sentence_piece("first")
    assert not text_tokenizer(backend, bos_token="<s>").adds_bos
    assert text_tokenizer(backend, bos_token="<s>", add_bos_token=True).adds_bos
    backend.post_processor = TemplateProcessing(
        single="<s> $A", special_tokens=[("<s>", backend.token_to_id("<s>"))]
    )
    assert text_tokenizer(backend, bos_token="<s>").adds_bos
    assert not text_tokenizer(backend, bos_token="<s>", add_bos_token=False).adds_bos
    assert text_tokenizer(backend, bos_token="<s>").encode("a")[0] != backend.token_to_id("<s>")


@pytest.mark.parametrize("name", NAMES)
@settings(max_examples=50, deadline=None)
@given(data=st.data())
def test_plain_text_holds_no_special_token(name, data):
    tokenizer, _ = family(name)
    part = st.sampled_from([t.content for t in tokenizer.added]) | st.text(
        st.characters(exclude_categories=["Cs"]), max_size=4
    )
    text = "".join(data.draw(st.lists(part, max_size=5)))
    before = tokenizer.encode(text)
    assert tokenizer.special_ids.isdisjoint(tokenizer.encode_plain(text))
    assert tokenizer.encode(text) == before  # the switch is set back


def test_plain_text_is_still_all_there():
    tokenizer, _ = family("byte-level")
    text = "a<|im_end|>b <|im_start|>"
    assert tokenizer.decode(tokenizer.encode_plain(text)) == text


def test_text_after_other_text_gets_no_space():
    for name in ("llama2-first", "llama2-always", "llama2-legacy", "byte-level-prefix"):
        tokenizer, _ = family(name)
        head, tail = tokenizer.encode("Hello"), tokenizer.encode_many(["fox"], continues=True)[0]
        assert tokenizer.decode(head + tail).strip() == "Hellofox"
        assert tokenizer.decode_after(head, tail) == "fox"
        assert (
            tokenizer.decode_after(head, tokenizer.encode_many([" fox"], continues=True)[0])
            == " fox"
        )
        assert tokenizer.encode("fox") == tokenizer.encode("fox")


def test_tokens_in_words():
    tokenizer, _ = family("byte-level")
    (space_fox,) = {i for i in tokenizer.encode("a fox") if tokenizer.text_of(i) == " fox"} or {
        None
    }
    if space_fox is not None:
        assert tokenizer.token(space_fox) == "Ġfox"
    assert tokenizer.token(10**6) == "<1000000>"
    assert tokenizer.text_of(tokenizer.eos_id) == "<|im_end|>"


def test_fingerprints_tell_tokenizers_apart(tmp_path):
    base = text_tokenizer(byte_level()).fingerprint
    assert base == text_tokenizer(byte_level()).fingerprint
    others = [
        text_tokenizer(byte_level(plain=["<tool_call>"])).fingerprint,
        text_tokenizer(byte_level(), eos_token="<|im_end|>").fingerprint,
        text_tokenizer(sentence_piece("first")).fingerprint,
    ]
    assert len({base, *others}) == 4


def test_folders_without_a_tokenizer(tmp_path):
    with pytest.raises(ModelError, match=r"no tokenizer\.json"):
        TextTokenizer.load(tmp_path)
    (tmp_path / "tokenizer.json").write_text("{")
    with pytest.raises(ModelError, match="cannot be read"):
        TextTokenizer.load(tmp_path)
    folder(tmp_path, byte_level())
    (tmp_path / "tokenizer_config.json").write_text("[1]")
    with pytest.raises(ModelError, match=r"tokenizer_config\.json"):
        TextTokenizer.load(tmp_path)


def test_no_limit_that_means_none():
    assert text_tokenizer(byte_level(), model_max_length=10**30).max_length is None
    assert text_tokenizer(byte_level(), model_max_length=4096).max_length == 4096
    assert text_tokenizer(byte_level(), CHATML).chat_template == CHATML
