"""Text to token ids and back, from a model folder's files, without torch. It knows no messages and no template."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Generator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, Final, cast

from tokenizers import AddedToken, Tokenizer

from hone.config.model_json import CONFIG_BYTES, TOKENIZER_BYTES, check_size, read_model_json
from hone.data.encoder import FastEncoder, build_encoder
from hone.errors import ModelError

_SPECIAL_NAMES: Final = (
    "bos_token",
    "eos_token",
    "unk_token",
    "pad_token",
    "sep_token",
    "cls_token",
    "mask_token",
)


@dataclass(frozen=True, slots=True)
class Added:
    """An added token: matched as a whole before the text is split, and how it treats its surroundings."""

    content: str
    id: int
    special: bool
    lstrip: bool
    rstrip: bool
    single_word: bool
    normalized: bool


@dataclass(frozen=True, slots=True)
class NewToken:
    """A token added to the folder's own: its text, its id, and the ids that spelled it before."""

    text: str
    id: int
    special: bool
    pieces: tuple[int, ...]


class TextTokenizer:
    """The tokenizer of a model folder, as `transformers` would load it from its `tokenizer.json`.

    Not for several threads at once: encoding plain text switches a setting of the backend for the call.
    """

    def __init__(
        self,
        backend: Tokenizer,
        *,
        config: dict[str, Any] | None = None,
        chat_template: str | None = None,
        tool_template: str | None = None,
        folder: Path | None = None,
        additions: Sequence[tuple[str, bool]] = (),
    ) -> None:
        self._backend = backend
        self._config = config or {}
        self.chat_template = chat_template
        """Jinja source of the model's own chat template, or None."""
        self.tool_template = tool_template
        """Jinja source of a second template for conversations with tools (few models have one), or None."""
        self.folder = folder
        """Where it was loaded from."""
        self.special_names: dict[str, str] = _special_names(self._config)
        """`bos_token`, `eos_token`, … as named in the configuration: what templates write by these names."""
        _add_missing_tokens(backend, self._config, self.special_names)
        self._texts: dict[int, str] = {}
        backend.no_truncation()
        backend.no_padding()
        self.additions = tuple(additions)
        """Texts that were asked to be tokens of their own, and whether as control tokens."""
        self.known: tuple[str, ...] = ()
        """Those of them that were tokens already, and were left as they are."""
        self.new: tuple[NewToken, ...] = self._extend()
        """The others."""

    @classmethod
    def load(cls, folder: Path, additions: Sequence[tuple[str, bool]] = ()) -> TextTokenizer:
        """Read `tokenizer.json` and the configuration beside it; `additions` are texts that become tokens, and
        whether as control tokens.

        Raises ModelError when the folder holds no usable tokenizer.
        """
        path = folder / "tokenizer.json"
        if not path.is_file():
            raise ModelError(
                "the model folder has no tokenizer.json",
                where=str(folder),
                remedy="save the tokenizer in its fast form (AutoTokenizer.from_pretrained(…)"
                ".save_pretrained(…)), or name another model",
            )
        check_size(path, TOKENIZER_BYTES)
        try:
            backend = Tokenizer.from_file(str(path))
        except Exception as fault:
            raise ModelError(
                f"tokenizer.json cannot be read: {fault}",
                where=str(path),
                remedy="download or save the tokenizer again",
            ) from fault
        config = _config(folder)
        templates = _chat_templates(folder, config)
        return cls(
            backend,
            config=config,
            chat_template=templates.get("default"),
            tool_template=templates.get("tool_use"),
            folder=folder,
            additions=additions,
        )

    def _extend(self) -> tuple[NewToken, ...]:
        """Add what was asked for; ids follow the last one, in the order of asking."""
        backend = self._backend
        fresh = [one for one in self.additions if backend.token_to_id(one[0]) is None]
        self.known = tuple(one[0] for one in self.additions if one not in fresh)
        pieces = [tuple(self.encode_many([text], continues=True)[0]) for text, _ in fresh]
        for text, special in fresh:
            _add(backend, AddedToken(text, special=special, normalized=False))
        return tuple(
            NewToken(text, cast(int, backend.token_to_id(text)), special, spelled)
            for (text, special), spelled in zip(fresh, pieces, strict=True)
        )

    @property
    def backend_json(self) -> str:
        """What its `tokenizer.json` would say, additions included."""
        return self._backend.to_str(pretty=True)

    @cached_property
    def added(self) -> tuple[Added, ...]:
        """Every added token, by id."""
        found = self._backend.get_added_tokens_decoder()
        return tuple(
            Added(t.content, i, t.special, t.lstrip, t.rstrip, t.single_word, t.normalized)
            for i, t in sorted(found.items())
        )

    @cached_property
    def special_ids(self) -> frozenset[int]:
        """Ids of the added tokens that the tokenizer flags special."""
        return frozenset(token.id for token in self.added if token.special)

    @cached_property
    def unknown_ids(self) -> frozenset[int]:
        """Ids that stand for letters outside the vocabulary: an unknown token, or bytes."""
        with self._mode(continues=True, plain=True):
            return frozenset(self._backend.encode("\ue000", add_special_tokens=False).ids)

    @property
    def vocab_size(self) -> int:
        """Number of ids, added tokens included."""
        return self._backend.get_vocab_size(with_added_tokens=True)

    @property
    def bos_token(self) -> str | None:
        """The beginning-of-text token, or None."""
        return self.special_names.get("bos_token")

    @property
    def eos_token(self) -> str | None:
        """The end-of-text token, or None."""
        return self.special_names.get("eos_token")

    @property
    def bos_id(self) -> int | None:
        """Id of `bos_token`."""
        return self.id_of(self.bos_token)

    @property
    def eos_id(self) -> int | None:
        """Id of `eos_token`."""
        return self.id_of(self.eos_token)

    @cached_property
    def adds_bos(self) -> bool:
        """Whether the model wants `bos_token` first: the configuration says so, or the post-processor adds it."""
        if self.bos_id is None:
            return False
        said = self._config.get("add_bos_token")
        if isinstance(said, bool):
            return said
        return self.bos_id in self._backend.encode("", add_special_tokens=True).ids[:1]

    @property
    def is_byte_level(self) -> bool:
        """Whether every token stands for bytes of the text, at least one."""
        decoder: Any = self._backend.decoder
        return decoder is not None and json.loads(decoder.__getstate__()).get("type") == "ByteLevel"

    @property
    def max_length(self) -> int | None:
        """The longest text the tokenizer's configuration speaks of, in tokens, or None."""
        length = self._config.get("model_max_length")
        return length if isinstance(length, int) and 0 < length < 10**9 else None

    @cached_property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of what decides the ids: tokenizer.json, the added tokens and the special names."""
        path = self.folder and self.folder / "tokenizer.json"
        data = path.read_bytes() if path else self._backend.to_str().encode()
        base = hashlib.sha256(data).hexdigest()
        rest = [
            base,
            self.special_names,
            [[a.content, a.id, a.special] for a in self.added],
            self.adds_bos,
        ]
        return hashlib.sha256(json.dumps(rest, sort_keys=True).encode()).hexdigest()

    def fast_encoder(self, proofs: Path | None) -> FastEncoder | None:
        """A faster encoder of what lies between added tokens, where it is proved to give the same ids."""
        if self.folder is None or any(t.single_word or not t.content.isascii() for t in self.added):
            return None
        source = json.loads((self.folder / "tokenizer.json").read_bytes())
        encoder = build_encoder(self._backend, source, fingerprint=self.fingerprint, proofs=proofs)
        if encoder is None or any(encoder.makes(token.id) for token in self.added):
            return None
        return encoder

    def encode(self, text: str) -> list[int]:
        """Ids of `text`; added tokens in it are recognised, none are put around it."""
        return self._backend.encode(text, add_special_tokens=False).ids

    def encode_many(
        self, texts: Sequence[str], *, continues: bool = False, plain: bool = False
    ) -> list[list[int]]:
        """Ids of each text.

        `continues`: the texts go on after other text, so a tokenizer that puts a space before the
        first word does not. `plain`: tokens flagged special are not recognised; their text becomes
        ordinary pieces.
        """
        with self._mode(continues=continues, plain=plain):
            found = self._backend.encode_batch_fast(list(texts), add_special_tokens=False)
        return [encoding.ids for encoding in found]

    def encode_plain(self, text: str) -> list[int]:
        """Ids of `text` with every special token in it spelled out in ordinary pieces."""
        ids = self.encode_many([text], plain=True)[0]
        if self.special_ids.isdisjoint(ids):
            return ids
        # A word-level or unigram vocabulary may hold the token's text as a piece: spell it by letters.
        return [
            i
            for letter in text
            for i in self.encode_many([letter], plain=True, continues=True)[0]
            if i not in self.special_ids
        ]

    def decode(self, ids: Sequence[int]) -> str:
        """Text of `ids`, special tokens included."""
        return self._backend.decode([int(i) for i in ids], skip_special_tokens=False)

    def decode_after(self, before: Sequence[int], ids: Sequence[int]) -> str:
        """Text that `ids` add after `before`: a decoder that drops a leading space drops none here."""
        anchor = [int(i) for i in before[-1:]]
        start = self.decode(anchor)
        whole = self.decode([*anchor, *ids])
        return whole[len(start) :] if whole.startswith(start) else self.decode(ids)

    def text_of(self, token_id: int) -> str:
        """What one id adds to a text in its middle; `�` stands for bytes that are no character alone."""
        known = self._texts.get(token_id)
        if known is None:
            known = self._texts[token_id] = self.decode_after(self._anchor, [token_id])
        return known

    def token(self, token_id: int) -> str:
        """The vocabulary's own spelling of one id (`Ġhello`), or `<id>` for an id without a token."""
        found = self._backend.id_to_token(int(token_id))
        return f"<{int(token_id)}>" if found is None else found

    def id_of(self, token: str | None) -> int | None:
        """Id of a token's exact text, or None."""
        return None if token is None else self._backend.token_to_id(token)

    @cached_property
    def _anchor(self) -> list[int]:
        """An ordinary id to decode after, so that a decoder drops no leading space of what follows."""
        return [i for i in self.encode("a") if i not in self.special_ids][-1:]

    @cached_property
    def prefixes_every_piece(self) -> bool:
        """Whether a space is put before the text after every control token, not only at the very start."""
        parts = self._prefix_parts
        return "always" in parts

    @property
    def prefixes_text(self) -> bool:
        """Whether a space is put before the first word of a text, as SentencePiece does."""
        return bool(self._prefix_parts)

    @cached_property
    def _prefix_parts(self) -> frozenset[str]:
        found: set[str] = set()
        for part in (self._backend.normalizer, self._backend.pre_tokenizer):
            if part is not None:
                found |= _prefixes(json.loads(part.__getstate__()))
        return frozenset(found)

    @contextlib.contextmanager
    def _mode(self, *, continues: bool, plain: bool) -> Generator[None]:
        """Switch the backend for one call; a switch costs microseconds, a second backend megabytes."""
        backend = self._backend
        swap = continues and bool(self._prefix_parts)
        kept = (backend.normalizer, backend.pre_tokenizer)
        if plain:
            backend.encode_special_tokens = True
        if swap:
            backend.normalizer, backend.pre_tokenizer = self._without_prefix
        try:
            yield
        finally:
            if plain:
                backend.encode_special_tokens = False
            if swap:
                backend.normalizer, backend.pre_tokenizer = kept

    @cached_property
    def _without_prefix(self) -> tuple[Any, Any]:
        """The normalizer and pre-tokenizer of this tokenizer for text in the middle of a sequence."""
        state: dict[str, Any] = {
            "version": "1.0",
            "truncation": None,
            "padding": None,
            "added_tokens": [],
            "normalizer": None,
            "pre_tokenizer": None,
            "post_processor": None,
            "decoder": None,
            "model": {"type": "WordLevel", "vocab": {"?": 0}, "unk_token": "?"},
        }
        for name in ("normalizer", "pre_tokenizer"):
            part = getattr(self._backend, name)
            if part is not None:
                state[name] = _strip_prefix(json.loads(part.__getstate__()))
        bare = Tokenizer.from_str(json.dumps(state))
        return bare.normalizer, bare.pre_tokenizer


