"""A tokenizer as a GGUF file holds it: tokens with their kinds, merges or scores, and the ids that llama.cpp acts on.

The keys are those of the GGUF specification (ggml, docs/gguf.md). It writes nothing, and it refuses a tokenizer that
llama.cpp would read otherwise, rather than come near it.
"""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from enum import IntEnum
from pathlib import Path
from typing import Any, Final, Literal, cast

from hone.data.presplit import presplit_name
from hone.data.tokenizer import Added, TextTokenizer
from hone.errors import ModelError

_SPACE: Final = "▁"
_SPECIAL_SCORE: Final = -1000.0
_REMEDY: Final = "use another form: hone export --to safetensors, or serve it with `hone serve`"


class Kind(IntEnum):
    """`tokenizer.ggml.token_type`."""

    NORMAL = 1
    UNKNOWN = 2
    CONTROL = 3
    USER_DEFINED = 4
    UNUSED = 5
    BYTE = 6


@dataclass(frozen=True)
class Vocabulary:
    """What a GGUF file says of a tokenizer."""

    model: Literal["gpt2", "llama"]
    """`gpt2`: byte-level BPE with merges. `llama`: SentencePiece's BPE, which merges by score."""
    pre: str
    """The name of the cut before the merges; `default` for `llama`, which has none."""
    tokens: tuple[str, ...]
    kinds: tuple[Kind, ...]
    merges: tuple[str, ...]
    scores: tuple[float, ...]
    ids: Mapping[str, int]
    """`bos`, `eos`, `eot`, `unk` and `pad`, those that there are."""
    adds_bos: bool
    space_prefix: bool
    """Whether a space is put before a text that follows no ordinary text."""
    notices: tuple[str, ...]


def read_vocabulary(
    tokenizer: TextTokenizer, *, rows: int, stop_ids: Sequence[int] = ()
) -> Vocabulary:
    """The vocabulary of a tokenizer for a model whose embeddings have `rows` rows.

    `stop_ids` are the tokens at which replies end. Raises ModelError for a tokenizer that has no exact form.
    """
    folder = tokenizer.folder
    if folder is None:
        raise ModelError("this tokenizer has no files", remedy="load it from a folder")
    path = folder / "tokenizer.json"
    source: dict[str, Any] = json.loads(path.read_bytes())
    model = source["model"]
    _refuse_other_models(model, path)
    texts = _texts(tokenizer, model, rows, path)
    notices = [*_stripping(tokenizer.added)]
    ids = _ids(tokenizer, stop_ids, notices)
    if model.get("byte_fallback"):
        prefix = _space_prefix(source, path, notices)
        merges = _merges(model)
        kinds = _kinds(tokenizer, texts, merged={a + b for a, b in merges}, spm=True)
        scores = _scores(merges, texts, kinds, path)
        pre, lines, kind = "default", (), "llama"
    else:
        pre, prefix, scores, kind = presplit_name(source, where=str(path)), False, (), "gpt2"
        _check_normalizer(source.get("normalizer"), path, notices)
        kinds = _kinds(tokenizer, texts, merged=set(), spm=False)
        lines = tuple(f"{a} {b}" for a, b in _merges(model))
    tokens = tuple(text.replace(_SPACE, " ") if kind == "llama" and what is Kind.USER_DEFINED else text
                   for text, what in zip(texts, kinds, strict=True))  # fmt: skip
    if len(set(tokens)) != len(tokens):
        raise ModelError("two tokens have one text", where=str(path), remedy=_REMEDY)
    return Vocabulary(
        model=cast(Any, kind),
        pre=pre,
        tokens=tokens,
        kinds=kinds,
        merges=lines,
        scores=scores,
        ids=ids,
        adds_bos=tokenizer.adds_bos,
        space_prefix=prefix,
        notices=tuple(notices),
    )


