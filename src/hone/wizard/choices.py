"""What is offered at a question, as far as it depends on the machine and on earlier answers. It asks nothing."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Final, cast

from hone.trainable.defaults import Hyperparameters, default_hyperparameters
from hone.trainable.schedule import SCHEDULES, ScheduleType
from hone.wizard.answers import Answers
from hone.wizard.dataset import newest
from hone.wizard.defaults import INLINE_BATCH_SIZE, INLINE_LR
from hone.wizard.literal import number
from hone.wizard.question import Option

RECOMMENDED: Final = (
    "OpenPipe/Qwen3-14B-Instruct",
    "Qwen/Qwen3-30B-A3B-Instruct-2507",
    "meta-llama/Llama-3.1-8B-Instruct",
)
PROJECT: Final = "sft-project"
SERVERLESS_KEY: Final = "WANDB_API_KEY"
_MOST_FILES: Final = 5


def scenarios(_: Answers) -> Sequence[Option]:
    """What the rows are."""
    return (
        Option("jsonl", "a JSONL file", "conversations, one in each line of a file"),
        Option("inline", "examples in the script", "a few, which you type here"),
        Option("distillation", "distillation", "a larger model answers, yours learns from it"),
    )


def backends(answers: Answers) -> Sequence[Option]:
    """Where training runs. What would run from here comes recommended: managed GPUs need a key."""
    has_key = has_serverless_key(answers)
    said = "on managed GPUs, serves the model as well"
    if not has_key:
        said = f"on managed GPUs; needs {SERVERLESS_KEY}, which is not set here"
    best = " (recommended)"
    return (
        Option("serverless", f"serverless{best if has_key else ''}", said),
        Option(
            "local",
            f"local{'' if has_key else best}",
            "on this machine: its GPU, or its CPU for a small model",
        ),
    )


def has_serverless_key(answers: Answers) -> bool:
    """Whether the managed GPUs' key is in the environment."""
    return bool(answers.place.environment.get(SERVERLESS_KEY))


def files(answers: Answers) -> Sequence[Option]:
    """The newest files of rows below this folder."""
    found = newest(answers.place.folder, _MOST_FILES)
    return [Option(str(path), str(path)) for path in found]


def models(_: Answers) -> Sequence[Option]:
    """The base models that the documents recommend."""
    return [Option(name, name) for name in RECOMMENDED]


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