def _prefixes(part: dict[str, Any]) -> set[str]:
    """Where a part of the pipeline puts a space before text: 'first', 'always', both or nowhere."""
    match part.get("type"):
        case "Sequence":
            inner: list[dict[str, Any]] = part.get("normalizers") or part.get("pretokenizers") or []
            found: set[str] = set()
            return found.union(*map(_prefixes, inner))
        case "Prepend":
            return {"always"}
        case "Metaspace":
            scheme = part.get(
                "prepend_scheme", "always" if part.get("add_prefix_space", True) else "never"
            )
            return set() if scheme == "never" else {scheme}
        case "ByteLevel":
            return {"always"} if part.get("add_prefix_space") else set()
        case _:
            return set()


def _strip_prefix(part: dict[str, Any]) -> dict[str, Any] | None:
    match part.get("type"):
        case "Sequence":
            key = "normalizers" if "normalizers" in part else "pretokenizers"
            inner = [kept for kept in map(_strip_prefix, part[key]) if kept is not None]
            return {**part, key: inner}
        case "Prepend":
            return None
        case "Metaspace":
            return {**part, "prepend_scheme": "never"}
        case "ByteLevel" if "add_prefix_space" in part:
            return {**part, "add_prefix_space": False}
        case _:
            return part


def _read_json(path: Path) -> dict[str, Any]:
    return read_model_json(path) if path.is_file() else {}


