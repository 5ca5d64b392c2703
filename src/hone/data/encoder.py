"""Byte-level BPE by a faster core than the tokenizer's own, only where it is proved identical. It knows no templates.

The core (tiktoken) merges any two neighbours whose joint text is a token; `tokenizers` merges listed pairs.
They agree when every token of the core encodes to itself by the listed merges, and the core ranks tokens
as the list does: a state in which two neighbours could be merged into a token arises in a text exactly as it
arises in that token alone, where the listed merge is the one that follows. What is left to differ are
two engines' tables of Unicode, which are compared character by character.
"""

from __future__ import annotations

import json
import re
import unicodedata
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from importlib.metadata import version
from itertools import pairwise
from pathlib import Path
from typing import Any, Final, cast

import numpy as np
from tokenizers import Tokenizer
from tokenizers.models import BPE

from hone.pack import Int32

_GPT2: Final = r"'(?:[sdmt]|ll|ve|re)| ?\p{L}+| ?\p{N}+| ?[^\s\p{L}\p{N}]+|\s+(?!\S)|\s+"
_CONTEXTS: Final = ("a{0}b {0}1\n", "{0}{0} .{0}\n")
_BLOCK: Final = 512  # characters compared at once
_SAMPLE: Final = (
    "It's 2024-01-01; they'LL say: 3.14159 isn't 1e5!\r\n\r\n\tdef f(x):\n        return x ** 2\n"
    "naïve café — “quotes” … 東京都 한국어 Ελλάδα Привет שלום مرحبا 👩‍👩‍👧‍👦 e\u0301 \u200f\u200d x\u00a0y   z \n"
)


@dataclass(frozen=True)
class Proof:
    """What was found when the two were compared, in full: tokens that merges never reach, and characters
    on which the engines differ or that this Python's Unicode does not know."""

    excluded: tuple[int, ...]
    doubtful: tuple[tuple[int, int], ...]  # ranges of code points, ends included


@dataclass(frozen=True)
class _Core:
    """The core, [ranks] the id of each of its ranks (None where a rank is the id), and the ids it can make."""

    encoding: Any
    ids: Int32 | None
    made: frozenset[int]


class FastEncoder:
    """Encodes plain text; `None` for a text that only the tokenizer itself can be trusted with."""

    def __init__(self, core: _Core, doubtful: re.Pattern[str], *, composes: bool) -> None:
        self._encode = core.encoding.encode_ordinary  # half the time of its method for arrays
        self._ids = core.ids
        self._made = core.made
        self._doubtful = doubtful
        self._composes = composes

    def makes(self, token_id: int) -> bool:
        """Whether some text may become this token."""
        return token_id in self._made

    def encode(self, text: str) -> Int32 | None:
        """[T] ids of `text`, in which no added token stands."""
        if not text.isascii():
            if self._doubtful.search(text):
                return None
            if self._composes and not unicodedata.is_normalized("NFC", text):
                return None
        found: Int32 = np.array(self._encode(text), dtype=np.int32)
        return found if self._ids is None else self._ids[found]


def build_encoder(
    backend: Tokenizer, source: Mapping[str, Any], *, fingerprint: str, proofs: Path | None
) -> FastEncoder | None:
    """The fast encoder of a tokenizer, or None where it is not proved to be the same.

    `source` is tokenizer.json as parsed. The proof takes about a second and is kept in `proofs` by `fingerprint`.
    """
    parts = _parts(source)
    if parts is None:
        return None
    pattern, composes = parts
    merges = _merges(source["model"])
    vocab: dict[str, int] = source["model"]["vocab"]
    order = _order(vocab, merges)
    if order is None or any(letter not in vocab for letter in _letters()):
        return None
    name = f"{fingerprint[:32]}-{version('tokenizers')}-{version('tiktoken')}-{unicodedata.unidata_version}"
    path = proofs and proofs / f"{name}.json"
    proof = _read_proof(path)
    if proof is None:
        excluded = _unreachable(backend, source["model"], vocab, merges)
        core = _core(pattern, vocab, order, frozenset(excluded))
        doubtful = _differences(core, backend, composes=composes)
        if doubtful is None:
            return None
        proof = Proof(tuple(excluded), doubtful)
        _write_proof(path, proof)
    else:
        core = _core(pattern, vocab, order, frozenset(proof.excluded))
    if source["model"].get("ignore_merges") and proof.excluded:
        return None
    built = FastEncoder(core, _class_of(proof.doubtful), composes=composes)
    return built if _agree(built, backend, _SAMPLE) else None


def _parts(source: Mapping[str, Any]) -> tuple[str, bool] | None:
    """The pattern that splits text into words, and whether text is composed (NFC) first; None where the
    tokenizer is of another kind."""
    model = cast("Mapping[str, Any]", source.get("model") or {})
    if model.get("type") != "BPE" or model.get("dropout") or model.get("byte_fallback"):
        return None
    if model.get("continuing_subword_prefix") or model.get("end_of_word_suffix"):
        return None
    normalizer = source.get("normalizer")
    if normalizer is not None and normalizer != {"type": "NFC"}:
        return None
    if source.get("truncation") or source.get("padding"):
        return None
    pattern = _pattern(source.get("pre_tokenizer") or {})
    return None if pattern is None else (pattern, normalizer is not None)


def _pattern(part: Mapping[str, Any]) -> str | None:
    match part:
        case {"type": "ByteLevel", "add_prefix_space": False, "use_regex": True}:
            return _GPT2
        case {
            "type": "Sequence",
            "pretokenizers": [
                {"type": "Split", "pattern": {"Regex": str(pattern)}, "behavior": "Isolated", "invert": False},
                {"type": "ByteLevel", "add_prefix_space": False, "use_regex": False},
            ],
        }:  # fmt: skip
            return pattern
        case _:
            return None


