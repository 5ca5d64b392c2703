"""Complete answers for tests: every scenario, backend and framework, without a file system where none is needed."""

from __future__ import annotations

from pathlib import Path
from typing import Any

from hone.wizard.answers import Answers, Place
from hone.wizard.flow import Flow
from hone.wizard.question import Taken

EXAMPLE = [{"role": "user", "content": "hello"}, {"role": "assistant", "content": "good day"}]
SCENARIOS = ("jsonl", "inline", "distillation")
BACKENDS = ("local", "serverless")
FRAMEWORKS = ("hone", "art")
KEY = "EXAMPLE_KEY"


def place(folder: Path, **environment: str) -> Place:
    """A place where keys are what a test says."""
    return Place(folder, environment)


def given(scenario: str, **more: Any) -> dict[str, Any]:
    """What a user must say, and what else they do."""
    told: dict[str, Any] = {"scenario": scenario, "base_model": "org/model", "name": "agent-001"}
    if scenario == "inline":
        told["examples"] = [EXAMPLE]
    if scenario == "distillation":
        told |= {"teacher": "big", "teacher_key_env": KEY, "prompts": ["why?", "how?"]}
    return told | more


def complete(
    folder: Path, scenario: str, *, rows: int = 50, data: str = "", **more: Any
) -> Answers:
    """Answers with no open question. `data` is taken as it is, unchecked."""
    flow = Flow(Answers(place(folder)))
    flow.give(given(scenario, **more))
    flow.answers.keep("scenario", Taken(scenario))
    if scenario == "jsonl":
        flow.answers.keep("data", Taken(data or str(folder / "rows.jsonl"), rows=rows))
    flow.settle(defaults=True)
    assert flow.open_question() is None
    assert flow.settle_idle() == []
    return flow.answers