def _config(folder: Path) -> dict[str, Any]:
    older = _read_json(folder / "special_tokens_map.json")
    return {**older, **_read_json(folder / "tokenizer_config.json")}


def _chat_templates(folder: Path, config: dict[str, Any]) -> dict[str, str]:
    """Named templates, from where `transformers` looks: the .jinja file first, then the JSON files."""
    found: dict[str, str] = {}
    for holder in (config, _read_json(folder / "chat_template.json")):
        said = holder.get("chat_template")
        if isinstance(said, str):
            found = {"default": said}
        elif isinstance(said, list):
            named = cast("list[dict[str, Any]]", said)
            whole = [one for one in named if {"name", "template"} <= set(one)]
            found = {str(one["name"]): str(one["template"]) for one in whole}
    path = folder / "chat_template.jinja"
    if path.is_file():
        found["default"] = _read_template(path)
        found.pop("tool_use", None)
    extra = folder / "additional_chat_templates" / "tool_use.jinja"
    if extra.is_file():
        found["tool_use"] = _read_template(extra)
    return found


def _read_template(path: Path) -> str:
    check_size(path, CONFIG_BYTES)
    try:
        return path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ModelError(
            f"{path.name} cannot be read: {fault}",
            where=str(path),
            remedy="fetch or save the model again",
        ) from fault


