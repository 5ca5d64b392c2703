"""What is offered at a question, as far as it depends on the machine and on earlier answers. It asks nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from hone.backends.service_address import KEY_VARIABLE
from hone.trainable.defaults import Hyperparameters, default_hyperparameters
from hone.trainable.schedule import SCHEDULES, ScheduleType
from hone.wizard.answers import Answers
from hone.wizard.dataset import newest
from hone.wizard.defaults import INLINE_BATCH_SIZE, INLINE_LR
from hone.wizard.literal import number
from hone.wizard.question import Option
from hone.wizard.service import offer_of

RECOMMENDED: Final = (
    "OpenPipe/Qwen3-14B-Instruct",
    "Qwen/Qwen3-30B-A3B-Instruct-2507",
    "meta-llama/Llama-3.1-8B-Instruct",
)
PROJECT: Final = "sft-project"
ART_KEY: Final = "WANDB_API_KEY"
"""What ART's own serverless backend reads."""
_MOST_FILES: Final = 5


def scenarios(_: Answers) -> Sequence[Option]:
    """What the rows are."""
    return (
        Option("jsonl", "a JSONL file", "conversations, one in each line of a file"),
        Option("inline", "examples in the script", "a few, which you type here"),
        Option("distillation", "distillation", "a larger model answers, yours learns from it"),
    )


def backends(answers: Answers) -> Sequence[Option]:
    """Where training runs. What would run from here comes recommended."""
    is_there = has_serverless(answers)
    best = " (recommended)"
    return (
        Option("serverless", f"serverless{best if is_there else ''}", _serverless(answers)),
        Option(
            "local",
            f"local{'' if is_there else best}",
            "on this machine: its GPU, or its CPU for a small model",
        ),
    )


def has_serverless(answers: Answers) -> bool:
    """Whether a script for elsewhere would run from here: ART's key is there, or Hone's service answers."""
    if answers.text("framework") == "art":
        return bool(answers.place.environment.get(ART_KEY))
    offer = offer_of(answers.place.environment)
    return offer is not None and offer.models is not None


def serverless_key(answers: Answers) -> str:
    """The variable that a script for elsewhere reads its key from."""
    return ART_KEY if answers.text("framework") == "art" else KEY_VARIABLE


def _serverless(answers: Answers) -> str:
    key = serverless_key(answers)
    if answers.text("framework") == "art":
        said = "on W&B's managed GPUs, which serve the model as well"
        return said if has_serverless(answers) else f"{said}; needs {key}, which is not set here"
    offer = offer_of(answers.place.environment)
    if offer is None:
        return f"on a job service (`hone service`) here or elsewhere; needs {key}, which is not set here"
    if offer.models is None:
        return f"on the job service at {offer.url}, which does not answer now"
    return f"on the job service at {offer.url}, which serves the model as well"


def files(answers: Answers) -> Sequence[Option]:
    """The newest files of rows below this folder."""
    found = newest(answers.place.folder, _MOST_FILES)
    return [Option(str(path), str(path)) for path in found]


def models(answers: Answers) -> Sequence[Option]:
    """What the chosen service has, where that is known; else the base models that the documents recommend."""
    found: Sequence[str] = RECOMMENDED
    if answers.text("backend") == "serverless" and answers.text("framework") != "art":
        offer = offer_of(answers.place.environment)
        found = (offer and offer.models) or RECOMMENDED
    return [Option(name, name) for name in found]


def project(answers: Answers) -> str:
    """The project of last time."""
    return answers.place.last_project or PROJECT


def key_variable(answers: Answers) -> str:
    """The variable that a teacher's users usually keep its key in."""
    is_router = "openrouter.ai" in answers.text("teacher_url")
    return "OPENROUTER_API_KEY" if is_router else "OPENAI_API_KEY"


def offered(answers: Answers) -> Hyperparameters:
    """The hyperparameters that are offered for these rows. Raises DataError where there are none."""
    if answers.scenario == "inline":
        return Hyperparameters(1, INLINE_BATCH_SIZE, INLINE_LR, "constant", 0.0)
    return default_hyperparameters(answers.rows or 0)


def chosen(answers: Answers) -> Hyperparameters:
    """The hyperparameters in force: what was customised, and the offered ones."""
    found = offered(answers)
    return Hyperparameters(
        epochs=cast("int", answers.values.get("epochs", found.epochs)),
        batch_size=cast("int", answers.values.get("batch_size", found.batch_size)),
        peak_lr=cast("float", answers.values.get("lr", found.peak_lr)),
        schedule_type=cast("ScheduleType", answers.values.get("schedule", found.schedule_type)),
        warmup_ratio=cast("float", answers.values.get("warmup_ratio", found.warmup_ratio)),
    )


def offers(answers: Answers) -> Sequence[Option]:
    """The defaults as values, and the way to others."""
    found = offered(answers)
    said = f"batch_size={found.batch_size} lr={number(found.peak_lr)}"
    if answers.scenario != "inline":
        said = f"epochs={found.epochs} {said} schedule={found.schedule_type}"
        said += f" warmup_ratio={number(found.warmup_ratio)}"
    return (
        Option("defaults", "use defaults (recommended)", said),
        Option("customize", "customize", "each is asked, with these as defaults"),
    )


def schedules(_: Answers) -> Sequence[Option]:
    """How the learning rate goes on after its rise."""
    notes = ("falls to 0 in a straight line", "falls to 0 along a half wave", "stays")
    return [Option(name, name, note) for name, note in zip(SCHEDULES, notes, strict=True)]
