"""Reads a configuration file, YAML 1.2 or JSON, into nodes that remember their line. It knows no section.

Refused, with file and line: duplicate keys, tags that would build objects, several documents, NaN in JSON,
files above a megabyte, and aliases that unfold into more values than any configuration holds.
"""

from __future__ import annotations

import json
from dataclasses import replace
from pathlib import Path
from typing import Any, cast

from hone.config.values import Node, plain_scalar
from hone.errors import ConfigError, DiskError, NoSuchConfig

CONFIG_SUFFIXES = (".yaml", ".yml", ".json")
_LARGEST_FILE_BYTES = 1_000_000
_MOST_VALUES = 20_000
_DEEPEST = 50
_CORE_TAGS = {f"tag:yaml.org,2002:{name}" for name in ("str", "int", "float", "bool", "null")}
_PLAIN_TAGS = _CORE_TAGS | {f"tag:yaml.org,2002:{name}" for name in ("timestamp", "merge", "value")}
_SPACE = " \t\n\r"


_EXAMPLE = "begin with a section, e.g. `train:` and below it `  epochs: 3`"


def read_config(path: Path, *, example: str = _EXAMPLE) -> Node:
    """The mapping in a configuration file; an empty file is an empty mapping. `example` tells who wrote none how
    to begin."""
    if path.is_dir():
        raise ConfigError(
            "a folder is no configuration file", where=str(path), remedy="name a .yaml file in it"
        )
    try:
        content = path.read_bytes()
    except FileNotFoundError:
        raise NoSuchConfig(
            "no such configuration file", where=str(path), remedy="check the path"
        ) from None
    except OSError as error:
        raise DiskError(f"cannot read: {error.strerror}", where=str(path)) from error
    if len(content) > _LARGEST_FILE_BYTES:
        raise ConfigError(
            f"{len(content):,} bytes are no configuration file",
            where=str(path),
            remedy="rows are given as data.path",
        )
    try:
        text = content.decode("utf-8-sig")
    except UnicodeDecodeError as error:
        line = content.count(b"\n", 0, error.start) + 1
        raise ConfigError(
            "not UTF-8 text", where=f"{path} line {line}", remedy="save the file as UTF-8"
        ) from None
    root = _read_json(text, str(path)) if path.suffix == ".json" else read_yaml(text, str(path))
    if root is None or root.is_null:
        return Node(entries={}, line=1)
    if root.entries is None:
        raise ConfigError(
            "a configuration is a mapping",
            where=str(path),
            remedy=example,
        )
    return root


def read_yaml(text: str, name: str, *, with_lines: bool = True) -> Node | None:
    """The one YAML 1.2 document in `text`; None when there is none. `name` is for errors."""
    # ruamel.yaml is untyped where nodes are concerned; it is imported here since most verbs read no YAML.
    from ruamel.yaml import YAML
    from ruamel.yaml.error import MarkedYAMLError, YAMLError

    try:
        root: Any = cast(Any, YAML(typ="safe", pure=True)).compose(text)
    except MarkedYAMLError as error:
        told = cast(Any, error)
        mark = told.problem_mark or told.context_mark
        line = "" if mark is None else f" line {mark.line + 1}, column {mark.column + 1}"
        begun = told.context_mark
        also = f", {told.context} begun in line {begun.line + 1}" if told.context and begun else ""
        raise ConfigError(
            f"not YAML: {told.problem or told.context}{also}",
            where=f"{name}{line}",
            remedy="check quotes, colons and indentation there",
        ) from None
    except (YAMLError, RecursionError) as error:
        first = str(error).partition("\n")[0] or "nested too deeply"
        raise ConfigError(f"not YAML: {first}", where=name) from None
    return None if root is None else _Composed(name, with_lines=with_lines).node(root, depth=0)


