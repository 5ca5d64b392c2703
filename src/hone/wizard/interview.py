"""The questions themselves, in their order. It knows no face: who asks, and how, is elsewhere."""

from __future__ import annotations

from collections.abc import Callable
from typing import Final

from hone.trainable.schedule import SCHEDULES
from hone.wizard import choices, reading
from hone.wizard.answers import Answers
from hone.wizard.defaults import GPU_MEMORY_UTILIZATION
from hone.wizard.question import Option, Question

SCRIPT: Final = "sft_train.py"
OPENAI: Final = "https://api.openai.com/v1"
CUSTOM: Final = ("epochs", "batch_size", "lr", "schedule", "warmup_ratio")
"""Answers that mean `customize` where they are given unasked."""


def _is(scenario: str) -> Callable[[Answers], bool]:
    return lambda answers: answers.scenario == scenario


def _is_custom(answers: Answers) -> bool:
    return answers.text("hyperparameters") == "customize"


def _is_scheduled(answers: Answers) -> bool:
    """Inline examples are trained in one call, at one rate."""
    return _is_custom(answers) and answers.scenario != "inline"


def _stands_already(answers: Answers) -> bool:
    script = answers.path(answers.text("script"))
    return "script" in answers and (script.exists() or script.is_symlink())


_SOURCE: Final = (
    Question(
        "framework",
        "--framework",
        "Which framework is the script for?",
        reading.choice("hone", "art"),
        kind="choice",
        options=lambda _: (Option("hone", "Hone"), Option("art", "ART")),
        default=lambda _: "hone",
        is_asked=False,
    ),
    Question(
        "scenario",
        "--scenario",
        "What do you train from?",
        reading.choice("jsonl", "inline", "distillation"),
        kind="choice",
        options=choices.scenarios,
        default=lambda _: "jsonl",
    ),
    Question(
        "backend",
        "--backend",
        "Where does training run?",
        reading.choice("serverless", "local"),
        kind="choice",
        options=choices.backends,
        default=lambda answers: "serverless" if choices.has_serverless(answers) else "local",
    ),
    Question(
        "gpu_memory_utilization",
        "--gpu-memory-utilization",
        "Which share of the GPU's memory may serving take?",
        reading.decimal("the share of memory", above=True, most=1, example="0.7"),
        default=lambda _: GPU_MEMORY_UTILIZATION,
        applies=lambda answers: answers.text("backend") == "local",
        is_asked=False,
    ),
    Question(
        "data",
        "--data",
        "Which file of rows?",
        reading.dataset,
        hint="Path of a .jsonl file",
        options=choices.files,
        other="Provide my own file path",
        applies=_is("jsonl"),
    ),
    Question(
        "examples",
        "--example",
        "The examples that it learns from",
        reading.conversations,
        kind="conversations",
        hint="Each is a conversation that ends with the reply to be learned.",
        applies=_is("inline"),
    ),
)

_NAMES: Final = (
    Question(
        "base_model",
        "--base-model",
        "Which base model?",
        reading.text,
        hint="A hub id, or the path of a folder",
        options=choices.models,
        other="Another model",
    ),
    Question(
        "project",
        "--project",
        "Project",
        reading.folder_name,
        hint="Runs of one task lie together in a project.",
        default=choices.project,
    ),
    Question(
        "name",
        "--name",
        "Name of the run",
        reading.folder_name,
        hint="Say what it does, e.g. agent-001, pii-redactor-001, math-tutor-001. "
        "The same name goes on from where it was.",
    ),
)

_TEACHER: Final = (
    Question(
        "teacher",
        "--teacher",
        "Which model is the teacher?",
        reading.text,
        hint="Its name as its service spells it",
        applies=_is("distillation"),
    ),
    Question(
        "teacher_url",
        "--teacher-url",
        "Base address of the teacher's service",
        reading.address,
        hint="Any that speaks OpenAI's protocol, e.g. https://openrouter.ai/api/v1",
        default=lambda _: OPENAI,
        applies=_is("distillation"),
    ),
    Question(
        "teacher_key_env",
        "--teacher-key-env",
        "Which environment variable holds its key?",
        reading.variable,
        hint="Its name only; the key itself is never asked, and stands in no file.",
        default=choices.key_variable,
        applies=_is("distillation"),
    ),
    Question(
        "prompts",
        "--prompt",
        "What is the teacher asked?",
        reading.prompts,
        kind="texts",
        hint="One prompt in a line, or @FILE with one in each line",
        applies=_is("distillation"),
    ),
)

_HYPERPARAMETERS: Final = (
    Question(
        "hyperparameters",
        "--hyperparameters",
        "Hyperparameters",
        reading.choice("defaults", "customize"),
        kind="choice",
        options=choices.offers,
        default=lambda _: "defaults",
    ),
    Question(
        "epochs",
        "--epochs",
        "Epochs: how often is each row seen?",
        reading.whole("epochs"),
        default=lambda answers: choices.offered(answers).epochs,
        applies=_is_scheduled,
    ),
    Question(
        "batch_size",
        "--batch-size",
        "Batch size: rows of one gradient step",
        reading.whole("the batch size"),
        default=lambda answers: choices.offered(answers).batch_size,
        applies=_is_custom,
    ),
    Question(
        "lr",
        "--lr",
        "Learning rate, at its highest",
        reading.decimal("the learning rate", above=True, most=1, example="2e-4"),
        default=lambda answers: choices.offered(answers).peak_lr,
        applies=_is_custom,
    ),
    Question(
        "schedule",
        "--schedule",
        "Schedule of the learning rate",
        reading.choice(*SCHEDULES),
        kind="choice",
        options=choices.schedules,
        default=lambda answers: choices.offered(answers).schedule_type,
        applies=_is_scheduled,
    ),
    Question(
        "warmup_ratio",
        "--warmup-ratio",
        "Warmup: share of the steps in which the rate rises",
        reading.decimal("the warmup", above=False, most=1000, example="0.05"),
        default=lambda answers: choices.offered(answers).warmup_ratio,
        applies=_is_scheduled,
    ),
)

_SCRIPT: Final = (
    Question(
        "script",
        "--script",
        "Where is the script written?",
        reading.script_path,
        default=lambda _: SCRIPT,
    ),
    Question(
        "overwrite",
        "--force",
        "That file is there already. Write over it?",
        reading.yes_or_no,
        kind="choice",
        options=lambda _: (Option("yes", "yes, replace it"), Option("no", "no, another name")),
        applies=_stands_already,
    ),
)

QUESTIONS: Final = (*_SOURCE, *_NAMES, *_TEACHER, *_HYPERPARAMETERS, *_SCRIPT)
"""All of them; those that apply are asked from the first to the last."""

BY_KEY: Final = {question.key: question for question in QUESTIONS}
