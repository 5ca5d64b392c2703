"""The page of commands: what `--help` prints for each verb, at one width. It knows no option itself."""

from __future__ import annotations

import contextlib
import io
import os
import re
from collections.abc import Iterator
from unittest import mock

from docs_from_code.source import head
from hone.cli.main import VERBS, run

_COLUMNS = "100"
_OPENING = """\
Every command with its options, as `--help` prints them. Where a command takes settings (`hone train`, `hone plan`, …), any
[setting](configuration.md) may follow as `section.key=value`. Exit codes stand with the [errors](errors.md#exit-codes).
"""


def commands_page() -> str:
    """The page as Markdown."""
    parts = [head("Commands", _OPENING), "| command | what it does |", "|---|---|"]
    parts += [f"| [`hone {verb.name}`](#hone-{verb.name}) | {verb.summary} |" for verb in VERBS]
    parts.append("")
    for verb in VERBS:
        text = help_of(verb.name)
        parts += [f"## hone {verb.name}", "", "```text", text, "```", ""]
        for name in subcommands(text) if verb.is_group else ():
            parts += [f"### hone {verb.name} {name}", ""]
            parts += ["```text", help_of(verb.name, name), "```", ""]
    return "\n".join(parts)


def help_of(*words: str) -> str:
    """What a command prints when it is asked for help. Raises RuntimeError where it cannot."""
    said = io.StringIO()
    width = {"COLUMNS": _COLUMNS, "TERMINAL_WIDTH": _COLUMNS, "NO_COLOR": "1", "TERM": "dumb"}
    with mock.patch.dict(os.environ, width), contextlib.redirect_stdout(said):
        code = run([*words, "--help"])
    if code != 0:
        raise RuntimeError(f"hone {' '.join(words)} --help ended with {code}")
    return "\n".join(line.rstrip() for line in said.getvalue().strip().splitlines())


def subcommands(text: str) -> Iterator[str]:
    """The names under `Commands:` in a group's help."""
    for line in text.partition("\nCommands:\n")[2].splitlines():
        if found := re.match(r"  ([a-z][\w-]*)(?:  |$)", line):
            yield found[1]