class _Composed:
    """Turns ruamel's node graph into ours, counting values so that aliases cannot unfold without end."""

    def __init__(self, name: str, *, with_lines: bool) -> None:
        self.name = name
        self.with_lines = with_lines
        self.count = 0

    def node(self, source: Any, *, depth: int, key: Any = None) -> Node:
        """Our node for ruamel's; a value under a key takes the key's line."""
        line: int = (source if key is None else key).start_mark.line + 1
        self.count += 1
        if self.count > _MOST_VALUES or depth > _DEEPEST:
            raise self._refuse("more values than a configuration can have", line)
        kept = line if self.with_lines else None
        if isinstance(source.value, str):
            return self._scalar(source, line, kept)
        if source.tag == "tag:yaml.org,2002:map":
            return Node(entries=self._entries(source.value, depth=depth), line=kept)
        if source.tag == "tag:yaml.org,2002:seq":
            items = [self.node(each, depth=depth + 1) for each in source.value]
            return Node(items=items, line=kept)
        raise self._refuse(f"the tag {source.tag} is not allowed", line)

    def _entries(self, pairs: Any, *, depth: int) -> dict[str, Node]:
        entries: dict[str, Node] = {}
        for key, value in pairs:
            line: int = key.start_mark.line + 1
            if not isinstance(key.value, str):
                raise self._refuse("a key must be a single word", line)
            if key.value in entries:
                raise self._refuse(f"the key {key.value!r} stands twice in one section", line)
            entries[key.value] = self.node(value, depth=depth + 1, key=key)
        return entries

    def _scalar(self, source: Any, line: int, kept: int | None) -> Node:
        text: str = source.value
        is_text = source.tag == "tag:yaml.org,2002:str"
        is_plain = source.style is None
        if source.tag not in (_PLAIN_TAGS if is_plain else {"tag:yaml.org,2002:str"}):
            raise self._refuse(f"the tag {source.tag} is not allowed", line)
        plain = plain_scalar(text, line=kept)
        is_tagged_text = is_text and not isinstance(plain.scalar, str)  # `!!str 5`
        return plain if is_plain and not is_tagged_text else Node(text, line=kept)

    def _refuse(self, what: str, line: int) -> ConfigError:
        return ConfigError(what, where=f"{self.name} line {line}", remedy="write it plainly, once")


def _read_json(text: str, name: str) -> Node | None:
    if not text.strip():
        return None
    reader = _Json(text, name)
    try:
        node, end = reader.value(reader.skip(0), depth=0)
    except json.JSONDecodeError as error:
        raise ConfigError(
            f"not JSON: {error.msg}",
            where=f"{name} line {error.lineno}, column {error.colno}",
        ) from None
    if reader.skip(end) != len(text):
        raise reader.refuse("text after the end of the object", end)
    return node


class _Json:
    """A JSON reader that keeps lines and refuses duplicate keys; scalars are the standard library's."""

    def __init__(self, text: str, name: str) -> None:
        self.text = text
        self.name = name
        self.decoder = json.JSONDecoder(parse_constant=self._no_constant)

    def skip(self, at: int) -> int:
        while at < len(self.text) and self.text[at] in _SPACE:
            at += 1
        return at

    def value(self, at: int, *, depth: int) -> tuple[Node, int]:
        line = self.text.count("\n", 0, at) + 1
        if depth > _DEEPEST:
            raise self.refuse("nested too deeply", at)
        opening = self.text[at : at + 1]
        if opening == "{":
            return self._object(at + 1, line, depth)
        if opening == "[":
            return self._array(at + 1, line, depth)
        scalar, end = cast("tuple[object, int]", self.decoder.raw_decode(self.text, at))
        return Node(scalar, line=line), end

    def _object(self, at: int, line: int, depth: int) -> tuple[Node, int]:
        entries: dict[str, Node] = {}
        at = self.skip(at)
        while self.text[at : at + 1] != "}":
            if entries:
                at = self.skip(self._expect(at, ","))
            key_line = self.text.count("\n", 0, at) + 1
            self._expect(at, '"')
            key, at = cast("tuple[str, int]", self.decoder.raw_decode(self.text, at))
            if key in entries:
                raise self.refuse(f"the key {key!r} stands twice", at)
            node, at = self.value(self.skip(self._expect(self.skip(at), ":")), depth=depth + 1)
            entries[key] = replace(node, line=key_line)
            at = self.skip(at)
        return Node(entries=entries, line=line), at + 1

    def _array(self, at: int, line: int, depth: int) -> tuple[Node, int]:
        items: list[Node] = []
        at = self.skip(at)
        while self.text[at : at + 1] != "]":
            if items:
                at = self.skip(self._expect(at, ","))
            node, at = self.value(at, depth=depth + 1)
            items.append(node)
            at = self.skip(at)
        return Node(items=items, line=line), at + 1

    def _expect(self, at: int, mark: str) -> int:
        if self.text[at : at + 1] != mark:
            raise json.JSONDecodeError(f"expected {mark!r}", self.text, at)
        return at + 1

    def _no_constant(self, constant: str) -> object:
        raise ConfigError(f"{constant} is not JSON", where=self.name, remedy="write a number")

    def refuse(self, what: str, at: int) -> ConfigError:
        line = self.text.count("\n", 0, at) + 1
        return ConfigError(what, where=f"{self.name} line {line}")
