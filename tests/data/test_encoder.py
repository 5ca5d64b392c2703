"""The fast encoder gives the ids of the tokenizer itself, or nothing."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import pytest
from hypothesis import given
from hypothesis import strategies as st
from tokenizers import Tokenizer, models, normalizers, pre_tokenizers

from hone.data.encoder import FastEncoder, build_encoder
from hone.data.tokenizer import TextTokenizer
from tests.data.small import byte_level


def _built(backend: Tokenizer, proofs: Path | None = None) -> FastEncoder | None:
    return build_encoder(backend, json.loads(backend.to_str()), fingerprint="f" * 64, proofs=proofs)


def _composed() -> Tokenizer:
    backend: Any = byte_level()
    backend.normalizer = normalizers.NFC()
    return backend


SMALL = {"plain": byte_level(), "composed": _composed()}
FAST = {name: _built(backend) for name, backend in SMALL.items()}
TEXT = st.text(st.characters(exclude_categories=("Cs",)), max_size=40) | st.text(
    "aA1 '.\n\r\t<>|s\u0301é東\u200f\ufb01\u1e9b\u0378\ue000\u00a0\U0001f600", max_size=30
)


@pytest.mark.parametrize("name", SMALL)
@given(text=TEXT)
def test_equals_the_tokenizer(name: str, text: str) -> None:
    fast = FAST[name]
    assert fast is not None
    ids = fast.encode(text)
    if text.isascii():
        assert ids is not None
    if ids is not None:
        assert ids.tolist() == SMALL[name].encode(text, add_special_tokens=False).ids


def test_what_is_not_composed_is_left_to_the_tokenizer() -> None:
    fast = FAST["composed"]
    assert fast is not None
    assert fast.encode("cafe\u0301") is None
    assert fast.encode("café") is not None


def test_a_proof_is_kept_and_found_again(tmp_path: Path) -> None:
    assert _built(SMALL["plain"], tmp_path) is not None
    (kept,) = tmp_path.iterdir()
    told = json.loads(kept.read_text())
    told["doubtful"] = [[0x41, 0x41]]  # a proof that says otherwise is believed: it was read
    kept.write_text(json.dumps(told))
    again = _built(SMALL["plain"], tmp_path)
    assert again is not None
    assert again.encode("é A") is None
    kept.write_text("{")
    assert _built(SMALL["plain"], tmp_path) is not None


def test_a_token_that_merges_never_make_is_never_made() -> None:
    backend = byte_level()
    told = json.loads(backend.to_str())
    vocab = told["model"]["vocab"]
    vocab["zzq"] = max(vocab.values()) + 10
    changed = Tokenizer.from_str(json.dumps(told))
    fast = _built(changed)
    assert fast is not None
    assert not fast.makes(vocab["zzq"])
    ids = fast.encode("zzq")
    assert ids is not None
    assert ids.tolist() == changed.encode("zzq", add_special_tokens=False).ids


def test_a_list_out_of_order_keeps_its_ids() -> None:
    told = json.loads(byte_level().to_str())
    vocab: dict[str, int] = told["model"]["vocab"]
    made = [text for text in vocab if len(text) > 1]
    numbers = [vocab[text] for text in made]
    vocab.update(zip(made, numbers[::-1], strict=True))
    changed = Tokenizer.from_str(json.dumps(told))
    fast = _built(changed)
    assert fast is not None
    text = "The quick brown fox jumps over the lazy dog"
    ids = fast.encode(text)
    assert ids is not None
    assert ids.tolist() == changed.encode(text, add_special_tokens=False).ids


def _other_kinds() -> dict[str, Tokenizer]:
    prefix = byte_level(prefix=True)
    words = Tokenizer(models.WordLevel({"a": 0, "?": 1}, unk_token="?"))
    lower: Any = byte_level()
    lower.normalizer = normalizers.Lowercase()
    digits: Any = byte_level()
    digits.pre_tokenizer = pre_tokenizers.Sequence(
        [pre_tokenizers.Digits(individual_digits=True), pre_tokenizers.ByteLevel(False)]
    )
    return {"prefix": prefix, "words": words, "lowercase": lower, "digits": digits}


@pytest.mark.parametrize("name", ["prefix", "words", "lowercase", "digits"])
def test_other_kinds_are_not_claimed(name: str) -> None:
    assert _built(_other_kinds()[name]) is None


@pytest.mark.parametrize("family", ["qwen2.5", "qwen3"])
def test_real_tokenizers_are_proved(shared: Path, family: str) -> None:
    tokenizer = TextTokenizer.load(shared / "tokenizers" / family)
    fast = tokenizer.fast_encoder(None)
    assert fast is not None
    rows = (shared / "data" / "gsm8k_train.jsonl").read_text().splitlines()[:300]
    text = (shared / "data" / "tau_airline.jsonl").read_text()[:50_000].replace("<|", "< |")
    for one in [*rows, text, "It’s naïve — 東京都, 한국어; 👩‍👩‍👧 \u200fשלום\r\n\r\n  x"]:
        ids = fast.encode(one)
        assert ids is not None
        assert ids.tolist() == tokenizer.encode(one)
