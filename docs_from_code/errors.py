"""The page of errors: exit codes, the tree of exceptions, and each message in the source with its remedy."""

from __future__ import annotations

import ast
import inspect
import re
from collections.abc import Iterator, Mapping
from dataclasses import dataclass

import hone.errors
from docs_from_code.source import escaped, head, modules, name_called, wording
from hone.errors import EXIT_CODES, HoneError

_OPENING = """\
A command that cannot go on says what happened, where, and what to do next, and ends with a code that a script can read.
With `--json` the same stands on stdout as one object: `event` (`error`), `kind`, `what`, `where`, `remedy`, `exit_code`.
No traceback is shown; one of a fault of ours is written to a file that the message names.
"""
_MESSAGES = """\
What only the run knows stands as ‹name›. Search the page for a word of the message that you see; [the same by what you
see](../troubleshooting.md) is a shorter way in.
"""


@dataclass(frozen=True)
class Message:
    """An error as the source makes it."""

    kind: str
    what: str
    remedy: str
    place: str


def errors_page() -> str:
    """The page as Markdown."""
    parts = [head("Errors and exit codes", _OPENING), "## Exit codes", "", "| code | meaning |", "|---|---|"]  # fmt: skip
    parts += [f"| {code} | {meaning} |" for code, meaning in EXIT_CODES.items()]
    parts += ["", "## Exceptions", "", "In Python each is a class of `hone.errors`, with `what`, `where`, `remedy` and `exit_code`.", ""]  # fmt: skip
    parts += ["| exception | code | what it is |", "|---|---|---|"]
    parts += [
        f"| `{kind.__name__}` | {kind.exit_code} | {escaped(_about(kind))} |" for kind in kinds()
    ]
    parts += ["", "## Messages", "", _MESSAGES]
    told = list(messages())
    for kind in kinds():
        mine = sorted({(one.what, one.remedy) for one in told if one.kind == kind.__name__})
        if mine:
            parts += [f"### {kind.__name__} (exit code {kind.exit_code})", ""]
            parts += ["| message | remedy |", "|---|---|"]
            parts += [f"| {escaped(what)} | {escaped(remedy) or '-'} |" for what, remedy in mine]
            parts.append("")
    return "\n".join(parts)


def kinds() -> list[type[HoneError]]:
    """The exceptions of the tree, in the order of their file."""
    found = [
        one for _, one in inspect.getmembers(hone.errors, inspect.isclass)
        if issubclass(one, HoneError) and one.__module__ == hone.errors.__name__
    ]  # fmt: skip
    return sorted(found, key=lambda one: inspect.getsourcelines(one)[1])


def _about(kind: type[HoneError]) -> str:
    return (inspect.getdoc(kind) or "").splitlines()[0]


def messages() -> Iterator[Message]:
    """Every error of the tree that the source makes with words of its own."""
    bases = _bases()
    for module in modules():
        for call in module.calls():
            kind = bases.get(name_called(call))
            if kind is None or not call.args:
                continue
            texts = module.texts_at(call.lineno)
            what = wording(call.args[0], texts)
            if re.search(r"\w", re.sub(r"‹.*?›", "", what)):
                yield Message(kind, what, _remedy(call, texts), module.place)


def _remedy(call: ast.Call, texts: Mapping[str, ast.expr]) -> str:
    said = next((one.value for one in call.keywords if one.arg == "remedy"), None)
    if said is None and name_called(call) == "Complaint":
        said = call.args[2] if len(call.args) > 2 else None
    return wording(said, texts)


def _bases() -> dict[str, str]:
    """Exceptions of the source, those of single rooms too, to the one of the tree that they are."""
    found = {kind.__name__: kind.__name__ for kind in kinds()}
    declared = [
        node for module in modules() for node in ast.walk(module.tree) if isinstance(node, ast.ClassDef)
    ]  # fmt: skip
    for _ in range(4):
        for node in declared:
            for base in node.bases:
                if isinstance(base, ast.Name) and base.id in found:
                    found.setdefault(node.name, found[base.id])
    return found | {"Complaint": "ConfigError"}