def _special_names(config: dict[str, Any]) -> dict[str, str]:
    names: dict[str, str] = {}
    for name in _SPECIAL_NAMES:
        said = config.get(name)
        if isinstance(said, dict):
            said = cast("dict[str, Any]", said).get("content")
        if isinstance(said, str):
            names[name] = said
    return names


def _add_missing_tokens(backend: Tokenizer, config: dict[str, Any], names: dict[str, str]) -> None:
    """Tokens that only tokenizer_config.json knows; their flags there win over those of tokenizer.json."""
    have = {token.content: token for token in backend.get_added_tokens_decoder().values()}
    named = set(names.values())
    listed = cast("dict[str, dict[str, Any]]", config.get("added_tokens_decoder") or {})
    for _, said in sorted(listed.items(), key=lambda item: int(item[0])):
        content = str(said.get("content", ""))
        if not content:
            continue
        flags = {
            key: bool(said[key])
            for key in ("lstrip", "rstrip", "normalized", "single_word")
            if key in said
        }
        token = AddedToken(content, special=bool(said.get("special")) or content in named, **flags)
        if content not in have or repr(have[content]) != repr(token):
            _add(backend, token)
            have[content] = token
    extra: Any = config.get("additional_special_tokens") or config.get("extra_special_tokens")
    texts = cast("list[Any]", extra) if isinstance(extra, list) else []
    for content in (*names.values(), *(one for one in texts if isinstance(one, str))):
        if content not in have:
            have[content] = AddedToken(content, special=True, normalized=False)
            _add(backend, have[content])


def _add(backend: Any, token: AddedToken) -> None:
    if token.special:
        backend.add_special_tokens([token])
    else:
        backend.add_tokens([token])
