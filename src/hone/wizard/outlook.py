"""What a training will be, said before its script is written. It measures nothing and invents nothing."""

from __future__ import annotations

from hone.wizard.answers import Answers
from hone.wizard.choices import chosen
from hone.wizard.defaults import gradient_steps


def outlook(answers: Answers) -> list[str]:
    """A sentence for each thing that is known. `answers` are complete."""
    rows = answers.rows or 0
    told = chosen(answers)
    steps = gradient_steps(answers.scenario, rows, told.epochs, told.batch_size)
    said = [
        f"{_many(rows, 'row')}, {_many(told.epochs, 'epoch')}, batches of {told.batch_size}: "
        f"{_many(steps, 'gradient step')}"
    ]
    warmup = int(steps * told.warmup_ratio)
    if warmup > steps:
        said.append(
            f"warning: the warmup has {warmup} steps, so the learning rate never reaches its peak "
            f"in {_many(steps, 'step')}; more rows or a smaller warmup_ratio mend that"
        )
    elif warmup == steps:
        said.append(
            "warning: all of it is warmup, so only the last step has the peak learning rate; "
            "more rows or a smaller warmup_ratio mend that"
        )
    return said


def progress(answers: Answers, done: int, loss: float | None) -> str:
    """How far a run is, by the gradient steps that its history holds."""
    if answers.text("backend") == "serverless":
        return "it runs still; its steps are told by the service"
    if not done:
        return "it runs still, before its first gradient step: weights are fetched or loaded"
    told = chosen(answers)
    rows = answers.rows or 0
    steps = gradient_steps(answers.scenario, rows, told.epochs, told.batch_size)
    at = "" if loss is None else f", loss {loss:.4f}"
    return f"it runs still: gradient step {done:,} of {steps:,}{at}"


def _many(count: int, what: str) -> str:
    return f"{count:,} {what}{'' if count == 1 else 's'}"
