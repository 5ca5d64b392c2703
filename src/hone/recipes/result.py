"""What a finished run leaves in its folder: the artifact, its card, the last count of rows, and the curve."""

from __future__ import annotations

import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from torch import Tensor

from hone.config.sections import Config
from hone.data.prepare import say_data
from hone.engine.loop import Outcome
from hone.recipes.artifact import write_artifact
from hone.recipes.build import Built
from hone.recipes.card import write_card
from hone.recipes.identity import versions
from hone.recipes.source import Source, turn_ends
from hone.runs.curve import draw_png, read_curve
from hone.runs.events import Say
from hone.runs.folder import RunFolder


def write(
    folder: RunFolder,
    config: Config,
    source: Source,
    built: Built,
    weights: Mapping[str, Tensor],
    outcome: Outcome,
    say: Say,
) -> None:
    """Write all of it; `weights` are those of `artifact_tensors`, whole."""
    card = write_card(
        config=config,
        outcome=outcome,
        hashes=source.hashes,
        ledger=_last_ledger(folder, source, say),
        versions=versions(),
        precision=str((folder.read_identity() or {}).get("precision")),
    )
    write_artifact(
        folder.path,
        base=source.base,
        base_name=_base_name(config),
        model=built.model,
        tuned=built.tuned,
        weights=weights,
        tokenizer=source.tokenizer,
        template=source.template.source,
        stop_ids=turn_ends(source),
        card=card,
    )
    curve = read_curve(folder.events_file, title=folder.name)
    draw_png(curve, folder.curve_file)


def _last_ledger(folder: RunFolder, source: Source, say: Say) -> dict[str, Any]:
    """What became of every row, told once more where that was not known at the beginning."""
    told = source.prepared.ledger_json()
    if told != folder.read_ledger():
        for ledger in source.prepared.ledgers:
            say_data(ledger, lambda event, about: say(event, **about))
        folder.write_ledger(told)
    return told


def _base_name(config: Config) -> str:
    """What a loader finds again from anywhere: a hub id as it is, a folder as a whole path."""
    name = config.model.name
    return os.path.realpath(name) if Path(name).expanduser().is_dir() else name
