"""`include: base.yaml` in a configuration file: the files that it names below it, the including file over them.

It knows no section. Sections are laid over each other key by key, however deep; lists and values are replaced.
"""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path
from typing import Final

from hone.config.files import read_config
from hone.config.values import Node
from hone.errors import ConfigError, NoSuchConfig

INCLUDE: Final = "include"


def read_with_includes(path: Path) -> Node:
    """The mapping in a file, over those of the files that it includes (one, or a list of which later ones win).

    An included file is looked for beside the including one, then from the current folder. Raises ConfigError for
    a cycle, with the chain, and for what `read_config` refuses; NoSuchConfig for a file that is not there.
    """
    return _read(path, ())


def _read(path: Path, chain: tuple[Path, ...]) -> Node:
    root = read_config(path)
    entries = dict(root.entries or {})
    said = entries.pop(INCLUDE, None)
    if chain:
        entries = {key: _from_file(node, str(path)) for key, node in entries.items()}
    own = replace(root, entries=entries)
    if said is None:
        return own
    chain = (*chain, path)
    below = Node(entries={}, line=1)
    for name in _names(said, path):
        below = merged(below, _read(_found(name, said, chain), chain))
    return merged(below, own)


def merged(below: Node, above: Node) -> Node:
    """Two mappings laid over each other; where only one of two values is a mapping, the upper one replaces it."""
    if below.entries is None or above.entries is None:
        return above
    entries = dict(below.entries)
    for key, node in above.entries.items():
        entries[key] = merged(entries[key], node) if key in entries else node
    return replace(above, entries=entries)


def _names(said: Node, path: Path) -> list[str]:
    nodes = [said] if said.items is None else list(said.items)
    names = [node.plain or node.scalar for node in nodes]
    if not names or not all(isinstance(name, str) and name for name in names):
        raise ConfigError(
            "include names no file",
            where=f"{path} line {said.line}",
            remedy="write include: base.yaml, or a list of files",
        )
    return [str(name) for name in names]


def _found(name: str, said: Node, chain: tuple[Path, ...]) -> Path:
    """The file that an include means. Raises ConfigError where it includes itself again."""
    includer = chain[-1]
    places = [includer.parent / Path(name).expanduser(), Path(name).expanduser()]
    found = next((place for place in places if place.exists()), None)
    if found is None:
        tried = " and ".join(dict.fromkeys(map(str, places)))
        raise NoSuchConfig(
            f"include: no such file: {name}",
            where=f"{includer} line {said.line}",
            remedy=f"looked for {tried}; check the path",
        )
    if found.resolve() in [one.resolve() for one in chain]:
        raise ConfigError(
            f"include goes in a circle: {' -> '.join(map(str, (*chain, found)))}",
            where=f"{includer} line {said.line}",
            remedy="remove one of these includes",
        )
    return found


def _from_file(node: Node, file: str) -> Node:
    """The same node and all in it, known to stand in `file`."""
    entries = node.entries and {key: _from_file(one, file) for key, one in node.entries.items()}
    return replace(node, entries=entries, file=node.file or file)
