"""The keys of a file in another system's language, taken one by one into settings of ours. It knows no language.

A language is a table: keys that are settings of ours under another name, keys that have no object here (told, with
the reason), and keys that are refused unless they are off. What is left at the end is unknown, and refused.
"""

from __future__ import annotations

import difflib
from collections.abc import Collection, Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hone.config.complaints import Complaint
from hone.config.fields import settings
from hone.config.kinds import number_from_text, whole_from_text
from hone.config.values import Node, fit

_TRUTHS: Final = {"true": True, "yes": True, "on": True, "false": False, "no": False, "off": False}
_OFF: Final = (None, False)


@dataclass(frozen=True)
class Refusal:
    """Why a key of another language cannot be honoured, and what to do. `unless`: values that ask for nothing."""

    reason: str
    remedy: str
    unless: tuple[object, ...] = _OFF


@dataclass
class Translation:
    """What a file in another language comes to: our values by dotted name, where each was said, and what is said about it."""

    language: str
    values: dict[str, object] = field(default_factory=dict[str, object])
    origins: dict[str, str] = field(default_factory=dict[str, str])
    remarks: list[str] = field(default_factory=list[str])
    complaints: list[Complaint] = field(default_factory=list[Complaint])
    rows_per_device: int | None = None
    """Rows of a step that each device takes, where the language counts so; `train.batch_size` is that of all."""


class Foreign:
    """The nodes of a file by key, each to be taken once; `finish` complains about those that nobody took."""

    def __init__(
        self, language: str, nodes: Mapping[str, Node], file: str, known: Collection[str]
    ) -> None:
        self.nodes = dict(nodes)
        self.file = file
        self.made = Translation(language)
        self._known = known
        self._left = set(nodes)
        self._idle: dict[str, list[str]] = {}

    def said(self, key: str) -> bool:
        """Whether the file gives the key a value that is not null."""
        return key in self.nodes and not self.nodes[key].is_null

    def where(self, key: str) -> str:
        """Where a key was said, or that it was not."""
        if key not in self.nodes:
            return f"{self.made.language}'s default"
        node = self.nodes[key]
        line = "" if node.line is None else f":{node.line}"
        return f"{node.file or self.file}{line} ({key})"

    def take(self, key: str, annotation: Any = Any) -> object:
        """The value of a key as the annotation reads it; None where it is absent or null."""
        self._left.discard(key)
        return fit(self.nodes[key], annotation) if self.said(key) else None

    def text(self, key: str, default: str = "") -> str:
        """The words of a key."""
        value = self.take(key, str)
        if value is None or isinstance(value, str):
            return default if value is None else value.strip()
        self.complain(key, f"{key}: {value!r} cannot be used", "allowed: text")
        return default

    def truth(self, key: str, default: bool = False) -> bool:
        """The truth value of a key; `yes` and `no` are such for readers of YAML 1.1."""
        value = self.take(key)
        if isinstance(value, str):
            value = _TRUTHS.get(value.lower(), value)
        if value is None or isinstance(value, bool):
            return default if value is None else value
        self.complain(key, f"{key}: {value!r} cannot be used", "allowed: true or false")
        return default

    def number(self, key: str, default: float) -> float:
        """The number of a key, `1e-4` included."""
        value = self._number(key, number_from_text, "a number")
        return default if value is None else float(value)

    def whole(self, key: str, default: int) -> int:
        """The whole number of a key."""
        value = self._number(key, whole_from_text, "a whole number")
        if isinstance(value, float):
            self.complain(key, f"{key}: {value!r} cannot be used", "allowed: a whole number")
            return default
        return default if value is None else int(value)

    def words(self, key: str) -> list[str]:
        """A list, or words with commas between them."""
        value = self.take(key)
        if isinstance(value, list | tuple):
            return [str(one) for one in value]  # pyright: ignore[reportUnknownVariableType,reportUnknownArgumentType]
        return (
            [word.strip() for word in str(value).split(",") if word.strip()]
            if value is not None
            else []
        )

    def put(self, name: str, value: object, key: str) -> None:
        """Set one of ours, said by a key of theirs."""
        self.made.values[name] = value
        self.made.origins[name] = self.where(key)

    def map(self, table: Mapping[str, str]) -> None:
        """Take each said key of a table of keys that are settings of ours."""
        for key, name in table.items():
            if self.said(key):
                self.put(name, self.take(key, settings()[name].annotation), key)

    def read_tables(
        self, same: Mapping[str, str], idle: Mapping[str, str], refused: Mapping[str, Refusal]
    ) -> None:
        """Go through a language's tables: keys that are settings of ours, that have no object here, that are refused."""
        self.map(same)
        for key, reason in idle.items():
            self.idle(key, reason)
        for key, refusal in refused.items():
            self.refuse(key, refusal)

    def idle(self, key: str, reason: str, *, unless: tuple[object, ...] = _OFF) -> None:
        """Tell that a key has no object here, unless it asks for nothing."""
        if self._value(key) not in unless:
            self._idle.setdefault(reason, []).append(key)

    def refuse(self, key: str, refusal: Refusal) -> None:
        """Complain about a key, unless it asks for nothing."""
        value = self._value(key)
        if value not in refusal.unless:
            word = str(value).lower() if isinstance(value, bool) else value
            shown = f": {word}" if isinstance(word, str | int | float) else ""
            self.complain(key, f"{key}{shown} cannot be honoured: {refusal.reason}", refusal.remedy)

    def complain(
        self, key: str, what: str, remedy: str | None, *, where: str | None = None
    ) -> None:
        """Something is wrong with what a key says, there or in another file that it names."""
        self._left.discard(key)
        self.made.complaints.append(Complaint(what, where or self.where(key), remedy))

    def remark(self, text: str) -> None:
        """Something that a user should hear."""
        self.made.remarks.append(text)

    def finish(self) -> Translation:
        """What the file comes to; a complaint for each key that no table knows."""
        for reason, keys in self._idle.items():
            self.remark(f"not applicable here: {', '.join(keys)}: {reason}")
        for key in sorted(self._left):
            self.complain(
                key,
                f"{key!r} is no key of {self.made.language} that Hone knows",
                self._nearest(key),
            )
        return self.made

    def _value(self, key: str) -> object:
        value = self.take(key)
        return _TRUTHS.get(value.lower(), value) if isinstance(value, str) else value

    def _nearest(self, key: str) -> str:
        close = difflib.get_close_matches(key, sorted(self._known), n=1, cutoff=0.6)
        remedy = f"did you mean {close[0]!r}? " if close else ""
        return f"{remedy}else remove it; what Hone itself can set: `hone config show`"

    def _number(self, key: str, read: Any, wanted: str) -> float | int | None:
        value = self.take(key)
        try:
            value = read(value)
        except ValueError:
            value = str(value)
        if value is None or isinstance(value, int | float):
            return value
        self.complain(key, f"{key}: {value!r} cannot be used", f"allowed: {wanted}")
        return None


def flattened(root: Node, known: Collection[str], prefix: str = "") -> dict[str, Node]:
    """The leaves of nested sections by dotted name; a name in `known` is a leaf, whatever it holds."""
    found: dict[str, Node] = {}
    for key, node in (root.entries or {}).items():
        name = f"{prefix}{key}"
        if node.entries and name not in known:
            found |= flattened(node, known, f"{name}.")
        else:
            found[name] = node
    return found