def _refuse_other_models(model: Mapping[str, Any], path: Path) -> None:
    """BPE alone, without what llama.cpp's has no word for."""
    odd = [
        key
        for key in ("continuing_subword_prefix", "end_of_word_suffix", "dropout")
        if model.get(key)
    ]
    if model.get("type") != "BPE" or odd:
        what = f"with {odd[0]}" if odd else f"of the kind {model.get('type')}"
        raise ModelError(
            f"a tokenizer {what} has no exact form in GGUF here", where=str(path), remedy=_REMEDY
        )


def _texts(tokenizer: TextTokenizer, model: Mapping[str, Any], rows: int, path: Path) -> list[str]:
    """[rows] the text of every id; rows without a token have a name that no text makes."""
    found = {int(i): text for text, i in cast("dict[str, int]", model["vocab"]).items()}
    found |= {one.id: one.content for one in tokenizer.added}
    last = max(found)
    if last >= rows:
        raise ModelError(
            f"the tokenizer has a token {last:,}, and the model {rows:,} rows of embeddings",
            where=str(path),
            remedy="the two do not belong together; export the run whose tokenizer this is",
        )
    known = set(found.values())
    spare = (name for name in (f"[PAD{i}]" for i in range(2 * rows)) if name not in known)
    return [found[i] if i in found else next(spare) for i in range(rows)]


def _kinds(
    tokenizer: TextTokenizer, texts: Sequence[str], *, merged: set[str], spm: bool
) -> tuple[Kind, ...]:
    vocabulary = set(range(len(texts)))
    added = {one.id: one for one in tokenizer.added}
    known = {i for i in vocabulary if tokenizer.id_of(texts[i]) == i}
    unknown = tokenizer.id_of(tokenizer.special_names.get("unk_token"))

    def kind_of(i: int) -> Kind:
        one, text = added.get(i), texts[i]
        if i not in known:
            return Kind.UNUSED
        if spm and i == unknown:
            return Kind.UNKNOWN
        if spm and len(text) == 6 and text.startswith("<0x") and text.endswith(">"):
            return Kind.BYTE
        if one is None:
            return Kind.NORMAL
        if one.special:
            return Kind.CONTROL
        # A text with the sign for a space never matches as it stands: only merges make it.
        return Kind.NORMAL if spm and _SPACE in text and text in merged else Kind.USER_DEFINED

    return tuple(kind_of(i) for i in range(len(texts)))


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    """Pairs, the first to be merged first."""
    found: list[tuple[str, str]] = []
    for one in cast("list[Any]", model["merges"]):
        first, second = one.split(" ", 1) if isinstance(one, str) else one
        found.append((first, second))
    return found


def _scores(
    merges: Sequence[tuple[str, str]], texts: Sequence[str], kinds: Sequence[Kind], path: Path
) -> tuple[float, ...]:
    """Scores by which SentencePiece merges as the list of merges does.

    It merges the neighbours whose joint text has the highest score, whatever their parting. So all partings of a
    token into tokens must be in the list, and beside each other.
    """
    rank: dict[str, int] = {}
    last = ""
    for first, second in merges:
        text = first + second
        if text != last and text in rank:
            raise _not_by_score(f"{text!r} is merged at two places of the list", path)
        rank.setdefault(text, len(rank))
        last = text
    listed, known = set(merges), set(texts)
    for text, kind in zip(texts, kinds, strict=True):
        if kind is not Kind.NORMAL:
            continue
        for i in range(1, len(text)):
            pair = (text[:i], text[i:])
            if pair not in listed and pair[0] in known and pair[1] in known:
                raise _not_by_score(f"{pair[0]!r} and {pair[1]!r} are not merged", path)
    normal = (Kind.NORMAL, Kind.BYTE)
    return tuple(
        -float(rank.get(text, len(rank))) if kind in normal else _SPECIAL_SCORE
        for text, kind in zip(texts, kinds, strict=True)
    )


