"""The source as trees, and texts in it as a reader meets them: what is put in while running stands as ‹name›."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
PACKAGE = ROOT / "src" / "hone"
_SHORT = 24
_NEAREST = "the nearest name, and what is allowed"


@dataclass(frozen=True)
class Module:
    """A file of the package: its tree, and the texts that it gives a name at the top."""

    path: Path
    tree: ast.Module
    texts: Mapping[str, ast.expr] = field(repr=False)

    @property
    def place(self) -> str:
        """`recipes/plan.py`."""
        return self.path.relative_to(PACKAGE).as_posix()

    def calls(self) -> Iterator[ast.Call]:
        """Every call in the file, from top to bottom."""
        found = (node for node in ast.walk(self.tree) if isinstance(node, ast.Call))
        return iter(sorted(found, key=lambda call: (call.lineno, call.col_offset)))

    def texts_at(self, line: int) -> Mapping[str, ast.expr]:
        """The texts that have a name there: the file's, and those that the function around made once."""
        around = self.around(line)
        found: dict[str, list[ast.expr | None]] = {}
        nodes = list(ast.walk(around)) if around is not None else []
        longer = [one.target for one in nodes if isinstance(one, ast.AugAssign)]
        for node in nodes:
            if node in longer:
                continue
            match node:
                case ast.Assign(targets=[ast.Name(id=name)], value=value):
                    found.setdefault(name, []).append(value)
                case ast.Name(id=name, ctx=ast.Store()) | ast.arg(arg=name):
                    found.setdefault(name, []).append(None)
                case _:
                    pass
        once: dict[str, ast.expr] = {}
        for name, values in found.items():
            if len(values) <= 2 and values[0] is not None and values[-1] is None:
                once[name] = values[0]  # the assignment, and its own target
        hidden = {name: text for name, text in self.texts.items() if name not in found}
        return {**hidden, **once}

    def around(self, line: int) -> ast.FunctionDef | ast.AsyncFunctionDef | None:
        """The innermost function that holds a line."""
        held = [one for one in self.functions if one.lineno <= line <= (one.end_lineno or 0)]
        return max(held, key=lambda one: one.lineno, default=None)

    @functools.cached_property
    def functions(self) -> list[ast.FunctionDef | ast.AsyncFunctionDef]:
        """Every function of the file, methods and inner ones too."""
        kinds = (ast.FunctionDef, ast.AsyncFunctionDef)
        return [node for node in ast.walk(self.tree) if isinstance(node, kinds)]


@functools.cache
def modules() -> tuple[Module, ...]:
    """Every file of the package, by name."""
    return tuple(_module(path) for path in sorted(PACKAGE.rglob("*.py")))


def _module(path: Path) -> Module:
    tree = ast.parse(path.read_text(encoding="utf-8"))
    texts: dict[str, ast.expr] = {}
    for node in tree.body:
        if isinstance(node, ast.Assign) and isinstance(node.targets[0], ast.Name):
            texts[node.targets[0].id] = node.value
        elif isinstance(node, ast.AnnAssign) and isinstance(node.target, ast.Name) and node.value:
            texts[node.target.id] = node.value
    return Module(path, tree, texts)


def name_called(call: ast.Call) -> str:
    """`say` of `self.say(...)`; empty where it has no name."""
    called = call.func
    if isinstance(called, ast.Attribute):
        return called.attr
    return called.id if isinstance(called, ast.Name) else ""


def wording(node: ast.expr | None, texts: Mapping[str, ast.expr], deep: int = 0) -> str:
    """The text that an expression makes, as far as it stands in the source; empty for None."""
    match node:
        case None | ast.Constant(value=None):
            return ""
        case ast.Constant(value=value):
            return str(value)
        case ast.JoinedStr(values=parts):
            return "".join(wording(part, texts, deep) for part in parts)
        case ast.FormattedValue(value=value):
            return _filled(value, texts, deep)
        case ast.BinOp(left=left, op=ast.Add(), right=right):
            return wording(left, texts, deep) + wording(right, texts, deep)
        case ast.IfExp(body=body, orelse=other):
            return _either(wording(body, texts, deep), wording(other, texts, deep))
        case ast.BoolOp(values=[*_, last]):
            return wording(last, texts, deep)
        case ast.Call(func=ast.Name(id="nearest")):
            return _NEAREST
        case _:
            return _filled(node, texts, deep)


def _filled(node: ast.expr, texts: Mapping[str, ast.expr], deep: int) -> str:
    """What stands for a value that only the run knows."""
    if isinstance(node, ast.Name) and deep < 3:
        named = texts.get(node.id)
        if isinstance(named, ast.Constant | ast.JoinedStr | ast.BinOp | ast.IfExp):
            return wording(named, texts, deep + 1)
    if isinstance(node, ast.IfExp | ast.JoinedStr | ast.Constant):
        return wording(node, texts, deep)
    match node:
        case ast.Subscript(slice=ast.Constant(value=str() as key)):
            return f"‹{key.replace('_', ' ')}›"
        case ast.Call(func=ast.Attribute(attr="get"), args=[ast.Constant(value=str() as key), *_]):
            return f"‹{key.replace('_', ' ')}›"
        case ast.Call(func=ast.Name(id="nearest")):
            return _NEAREST
        case ast.Call(func=ast.Attribute(value=ast.Constant(value=str()), attr="join"), args=[_]):
            return "‹names›"
        case ast.Call(args=[first, *_]):
            return _filled(first, texts, deep)
    plain = re.sub(r"^(self|config|cls|event)\.", "", ast.unparse(node)).lstrip("_")
    plain = re.split(r"[\[(]", plain)[0].replace("_", " ")
    return f"‹{plain}›" if re.fullmatch(r"[\w. ]+", plain) and len(plain) <= _SHORT else "‹…›"


def _either(one: str, other: str) -> str:
    found = [text for text in (one, other) if text.strip()]
    if len(found) == 2 and "‹" in found[0] == found[1]:
        return found[0]
    if len(found) < 2:
        return f"[{found[0].strip(' ,;:')}]" if found and len(found[0]) < _SHORT else "".join(found)
    return " / ".join(found)


def escaped(text: str) -> str:
    """Words of a program as Markdown that shows them as they are; a line end becomes a space."""
    flat = re.sub(r"\s+", " ", text).strip()
    parts = re.split(r"(`[^`]+`)", flat)
    return "".join(
        part if part.startswith("`") else re.sub(r"([\\*_\[\]<>|#{}])", r"\\\1", part)
        for part in parts
    )


def head(title: str, opening: str) -> str:
    """How a generated page begins."""
    return f"# {title}\n\n<!-- written by `make docs-reference` from the code; edit that -->\n\n{opening}\n"
