"""Memory and time of a training on this machine, by the plan of `hone plan`. It says nothing where nothing is known.

The plan needs the base model's files, and rows in a file: what is not here yet is not fetched for it.
"""

from __future__ import annotations

import importlib.util
from typing import Any

from hone.config.layers import resolve
from hone.config.sections import Config
from hone.errors import HoneError
from hone.recipes.plan import RunPlan, make_plan
from hone.wizard.answers import Answers
from hone.wizard.choices import chosen


def forecast(answers: Answers) -> list[str]:
    """A sentence for each thing that the plan says. `answers` are complete.

    Only for Hone's own local backend: what ART and managed GPUs take is theirs to say.
    """
    if answers.text("backend") != "local" or answers.text("framework") != "hone":
        return []
    if not answers.path(answers.text("base_model")).joinpath("config.json").is_file():
        return ["memory and time: not known before the base model's files are here"]
    if answers.scenario != "jsonl":
        return []
    try:
        plan = make_plan(_config(answers), _unheard)
    except HoneError as error:
        return [f"warning: this cannot be trained as it is: {error}"]
    return [_memory(plan), _time(plan)]


def _config(answers: Answers) -> Config:
    """What the local backend trains with: adapters, over a base in 4 bits where bitsandbytes is installed."""
    told = chosen(answers)
    rounds = importlib.util.find_spec("bitsandbytes") is not None
    flags = {
        "data.path": answers.text("data"),
        "data.too_long": "drop",
        "model.name": str(answers.path(answers.text("base_model"))),
        "train.batch_size": str(told.batch_size),
        "train.epochs": str(told.epochs),
        "train.learning_rate": str(told.peak_lr),
        "train.optimizer": "paged_adamw_8bit" if rounds else "adamw",
        "tuning.lora.r": "8",
        "tuning.method": "qlora" if rounds else "lora",
    }
    return resolve(flags=flags).config


def _memory(plan: RunPlan) -> str:
    peak, free = plan.memory.peak_bytes, plan.memory.free_bytes
    verdict = "" if plan.memory.fits else "warning: "
    ending = "" if plan.memory.fits else "; take a smaller base model or shorter rows"
    return (
        f"{verdict}training takes {_size(peak)} of memory at its fullest, of {_size(free)} that are "
        f"free on {plan.target}{ending}"
    )


def _time(plan: RunPlan) -> str:
    seconds = plan.time.seconds
    if seconds is None:
        return "time: not known before the first steps on this machine are measured"
    return f"time: about {_duration(seconds)} ({plan.time.says})"


def _size(count: int) -> str:
    mib = count / 2**20
    return f"{mib / 1024:.1f} GiB" if mib >= 1000 else f"{mib:.0f} MiB"


def _duration(seconds: float) -> str:
    minutes = seconds / 60
    if minutes < 1.5:
        return f"{max(1, round(seconds))} seconds"
    return f"{round(minutes)} minutes" if minutes < 90 else f"{minutes / 60:.1f} hours"


def _unheard(event: str, /, **about: Any) -> None:
    """What a run would be told along the way is told again when it begins."""
    del event, about