def _not_by_score(why: str, path: Path) -> ModelError:
    return ModelError(
        f"this tokenizer merges in an order that no scores give, as llama.cpp needs them: {why}",
        where=str(path),
        remedy=_REMEDY,
    )


def _space_prefix(source: Mapping[str, Any], path: Path, notices: list[str]) -> bool:
    """Whether a space is put before texts; refused where more is done to them."""
    steps = _flat(source.get("normalizer"), "normalizers")
    cuts = _flat(source.get("pre_tokenizer"), "pretokenizers")
    replaces = {"type": "Replace", "pattern": {"String": " "}, "content": _SPACE}
    prepends = {"type": "Prepend", "prepend": _SPACE}
    harmless = {"type": "Split", "pattern": {"String": " "}, "behavior": "MergedWithPrevious", "invert": False}  # fmt: skip
    if steps == [prepends, replaces] and not cuts:
        return True
    if steps == [replaces] and cuts in ([], [harmless]):
        return False
    if not steps and len(cuts) == 1 and cuts[0].get("type") == "Metaspace":
        (cut,) = cuts
        scheme = cut.get("prepend_scheme", "always")
        if cut.get("replacement") == _SPACE and not cut.get("split", True):
            if scheme == "first":
                notices.append(
                    "no space is put before the first word: exact for chats, which begin with a control token, while "
                    "a bare text begins with another token"
                )
            return scheme == "always"
    told = json.dumps([*steps, *cuts], ensure_ascii=False)
    raise ModelError(
        f"llama.cpp does not prepare text as this tokenizer does: {told}",
        where=str(path),
        remedy=_REMEDY,
    )


def _check_normalizer(part: Any, path: Path, notices: list[str]) -> None:
    """A byte-level tokenizer that changes texts first: NFC alone is told, all else is refused."""
    for step in _flat(part, "normalizers"):
        if step.get("type") != "NFC":
            raise ModelError(
                f"llama.cpp does not change text as this tokenizer does: {step.get('type')}",
                where=str(path),
                remedy=_REMEDY,
            )
        notices.append(
            "llama.cpp does not bring text to NFC: letters with separate accents are read otherwise"
        )


def _flat(part: Any, inner: str) -> list[dict[str, Any]]:
    if part is None:
        return []
    if part.get("type") != "Sequence":
        return [cast("dict[str, Any]", part)]
    steps = cast("list[Any]", part.get(inner) or [])
    return [one for each in steps for one in _flat(each, inner)]


def _stripping(added: Sequence[Added]) -> list[str]:
    odd = [repr(one.content) for one in added if one.lstrip or one.rstrip or one.single_word]
    if not odd:
        return []
    return [f"spaces beside {', '.join(odd[:3])} are part of the token here, and not in llama.cpp"]


def _ids(tokenizer: TextTokenizer, stop_ids: Sequence[int], notices: list[str]) -> dict[str, int]:
    """The ids that llama.cpp acts on; it takes defaults of its own for an end that is not said."""
    named = {name: tokenizer.id_of(tokenizer.special_names.get(f"{name}_token")) for name in ("bos", "eos", "unk", "pad")}  # fmt: skip
    ids = {name: i for name, i in named.items() if i is not None}
    turn_ends = [i for i in stop_ids if i != ids.get("eos")]
    if "eos" not in ids:
        if not turn_ends:
            raise ModelError(
                "no token of this tokenizer ends a text, and llama.cpp needs one",
                where=str(tokenizer.folder),
                remedy="name one as eos_token in tokenizer_config.json",
            )
        ids["eos"] = turn_ends.pop(0)
    if turn_ends:
        ids["eot"] = turn_ends.pop(0)
    if turn_ends:
        more = ", ".join(repr(tokenizer.token(i)) for i in turn_ends)
        notices.append(f"replies end at {more} too, which GGUF cannot say: name them as stop texts")
    return ids
