"""Tokenizers as GGUF holds them: the known cuts by name, unknown ones refused, merges that scores can say."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from tokenizers import (
    AddedToken,
    Tokenizer,
    decoders,
    models,
    normalizers,
    pre_tokenizers,
)

from hone.data.byte_tokenizer import new_byte_tokenizer
from hone.data.gguf_vocabulary import Kind, read_vocabulary
from hone.data.presplit import presplit_name
from hone.data.tokenizer import TextTokenizer
from hone.errors import ModelError
from tests.folders import tokenizer_folder

CUT = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)|[^\r\n\p{L}\p{N}]?\p{L}+|\p{N}{1,3}| ?[^\s\p{L}\p{N}]+[\r\n]*|\s*[\r\n]+|\s+(?!\S)|\s+"  # fmt: skip


def cut_by(*parts: Any, ignore_merges: bool = False) -> dict[str, Any]:
    """A tokenizer.json with this pre-tokenizer."""
    made = pre_tokenizers.Sequence(list(parts)) if len(parts) != 1 else parts[0]
    return {
        "pre_tokenizer": json.loads(made.__getstate__()),
        "model": {"ignore_merges": ignore_merges},
    }


def split(pattern: str, behavior: str = "isolated", invert: bool = False) -> list[Any]:
    from tokenizers import Regex

    return [
        pre_tokenizers.Split(Regex(pattern), behavior, invert=invert),
        pre_tokenizers.ByteLevel(add_prefix_space=False, use_regex=False),
    ]


def test_known_cuts_have_their_names() -> None:
    plain = pre_tokenizers.ByteLevel(add_prefix_space=False)
    assert presplit_name(cut_by(plain)) == "gpt-2"
    assert presplit_name(cut_by(pre_tokenizers.Digits(True), plain)) == "smollm"
    assert presplit_name(cut_by(*split(CUT), ignore_merges=True)) == "llama-bpe"
    assert presplit_name(cut_by(*split(CUT))) == "smaug-bpe"
    assert presplit_name(cut_by(*split(CUT.replace("{1,3}", "")))) == "qwen2"


@pytest.mark.parametrize("name", ["qwen2.5", "qwen3"])
def test_real_tokenizers_are_known(shared: Path, name: str) -> None:
    source = json.loads((shared / "tokenizers" / name / "tokenizer.json").read_bytes())
    assert presplit_name(source) == "qwen2"


@pytest.mark.parametrize(
    "source",
    [
        cut_by(*split(CUT.replace("{1,3}", "{1,2}"))),
        cut_by(*split(CUT, "removed")),
        cut_by(*split(CUT.replace("{1,3}", "")), ignore_merges=True),
        cut_by(pre_tokenizers.ByteLevel(add_prefix_space=True)),
        cut_by(pre_tokenizers.Digits(False), pre_tokenizers.ByteLevel(add_prefix_space=False)),
        cut_by(pre_tokenizers.Whitespace()),
        {"pre_tokenizer": None, "model": {}},
    ],
)
def test_any_other_cut_is_refused_and_shown(source: dict[str, Any]) -> None:
    with pytest.raises(
        ModelError, match="does not know the way in which this tokenizer cuts"
    ) as caught:
        presplit_name(source, where="tokenizer.json")
    assert "safetensors" in str(caught.value)


def test_a_byte_level_vocabulary(tmp_path: Path) -> None:
    tokenizer = TextTokenizer.load(tokenizer_folder(tmp_path))
    found = read_vocabulary(tokenizer, rows=320, stop_ids=[2])
    assert (found.model, found.pre, found.space_prefix) == ("gpt2", "gpt-2", False)
    assert found.ids == {"eos": 2, "pad": 0}
    assert found.tokens[:3] == ("<|endoftext|>", "<|im_start|>", "<|im_end|>")
    assert found.kinds[:4] == (Kind.CONTROL,) * 3 + (Kind.NORMAL,)
    assert found.kinds[tokenizer.vocab_size :] == (Kind.UNUSED,) * (320 - tokenizer.vocab_size)
    assert len(set(found.tokens)) == 320
    source = json.loads((tmp_path / "tokenizer.json").read_bytes())
    assert len(found.merges) == len(source["model"]["merges"])
    assert not found.notices


def test_the_end_of_a_turn_stands_beside_the_end_of_text(tmp_path: Path) -> None:
    tokenizer_folder(tmp_path)
    path = tmp_path / "tokenizer_config.json"
    about = json.loads(path.read_bytes()) | {
        "eos_token": "<|endoftext|>",
        "bos_token": "<|im_start|>",
    }
    path.write_text(json.dumps(about))
    found = read_vocabulary(TextTokenizer.load(tmp_path), rows=320, stop_ids=[0, 1, 2])
    assert {key: found.ids[key] for key in ("bos", "eos", "eot")} == {"bos": 1, "eos": 0, "eot": 1}
    assert "<|im_end|>" in found.notices[0]
    about.pop("eos_token")
    path.write_text(json.dumps(about))
    assert read_vocabulary(TextTokenizer.load(tmp_path), rows=320, stop_ids=[2]).ids["eos"] == 2
    with pytest.raises(ModelError, match="no token of this tokenizer ends a text"):
        read_vocabulary(TextTokenizer.load(tmp_path), rows=320)


def test_more_tokens_than_rows_are_refused(tmp_path: Path) -> None:
    tokenizer = TextTokenizer.load(tokenizer_folder(tmp_path))
    with pytest.raises(ModelError, match="rows of embeddings"):
        read_vocabulary(tokenizer, rows=100, stop_ids=[2])


def test_our_own_tokenizers_are_known(tmp_path: Path) -> None:
    tokenizer = new_byte_tokenizer(
        tmp_path, ["one 1 two 22"], vocab_size=300, control_tokens=["<a>", "<b>"], end_of_text="<a>",
        padding="<b>", chat_template="{{ messages }}",
    )  # fmt: skip
    assert read_vocabulary(tokenizer, rows=300, stop_ids=[0]).pre == "smollm"


def pieces_folder(folder: Path, *, prefix: str = "prepend") -> Path:
    """A tokenizer as SentencePiece's are in tokenizer.json: merges of every parting, bytes for the rest."""
    words = [
        "▁the",
        "▁cat",
        "▁cats",
        "▁sat",
        "the",
        "cat",
        "at",
        "he",
        "th",
        "▁t",
        "▁c",
        "ca",
        "ats",
        "sat",
        "▁s",
    ]
    letters = ["▁", *"abcdefghijklmnopqrstuvwxyz.,"]
    vocab = ["<unk>", "<s>", "</s>", *(f"<0x{i:02X}>" for i in range(256)), *letters]
    scored = sorted(words, key=len)
    merges: list[tuple[str, str]] = []
    known = {*letters, *scored}
    for word in scored:
        partings = [(word[:i], word[i:]) for i in range(1, len(word))]
        merges += [pair for pair in partings if set(pair) <= known]
    made_words = [word for word in scored if any(a + b == word for a, b in merges)]
    vocab += made_words
    made = Tokenizer(
        models.BPE(
            {text: i for i, text in enumerate(vocab)}, merges, unk_token="<unk>", byte_fallback=True, fuse_unk=True,
        )
    )  # fmt: skip
    replace = normalizers.Replace(" ", "▁")
    if prefix == "prepend":
        made.normalizer = normalizers.Sequence([normalizers.Prepend("▁"), replace])
    elif prefix == "none":
        made.normalizer = replace
    else:
        made.pre_tokenizer = pre_tokenizers.Metaspace(prepend_scheme=prefix, split=False)
    made.decoder = decoders.Sequence(
        [
            decoders.Replace("▁", " "),
            decoders.ByteFallback(),
            decoders.Fuse(),
            decoders.Strip(" ", 1, 0),
        ]
    )
    made.add_special_tokens(
        [AddedToken(text, normalized=False) for text in ("<unk>", "<s>", "</s>")]
    )
    folder.mkdir(parents=True, exist_ok=True)
    made.save(str(folder / "tokenizer.json"))
    about = {"bos_token": "<s>", "eos_token": "</s>", "unk_token": "<unk>", "add_bos_token": True}
    (folder / "tokenizer_config.json").write_text(json.dumps(about))
    (folder / "chat_template.jinja").write_text(
        "{{ bos_token }}{% for m in messages %}{{ m.role + ': ' + m.content + eos_token }}{% endfor %}"
        "{% if add_generation_prompt %}{{ 'assistant: ' }}{% endif %}"
    )
    return folder


