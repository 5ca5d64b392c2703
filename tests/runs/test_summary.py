"""What a run folder says in one row: finished, half done, alive, dead, empty, damaged."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone.errors import EnvironmentFault
from hone.runs.folder import RunFolder
from hone.runs.summary import differences, find_run, summarize


def make_run(
    path: Path, *, steps: int = 3, end: str | None = "finished", **config: Any
) -> RunFolder:
    """A folder as a run of `steps` steps leaves it."""
    folder = RunFolder.create(path)
    settings = {"model": {"name": "tiny"}, "data": {"path": "rows.jsonl"}, "train": config}
    folder.write_identity(
        {"config": settings, "versions": {"torch": "1"}, "data": "aa", "threads": 1}
    )
    with folder.events() as log:
        log.say("phase", name="reading")
        log.say("notice", code="x", message="something to know")
        log.say("started", folder=str(path))
        for number in range(1, steps + 1):
            log.say(
                "step", step=number, steps=10, loss=1 / number, grad_norm=1.0, learning_rate=0.1,
                tokens=100, trained_tokens=20, computed_tokens=60, seconds=0.5,
                peak_memory_bytes=number * 1000, epoch=1.0,
            )  # fmt: skip
            log.say("evaluated", step=number, loss=abs(number - 2) + 0.25, rows=3)
        if end is not None:
            log.say(end, steps=steps, loss=1 / steps, seconds=9.0, error="broken", step=steps)
    return folder


def test_a_finished_run(tmp_path: Path) -> None:
    run = summarize(make_run(tmp_path / "a"))
    assert (run.name, run.state, run.step, run.steps) == ("a", "finished", 3, 10)
    assert (run.tokens, run.trained_tokens, run.computed_tokens) == (300, 60, 180)
    assert run.loss == pytest.approx(1 / 3)
    assert run.held_out_loss == 0.25
    assert run.seconds == pytest.approx(1.5)
    assert run.peak_memory_bytes == 3000
    assert (run.model, run.data) == ("tiny", "rows.jsonl")
    assert run.notices == ("something to know",)
    assert run.began is not None


def test_a_step_done_again_after_a_resume_counts_once(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", end=None)
    make_run(tmp_path / "a", steps=4)
    run = summarize(folder)
    assert (run.step, run.tokens, run.state) == (4, 400, "finished")


@pytest.mark.fault(13)
@pytest.mark.parametrize(
    ("end", "state"),
    [("finished", "finished"), ("failed", "failed"), ("stopped", "stopped"), (None, "interrupted")],
)
def test_state(tmp_path: Path, end: str | None, state: str) -> None:
    folder = make_run(tmp_path / "a", end=end)
    assert summarize(folder).state == state
    with folder.lock():
        assert summarize(folder).state == "running"


def test_a_finished_run_stays_finished_when_another_command_is_refused(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a")
    folder.update_identity(finished={"steps": 3})
    with folder.events() as log:
        log.say("failed", error="this run was begun with other settings")
    assert summarize(folder).state == "finished"


def test_a_run_that_has_hardly_begun(tmp_path: Path) -> None:
    folder = RunFolder.create(tmp_path / "a")
    folder.write_config("train: {}\n")
    run = summarize(folder)
    assert (run.step, run.steps, run.loss, run.tokens, run.model) == (0, None, None, 0, None)
    assert run.state == "interrupted"


def test_finding_by_name_and_by_path(tmp_path: Path) -> None:
    make_run(tmp_path / "runs" / "first")
    root = tmp_path / "runs"
    assert find_run("first", root=root).path == root / "first"
    assert find_run(str(root / "first"), root=tmp_path / "elsewhere").name == "first"
    with pytest.raises(EnvironmentFault, match="no run 'firts'") as caught:
        find_run("firts", root=root)
    assert "did you mean 'first'?" in (caught.value.remedy or "")
    with pytest.raises(EnvironmentFault) as caught:
        find_run("any", root=tmp_path / "elsewhere")
    assert "hone train" in (caught.value.remedy or "")
    with pytest.raises(EnvironmentFault):
        find_run(str(root), root=root)


def test_what_differs(tmp_path: Path) -> None:
    first = make_run(tmp_path / "a", learning_rate=0.1, betas=[0.9, 0.99], lora={"r": 8})
    second = make_run(tmp_path / "b", learning_rate=0.2, betas=[0.9, 0.99], lora={"r": 8, "x": 1})
    second.update_identity(data="bb", versions={"torch": "2"})
    found = {d.name: (d.first, d.second) for d in differences(first, second)}
    assert found == {
        "train.learning_rate": (0.1, 0.2),
        "train.lora.x": (None, 1),
        "resolved data": ("aa", "bb"),
        "version of torch": ("1", "2"),
    }
    assert differences(first, first) == []


def test_sources_utilisation_and_samples(tmp_path: Path) -> None:
    folder = make_run(tmp_path / "a", steps=0, end=None)
    with folder.events() as log:
        for number in range(1, 31):
            parts = {"code": {"loss": float(number), "weight": 1.0}}
            log.say(
                "step", step=number, steps=30, loss=1.0, tokens=1, trained_tokens=1, computed_tokens=1,
                seconds=float(number), utilisation=0.5 if number > 15 else 0.25, sources=parts,
            )  # fmt: skip
        log.say("evaluated", step=10, loss=2.0, sources={"code": {"loss": 2.0, "weight": 1.0}})
        log.say("evaluated", step=30, loss=3.0, sources={"code": {"loss": 3.0, "weight": 1.0}})
        for step in (0, 30):
            log.say("sample", step=step, samples=[{"name": "r", "prompt": "p", "reply": str(step)}])
    run = summarize(folder)
    assert run.loss_by_source == {"code": pytest.approx(20.5)}, "the last 20 steps"
    assert run.held_out_by_source == {"code": 2.0}, "of the best evaluation"
    first, second = sum(range(1, 16)), sum(range(16, 31))
    want = (0.25 * first + 0.5 * second) / (first + second)
    assert run.utilisation == pytest.approx(want)
    assert run.sampled_step == 30
    assert [one["reply"] for one in run.samples] == ["30"]
    plain = summarize(make_run(tmp_path / "b"))
    assert (plain.utilisation, plain.loss_by_source, plain.samples) == (None, {}, ())
