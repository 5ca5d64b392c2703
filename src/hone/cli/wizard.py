"""`hone wizard`: its flags, and who answers: a terminal, nobody, or a program. It decides nothing."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated, Any, Final

import typer

from hone.cli.asking import has_terminal
from hone.cli.wizard_call import Call
from hone.cli.wizard_talk import Talk
from hone.errors import ConfigError, EnvironmentFault

_RUNS: Final = ("uv", "python", "no")


def _option(help_text: str, metavar: str = "TEXT") -> Any:
    return typer.Option(metavar=metavar, help=help_text)


def _flag(name: str, help_text: str) -> Any:
    return typer.Option(name, help=help_text)


Scenario = Annotated[str | None, _option("jsonl, inline or distillation.", "NAME")]
Backend = Annotated[str | None, _option("serverless or local.", "NAME")]
Data = Annotated[str | None, _option("Rows to train on, checked at once.", "FILE.jsonl")]
Examples = Annotated[
    list[str] | None, _option("inline: a conversation as JSON; may be repeated.", "JSON")
]
BaseModel = Annotated[str | None, _option("What is trained.", "FOLDER|HUB_ID")]
Project = Annotated[str | None, _option("Runs of one task (sft-project).", "NAME")]
Name = Annotated[str | None, _option("The run, by what it does.", "NAME")]
Teacher = Annotated[str | None, _option("distillation: who is asked.", "MODEL")]
TeacherUrl = Annotated[str | None, _option("distillation: its service.", "URL")]
TeacherKeyEnv = Annotated[
    str | None, _option("distillation: variable that holds its key (never the key).", "VARIABLE")
]
Prompt = Annotated[list[str] | None, _option("distillation: a prompt; may be repeated.")]
Prompts = Annotated[str | None, _option("distillation: prompts, one in each line.", "FILE")]
Hyper = Annotated[str | None, _option("defaults or customize.", "NAME")]
Epochs = Annotated[str | None, _option("How often each row is seen.", "NUMBER")]
BatchSize = Annotated[str | None, _option("Rows of a gradient step.", "ROWS")]
Rate = Annotated[str | None, _option("Peak learning rate.", "NUMBER")]
Schedule = Annotated[str | None, _option("linear, cosine or constant.", "NAME")]
Warmup = Annotated[str | None, _option("Share of the steps in which the rate rises.", "NUMBER")]
GpuShare = Annotated[
    str | None, _option("local: share of the GPU's memory for serving (0.7).", "NUMBER")
]
Framework = Annotated[str | None, _option("hone, or art for ART itself.", "NAME")]
Script = Annotated[str | None, _option("Where it is written (sft_train.py).", "FILE.py")]
Force = Annotated[bool, _flag("--force", "Replace a script that is there already.")]
How = Annotated[str | None, _option("Run it: uv, python or no.", "HOW")]
Yes = Annotated[bool, _flag("--yes", "Take every default.")]
AnswersFile = Annotated[
    Path | None, _option("Answers by name, YAML or JSON; flags win.", "FILE.yaml")
]
NoInput = Annotated[bool, _flag("--no-input", "Ask nothing.")]
AsJson = Annotated[bool, _flag("--json", "One question a call, as JSON, for a program.")]
Answer = Annotated[str | None, _option("With --json: the answer to the open question.")]
Back = Annotated[bool, _flag("--back", "With --json: back to the question before.")]
Restart = Annotated[bool, _flag("--restart", "With --json: forget all answers.")]
State = Annotated[Path | None, _option("With --json: where it waits.", "FILE")]


def wizard(
    *,
    scenario: Scenario = None,
    backend: Backend = None,
    data: Data = None,
    example: Examples = None,
    base_model: BaseModel = None,
    project: Project = None,
    name: Name = None,
    teacher: Teacher = None,
    teacher_url: TeacherUrl = None,
    teacher_key_env: TeacherKeyEnv = None,
    prompt: Prompt = None,
    prompts: Prompts = None,
    hyperparameters: Hyper = None,
    epochs: Epochs = None,
    batch_size: BatchSize = None,
    lr: Rate = None,
    schedule: Schedule = None,
    warmup_ratio: Warmup = None,
    gpu_memory_utilization: GpuShare = None,
    framework: Framework = None,
    script: Script = None,
    force: Force = False,
    run: How = None,
    yes: Yes = False,
    answers: AnswersFile = None,
    no_input: NoInput = False,
    as_json: AsJson = False,
    answer: Answer = None,
    back: Back = False,
    restart: Restart = False,
    state: State = None,
) -> int:
    """Answer a few questions, and get a training script that runs alone.

    Every question has a flag; what is given is not asked. The script is plain Python, yours to change.
    """
    if prompt and prompts:
        raise ConfigError("--prompt and --prompts are two ways to say it", remedy="take one")
    given = {
        "scenario": scenario, "backend": backend, "data": data, "examples": example or None,
        "base_model": base_model, "project": project, "name": name, "teacher": teacher,
        "teacher_url": teacher_url, "teacher_key_env": teacher_key_env,
        "prompts": f"@{prompts}" if prompts is not None else (prompt or None),
        "hyperparameters": hyperparameters, "epochs": epochs, "batch_size": batch_size, "lr": lr,
        "schedule": schedule, "warmup_ratio": warmup_ratio, "framework": framework,
        "gpu_memory_utilization": gpu_memory_utilization, "script": script,
        "overwrite": "yes" if force else None,
    }  # fmt: skip
    told = _file(answers) | {key: value for key, value in given.items() if value is not None}
    said = told.pop("run", None)
    how = _how(run if run is not None else said)
    if as_json:
        if how is not None:
            raise ConfigError("--run has no effect with --json", remedy="run the script yourself")
        return Call(answer, back=back, restart=restart, state=state, defaults=yes).serve(told)
    strays = {"--answer": answer, "--state": state, "--back": back, "--restart": restart}
    for flag, value in strays.items():
        if value:
            raise ConfigError(f"{flag} belongs to --json", remedy="add --json")
    return Talk(told, how, defaults=yes, is_silent=no_input or not has_terminal()).go()


def _file(path: Path | None) -> dict[str, Any]:
    if path is None:
        return {}
    from hone.wizard.answers import read_answers

    return read_answers(path)


def _how(how: object) -> str | None:
    """How the script is run: None where that is asked."""
    if how is None:
        return None
    if how not in _RUNS:
        raise ConfigError(f"--run: no such way: {how!r}", remedy=f"allowed: {', '.join(_RUNS)}")
    from hone.wizard.launch import commands

    if how != "no" and how not in commands(""):
        raise EnvironmentFault("uv is not installed here", remedy="take --run python")
    return str(how)