@pytest.mark.parametrize(
    ("prefix", "said"), [("prepend", True), ("always", True), ("none", False), ("first", False)]
)
def test_pieces_by_score(tmp_path: Path, prefix: str, said: bool) -> None:
    found = read_vocabulary(TextTokenizer.load(pieces_folder(tmp_path, prefix=prefix)), rows=320)
    assert (found.model, found.pre, found.space_prefix) == ("llama", "default", said)
    assert found.kinds[:4] == (Kind.UNKNOWN, Kind.CONTROL, Kind.CONTROL, Kind.BYTE)
    score = dict(zip(found.tokens, found.scores, strict=True))
    assert score["▁t"] > score["▁the"] > score["▁cats"]
    assert found.ids == {"bos": 1, "eos": 2, "unk": 0}
    assert found.adds_bos
    assert bool(found.notices) == (prefix == "first")


@pytest.mark.parametrize(
    ("merges", "why"),
    [
        ("ab bc ab+c cd a+bc", "'abc' is merged at two places"),
        ("ab bc ab+c cd", "'a' and 'bc' are not merged"),
    ],
)
def test_an_order_that_no_scores_give_is_refused(tmp_path: Path, merges: str, why: str) -> None:
    pairs = [tuple(one.split("+")) if "+" in one else (one[0], one[1]) for one in merges.split()]
    texts = ["</s>", *"abcd", *dict.fromkeys(a + b for a, b in pairs)]
    vocab = {text: i for i, text in enumerate(texts)}
    made = Tokenizer(models.BPE(vocab, pairs, byte_fallback=True))
    made.normalizer = normalizers.Replace(" ", "▁")
    made.add_special_tokens(["</s>"])
    made.save(str(tmp_path / "tokenizer.json"))
    (tmp_path / "tokenizer_config.json").write_text(json.dumps({"eos_token": "</s>"}))
    with pytest.raises(ModelError, match="in an order that no scores give") as caught:
        read_vocabulary(TextTokenizer.load(tmp_path), rows=320)
    assert why in str(caught.value)


