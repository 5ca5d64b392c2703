"""`validate`: what is wrong with rows, before anything is trained. It finds files and judges them; it prints nothing."""

from __future__ import annotations

import os
from collections.abc import Callable, Sequence
from typing import Any, Final

from hone.config.sections import DataSection
from hone.data.importers.row_file import RowFile
from hone.data.validation.finding import Finding
from hone.data.validation.judge import RULES
from hone.data.validation.verdict import FAST_BYTES, Verdict, judge_file
from hone.errors import ConfigError, DataError, nearest
from hone.recipes.rows import found_rows

Say = Callable[[str, dict[str, Any]], None]

_MOST_WORKERS: Final = 16


def validate(
    section: DataSection,
    paths: Sequence[str],
    say: Say,
    *,
    rules: str = "full",
    keep: int | None = None,
) -> list[Verdict]:
    """The verdict on each file, folder or dataset; `section` says how they are read, as it does for training.

    `keep` is how many findings of a file are listed, None for all; all are counted. `say` hears a notice for
    what a user should know of an import. Raises ConfigError, DiskError, EnvironmentFault.
    """
    check_rules(rules)
    if not paths:
        raise ConfigError("no rows", remedy="type: hone validate FILE.jsonl")
    verdicts: list[Verdict] = []
    for path in paths:
        try:
            file = found_rows(section, path, say)
        except DataError as error:
            verdicts.append(Verdict(path))
            verdicts[-1].add(Finding.of_file(error))
            continue
        workers = _workers(file, section)
        verdicts.append(judge_file(file, section, rules=rules, workers=workers, keep=keep))
    return verdicts


def check_rules(rules: str) -> None:
    """Raise ConfigError unless rules of that name are known."""
    if rules not in RULES:
        raise ConfigError(f"--rules: no rules are called {rules!r}", remedy=nearest(rules, RULES))


def _workers(file: RowFile, section: DataSection) -> int:
    """How many processes judge a file."""
    if isinstance(section.workers, int):
        return section.workers
    size = file.path.stat().st_size if file.path.is_file() else 0
    return 0 if size < FAST_BYTES else min(len(os.sched_getaffinity(0)), _MOST_WORKERS)
