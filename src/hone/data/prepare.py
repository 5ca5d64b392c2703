"""From files of rows to what training reads, cached by content. It knows no torch, no order and no steps."""

from __future__ import annotations

import contextlib
import hashlib
import json
import os
import threading
from collections.abc import Callable, Generator, Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import numpy as np

from hone.config.sections import DataSection
from hone.data.dataset import Dataset
from hone.data.importers.row_file import RowFile
from hone.data.index_file import open_index
from hone.data.indexing import Indexed, name_content, read_index, shape_of
from hone.data.ledger import Ledger
from hone.data.prepared import PreparedFile
from hone.data.road import sentences
from hone.data.template import ChatTemplate
from hone.data.tokenizer import TextTokenizer
from hone.data.workshop import FAST_ENCODER_BYTES, Order, Workshop
from hone.errors import DataError, NothingLeft
from hone.pack import Int64

Say = Callable[[str, dict[str, Any]], None]

# Part of the cache's key: raise it whenever the same rows would be rendered to other Examples.
_ROAD_VERSION: Final = 6
_CREW_BYTES: Final = 8 * 2**20  # a smaller file is prepared before its processes have started
_MOST_WORKERS: Final = 8
_SAMPLE_ROWS: Final = 256
_LARGEST_ROWS: Final = 32


@dataclass(frozen=True)
class Prepared:
    """What training reads: the rows, the held-out rows if any, and what became of every row so far."""

    train: Dataset
    validation: Dataset | None
    files: tuple[PreparedFile, ...]
    validation_files: tuple[PreparedFile, ...] = ()

    @property
    def ledgers(self) -> tuple[Ledger, ...]:
        """One for each training file, held-out rows of a split included."""
        return tuple(file.ledger for file in self.files)

    @property
    def validation_ledgers(self) -> tuple[Ledger, ...]:
        """The held-out file's own ledger, where there is one."""
        return tuple(file.ledger for file in self.validation_files)

    @property
    def is_complete(self) -> bool:
        """Whether every row is prepared."""
        return all(file.is_complete for file in (*self.files, *self.validation_files))

    def ledger_json(self) -> dict[str, Any]:
        """What became of every row, over all training files; with several, each one's own under `files`."""
        ledgers = self.ledgers
        if len(ledgers) == 1:
            return ledgers[0].to_json()
        total = Ledger(file=" + ".join(one.file for one in ledgers))
        for one in ledgers:
            total.add(one)
        counts = total.to_json()
        for name in ("dropped", "notices"):
            counts[name] = {key: {"count": one["count"]} for key, one in counts[name].items()}
        counts["cut"] = {"count": total.cut.count}
        return {**counts, "files": [one.to_json() for one in ledgers]}

    def follow(self, order: Int64, *, head: int) -> None:
        """Prepare the training rows in this order ahead of their use, held-out rows after the first `head`."""
        wanted: dict[int, list[Int64]] = {}
        parts = [(self.train, order[:head])]
        if self.validation is not None:
            parts.append((self.validation, np.arange(self.validation.num_rows, dtype=np.int64)))
        parts.append((self.train, order[head:]))
        files = {id(file): file for file in (*self.files, *self.validation_files)}
        for rows, numbers in parts:
            for file, own in rows.places(numbers):
                wanted.setdefault(id(file), []).append(own)
        for name, own in wanted.items():
            files[name].follow(np.concatenate(own))

    def close(self) -> None:
        """End what prepares, let go of the files."""
        for file in (*self.files, *self.validation_files):
            file.close()


@dataclass(frozen=True)
class Rows:
    """One source: where its rows are, and how they are read."""

    file: RowFile
    section: DataSection


def prepare(
    section: DataSection,
    *,
    tokenizer: TextTokenizer,
    template: ChatTemplate,
    max_length: int,
    cache_dir: Path | None,
    say: Say,
    rows: Sequence[Rows] = (),
    held_out: RowFile | None = None,
    wait: bool = True,
    follow: bool = False,
) -> Prepared:
    """Read and check every row that `section` names; render and store them, or find them stored.

    `rows` and `held_out` say where the rows are; unset, `data.path` and `data.validation_path` are JSONL or
    JSON files. `max_length` in tokens. `say(event, told)` hears a `data` event for each file and a `notice`
    for each thing that a user should know. Without `wait`, a large file's rows are prepared while they are
    used: only a sample, the rows that may be too long, and what is asked for are prepared first. With
    `follow`, another process does all that, and has indexed the files already: rows are awaited in the cache.

    Raises DataError for rows that cannot be used, ConfigError for settings that cannot be meant,
    DiskError when the cache cannot be written, EnvironmentFault when a preparing process dies.
    """
    _say_template(section, template, say)
    source = _Source(tokenizer, template, max_length, cache_dir, follow)
    contents = bool(section.validation_path or section.validation_split)
    named = rows or [Rows(RowFile(Path(section.path), section.path), section)]
    opened: list[PreparedFile] = []
    try:
        for one in named:
            opened.append(source.file(one.file, one.section, contents=contents))
            _make_ready(opened[-1], wait=wait, section=one.section, limit=max_length)
        every = Dataset(opened)
        train, held, held_files = every, None, ()
        if section.validation_path is not None:
            held_out = held_out or RowFile(Path(section.validation_path), section.validation_path)
            opened.append(source.file(held_out, section, contents=True))
            _make_ready(opened[-1], wait=wait, section=section, limit=max_length)
            held_files = (opened[-1],)
            held = Dataset(held_files)
            _say_overlap(every, held, say)
        elif section.validation_split:
            train, held = split(every, section.validation_split)
        for one in opened:
            say_data(one.ledger, say)
        return Prepared(train, held, tuple(opened[: len(named)]), held_files)
    except BaseException:
        for one in opened:
            one.close()
        raise


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


