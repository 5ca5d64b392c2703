"""Which language a configuration file is written in, and the door to each. It knows no key of any."""

from __future__ import annotations

import importlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hone.config.dialects.foreign import Translation, flattened
from hone.config.fields import settings
from hone.config.values import Node, plain_scalar
from hone.errors import ConfigError, nearest

Read = Callable[[Mapping[str, Node], str, Mapping[str, str]], Translation]


@dataclass(frozen=True)
class Dialect:
    """A language: its name on the command line, whose it is, and its module, imported when it is met."""

    name: str
    language: str
    module: str
    trains: bool = False
    """Whether `hone train` reads it as it is, beside our own."""

    @property
    def keys(self) -> frozenset[str]:
        """Every key that it knows, dotted where it has sections."""
        return self._module().KEYS

    @property
    def signature(self) -> frozenset[str]:
        """Keys by one of which a flat file is known to be of this language; empty for one with sections."""
        return getattr(self._module(), "SIGNATURE", frozenset())

    @property
    def spoken(self) -> Mapping[str, str]:
        """Keys by another name under which they may be overridden."""
        return getattr(self._module(), "SPOKEN", {})

    @property
    def read(self) -> Read:
        """What turns its keys into settings of ours."""
        return self._module().read

    def _module(self) -> Any:
        return importlib.import_module(f"hone.config.dialects.{self.module}")


DIALECTS: Final = (
    Dialect("llamafactory", "LLaMA-Factory", "llamafactory", trains=True),
    Dialect("sft-play", "SFT-Play", "sft_play", trains=True),
    Dialect("trl", "TRL", "trl"),
    Dialect("axolotl", "Axolotl", "axolotl"),
    Dialect("sft-trainer", "SFTConfig", "flat_file"),
)
"""In the order in which a file is tried."""


def dialect_named(name: str) -> Dialect:
    """The language of this name. Raises ConfigError where there is none."""
    found = next((one for one in DIALECTS if one.name == name), None)
    if found is None:
        names = [one.name for one in DIALECTS]
        raise ConfigError(f"--from: no language {name!r}", remedy=nearest(name, names))
    return found


def recognise(root: Node) -> Dialect | None:
    """The foreign language of a file; None for our own, and for what is none that is known."""
    entries = root.entries or {}
    if not entries:
        return None
    flat = next((one for one in DIALECTS if one.signature & set(entries)), None)
    if flat is not None and not any(entries[key].entries for key in set(entries) & _SECTIONS):
        return flat
    sectioned = next(one for one in DIALECTS if one.name == "sft-play")
    names = set(flattened(root, sectioned.keys))
    ours = {name for name in names if _is_ours(name)} - sectioned.keys
    return sectioned if names & sectioned.keys - set(settings()) and not ours else None


def read_foreign(
    root: Node,
    file: Path,
    environment: Mapping[str, str],
    overrides: Sequence[str],
    dialect: Dialect | None = None,
) -> tuple[Translation, list[str]] | None:
    """What a file in another language comes to, and the overrides that are not in it; None for a file of ours.

    An override `key=value` whose key the language knows is read in that language. Raises ConfigError for a
    language that is converted first.
    """
    found = dialect or recognise(root)
    if found is None:
        return None
    if dialect is None and not found.trains:
        raise ConfigError(
            f"this looks like a configuration of {found.language}",
            where=str(file),
            remedy=f"type: hone config convert {file} --from {found.name} --to ours.yaml",
        )
    nodes = flattened(root, found.keys)
    ours: list[str] = []
    for text in overrides:
        name, equals, value = text.partition("=")
        key = found.spoken.get(name.strip(), name.strip())
        if equals and key in found.keys:
            nodes[key] = _typed(value)
        elif name.strip().isupper() and found.spoken:
            remedy = nearest(name.strip(), found.spoken)
            raise ConfigError(
                f"unknown setting {name.strip()!r}", where="command line", remedy=remedy
            )
        else:
            ours.append(text)
    return found.read(nodes, str(file), environment), ours


def _typed(value: str) -> Node:
    """A value of the command line, which stands in no line of a file."""
    stripped = value.strip()
    if stripped[:1] + stripped[-1:] == "[]":
        items = [plain_scalar(one.strip()) for one in stripped[1:-1].split(",") if one.strip()]
        return Node(items=items, file="command line")
    node = plain_scalar(stripped)
    return Node(node.scalar, node.plain, file="command line")


def _is_ours(name: str) -> bool:
    """Whether a dotted name is a setting of ours, or an entry of one."""
    parts = name.split(".")
    return any(".".join(parts[:length]) in settings() for length in range(1, len(parts) + 1))


_SECTIONS: Final = {"model", "tuning", "data", "train", "compute", "output"}
