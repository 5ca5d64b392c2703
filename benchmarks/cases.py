"""What is measured: which rows, which model, how many rows a step; laid out on disk for both sides.

Rows are prepared once, by Hone's own road; the peer gets the very same token ids and trained tokens, so
that both sides train the same thing and nothing is said about who tokenises how.
"""

from __future__ import annotations

import json
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import models
import numpy as np
import rows

BATCH = 8  # rows of one optimizer step
TOKENIZER_ROWS = 2000


@dataclass(frozen=True)
class Case:
    """One comparison."""

    name: str
    size: str
    kind: str  # made-up, airline
    max_length: int
    positions: int
    trial_steps: int
    """Steps of a trial of one of the peer's settings, the first of which does not count."""
    trial_rows: int
    """Rows of one step of a trial, 8 at most: speed by the token hardly depends on it."""
    steps: int
    """Steps of a measurement, the first of which does not count."""


CASES = {
    case.name: case
    for case in (
        Case("gsm8k-5m", "5m", "made-up", 1024, 4096, trial_steps=6, trial_rows=8, steps=21),
        Case("gsm8k-30m", "30m", "made-up", 1024, 4096, trial_steps=4, trial_rows=8, steps=9),
        Case("tau-5m", "5m", "airline", 12_000, 16_384, trial_steps=3, trial_rows=2, steps=3),
    )
}


@dataclass(frozen=True)
class Laid:
    """A case on disk: a model folder, rows as a user has them, and the same rows as token ids."""

    model: str
    rows: str
    ids: str
    num_rows: int
    longest: int
    tokens: int
    trained_tokens: int
    about: str

    def to_json(self) -> dict[str, Any]:
        """For the children and the report."""
        return asdict(self)


def lay(case: Case, folder: Path, *, steps: int, size: str | None = None) -> Laid:
    """Make the model and exactly `steps` * 8 rows, so that one pass is the same rows on both sides."""
    model = folder / "model"
    every, template, about = _every_row(case)
    models.make_tokenizer(model, rows.texts(every), template=template)
    models.make_weights(model, size or case.size, positions=case.positions)
    rows.write_rows(folder / "every.jsonl", every)
    fitting = _prepare(case, model, folder / "every.jsonl")
    lines = [line - 1 for line, _, _ in fitting]
    wanted = steps * BATCH
    if len(lines) < wanted:
        raise SystemExit(
            f"{case.name}: {len(lines)} rows of at most {case.max_length} tokens; "
            f"{steps} steps of {BATCH} need {wanted}"
        )
    spread = [lines[int(i)] for i in np.linspace(0, len(lines) - 1, wanted).round()]
    rows.write_rows(folder / "rows.jsonl", [every[line] for line in spread])
    taken = _prepare(case, model, folder / "rows.jsonl")
    assert len(taken) == wanted
    _save(folder / "ids.npz", taken)
    lengths = [len(ids) for _, ids, _ in taken]
    return Laid(
        model=str(model),
        rows=str(folder / "rows.jsonl"),
        ids=str(folder / "ids.npz"),
        num_rows=wanted,
        longest=max(lengths),
        tokens=sum(lengths),
        trained_tokens=int(sum((weight > 0).sum() for _, _, weight in taken)),
        about=f"{about}; {wanted} rows, {min(lengths):,} to {max(lengths):,} tokens, "
        f"mean {sum(lengths) / wanted:,.0f}",
    )


def _every_row(case: Case) -> tuple[list[rows.Row], str, str]:
    """All rows of a case, the chat template, and where both are from."""
    if case.kind == "made-up":
        made = rows.made_up(TOKENIZER_ROWS)
        return (
            made,
            models.CHATML,
            "made-up chat rows, ChatML, BPE of 8,192 trained on 2,000 of them",
        )
    shared = rows.shared_folder()
    if shared is None:
        raise SystemExit(f"{case.name} needs data/tau_airline.jsonl in HONE_SHARED or ../shared")
    config = json.loads((shared / "tokenizers" / "qwen2.5" / "tokenizer_config.json").read_bytes())
    found = rows.read_rows(shared / "data" / "tau_airline.jsonl")
    about = "whole tau_airline rows, Qwen2.5's template, BPE of 8,192 trained on all 200 of them"
    return found, config["chat_template"], about


def _prepare(case: Case, model: Path, file: Path) -> list[tuple[int, np.ndarray, np.ndarray]]:
    """(line, ids, weight) of each row that is short enough, by Hone's road."""
    from hone.config.sections import DataSection
    from hone.data.prepare import prepare
    from hone.data.template import load_template
    from hone.data.tokenizer import TextTokenizer

    tokenizer = TextTokenizer.load(model)
    prepared = prepare(
        DataSection(path=str(file), max_length=case.max_length, too_long="drop"),
        tokenizer=tokenizer,
        template=load_template(tokenizer),
        max_length=case.max_length,
        cache_dir=None,
        say=silent,
    )
    dataset = prepared.train
    found: list[tuple[int, np.ndarray, np.ndarray]] = []
    for row in range(dataset.num_rows):
        for example in dataset.examples(row):  # one, or none where the row is too long
            found.append((example.origin.line, example.input_ids, example.weight))
    return found


def silent(*_: object, **__: object) -> None:
    """Hears events and says nothing."""


def _save(path: Path, taken: list[tuple[int, np.ndarray, np.ndarray]]) -> None:
    np.savez(
        path,
        length=np.asarray([len(ids) for _, ids, _ in taken], dtype=np.int64),
        ids=np.concatenate([ids for _, ids, _ in taken]).astype(np.int64),
        trained=np.concatenate([weight > 0 for _, _, weight in taken]),
    )