def _merges(model: Mapping[str, Any]) -> list[tuple[str, str]]:
    found: list[tuple[str, str]] = []
    for one in cast("list[Any]", model.get("merges") or []):
        left, right = one.split(" ", 1) if isinstance(one, str) else one
        found.append((left, right))
    return found


def _order(vocab: Mapping[str, int], merges: Sequence[tuple[str, str]]) -> dict[str, int] | None:
    """Each token's place among those that merges make; None where the list does not keep a token's merges together."""
    order: dict[str, int] = {}
    last = ""
    for left, right in merges:
        made = left + right
        if made == last:
            continue
        if made in order or made not in vocab:
            return None
        order[made] = len(order)
        last = made
    return order


def _letters() -> dict[str, int]:
    """The printable letter that byte-level BPE writes for each byte (Radford et al., 2019)."""
    plain = [*range(33, 127), *range(161, 173), *range(174, 256)]
    other = [byte for byte in range(256) if byte not in set(plain)]
    return {chr(byte): byte for byte in plain} | {
        chr(256 + place): byte for place, byte in enumerate(other)
    }


def _core(
    pattern: str, vocab: Mapping[str, int], order: Mapping[str, int], excluded: frozenset[int]
) -> _Core:
    import tiktoken

    letters = _letters()
    letters_only = {text: i for text, i in vocab.items() if text in letters}
    made = [text for text in order if vocab[text] not in excluded]
    ids = [*letters_only.values(), *(vocab[text] for text in made)]
    ascending = all(a < b for a, b in pairwise(ids[len(letters_only) :]))
    ranks = {
        bytes(letters[letter] for letter in text): (vocab[text] if ascending else rank)
        for rank, text in enumerate((*letters_only, *made))
    }
    encoding = tiktoken.Encoding("hone", pat_str=pattern, mergeable_ranks=ranks, special_tokens={})
    return _Core(encoding, None if ascending else np.array(ids, dtype=np.int32), frozenset(ids))


def _unreachable(
    backend: Tokenizer,
    model: Mapping[str, Any],
    vocab: Mapping[str, int],
    merges: list[tuple[str, str]],
) -> list[int]:
    """Ids of tokens that the listed merges do not make of the token's own text."""
    bpe: Any = backend.model
    if model.get("ignore_merges"):
        bpe = BPE(vocab=dict(vocab), merges=merges)
    letters = _letters()
    found: list[int] = []
    for text, number in vocab.items():
        if any(letter not in letters for letter in text):
            found.append(number)
        elif len(text) > 1:
            made = bpe.tokenize(text)
            if len(made) != 1 or made[0].id != number:
                found.append(number)
    return found


def _differences(
    core: _Core, backend: Tokenizer, *, composes: bool
) -> tuple[tuple[int, int], ...] | None:
    """Ranges of characters that are not to be trusted; None where even ASCII differs."""
    nothing = re.compile(r"(?!)")
    plain = FastEncoder(core, nothing, composes=composes)
    added = {token.content for token in backend.get_added_tokens_decoder().values()}
    known: list[int] = []
    doubtful: list[int] = []
    for code in range(0x110000):
        kind = unicodedata.category(chr(code))
        unknown = kind in ("Cn", "Co", "Cs")
        if unknown or (composes and not unicodedata.is_normalized("NFC", _probe([code]))):
            doubtful.append(code)
        elif chr(code) not in added:
            known.append(code)
    if known[:128] != list(range(128)):
        return None
    wanted = [known[i : i + _BLOCK] for i in range(0, len(known), _BLOCK)]
    while wanted:
        block = wanted.pop()
        if not _agree(plain, backend, _probe(block)):
            if len(block) == 1:
                if block[0] < 128:
                    return None
                doubtful.append(block[0])
            else:
                wanted += [block[: len(block) // 2], block[len(block) // 2 :]]
    return _ranges(sorted(doubtful))


def _probe(codes: Iterable[int]) -> str:
    return "".join(context.format(chr(code)) for code in codes for context in _CONTEXTS)


def _agree(fast: FastEncoder, backend: Tokenizer, text: str) -> bool:
    """Whether both give `text` the same ids, where the fast one claims any."""
    ids = fast.encode(text)
    return ids is None or ids.tolist() == backend.encode(text, add_special_tokens=False).ids


def _ranges(codes: Iterable[int]) -> tuple[tuple[int, int], ...]:
    found: list[tuple[int, int]] = []
    for code in codes:
        if found and found[-1][1] == code - 1:
            found[-1] = (found[-1][0], code)
        else:
            found.append((code, code))
    return tuple(found)


def _class_of(ranges: Sequence[tuple[int, int]]) -> re.Pattern[str]:
    if not ranges:
        return re.compile(r"(?!)")
    return re.compile("[" + "".join(f"\\U{a:08x}-\\U{b:08x}" for a, b in ranges) + "]")


def _read_proof(path: Path | None) -> Proof | None:
    if path is None or not path.is_file():
        return None
    try:
        told = json.loads(path.read_bytes())
        doubtful = tuple((int(a), int(b)) for a, b in told["doubtful"])
        return Proof(tuple(int(i) for i in told["excluded"]), doubtful)
    except (OSError, ValueError, LookupError, TypeError):
        return None


def _write_proof(path: Path | None, proof: Proof) -> None:
    """Keep it for the next start; a cache that cannot be written costs a second each time and nothing else."""
    if path is None:
        return
    try:
        path.parent.mkdir(parents=True, exist_ok=True)
        beside = path.with_name(f".{path.name}.{id(proof)}.part")
        beside.write_text(json.dumps({"excluded": proof.excluded, "doubtful": proof.doubtful}))
        beside.replace(path)
    except OSError:
        return
