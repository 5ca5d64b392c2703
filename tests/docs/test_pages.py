"""What cannot be run is read: verbs, options, settings, programs and quoted messages exist, in prose and in blocks."""

from __future__ import annotations

import ast
import functools
import re
from collections.abc import Iterator
from pathlib import Path

import pytest

from docs_from_code.commands import help_of, subcommands
from docs_from_code.source import modules, wording
from hone.cli.main import VERBS
from hone.config.fields import sections, settings
from hone.config.files import read_config
from tests.docs.page import DOCS, ROOT, blocks, pages, words_of

each_page = pytest.mark.parametrize("page", pages(), ids=lambda page: page.stem)
SECTION = r"(?:model|tuning|data|train|compute|output)"


def typed(page: Path) -> Iterator[list[str]]:
    """The words of every `hone` command in a page, in blocks and in prose."""
    for block in blocks(page):
        for command in block.commands() if block.language == "sh" else ():
            yield from commands_in(words_of(command))
    for text in re.findall(r"`([^`\n]+)`", page.read_text(encoding="utf-8")):
        if text.startswith("hone "):
            yield from commands_in(words_of(text))


def commands_in(words: list[str]) -> Iterator[list[str]]:
    while words and re.fullmatch(r"[A-Z_]+=.*", words[0]):
        words = words[1:]
    if words and words[0] == "hone" and len(words) > 1:
        yield words[1:]


@functools.cache
def options(*verb: str) -> frozenset[str]:
    """Every option that a command's help names."""
    return frozenset(re.findall(r"(?<![\w-])--?[a-z][\w-]*", help_of(*verb)))


@each_page
def test_commands_and_their_options_exist(page: Path) -> None:
    groups = {verb.name: verb.is_group for verb in VERBS}
    for command in typed(page):
        verb = command[:1]
        if verb[0].startswith("-"):
            continue
        assert verb[0] in groups, command
        if groups[verb[0]] and len(command) > 1 and command[1] in set(subcommands(help_of(*verb))):
            verb = command[:2]
        known = options(*verb) | options(*verb[:1])
        for word in command[len(verb) :]:
            if re.match(r"--?[a-z]", word):
                assert word.partition("=")[0] in known, f"{command}: {word}"
            elif found := re.fullmatch(rf"({SECTION}(?:\.\w+)+)=.*", word, re.S):
                assert is_setting(found[1]) or "learning_rat" in word, f"{command}: {word}"


def is_setting(name: str) -> bool:
    """Whether it is a setting, an entry of one, or a section of them."""
    parts = name.split(".")
    begins = {".".join(parts[: i + 1]) for i in range(len(parts))}
    mappings = {one for one in begins & set(settings()) if settings()[one].is_mapping}
    return name in settings() or name in sections() or bool(mappings)


@each_page
def test_settings_in_prose_exist(page: Path) -> None:
    text = page.read_text(encoding="utf-8")
    for name in re.findall(rf"`({SECTION}(?:\.\w+)+)(?:=[^`]*)?`", text):
        if Path(name).suffix not in (".md", ".jsonl", ".yaml"):
            assert is_setting(name), name
    for words_after in re.findall(rf"`{SECTION}\.\w[\w.]*=[^`]*`", text):
        for name in re.findall(rf"({SECTION}(?:\.\w+)+)=", words_after):
            assert is_setting(name), words_after


@each_page
def test_programs_and_files_parse(page: Path, tmp_path: Path) -> None:
    for block in blocks(page):
        if block.language == "python":
            ast.parse(block.text)
        elif block.language == "yaml":
            file = tmp_path / "page.yaml"
            file.write_text(block.text, encoding="utf-8")
            read_config(file)
        else:
            assert block.language in ("sh", "json", "text"), f"line {block.line}"


@functools.cache
def sayings() -> frozenset[str]:
    """Every text in the source that a terminal may show, with nothing in its gaps."""
    found: set[str] = set()
    for module in modules():
        for node in ast.walk(module.tree):
            if isinstance(node, ast.Constant | ast.JoinedStr | ast.BinOp):
                found.add(gapless(wording(node, {})))
    return frozenset(found)


def gapless(text: str) -> str:
    return re.sub(r"‹.*?›", "‹›", text)


def quoted(page: Path) -> list[str]:
    """The messages that a page quotes: code with a ‹gap›, or marked as what the command says."""
    text = page.read_text(encoding="utf-8")
    found = re.findall(r"`([^`\n]*‹[^`\n]*|(?:error|note): [^`\n]+)`", text)
    return [gapless(re.sub(r"^(error|note|stopped): ", "", one)) for one in found]


def test_quoted_messages_are_said_by_the_code() -> None:
    told = quoted(DOCS / "troubleshooting.md")
    assert len(told) >= 8, "the page quotes what a user sees"
    for text in told:
        assert any(text in one for one in sayings()), text


def test_every_page_is_in_the_site() -> None:
    listed = set(re.findall(r'"([\w/-]+\.md)"', (ROOT / "zensical.toml").read_text()))
    assert listed == {path.relative_to(DOCS).as_posix() for path in DOCS.rglob("*.md")}