def say_data(ledger: Ledger, say: Say) -> None:
    """Tell what became of a file's rows so far."""
    for code, message in sentences(ledger):
        say("notice", {"code": code, "message": message})
    say(
        "data",
        {
            "file": ledger.file,
            "shape": ledger.shape,
            "rows": ledger.kept,
            "waiting": ledger.waiting,
            "examples": ledger.examples,
            "tokens": ledger.tokens,
            "trained_tokens": ledger.trained_tokens,
            "dropped": {reason: tally.count for reason, tally in ledger.dropped.items()},
            "cut": ledger.cut.count,
            "lost_tokens": ledger.lost_tokens,
            "lost_trained_tokens": ledger.lost_trained_tokens,
            "summary": f"{ledger.shape}, {ledger.read:,} rows: {ledger.sentence()}",
        },
    )


def workers_for(size: int, wanted: int | str) -> int:
    """How many processes prepare a file of `size` bytes."""
    if isinstance(wanted, int):
        return wanted
    cores = len(os.sched_getaffinity(0))
    return 0 if size < _CREW_BYTES else min(cores, _MOST_WORKERS)


@dataclass(frozen=True)
class _Source:
    """What decides, beside a file and how it is read, what its prepared rows are."""

    tokenizer: TextTokenizer
    template: ChatTemplate
    max_length: int
    cache_dir: Path | None
    follows: bool = False

    def file(self, rows: RowFile, section: DataSection, *, contents: bool) -> PreparedFile:
        """One file, indexed, with what the cache holds of it."""
        path = str(rows.path)
        shape, is_lines = shape_of(path, rows.name, section)
        proofs = None if self.cache_dir is None else self.cache_dir.parent / "encoders"
        order = Order.for_file(
            path, rows.name, section, shape, self.tokenizer, self.max_length, proofs
        )
        workers = workers_for(order.stamp[0], section.workers)
        if self.tokenizer.folder is None or self.cache_dir is None or self.follows:
            workers = 0
        shop = Workshop(order, (self.tokenizer, self.template))
        with self._proving(order, proofs, workers):
            indexed, key = self._indexed(
                order, shop, section, workers, is_lines=is_lines, contents=contents
            )
        folder = None if self.cache_dir is None else self.cache_dir / key
        return PreparedFile(
            shop,
            indexed.index,
            key=key,
            folder=folder,
            workers=workers,
            source_hold=rows.hold,
            follows=self.follows,
        )

    @contextlib.contextmanager
    def _proving(self, order: Order, proofs: Path | None, workers: int) -> Generator[None]:
        """Meanwhile, prove the fast encoder once here, and not once in every process."""
        thread: threading.Thread | None = None
        if workers and order.stamp[0] >= FAST_ENCODER_BYTES:
            thread = threading.Thread(target=self.tokenizer.fast_encoder, args=(proofs,))
            thread.start()
        try:
            yield
        finally:
            if thread is not None:
                thread.join()

    def _indexed(
        self,
        order: Order,
        shop: Workshop,
        section: DataSection,
        workers: int,
        *,
        is_lines: bool,
        contents: bool,
    ) -> tuple[Indexed, str]:
        if self.cache_dir is not None and self.cache_dir.is_dir():
            content = name_content(order.file)
            folder = self.cache_dir / self._key(content, order.shape, section)
            index = open_index(folder, contents=contents)
            if index is not None:
                return Indexed(index, content), folder.name
        indexed = read_index(order, shop, is_lines=is_lines, workers=workers, contents=contents)
        shop.check_stamp()
        return indexed, self._key(indexed.content, order.shape, section)

    def _key(self, content: str, shape: str, section: DataSection) -> str:
        settings = section.model_dump(
            include={"format", "columns", "tags", "train_on", "too_long", "bad_rows"}
        )
        if section.input_heading is not None:
            settings["input_heading"] = section.input_heading
        if section.train_separators:
            settings["train_separators"] = True
        parts = [
            _ROAD_VERSION,
            content,
            shape,
            self.tokenizer.fingerprint,
            self.template.fingerprint,
            settings,
            self.max_length,
        ]
        return hashlib.sha256(json.dumps(parts, sort_keys=True).encode()).hexdigest()


def _make_ready(file: PreparedFile, *, wait: bool, section: DataSection, limit: int) -> None:
    """Prepare what must be known before anything else loads: all rows, or a sample and the doubtful ones."""
    if file.follows:
        file.keep()
        return
    rows = Dataset([file])
    if wait or not file.works_ahead:
        file.finish()
    elif not file.is_complete:
        doubtful = file.long_rows(limit) if section.too_long == "refuse" else []
        spaced = np.linspace(0, rows.num_rows - 1, min(rows.num_rows, _SAMPLE_ROWS)).astype(int)
        first = dict.fromkeys([*doubtful, *rows.largest(_LARGEST_ROWS).tolist(), *spaced.tolist()])
        file.follow(np.array(list(first), dtype=np.int64), then_wait=True)
        file.ensure(first)
        file.refuse_long()
        if not rows.figures().trained_tokens:
            file.finish()
    if file.is_complete and not file.ledger.kept:
        raise _nothing(file.ledger)
    file.keep()


def _nothing(ledger: Ledger) -> NothingLeft:
    dropped = ledger.dropped.values()
    rows = [name for tally in dropped for name in ledger.names(tally)]
    return NothingLeft(
        f"there is nothing to train on: {ledger.sentence()}",
        where=", ".join(rows[:5]),
        remedy="at least one row needs an assistant turn with a weight above 0 "
        "that the chat template accepts and the length limit leaves whole",
    )


def _say_template(section: DataSection, template: ChatTemplate, say: Say) -> None:
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
