"""The loss of held-out rows on what answers, by the engine's own evaluation: the Packs and weights of training. No text."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

import torch

from hone.config.sections import Config
from hone.data.prepare import Prepared
from hone.engine.ahead import Source
from hone.engine.budget import smaller_budget
from hone.engine.cost import Speeds
from hone.engine.evaluate import Alone, Evaluation, evaluate
from hone.engine.module import LossModule
from hone.engine.parts import Part
from hone.engine.precision import Precision
from hone.errors import DataError
from hone.infer.decoder import plain_model
from hone.infer.local import LocalCompleter
from hone.models.load import quiet
from hone.pack import Step
from hone.recipes.build import build_to_evaluate
from hone.recipes.course import step_source
from hone.runs.events import Say

_BUDGET: Final = 8192  # tokens of a Pack where the settings name none: no gradient is kept


@dataclass(frozen=True)
class Losses:
    """`loss` = sum(weight x nll) / sum(weight) over the rows; `by_row` has both sums of each row, by file and line."""

    loss: float
    rows: int
    trained_tokens: int
    sources: Mapping[str, Part]
    by_row: Mapping[str, tuple[float, float]]
    source_of: Mapping[str, str]
    """The source of each row, where there are several."""


def losses(
    completer: LocalCompleter, base: Path, config: Config, prepared: Prepared, say: Say
) -> Losses:
    """The losses of all rows. `base` is the folder of the model's own files.

    Raises DataError where the rows predict nothing, OutOfMemory.
    """
    figures = prepared.train.figures()
    if not figures.trained_tokens:
        raise DataError("no row holds an answer to take a loss of", where=_names(prepared))
    model = plain_model(completer.model)
    stock = str(getattr(model.config, "_attn_implementation", None) or "eager")
    precision: Precision = "fp32" if model.dtype == torch.float32 else "bf16"
    built = build_to_evaluate(model, base, precision=precision, longest=figures.longest, say=say)
    try:
        found = _evaluated(built.loss, built.alone_because is not None, completer, config, prepared)
    finally:
        with quiet():
            model.set_attn_implementation(stock)
        model.eval()
    by_row = {
        name: (float(total), float(weight))
        for step in found.rows_of_steps
        for name, total, weight in zip(step.step.row_names, step.total, step.weight, strict=True)
        if weight > 0
    }
    source_of = {
        name: step.step.sources[place]
        for step in found.rows_of_steps
        if step.step.sources
        for name, place in zip(step.step.row_names, step.step.row_sources, strict=True)
    }
    return Losses(found.loss, len(by_row), found.trained_tokens, found.sources, by_row, source_of)


def _evaluated(
    module: LossModule,
    alone: bool,
    completer: LocalCompleter,
    config: Config,
    prepared: Prepared,
) -> Evaluation:
    rows = step_source(config, prepared.train, shuffle=False, alone=alone)
    said = config.compute.micro_batch_tokens
    with completer.weights():
        found = evaluate(
            module,
            rows,
            Alone(module),
            speeds=Speeds({1: 1.0}),
            micro_batch_tokens=said if isinstance(said, int) else _BUDGET,
            lower=_lower,
            should_stop=lambda: None,
            by_row=True,
        )
    assert found is not None, "nobody asked to stop"
    return found


def _lower(rows: Source, step: Step, budget: int) -> int:
    return smaller_budget(rows, step, budget, from_step=step.index + 1)


def _names(prepared: Prepared) -> str:
    return ", ".join(one.file for one in prepared.ledgers)
