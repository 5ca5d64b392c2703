"""Turns what the validation library says into our words: the key, what was given, what is wanted, and where.

It knows the settings and their origins, not how they were read.
"""

from __future__ import annotations

import difflib
import re
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import NoReturn, cast

from pydantic import ValidationError
from pydantic_core import ErrorDetails

from hone.config.fields import sections, settings
from hone.config.values import wants_text
from hone.errors import ConfigError, nearest

_LONGEST_QUOTE = 60


@dataclass(frozen=True)
class Complaint:
    """One thing that is wrong: what, where it was said, what to do."""

    what: str
    where: str | None
    remedy: str | None


def raise_complaints(complaints: Sequence[Complaint]) -> NoReturn:
    """Raise one ConfigError that holds every complaint once."""
    once = list(dict.fromkeys(complaints))
    if len(once) == 1:
        raise ConfigError(once[0].what, where=once[0].where, remedy=once[0].remedy)
    lines = [f"{len(once)} settings cannot be used"]
    for each in once:
        lines.append(f"  {each.what}")
        lines += [f"    where: {each.where}"] if each.where else []
        lines += [f"    remedy: {each.remedy}"] if each.remedy else []
    raise ConfigError("\n".join(lines))


def translate(
    error: ValidationError, values: Mapping[str, object], origins: Mapping[str, str]
) -> Iterable[Complaint]:
    """A complaint for each setting that the validation refused; each setting, or entry of one, once."""
    refused: dict[str, object] = {}
    for problem in error.errors(include_url=False):
        path = [str(part) for part in problem["loc"]]
        name = _setting_of(path)
        if name is None:
            yield _about_section(path, problem, origins)
        elif settings()[name].item_keys and path[name.count(".") + 1 :]:
            yield _about_item(name, path[name.count(".") + 1 :], problem, origins)
        elif settings()[name].is_mapping and (tail := path[name.count(".") + 1 :]):
            refused[f"{name}.{tail[0]}"] = problem["input"]
        else:
            refused[name] = values.get(name)
    for entry, given in refused.items():
        yield _about_setting(entry, given, origins)


def _about_section(
    path: Sequence[str], problem: ErrorDetails, origins: Mapping[str, str]
) -> Complaint:
    """A rule that crosses fields; where each setting that it speaks of was said."""
    reason = str(problem.get("ctx", {}).get("error", problem["msg"]))
    return Complaint(reason, _said(reason, ".".join(path), origins), None)


def _setting_of(path: Sequence[str]) -> str | None:
    """The setting that a location lies in; the tail names entries and alternatives."""
    names = (".".join(path[:length]) for length in range(1, len(path) + 1))
    return next((name for name in names if name in settings()), None)


def _about_setting(entry: str, given: object, origins: Mapping[str, str]) -> Complaint:
    """`entry` is a setting, or an entry of one that is a mapping of texts."""
    name = entry if entry in settings() else entry.rpartition(".")[0]
    setting = settings()[name]
    wanted, takes_text = setting.wanted, wants_text(setting.annotation)
    if entry != name:
        wanted, takes_text = "text", True
    remedy = f"allowed: {wanted}"
    close = difflib.get_close_matches(str(given), setting.choices, n=1)
    if close:
        remedy = f"did you mean {close[0]!r}? {remedy}"
    if given is None and takes_text:
        remedy += ' (to mean the word itself, quote it: "null")'
    what = f"{entry}: {_quoted(given)} cannot be used"
    return Complaint(what, origins.get(entry, origins.get(name)), remedy)


def _about_item(
    name: str, tail: Sequence[str], problem: ErrorDetails, origins: Mapping[str, str]
) -> Complaint:
    """`tail` is the number of an item of a list, and the key in it, if it is about one."""
    keys = settings()[name].item_keys
    where = origins.get(name)
    entry = f"{name}[{tail[0]}]"
    if len(tail) < 2:
        what = f"{entry}: {_quoted(problem['input'])} cannot be used"
        return Complaint(what, where, f"allowed: a mapping with some of {', '.join(keys)}")
    key = tail[1]
    if key not in keys:
        return Complaint(f"unknown key {key!r} in {entry}", where, nearest(key, keys))
    if problem["type"] == "missing":
        return Complaint(f"{entry} has no {key}", where, f"add {key}: {keys[key].wanted}")
    what = f"{entry}.{key}: {_quoted(problem['input'])} cannot be used"
    return Complaint(what, where, f"allowed: {keys[key].wanted}")


def _said(reason: str, section: str, origins: Mapping[str, str]) -> str | None:
    """Where the settings that a sentence speaks of were said, those that were."""
    prefix = f"{section}." if section in sections() else ""
    words = cast("list[str]", re.findall(r"[a-z_.]+[a-z]", reason))
    named = [name for word in words for name in (word, prefix + word) if name in settings()]
    said = [f"{name} from {origins[name]}" for name in dict.fromkeys(named) if name in origins]
    return ", ".join(said) or None


def _quoted(value: object) -> str:
    if value is None:
        return "null"
    text = repr(value)
    return text if len(text) <= _LONGEST_QUOTE else f"{text[: _LONGEST_QUOTE - 3]}..."
