"""The page of settings: every field with what it takes, its default, its variable and its own words."""

from __future__ import annotations

import ast
from collections.abc import Iterator
from typing import Any

from pydantic import BaseModel
from pydantic_core import PydanticUndefined

from docs_from_code.source import escaped, head, modules, wording
from hone.config.base import Section
from hone.config.fields import SHORT_NAMES, Setting, settings
from hone.config.sections import Config

_OPENING = """\
Every setting of a run. It is said in one of five places, and the later one wins: the default, a YAML or JSON file, an
environment variable, `section.key=value` on the command line, a short flag such as `--lr`. Values are YAML 1.2.
`hone config show` prints all of them with where each came from, `hone schema` the same as JSON Schema.
"""


def configuration_page() -> str:
    """The page as Markdown."""
    parts = [head("Settings", _OPENING)]
    for name, section in _sections(Config):
        parts.append(_section(name, section))
    parts.append(_short_names())
    return "\n".join(parts)


def _sections(model: type[BaseModel], prefix: str = "") -> Iterator[tuple[str, type[BaseModel]]]:
    """Every section that has settings of its own, outer before inner, each with its dotted name."""
    for key, field in model.model_fields.items():
        kind: Any = field.annotation
        if isinstance(kind, type) and issubclass(kind, Section):
            yield f"{prefix}{key}", kind
            yield from _sections(kind, f"{prefix}{key}.")


def _section(name: str, section: type[BaseModel]) -> str:
    lines = [f"## {name}", "", (section.__doc__ or "").strip(), ""]
    for key, field in section.model_fields.items():
        setting = settings().get(f"{name}.{key}")
        if setting is not None:
            default = field.default_factory() if field.default_factory else field.default  # type: ignore[call-arg]
            lines += _setting(setting, default)
    refused = [*_rules(section.__name__)]
    if refused:
        lines += [f"Refused in `{name}`:", "", *(f"- {escaped(rule)}" for rule in refused), ""]
    return "\n".join(lines)


def _setting(setting: Setting, default: object) -> list[str]:
    lines = [f"### {setting.name}", ""]
    about = [escaped(setting.wanted[:1].upper() + setting.wanted[1:])]
    if default is not PydanticUndefined:
        about.append(f"default `{_value(default)}`")
    about.append(f"`{setting.environment}`")
    lines += [" · ".join(about), "", setting.description, ""]
    for key, inner in setting.item_keys.items():
        lines.append(f"- `{key}`: {inner.description} ({escaped(inner.wanted)})")
    return [*lines, ""] if setting.item_keys else lines


def _value(value: object) -> str:
    """A default as YAML says it."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case "":
            return "''"
        case list() | tuple():
            return f"[{', '.join(_value(one) for one in value)}]"
        case _:
            return str(value)


def _rules(section: str) -> Iterator[str]:
    """What the rules of a section over several of its settings say when they refuse."""
    for module in modules():
        if not module.place.startswith("config/"):
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.ClassDef) and node.name == section:
                for call in ast.walk(node):
                    match call:
                        case ast.Call(func=ast.Name(id="ValueError"), args=[said]):
                            yield wording(said, module.texts)


def _short_names() -> str:
    lines = [
        "## Names of other systems", "",
        "What people write for a setting that has another name here. Such a word is refused, with the setting that is meant.",
        "", "| word | setting |", "|---|---|",
    ]  # fmt: skip
    for word, name in sorted(SHORT_NAMES.items()):
        lines.append(f"| `{word}` | [`{name}`](#{anchor(name)}) |")
    return "\n".join([*lines, ""])


def anchor(name: str) -> str:
    """Where a setting stands on the page: headings lose their full stops."""
    return name.replace(".", "")
