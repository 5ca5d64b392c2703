"""How a byte-level tokenizer cuts text before its merges, and by which name llama.cpp knows the same cut.

llama.cpp has the cuts of known models built in, by name; a file can only name one. A tokenizer whose cut is none of
these cannot be put into such a file: it would read text in other tokens than the model was trained on.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from hone.errors import ModelError

_SHORT_FORMS: Final = r"(?i:'s|'t|'re|'ve|'m|'ll|'d)"
_LINES_AND_SPACES: Final = r"|\s*[\r\n]+|\s+(?!\S)|\s+"
_UPPER: Final = r"[\p{Lu}\p{Lt}\p{Lm}\p{Lo}\p{M}]"
_LOWER: Final = r"[\p{Ll}\p{Lm}\p{Lo}\p{M}]"
_BEFORE: Final = r"[^\r\n\p{L}\p{N}]?"
_SIGNS: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n]*"
_SIGNS_AND_SLASHES: Final = r"| ?[^\s\p{L}\p{N}]+[\r\n/]*"

# The cuts stand in the models' own tokenizer.json; a word has its sign before it, and digits stand alone or by threes.
_ONE_DIGIT: Final = _SHORT_FORMS + "|" + _BEFORE + r"\p{L}+|\p{N}" + _SIGNS + _LINES_AND_SPACES
_THREE_DIGITS: Final = (
    _SHORT_FORMS + "|" + _BEFORE + r"\p{L}+|\p{N}{1,3}" + _SIGNS + _LINES_AND_SPACES
)
_WITH_MARKS: Final = (
    _SHORT_FORMS
    + "|"
    + _BEFORE
    + r"[\p{L}\p{M}]+|\p{N}| ?[^\s\p{L}\p{M}\p{N}]+[\r\n]*"
    + _LINES_AND_SPACES
)
_BY_CASE: Final = (
    f"{_BEFORE}{_UPPER}*{_LOWER}+|{_BEFORE}{_UPPER}+{_LOWER}*|\\p{{N}}"
    + _SIGNS_AND_SLASHES
    + _LINES_AND_SPACES
)
_BY_CASE_THREE_DIGITS: Final = (
    f"{_BEFORE}{_UPPER}*{_LOWER}+{_SHORT_FORMS}?|{_BEFORE}{_UPPER}+{_LOWER}*{_SHORT_FORMS}?|\\p{{N}}{{1,3}}"
    + _SIGNS_AND_SLASHES
    + _LINES_AND_SPACES
)

_NAMES: Final[Mapping[tuple[str, bool], str]] = {
    (_ONE_DIGIT, False): "qwen2",
    (_THREE_DIGITS, True): "llama-bpe",
    (_THREE_DIGITS, False): "smaug-bpe",
    (_WITH_MARKS, False): "qwen35",
    (_BY_CASE, True): "tekken",
    (_BY_CASE_THREE_DIGITS, False): "gpt-4o",
}
"""By the cut and by whether a piece that is a token as it stands needs no merges (`ignore_merges`)."""


def presplit_name(tokenizer: Mapping[str, Any], *, where: str | None = None) -> str:
    """The `tokenizer.ggml.pre` of a tokenizer.json.

    Raises ModelError, which shows the cut, where llama.cpp has none that is exactly the same.
    """
    parts = _parts(tokenizer.get("pre_tokenizer"))
    ignore_merges = bool(tokenizer["model"].get("ignore_merges"))
    name = _name(parts, ignore_merges=ignore_merges)
    if name is None:
        cut = next((str(part.get("pattern")) for part in parts if part["type"] == "Split"), None)
        told = cut or " + ".join(str(part["type"]) for part in parts) or "none at all"
        merges = ", with ignore_merges" if ignore_merges else ""
        raise ModelError(
            f"llama.cpp does not know the way in which this tokenizer cuts text: {told}{merges}",
            where=where,
            remedy="use another form: hone export --to safetensors, or serve it with `hone serve`",
        )
    return name


def _name(parts: list[dict[str, Any]], *, ignore_merges: bool) -> str | None:
    if not parts or not _is_byte_level(parts[-1]):
        return None
    cuts_itself = bool(parts[-1].get("use_regex", True))
    match parts[:-1]:
        case [] if cuts_itself and not ignore_merges:
            return "gpt-2"
        case [{"type": "Digits", "individual_digits": True}] if cuts_itself and not ignore_merges:
            return "smollm"
        case [{"type": "Split", "pattern": {"Regex": str(cut)}} as part] if not cuts_itself:
            keeps_all = (part.get("behavior"), bool(part.get("invert"))) in (
                ("Isolated", False),
                ("Removed", True),
            )
            return _NAMES.get((cut, ignore_merges)) if keeps_all else None
        case _:
            return None


def _is_byte_level(part: dict[str, Any]) -> bool:
    return part["type"] == "ByteLevel" and not part.get("add_prefix_space", True)


def _parts(part: Any) -> list[dict[str, Any]]:
    """The steps of a pre-tokenizer, one after the other."""
    if part is None:
        return []
    if part.get("type") != "Sequence":
        return [cast("dict[str, Any]", part)]
    inner = cast("list[dict[str, Any]]", part.get("pretokenizers") or [])
    return [one for each in inner for one in _parts(each)]
