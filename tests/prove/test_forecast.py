"""The time that a run says after its rehearsal, against the time that it then takes.

For a quiet machine: `pytest -m slow tests/prove/test_forecast.py` runs it and prints the table. How many steps fill
half a minute is found by a short run first, of which the long one knows nothing.
"""

from __future__ import annotations

import math
from pathlib import Path
from typing import Any

import pytest

from tests.prove.planned import Setting, llama, run

pytestmark = [pytest.mark.slow, pytest.mark.timeout(900)]

LONG_SECONDS = 45.0
FEW_STEPS = 4

SETTINGS = (
    Setting(
        "llama, lora, rows that share a beginning",
        "LlamaConfig",
        llama(384, 6, 1152, vocabulary=16_000),
        (400, 60, 400, 0.5),
        ("train.batch_size=16",),
        beginning=300,
    ),
    Setting(
        "qwen3, full, fp32, with evaluations",
        "Qwen3Config",
        llama(256, 6, 768),
        (400, 50, 500, 0.6),
        (
            "tuning.method=full",
            "train.precision=fp32",
            "train.batch_size=8",
            "data.validation_split=0.05",
        ),
    ),
    Setting(
        "llama, qlora 4 bit, long rows",
        "LlamaConfig",
        llama(384, 4, 1152, vocabulary=16_000),
        (300, 400, 3000, 0.3),
        ("tuning.method=qlora", "train.batch_size=4"),
    ),
)


def forecast(events: list[dict[str, Any]]) -> tuple[float, float]:
    """Seconds as foretold, and from then until the last step was done and saved."""
    told = next(event for event in events if event["event"] == "forecast")
    saving = next(e for e in events if e["event"] == "phase" and e["name"] == "saving")
    return float(told["seconds"]), float(saving["time"]) - float(told["time"])


@pytest.mark.parametrize("setting", SETTINGS, ids=lambda one: one.name)
def test_the_forecast_is_what_it_takes(
    tmp_path: Path, setting: Setting, capsys: pytest.CaptureFixture[str]
) -> None:
    few, _ = forecast(run(tmp_path, setting, f"train.max_steps={FEW_STEPS}", name="short"))
    steps = math.ceil(LONG_SECONDS * FEW_STEPS / few)
    events = run(tmp_path, setting, f"train.max_steps={steps}", name="long")
    expected, taken = forecast(events)
    with capsys.disabled():
        print(
            f"\n{setting.name:<42} {steps:>5} steps, foretold {expected:6.1f} s, took {taken:6.1f} s, "
            f"{expected / taken - 1:+.1%}"
        )
    assert sum(event["event"] == "step" for event in events) == steps
    assert expected == pytest.approx(taken, rel=0.2)
