"""The page of events: each with its fields, as the source says them, and the words that a terminal has for it."""

from __future__ import annotations

import ast
import re
from collections.abc import Iterable, Iterator, Mapping
from dataclasses import dataclass, field

from docs_from_code.meanings import GROUPS
from docs_from_code.source import Module, escaped, head, modules, name_called, wording

_OPENING = """\
A run is a folder of durable events: `events.jsonl`, one JSON object on each line, appended and never changed. Each has `event`, `time`
(unix seconds) and its own fields. The terminal, `hone runs`, trackers and the job service read them and nothing else;
`hone train --json` prints them as they happen. JSON has no NaN: such a number is null, and `not_finite` names it.
An event with `?` beside a field has it only sometimes.
"""
_WRITTEN_BY = {"recipes/plan.py": "summary", "engine/rehearsal.py": "told"}


@dataclass
class Said:
    """An event as the source says it: its fields, and how many places say each."""

    places: int = 0
    counts: dict[str, int] = field(default_factory=dict)
    more: bool = False
    codes: dict[str, str] = field(default_factory=dict)


def events_page() -> str:
    """The page as Markdown. Raises LookupError where `meanings.py` lacks an event, or has one that is gone."""
    found, spoken = said(), words()
    known = {name for group in GROUPS.values() for name in group}
    if known != set(found):
        raise LookupError(
            f"docs_from_code/meanings.py: lacks {sorted(set(found) - known)}, gone {sorted(known - set(found))}"
        )
    parts = [head("Events", _OPENING)]
    for title, group in GROUPS.items():
        parts += [f"## {title}", ""]
        for name, meaning in group.items():
            parts += _event(name, meaning, found[name], spoken.get(name, ""))
    return "\n".join(parts)


def _event(name: str, meaning: str, event: Said, spoken: str) -> list[str]:
    lines = [f"### {name}", "", meaning, ""]
    fields = [
        f"`{key}`{'' if count == event.places else '?'}" for key, count in event.counts.items()
    ]
    if fields:
        lines += [f"Fields: {', '.join(fields)}{', and others' if event.more else ''}.", ""]
    if re.search(r"\w", re.sub(r"‹.*?›", "", spoken)):
        lines += [f"In words: {escaped(spoken)}", ""]
    if event.codes:
        lines += ["| code | in words |", "|---|---|"]
        lines += [f"| `{code}` | {escaped(text)} |" for code, text in sorted(event.codes.items())]
        lines.append("")
    return lines


def said() -> dict[str, Said]:
    """Every event that the source says by name."""
    found: dict[str, Said] = {}
    for module in modules():
        for call in module.calls():
            name = _event_of(call)
            if name is None:
                continue
            event = found.setdefault(name, Said())
            keys: dict[str, ast.expr | None] = {}
            for key, value in _fields(call, module):
                event.more |= key is None
                if key is not None:
                    keys.setdefault(key, value)
            event.places += 1
            for key in keys:
                event.counts[key] = event.counts.get(key, 0) + 1
            if name == "notice":
                _note_code(event, keys, module.texts_at(call.lineno))
    return found


def _note_code(
    event: Said, keys: Mapping[str, ast.expr | None], texts: Mapping[str, ast.expr]
) -> None:
    code, message = keys.get("code"), keys.get("message")
    if isinstance(code, ast.Constant) and message is not None:
        event.codes[str(code.value)] = wording(message, texts)


def _event_of(call: ast.Call) -> str | None:
    """The name of the event that a call says, if it says one."""
    if not call.args or name_called(call).lstrip("_") not in ("say", "say_safely"):
        return None
    first = call.args[0]
    is_event = isinstance(first, ast.Constant) and str(first.value).isidentifier()
    if is_event and (call.keywords or len(call.args) > 1):
        return str(first.value)  # type: ignore[attr-defined]
    return None


def _fields(call: ast.Call, module: Module) -> Iterator[tuple[str | None, ast.expr | None]]:
    """Its fields; None stands for those that cannot be read off the source."""
    for given in call.args[1:]:
        yield from _keys(given, call, module)
    for keyword in call.keywords:
        if keyword.arg is not None:
            yield keyword.arg, keyword.value
        else:
            yield from _keys(keyword.value, call, module)


def _keys(
    node: ast.expr, call: ast.Call, module: Module
) -> Iterator[tuple[str | None, ast.expr | None]]:
    match node:
        case ast.Dict(keys=keys, values=values):
            for key, value in zip(keys, values, strict=True):
                if isinstance(key, ast.Constant):
                    yield str(key.value), value
                elif key is None:
                    yield from _keys(value, call, module)
        case ast.DictComp(
            key=ast.Name(id=target),
            generators=[ast.comprehension(target=ast.Name(id=name), iter=ast.Tuple(elts=names))],
        ) if target == name:
            for one in names:
                yield (str(one.value) if isinstance(one, ast.Constant) else None), None
        case ast.Name(id=name):
            yield from _assigned(name, call, module)
        case ast.Call(func=ast.Attribute(attr=method)):
            yield from _returned(method)
        case _:
            yield None, None


def _assigned(
    name: str, call: ast.Call, module: Module
) -> Iterator[tuple[str | None, ast.expr | None]]:
    """The keys of a mapping that the same function made under that name."""
    around = module.around(call.lineno)
    for node in ast.walk(around) if around is not None else ():
        value = getattr(node, "value", None)
        targets = node.targets if isinstance(node, ast.Assign) else [getattr(node, "target", None)]
        if isinstance(value, ast.Dict) and any(
            isinstance(one, ast.Name) and one.id == name for one in targets
        ):
            yield from _keys(value, call, module)
            return
    yield None, None


def _returned(method: str) -> Iterator[tuple[str | None, ast.expr | None]]:
    """The keys of the mapping that a method of `_WRITTEN_BY` returns."""
    for module in modules():
        if _WRITTEN_BY.get(module.place) != method:
            continue
        for node in ast.walk(module.tree):
            if isinstance(node, ast.FunctionDef) and node.name == method:
                for inner in ast.walk(node):
                    if isinstance(inner, ast.Return) and isinstance(inner.value, ast.Dict):
                        for key in inner.value.keys:
                            if isinstance(key, ast.Constant):
                                yield str(key.value), None
                        return
    yield None, None


def words() -> dict[str, str]:
    """What `cli/lines.py` makes of each event, in words."""
    (module,) = [one for one in modules() if one.place == "cli/lines.py"]
    functions = {node.name: node for node in module.tree.body if isinstance(node, ast.FunctionDef)}
    found: dict[str, str] = {}
    for node in ast.walk(functions["describe"]):
        match node:
            case ast.match_case(
                pattern=ast.MatchValue(value=ast.Constant(value=str() as name)), body=[*_, ast.Return(value=value)]
            ) if value is not None:  # fmt: skip
                found[name] = _line(value, functions, module)
    return found


def _line(value: ast.expr, functions: Mapping[str, ast.FunctionDef], module: Module) -> str:
    """The text of a line, or the first one of the function that makes it."""
    if isinstance(value, ast.Call) and isinstance(value.func, ast.Name):
        made = functions.get(value.func.id)
        if made is not None:
            sample = (ast.get_docstring(made) or "").splitlines()[:1]
            return (
                sample[0]
                if sample and sample[0].startswith("`")
                else " … ".join(_texts(made, module))
            )
    return wording(value, module.texts)


def _texts(function: ast.FunctionDef, module: Module) -> Iterable[str]:
    for node in ast.walk(function):
        if isinstance(node, ast.Assign | ast.Return) and isinstance(node.value, ast.JoinedStr):
            yield wording(node.value, module.texts)
