"""The whole road from a file of rows to prepared Datasets, cached by content. It knows no torch, no order and no steps."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from hone.config.sections import DataSection
from hone.data.dataset import Columns, Dataset, DatasetWriter, open_columns
from hone.data.ledger import Ledger
from hone.data.render import Renderer
from hone.data.road import Road, sentences
from hone.data.template import ChatTemplate
from hone.data.tokenizer import TextTokenizer
from hone.errors import DataError

Say = Callable[[str, dict[str, Any]], None]

# Part of the cache's key: raise it whenever the same rows would be rendered to other Examples.
_ROAD_VERSION: Final = 2


@dataclass(frozen=True)
class Prepared:
    """What training reads: the rows, the held-out rows if any, and what became of every row."""

    train: Dataset
    validation: Dataset | None
    ledger: Ledger
    validation_ledger: Ledger | None = None
    """The held-out file's own ledger, where there is one."""


def prepare(
    section: DataSection,
    *,
    tokenizer: TextTokenizer,
    template: ChatTemplate,
    max_length: int,
    cache_dir: Path | None,
    say: Say,
) -> Prepared:
    """Read, render, check and store the rows that `section` names; the second time, find them stored.

    `max_length` in tokens. `say(event, told)` hears a `data` event for each file and a `notice` for
    each thing that a user should know. Raises DataError for rows that cannot be used, ConfigError for
    settings that cannot be meant, DiskError when the cache cannot be written.
    """
    source = _Source(section, tokenizer, template, max_length, cache_dir, say)
    if template.origin == "chatml" and section.template is None:
        say(
            "notice",
            {"code": "chatml", "message": "the model has no chat template: ChatML is used"},
        )
    if template.writes_today:
        say(
            "notice",
            {
                "code": "template-date",
                "message": "the chat template writes today's date into the prompt; "
                "set its variable in data.template_kwargs to fix it",
            },
        )
    columns, ledger = source.columns(section.path)
    every = Dataset(columns, file=section.path)
    if section.validation_path is not None:
        held_columns, held_ledger = source.columns(section.validation_path)
        held = Dataset(held_columns, file=section.validation_path)
        _say_overlap(every, held, say)
        return Prepared(every, held, ledger, held_ledger)
    if section.validation_split:
        train, held = split(every, section.validation_split)
        return Prepared(train, held, ledger)
    return Prepared(every, None, ledger)


def split(rows: Dataset, share: float) -> tuple[Dataset, Dataset]:
    """Training and held-out rows by what they say: stable under reordering, equal rows on one side.

    A row is held out when its hash, read as a number from 0 to 1, lies below `share`. Neither side is
    left empty: the row nearest to the border changes sides. Raises DataError when all rows are equal.
    """
    hashes = rows.content_hashes()
    if np.unique(hashes).shape[0] < 2:
        raise DataError(
            "nothing can be held out: there is only one distinct row",
            where=rows.row_name(0),
            remedy="set data.validation_split to 0, or add rows",
        )
    held = hashes < np.uint64(min(int(share * 2.0**64), 2**64 - 1))
    if not held.any():
        held = hashes == hashes.min()
    elif held.all():
        held = hashes != hashes.max()
    return rows.view(np.flatnonzero(~held)), rows.view(np.flatnonzero(held))


@dataclass(frozen=True)
class _Source:
    """Everything but the file that decides what its prepared rows are."""

    section: DataSection
    tokenizer: TextTokenizer
    template: ChatTemplate
    max_length: int
    cache_dir: Path | None
    say: Say

    def columns(self, file: str) -> tuple[Columns, Ledger]:
        """Prepared rows of one file, from the cache if they are there unharmed."""
        road = Road(
            self.section,
            renderer=lambda: Renderer(self.tokenizer, self.template, self.section.train_on),
            max_length=self.max_length,
            file=file,
        )
        sha256 = _sha256(file)
        folder = None if self.cache_dir is None else self.cache_dir / self._key(sha256)
        stored = None if folder is None else open_columns(folder)
        if stored is not None:
            columns, about = stored
            ledger = Ledger.from_json(about)
            ledger.file = file
        else:
            with DatasetWriter(folder) as writer:
                for row in road.kept():
                    writer.add(row.examples, line=row.origin.line, content=row.content)
                if road.sha256 != sha256:
                    raise DataError(
                        "the file changed while it was read",
                        where=file,
                        remedy="let the program that writes it finish, and start again",
                    )
                ledger = road.ledger
                columns = writer.finish(ledger.to_json())
        self._say(ledger)
        return columns, ledger

    def _key(self, sha256: str) -> str:
        section = self.section
        settings = section.model_dump(include={"format", "columns", "train_on", "too_long"})
        parts = [
            _ROAD_VERSION,
            sha256,
            self.tokenizer.fingerprint,
            self.template.fingerprint,
            settings,
            self.max_length,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()

    def _say(self, ledger: Ledger) -> None:
        for code, message in sentences(ledger):
            self.say("notice", {"code": code, "message": message})
        self.say(
            "data",
            {
                "file": ledger.file,
                "shape": ledger.shape,
                "rows": ledger.kept,
                "examples": ledger.examples,
                "tokens": ledger.tokens,
                "trained_tokens": ledger.trained_tokens,
                "dropped": {reason: tally.count for reason, tally in ledger.dropped.items()},
                "cut": ledger.cut.count,
                "summary": f"{ledger.shape}, {ledger.read:,} rows: {ledger.sentence()}",
            },
        )


def _sha256(file: str) -> str:
    try:
        with Path(file).open("rb") as stream:
            return hashlib.file_digest(stream, "sha256").hexdigest()
    except OSError as fault:
        raise DataError(
            f"cannot read the rows: {fault.strerror}",
            where=file,
            remedy="check that you may read it",
        ) from fault


def _say_overlap(train: Dataset, held: Dataset, say: Say) -> None:
    common = np.isin(held.content_hashes(), train.content_hashes())
    if common.any():
        rows: Iterable[int] = np.flatnonzero(common)[:5].tolist()
        say(
            "notice",
            {
                "code": "held-out-overlap",
                "message": f"{int(common.sum())} held-out rows are also training rows "
                f"({', '.join(held.row_name(row) for row in rows)}): their loss says little",
            },
        )
