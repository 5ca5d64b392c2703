"""No answer holds a number that JSON has not, whatever the training says."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any, NoReturn

import httpx2
import pytest

from hone.service.follow import Follower
from hone.service.records import NewEvent
from tests.service.jobs import queued
from tests.service.served import Served, serving

STEP = (
    '{"event": "step", "time": 7.5, "step": %d, "steps": 2, "tokens": 3, "seconds": 1.0,'
    ' "loss": %s, "grad_norm": %s, "learning_rate": %s}\n'
)
DATA = '{"event": "plan", "time": 7.0, "steps": 2, "peak": %s, "deep": [{"x": %s}]}\n'


def strictly(text: str) -> Any:
    """JSON without NaN and infinities."""

    def refuse(word: str) -> NoReturn:
        raise AssertionError(f"{word} in {text}")

    return json.loads(text, parse_constant=refuse)


def asked(served: Served, path: str) -> str:
    headers = {"authorization": f"Bearer {served.key}"}
    answer = httpx2.get(served.service.base_url + path, headers=headers)
    assert answer.status_code == 200, answer.text
    return answer.text


@pytest.mark.fault(6)
@pytest.mark.parametrize("word", ["NaN", "Infinity", "-Infinity", "1e999"])
def test_what_a_run_says_of_no_number(tmp_path: Path, word: str) -> None:
    told = tmp_path / "events.jsonl"
    told.write_text(DATA % (word, word) + STEP % (1, word, word, word) + STEP % (2, 1, 1, 1))
    follower = Follower(told)
    batch = follower.read()
    with serving(tmp_path / "root") as served:
        job = queued(served.store)
        held = served.store.claim("scripted", 60)
        assert held is not None
        progress = follower.progress.told()
        served.store.add_events(job.id, held.fence, batch.events, progress=progress)
        csv = follower.csv()
        served.store.release(job.id, held.fence, "failed", error={"code": "loss_not_finite", "message": "x", "param": None})  # fmt: skip
        place = f"/fine_tuning/jobs/{job.id}"
        texts = [asked(served, path) for path in (place, "/fine_tuning/jobs", f"{place}/events", f"{place}/checkpoints")]  # fmt: skip
    for text in texts:
        strictly(text)
    events = strictly(texts[2])["data"]
    first = next(one for one in events if (one["data"] or {}).get("step") == 1)
    assert first["message"] == "Step 1/2: training loss=not a number"
    assert first["data"]["train_loss"] is None
    assert "grad_norm" not in first["data"]
    assert "nan" not in csv.lower()
    assert "inf" not in csv.lower()


def test_the_store_takes_no_such_number(tmp_path: Path) -> None:
    """The last line of defence: what no reader cleaned is refused, and nothing of it is kept."""
    with serving(tmp_path) as served:
        job = queued(served.store)
        held = served.store.claim("scripted", 60)
        assert held is not None
        bad = NewEvent("x", data={"loss": float("nan")}, mark="x")
        with pytest.raises(ValueError, match="JSON"):
            served.store.add_events(job.id, held.fence, [NewEvent("good", mark="y"), bad], offset=9)
        events, _ = served.store.events(job.id)
        assert "good" not in [one.message for one in events]