def test_other_preparations_and_models_are_refused(tmp_path: Path) -> None:
    pieces_folder(tmp_path, prefix="none")
    path = tmp_path / "tokenizer.json"
    source = json.loads(path.read_bytes())
    source["normalizer"] = {"type": "Lowercase"}
    path.write_text(json.dumps(source))
    with pytest.raises(ModelError, match="does not prepare text"):
        read_vocabulary(TextTokenizer.load(tmp_path), rows=320)
    words = {"type": "WordLevel", "vocab": {"a": 0, "</s>": 1}, "unk_token": "a"}
    path.write_text(
        json.dumps(
            {**source, "normalizer": None, "decoder": None, "model": words, "added_tokens": []}
        )
    )
    with pytest.raises(ModelError, match="WordLevel"):
        read_vocabulary(TextTokenizer.load(tmp_path), rows=320)


def test_another_normal_form_is_told(tmp_path: Path) -> None:
    tokenizer_folder(tmp_path)
    path = tmp_path / "tokenizer.json"
    source = json.loads(path.read_bytes())
    path.write_text(json.dumps({**source, "normalizer": {"type": "NFC"}}))
    found = read_vocabulary(TextTokenizer.load(tmp_path), rows=320, stop_ids=[2])
    assert "NFC" in found.notices[0]
    path.write_text(json.dumps({**source, "normalizer": {"type": "NFKC"}}))
    with pytest.raises(ModelError, match="NFKC"):
        read_vocabulary(TextTokenizer.load(tmp_path), rows=320, stop_ids=[2])
