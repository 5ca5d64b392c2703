"""Conversations in ShareGPT form, checked by LLaMA-Factory's rules, and the `dataset_info.json` that names them. It prints nothing.

OUT/dataset_info.json      the dataset under its name, beside those that it named before
OUT/NAME.json              the rows that can be used, where some cannot; else the input itself is named
OUT/NAME.json.ledger.json  what became of each row, by reason and line
"""

from __future__ import annotations

import json
import re
from collections import Counter
from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from hone.data.changes import ChangeLedger
from hone.data.outbox import Outbox, disk_errors
from hone.errors import ConfigError, NothingLeft
from hone.recipes.change import parsed, raw_rows

INFO: Final = "dataset_info.json"
_SIDES: Final = (("human", "observation"), ("gpt", "function_call"))
_CHARACTERS_PER_TOKEN: Final = 4
_NAME: Final = re.compile(r"[\w.-]+")
_SHOWN_REASONS: Final = 20


@dataclass
class SftDataReport:
    """What was found: counts by reason, sizes, and what was written."""

    ledger: ChangeLedger
    info_file: Path
    rows_file: Path
    cutoff_tokens: int
    turns: list[int] = field(default_factory=list[int])
    tokens: list[int] = field(default_factory=list[int])
    """Estimated: four characters a token."""
    domains: Counter[str] = field(default_factory=Counter[str])

    @property
    def num_long(self) -> int:
        """Rows that are longer than the cut by the estimate."""
        return sum(size > self.cutoff_tokens for size in self.tokens)

    def lines(self) -> Iterator[str]:
        """Sentences for a terminal."""
        ledger = self.ledger
        yield f"{ledger.kept:,} of {ledger.read:,} rows can be used"
        for title, table in (("left out", ledger.dropped), ("noted", ledger.noted)):
            for reason, found in list(table.items())[:_SHOWN_REASONS]:
                shown = ", ".join(map(str, found.lines[:5])) + (
                    ", ..." if len(found.lines) > 5 else ""
                )
                yield f"  {title}: {reason}: {len(found.lines):,} (lines {shown})"
        if self.turns:
            mean = sum(self.turns) / len(self.turns)
            yield f"turns: {min(self.turns)} to {max(self.turns)}, {mean:.1f} on average"
            mean = sum(self.tokens) / len(self.tokens)
            yield f"tokens, about: {min(self.tokens):,} to {max(self.tokens):,}, {mean:,.0f} on average"
        if self.domains:
            told = ", ".join(f"{name} {count:,}" for name, count in self.domains.most_common())
            yield f"domains: {told}"
        if self.num_long:
            yield (
                f"warning: {self.num_long:,} rows have more than {self.cutoff_tokens:,} tokens by this estimate and "
                "will be cut: raise --cutoff-len; training counts them exactly"
            )
        yield f"rows: {self.rows_file}"
        yield f"wrote {self.info_file}"


def prepare_sft_data(
    source: Path, name: str, folder: Path, *, cutoff_tokens: int = 12_000
) -> SftDataReport:
    """Check the rows of `source` and write `dataset_info.json` with the dataset `name` into `folder`.

    Where rows cannot be used, those that can are written there too, and named. Raises ConfigError for a name that
    is none or a file that is not there, NothingLeft where no row can be used, DataError for a file that is none of
    rows, DiskError.
    """
    if not _NAME.fullmatch(name) or name.startswith("."):
        raise ConfigError(
            f"--dataset-name: {name!r} is no name of a dataset",
            remedy="use letters, digits, _, - and .",
        )
    if not source.is_file():
        raise ConfigError(f"no such file: {source}", remedy="check --input")
    ledger = ChangeLedger(str(source))
    report = SftDataReport(ledger, folder / INFO, source.resolve(), cutoff_tokens)
    rows: list[dict[str, Any]] = []
    with_tools = False
    for raw, fate in raw_rows(source).fates(ledger):
        value = parsed(raw, fate)
        if value is None:
            continue
        if (fault := _fault(value)) is not None:
            fate.drop(fault)
            continue
        if not value.get("system"):
            fate.note("no system text")
        with_tools = with_tools or bool(value.get("tools"))
        fate.keep()
        rows.append(value)
        _measure(value, report)
    if not rows:
        reasons = "; ".join(f"{why}: {len(one.lines)}" for why, one in ledger.dropped.items())
        raise NothingLeft(
            f"none of {ledger.read} rows can be used ({reasons})",
            where=str(source),
            remedy="rows are {conversations: [{from: human, value: ...}, {from: gpt, value: ...}], system: ...}",
        )
    _write(report, rows, name, with_tools=with_tools)
    return report


def _fault(row: Mapping[str, Any]) -> str | None:
    """Why LLaMA-Factory would skip a row, or fail on it; None where it would not."""
    turns = row.get("conversations")
    if not isinstance(turns, list) or not turns:
        return "no conversations"
    listed = cast("list[Any]", turns)
    for turn in listed:
        if not isinstance(turn, dict) or not isinstance(
            cast("dict[str, Any]", turn).get("value"), str
        ):
            return "a turn is not {from, value}"
    told = cast("list[dict[str, str]]", listed)
    for turn in told:
        if turn.get("from") not in (*_SIDES[0], *_SIDES[1]):
            return f"unknown speaker {turn.get('from')!r}"
        if not turn["value"].strip():
            return "a turn says nothing"
    if told[0]["from"] != "human":
        return "the first turn is not the human's"
    if any(turn["from"] not in _SIDES[place % 2] for place, turn in enumerate(told)):
        return "turns do not alternate"
    if len(told) % 2:
        return "the last turn is not answered"
    system = row.get("system", "")
    return None if system is None or isinstance(system, str) else "system is not text"


def _measure(row: Mapping[str, Any], report: SftDataReport) -> None:
    turns = cast("list[dict[str, str]]", row["conversations"])
    texts = [str(row.get("system") or ""), *(turn["value"] for turn in turns)]
    report.turns.append(len(turns))
    report.tokens.append(sum(map(len, texts)) // _CHARACTERS_PER_TOKEN)
    if isinstance(row.get("domain"), str):
        report.domains[row["domain"]] += 1


def _write(
    report: SftDataReport, rows: list[dict[str, Any]], name: str, *, with_tools: bool
) -> None:
    entries = _entries(report.info_file)
    some_left_out = report.ledger.num_dropped > 0
    with Outbox(inputs=[report.rows_file], force=True) as outbox:
        if some_left_out:
            path = report.info_file.parent / f"{name}.json"
            sink = outbox.rows(path)
            for row in rows:
                sink.add_json(row)
            report.rows_file = path.resolve()
        columns = {"messages": "conversations", "system": "system"}
        columns |= {"tools": "tools"} if with_tools else {}
        about = {"file_name": str(report.rows_file), "formatting": "sharegpt", "columns": columns}
        outbox.put_json(report.info_file, {**entries, name: about})
        outbox.put_json(
            report.info_file.parent / f"{name}.json.ledger.json", report.ledger.to_json()
        )


def _entries(path: Path) -> dict[str, Any]:
    """What the file names already. Raises ConfigError where it is none."""
    if not path.is_file():
        return {}
    try:
        with disk_errors(path):
            told: object = json.loads(path.read_bytes())
    except ValueError as fault:
        raise ConfigError(
            f"not JSON: {fault}", where=str(path), remedy="repair it, or remove it"
        ) from fault
    if not isinstance(told, dict):
        raise ConfigError("dataset_info.json holds an object", where=str(path), remedy="remove it")
    return cast("dict[str, Any]", told)
