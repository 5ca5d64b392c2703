"""The `.jsonl` files at hand, and whether one of them can be trained on. It knows no question."""

from __future__ import annotations

import os
from collections.abc import Iterator
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hone.config.sections import DataSection
from hone.data.validation.verdict import Verdict
from hone.errors import DataError
from hone.recipes.validate import validate
from hone.runs.folder import CONFIG, EVENTS

_SKIPPED: Final = {"node_modules", "venv", "__pycache__", "site-packages"}
_MOST_FOLDERS: Final = 20_000  # a wizard called in a home folder must not walk a disk
_FINDINGS: Final = 3
_NO_CONVERSATION: Final = {"text", "tokens", "completion"}


@dataclass(frozen=True)
class Dataset:
    """A file of rows that was checked."""

    path: Path
    rows: int
    shape: str


def newest(folder: Path, most: int) -> list[Path]:
    """The `.jsonl` files below a folder, the one changed last first; at most so many.

    Hidden folders, installed packages and the folders of runs are passed by.
    """
    found: list[tuple[float, Path]] = []
    for path in _files(folder):
        try:
            found.append((path.stat().st_mtime, path))
        except OSError:  # it went while we looked
            continue
    found.sort(key=lambda one: (-one[0], one[1]))
    return [path for _, path in found[:most]]


def _files(folder: Path) -> Iterator[Path]:
    for count, (root, folders, files) in enumerate(os.walk(folder)):
        if count >= _MOST_FOLDERS:
            return
        if EVENTS in files and CONFIG in files:
            folders.clear()
            continue
        folders[:] = [name for name in folders if name[0] != "." and name not in _SKIPPED]
        for name in files:
            path = Path(root, name)
            if name.endswith(".jsonl") and not name.startswith(".") and path.is_file():
                yield path


def check_dataset(path: Path, *, framework: str) -> Dataset:
    """The file, judged as `hone validate` judges it. Raises DataError with the first findings and what to do."""
    if not path.is_file():
        what = "a folder is no file of rows" if path.is_dir() else "no such file"
        raise DataError(what, where=str(path), remedy="give the path of a .jsonl file")
    if path.suffix != ".jsonl":
        raise DataError(
            "only .jsonl files are streamed in training",
            where=str(path),
            remedy=f"write one: hone convert {path.name} rows.jsonl --to messages",
        )
    verdict = validate(DataSection(), [str(path)], _unheard, keep=_FINDINGS)[0]
    if not verdict.is_valid:
        raise _refused(verdict, path)
    if framework == "art" and verdict.shape != "messages":
        raise DataError(
            f"ART reads rows with `messages`; these are {verdict.shape}",
            where=str(path),
            remedy=f"hone convert {path.name} rows.jsonl --to messages",
        )
    if verdict.shape in _NO_CONVERSATION:
        raise DataError(
            f"rows of the shape {verdict.shape!r} are no conversations",
            where=str(path),
            remedy="train on them with `hone train`, or name rows with `messages`",
        )
    return Dataset(path, verdict.rows, verdict.shape)


def _unheard(event: str, about: dict[str, Any]) -> None:
    """A plain file is read where it lies: there is nothing to tell of its import."""
    del event, about


def _refused(verdict: Verdict, path: Path) -> DataError:
    lines = [f"{verdict.errors} error(s):"]
    for one in verdict.findings:
        lines.append(f"  {f'Line {one.line}' if one.line else 'File'}: {one.sentence()}")
    if verdict.errors > len(verdict.findings):
        lines.append(f"  and {verdict.errors - len(verdict.findings)} more")
    return DataError(
        "\n".join(lines),
        where=str(path),
        remedy="`hone validate FILE` shows all, `hone validate FILE --fix OUT` repairs what it can",
    )
