"""Several ranks from the command line: the same run as one process, and one end for all whatever happens to one."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
from safetensors.torch import load_file

from hone.runs.events import steps
from tests.backends.launched import CODE, Launched, environment
from tests.folders import chat_rows, model_folder

pytestmark = pytest.mark.timeout(400)


@pytest.fixture(scope="module")
def place(tmp_path_factory: pytest.TempPathFactory) -> Path:
    folder = tmp_path_factory.mktemp("ranks")
    model_folder(folder / "model")
    chat_rows(folder / "rows.jsonl", rows=40)
    return folder


def losses(folder: Path) -> dict[int, float]:
    return {step: event["loss"] for step, event in steps(folder / "events.jsonl").items()}


def weights(folder: Path) -> bytes:
    return (folder / "adapter_model.safetensors").read_bytes()


def ended(run: Launched) -> str:
    code, err = run.finish()
    assert code == 0, err
    return err


SETTINGS = [
    "train.max_steps=12", "train.save_steps=3", "tuning.lora.dropout=0.1",
    "data.validation_split=0.2", "train.eval_steps=6",
]  # fmt: skip


@pytest.fixture(scope="module")
def straight(place: Path) -> Launched:
    """Two ranks, undisturbed."""
    run = Launched(place, "straight", *SETTINGS)
    ended(run)
    return run


def test_two_ranks_are_one_run(place: Path, straight: Launched) -> None:
    alone = Launched(place, "alone", *SETTINGS, nproc=1)
    ended(alone)
    assert losses(straight.folder) == pytest.approx(losses(alone.folder), rel=1e-5)
    got, want = (load_file(run.folder / "adapter_model.safetensors") for run in (straight, alone))
    assert all(abs(got[k] - want[k]).max() < 1e-4 for k in want)
    held = [[event["loss"] for event in run.events("evaluated")] for run in (alone, straight)]
    assert len(held[0]) == 2
    assert held[1] == pytest.approx(held[0], rel=1e-5)
    step = straight.events("step")[-1]
    assert len(step["busy_seconds"]) == 2
    assert all(seconds > 0 for seconds in step["busy_seconds"]), "both had Packs"
    (planned,) = straight.events("plan")
    assert (planned["ranks"], planned["strategy"]) == (2, "ddp")
    assert planned["steps"] == len(straight.events("step"))
    identity = json.loads((straight.folder / "run.json").read_bytes())
    assert identity["held"] == [2, "ddp"]
    logs = sorted(path.name for path in (straight.folder / "logs").iterdir())
    assert logs == ["rank-0.log", "rank-1.log"]
    shown = subprocess.run(
        [sys.executable, "-c", CODE, "runs", "show", str(straight.folder)],
        env=environment(place), capture_output=True, text=True, check=True,
    ).stdout  # fmt: skip
    assert "2 (ddp)" in shown


@pytest.mark.slow
@pytest.mark.parametrize("strategy", ["ddp", "fsdp"])
def test_losses_by_source_are_those_of_one_process(place: Path, strategy: str) -> None:
    chat_rows(place / "other.jsonl", rows=30)
    paths = [str(place / "rows.jsonl"), str(place / "other.jsonl")]
    settings = [
        "data.sources=[" + ", ".join(f"{{path: {path}, weight: 0.5}}" for path in paths) + "]",
        "train.max_steps=6", "train.eval_steps=3", "data.validation_split=0.3",
    ]  # fmt: skip
    runs = [
        Launched(place, f"sources-{strategy}-{nproc}", *settings, *more, nproc=nproc)
        for nproc, more in ((1, []), (2, [f"compute.strategy={strategy}"]))
    ]
    for run in runs:
        ended(run)
    for name in ("step", "evaluated"):
        alone, together = ([event["sources"] for event in run.events(name)] for run in runs)
        assert len(alone) == len(together) > 0
        for want, got in zip(alone, together, strict=True):
            assert got.keys() == want.keys()
            for source, part in want.items():
                assert got[source] == pytest.approx(part, rel=1e-5)
    assert {len(event["sources"]) for event in runs[0].events("evaluated")} == {2}


@pytest.mark.fault(11)
def test_a_killed_rank_ends_the_run_which_resumes_with_the_same_bits(
    place: Path, straight: Launched
) -> None:
    run = Launched(place, "killed", *SETTINGS)
    run.reach(5)
    began = time.monotonic()
    os.kill(run.ranks()[1], signal.SIGKILL)
    code, err = run.finish()
    assert code == 7
    assert time.monotonic() - began < 60
    assert "rank 1 of 2 was killed by SIGKILL" in err
    assert "its last sign of life" in err
    (failed,) = run.events("failed")
    assert failed["exit_code"] == 7
    assert "rank 1" in failed["error"]
    again = Launched(place, "killed", *SETTINGS)
    ended(again)
    assert weights(again.folder) == weights(straight.folder)
    assert losses(again.folder) == losses(straight.folder)


@pytest.mark.fault(14)
def test_a_killed_launcher_takes_its_ranks_along_and_the_run_resumes(
    place: Path, straight: Launched
) -> None:
    run = Launched(place, "orphaned", *SETTINGS)
    run.reach(4)
    os.kill(run.process.pid, signal.SIGKILL)
    run.process.wait()
    assert not run.left(), "no second trainer of the run is alive"
    again = Launched(place, "orphaned", *SETTINGS)
    ended(again)
    assert weights(again.folder) == weights(straight.folder)


@pytest.mark.slow
def test_with_another_number_of_ranks_it_resumes_with_the_same_rows(place: Path) -> None:
    settings = ["train.max_steps=8", "train.save_steps=4"]
    run = Launched(place, "other", *settings)
    run.reach(5)
    run.process.send_signal(signal.SIGKILL)
    run.process.communicate()
    assert not run.left(), "ranks end when their launcher is killed"
    alone = Launched(place, "other", *settings, nproc=1)
    ended(alone)
    once = Launched(place, "once", *settings, nproc=1)
    ended(once)
    assert losses(alone.folder) == pytest.approx(losses(once.folder), rel=1e-5)
    said = [event["message"] for event in alone.events("notice") if event["code"] == "ranks"]
    assert said == [
        "resumed with 1 rank (alone) instead of 2 ranks (ddp): the same rows in the same steps, "
        "equal to rounding"
    ]


@pytest.mark.fault(8)
@pytest.mark.parametrize(
    ("number", "code"),
    [(signal.SIGINT, 130), pytest.param(signal.SIGTERM, 143, marks=pytest.mark.slow)],
)
def test_a_signal_saves_once_and_ends_all(place: Path, number: int, code: int) -> None:
    run = Launched(place, f"asked-{code}", "train.max_steps=5000", "train.save_steps=4999")
    run.reach(3)
    run.process.send_signal(number)
    got, err = run.finish()
    assert got == code, err
    (stopped,) = run.events("stopped")
    assert [event["step"] for event in run.events("saved")] == [stopped["step"]]
    assert "saved" in err
    assert (run.folder / "checkpoints" / f"step-{stopped['step']:08d}").is_dir()


@pytest.mark.slow
def test_a_second_signal_ends_all_at_once(place: Path) -> None:
    run = Launched(place, "urged", "train.max_steps=5000")
    run.reach(2)
    os.kill(run.ranks()[1], signal.SIGSTOP)  # it will never save
    run.process.send_signal(signal.SIGINT)
    time.sleep(1)
    assert run.process.poll() is None
    run.process.send_signal(signal.SIGINT)
    code, err = run.finish()
    assert code == 130
    assert "not saved" in err


@pytest.mark.fault(10)
@pytest.mark.slow
def test_a_rank_that_hangs_ends_the_run_within_a_minute(place: Path) -> None:
    run = Launched(place, "hung", "train.max_steps=5000", "train.save_steps=5")
    run.reach(6)
    began = time.monotonic()
    os.kill(run.ranks()[1], signal.SIGSTOP)
    code, err = run.finish()
    assert code == 7
    assert time.monotonic() - began < 60
    assert "rank 1 of 2 gave no sign of life" in err
    assert "step" in err


def test_bad_rows_and_bad_settings_are_told_as_by_one_process(place: Path, tmp_path: Path) -> None:
    (tmp_path / "rows.jsonl").write_text('{"messages": [{"role": "bot", "content": "x"}]}\n')
    (tmp_path / "model").symlink_to(place / "model")
    run = Launched(tmp_path, "bad")
    code, err = run.finish()
    assert code == 3
    assert "rows.jsonl:1" in err
    assert not (tmp_path / "bad").exists(), "nothing is written where the input is at fault"
