"""A distillation against a teacher of this process: its prompts, its order, and what it wrote."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

from hone.recipes.asking import Patience
from hone.recipes.distill import Distilled, Order, distill
from hone.recipes.spending import Limits
from hone.runs.events import Event
from tests.recipes.fake_teacher import FakeTeacher

QUICK = Patience(concurrency=4, retries=3, backoff=0.02)
KEY = "sk-very-secret-1234567890"


def prompts(*texts: str) -> Path:
    path = Path("prompts.txt")
    path.write_text("\n".join(texts) + "\n", encoding="utf-8")
    return path


def order(teacher: FakeTeacher, **more: Any) -> Order:
    wanted: dict[str, Any] = {"prompts": Path("prompts.txt"), "out": Path("out.jsonl")}
    return Order(**{**wanted, "teacher": "big", "base_url": teacher.url, **more})


def ask(
    teacher: FakeTeacher,
    *,
    heard: list[Event] | None = None,
    patience: Patience = QUICK,
    limits: Limits | None = None,
    fresh: bool = False,
    force: bool = False,
    **more: Any,
) -> Distilled:
    return distill(
        order(teacher, **more),
        limits=limits or Limits(),
        patience=patience,
        fresh=fresh,
        force=force,
        listeners=[] if heard is None else [heard.append],
    )


def rows(name: str = "out.jsonl") -> list[dict[str, Any]]:
    return [json.loads(line) for line in Path(name).read_text(encoding="utf-8").splitlines()]


def replies() -> list[str]:
    return [row["messages"][-1]["content"] for row in rows()]
