"""What each library is told, on fakes of the few calls that are used; and the libraries themselves where they are here."""

from __future__ import annotations

import json
import sys
import types
from pathlib import Path
from typing import Any

import pytest

from hone.runs.trackers.mlflow import MlflowTracker
from hone.runs.trackers.tensorboard import TensorBoardTracker
from hone.runs.trackers.tracker import Point, Sample, TrackedRun, flat_config, samples_page
from hone.runs.trackers.trackio import TrackioTracker
from hone.runs.trackers.wandb import WandbTracker, has_key

POINTS = [
    Point(1, 10.0, {"train/loss": 2.0}),
    Point(2, 11.0, {"train/loss": 1.0, "eval/loss": 1.5}),
]
SAMPLES = [
    Sample("rows:3", "the red cat", "one # sings\ntwo", "one sings"),
    Sample("", "a", "b", None),
]


def tracked(folder: Path, **changes: Any) -> TrackedRun:
    settings: dict[str, Any] = {
        "name": "first", "project": "p", "tags": ("a", "b"), "entity": "me", "uri": None,
        "folder": folder / "run" / "tracking", "beside": folder,
        "config": {"train.epochs": 3.0, "data.path": None}, "id": None,
    }  # fmt: skip
    return TrackedRun(**{**settings, **changes})


class Calls(list[tuple[str, Any]]):
    """What was called, in order."""

    def of(self, name: str) -> list[Any]:
        return [what for call, what in self if call == name]


def test_settings_have_dotted_names() -> None:
    assert flat_config({"a": {"b": 1, "c": {"d": [2]}}, "e": None}) == {
        "a.b": 1,
        "a.c.d": [2],
        "e": None,
    }


def test_samples_stand_indented_so_that_nothing_of_them_is_markup() -> None:
    lines = samples_page(SAMPLES).split("\n")
    assert "    one # sings" in lines
    assert "    two" in lines
    assert "**rows:3**" in lines
    assert lines.count("wanted") == 1


# TensorBoard: the real thing, read back.


def test_tensorboard_files_hold_what_was_logged(tmp_path: Path) -> None:
    accumulator = pytest.importorskip("tensorboard.backend.event_processing.event_accumulator")
    first = TensorBoardTracker(tracked(tmp_path))
    first.log(POINTS)
    first.log_samples(2, 11.5, SAMPLES)
    first.close("stopped")
    again = TensorBoardTracker(tracked(tmp_path, id=first.id))
    again.log([Point(3, 12.0, {"train/loss": 0.5})])
    again.close("finished")
    folder = tmp_path / "run" / "tracking" / "tensorboard"
    assert len(list(folder.iterdir())) == 2, "one file for each process"
    read = accumulator.EventAccumulator(str(folder), size_guidance={"tensors": 0})
    read.Reload()
    tags = set(read.Tags()["tensors"])
    assert tags == {"train/loss", "eval/loss", "samples/1", "samples/2", "settings"}
    losses = [(e.step, e.wall_time, float(e.tensor_proto.float_val[0] if e.tensor_proto.float_val else _float(e))) for e in read.Tensors("train/loss")]  # fmt: skip
    assert losses == [(1, 10.0, 2.0), (2, 11.0, 1.0), (3, 12.0, 0.5)]
    (text,) = read.Tensors("samples/1")
    assert (text.step, text.wall_time) == (2, 11.5)
    assert b"    one # sings" in text.tensor_proto.string_val[0]
    (settings,) = read.Tensors("settings")
    assert b'"train.epochs": 3.0' in settings.tensor_proto.string_val[0]
    assert str(tmp_path) in first.place


def _float(event: Any) -> float:
    import numpy as np

    return float(np.frombuffer(event.tensor_proto.tensor_content, dtype=np.float32)[0])


# Weights & Biases.


def fake_wandb(monkeypatch: pytest.MonkeyPatch, folder: Path) -> Calls:
    calls = Calls()

    class Run:
        dir = str(folder / "wandb" / "offline-run-1" / "files")
        url = "https://wandb.ai/me/p/runs/1"
        offline = True

        def log(self, metrics: dict[str, Any], step: int) -> None:
            calls.append(("log", (step, metrics)))

        def finish(self, exit_code: int) -> None:
            calls.append(("finish", exit_code))

    class Table:
        def __init__(self, columns: list[str]) -> None:
            self.columns, self.rows = columns, []

        def add_data(self, *row: str) -> None:
            self.rows.append(row)

    def init(**settings: Any) -> Run:
        calls.append(("init", settings))
        run = Run()
        run.offline = settings["mode"] == "offline"
        return run

    made = types.SimpleNamespace(init=init, Settings=dict, Table=Table)
    monkeypatch.setitem(sys.modules, "wandb", made)  # type: ignore[arg-type]
    for name in ("WANDB_API_KEY", "WANDB_MODE", "WANDB_BASE_URL"):
        monkeypatch.delenv(name, raising=False)
    monkeypatch.setenv("NETRC", str(folder / "no-netrc"))
    return calls


def test_wandb_without_a_key_is_offline_and_says_so(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_wandb(monkeypatch, tmp_path)
    tracker = WandbTracker(tracked(tmp_path))
    tracker.log(POINTS)
    tracker.log_samples(2, 11.5, SAMPLES)
    tracker.close("failed")
    (begun,) = calls.of("init")
    assert (begun["mode"], begun["id"], begun["resume"]) == ("offline", tracker.id, "allow")
    assert (begun["project"], begun["entity"], begun["name"]) == ("p", "me", "first")
    assert begun["tags"] == ["a", "b"]
    assert begun["config"] == {"train.epochs": 3.0, "data.path": None}
    assert begun["settings"]["console"] == "off"
    assert begun["settings"]["x_disable_meta"]
    assert not begun["settings"]["save_code"]
    steps = [step for step, _ in calls.of("log")]
    assert steps == [1, 2, 2]
    assert calls.of("log")[1][1] == {"train/loss": 1.0, "eval/loss": 1.5, "_timestamp": 11.0}
    assert calls.of("log")[2][1]["samples"].rows[1] == ("", "a", "b", "")
    assert calls.of("finish") == [1]
    (notice,) = tracker.notices
    assert "no WANDB_API_KEY" in notice
    assert f"wandb sync {tmp_path / 'wandb' / 'offline-run-*'}" in notice
    again = WandbTracker(tracked(tmp_path, id=tracker.id))
    assert again.id == tracker.id == calls.of("init")[1]["id"]


def test_wandb_with_a_key_speaks_to_its_server(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_wandb(monkeypatch, tmp_path)
    monkeypatch.setenv("WANDB_API_KEY", "k" * 40)
    tracker = WandbTracker(tracked(tmp_path))
    assert calls.of("init")[0]["mode"] is None
    assert tracker.notices == ()
    assert tracker.place == "https://wandb.ai/me/p/runs/1"
    assert "k" * 40 not in json.dumps(calls, default=str), "the library finds the key itself"


def test_a_login_or_a_mode_of_the_users_own_counts(tmp_path: Path) -> None:
    login = tmp_path / "netrc"
    login.write_text("machine api.wandb.ai\n  login user\n  password abc\n")
    assert has_key({"NETRC": str(login)})
    assert not has_key({"NETRC": str(login), "WANDB_BASE_URL": "https://other.example"})
    assert has_key({"WANDB_MODE": "online", "NETRC": str(tmp_path / "absent")})
    login.write_text("this is no netrc")
    assert not has_key({"NETRC": str(login)})


# Trackio.


def test_trackio_goes_on_in_the_run_of_its_name(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = Calls()

    class Run:
        def log(self, metrics: dict[str, Any], step: int) -> None:
            calls.append(("log", (step, metrics)))

        def finish(self) -> None:
            calls.append(("finish", None))

    def init(**settings: Any) -> Run:
        calls.append(("init", settings))
        return Run()

    made = types.SimpleNamespace(init=init, Markdown=lambda text: ("markdown", text))
    monkeypatch.setitem(sys.modules, "trackio", made)  # type: ignore[arg-type]
    tracker = TrackioTracker(tracked(tmp_path))
    tracker.log(POINTS)
    tracker.log_samples(2, 11.5, SAMPLES)
    tracker.close("finished")
    TrackioTracker(tracked(tmp_path, id=tracker.id))
    assert [c["resume"] for c in calls.of("init")] == ["never", "allow"]
    assert [c["name"] for c in calls.of("init")] == ["first", "first"]
    assert calls.of("log")[:2] == [
        (1, {"train/loss": 2.0}),
        (2, {"train/loss": 1.0, "eval/loss": 1.5}),
    ]
    assert calls.of("log")[2][1]["samples"][0] == "markdown"
    assert calls.of("finish") == [None]


# MLflow.


def fake_mlflow(monkeypatch: pytest.MonkeyPatch) -> Calls:
    calls = Calls()

    class Client:
        def __init__(self, tracking_uri: str) -> None:
            calls.append(("open", tracking_uri))

        def get_experiment_by_name(self, name: str) -> Any:
            return None

        def create_experiment(self, name: str, **more: Any) -> str:
            calls.append(("experiment", (name, more)))
            return "7"

        def create_run(self, experiment: str, run_name: str, tags: dict[str, str]) -> Any:
            calls.append(("run", (experiment, run_name, tags)))
            return types.SimpleNamespace(info=types.SimpleNamespace(run_id="r1"))

        def update_run(self, run_id: str, status: str) -> None:
            calls.append(("update", (run_id, status)))

        def log_batch(self, run_id: str, metrics: Any = (), params: Any = ()) -> None:
            calls.append(("batch", (run_id, list(metrics), list(params))))

        def log_text(self, run_id: str, text: str, artifact_file: str) -> None:
            calls.append(("text", (run_id, artifact_file, text)))

        def set_terminated(self, run_id: str, status: str) -> None:
            calls.append(("end", (run_id, status)))

    entities = types.SimpleNamespace(Metric=lambda *a: a, Param=lambda *a: a)
    made = types.SimpleNamespace(MlflowClient=Client, entities=entities)
    monkeypatch.setitem(sys.modules, "mlflow", made)  # type: ignore[arg-type]
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    return calls


def test_mlflow_keeps_a_run_in_a_database_beside_the_runs(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_mlflow(monkeypatch)
    tracker = MlflowTracker(tracked(tmp_path))
    tracker.log([Point(1, 10.0, {"train/loss/a,b": 2.0})])
    tracker.log_samples(2, 11.5, SAMPLES)
    tracker.close("stopped")
    assert calls.of("open") == [f"sqlite:///{tmp_path / 'mlflow.db'}"]
    (experiment,) = calls.of("experiment")
    assert experiment == ("p", {"artifact_location": (tmp_path / "mlflow-artifacts").as_uri()})
    assert calls.of("run") == [
        ("7", "first", {"mlflow.source.name": "hone", "a": "true", "b": "true"})
    ]
    assert calls.of("batch")[0] == ("r1", [], [("train.epochs", "3.0")])
    assert calls.of("batch")[1] == ("r1", [("train/loss/a_b", 2.0, 10_000, 1)], [])
    assert calls.of("text")[0][1] == "samples/step-00000002.md"
    assert calls.of("end") == [("r1", "KILLED")]
    again = MlflowTracker(tracked(tmp_path, id="r1"))
    assert calls.of("update") == [("r1", "RUNNING")]
    assert len(calls.of("run")) == 1
    assert again.id == "r1"


@pytest.mark.parametrize("said", ["setting", "environment"])
def test_mlflow_speaks_to_the_server_that_is_named(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch, said: str
) -> None:
    calls = fake_mlflow(monkeypatch)
    if said == "environment":
        monkeypatch.setenv("MLFLOW_TRACKING_URI", "http://host:5000")
    uri = "http://host:5000" if said == "setting" else None
    MlflowTracker(tracked(tmp_path, uri=uri))
    assert calls.of("open") == ["http://host:5000"]
    assert calls.of("experiment") == [("p", {})], "a server knows where artifacts go"


def test_mlflow_gets_no_more_in_a_call_than_it_takes(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    calls = fake_mlflow(monkeypatch)
    config = {f"k{i}": "v" * 9000 for i in range(150)}
    tracker = MlflowTracker(tracked(tmp_path, config=config))
    tracker.log([Point(i, 1.0, {"a": 1.0, "b": 2.0, "c": 3.0}) for i in range(700)])
    sizes = [(len(metrics), len(params)) for _, metrics, params in calls.of("batch")]
    assert sizes == [(0, 100), (0, 50), (1000, 0), (1000, 0), (100, 0)]
    assert max(len(value) for _, _, params in calls.of("batch") for _, value in params) == 500


# The libraries themselves, without a network.


def test_real_wandb_offline(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    pytest.importorskip("wandb", reason="wandb is not installed")
    monkeypatch.setenv("WANDB_MODE", "offline")
    tracker = WandbTracker(tracked(tmp_path, entity=None))
    tracker.log(POINTS)
    tracker.log_samples(2, 11.5, SAMPLES)
    tracker.close("finished")
    assert list((tmp_path / "run" / "tracking" / "wandb").glob("offline-run-*/*.wandb"))


def test_real_trackio(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("TRACKIO_DIR", str(tmp_path / "trackio"))
    pytest.importorskip("trackio", reason="trackio is not installed")
    tracker = TrackioTracker(tracked(tmp_path))
    tracker.log(POINTS)
    tracker.log_samples(2, 11.5, SAMPLES)
    tracker.close("finished")
    assert list((tmp_path / "trackio").glob("**/*.db"))


def test_real_mlflow(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    library = pytest.importorskip("mlflow", reason="mlflow is not installed")
    monkeypatch.delenv("MLFLOW_TRACKING_URI", raising=False)
    tracker = MlflowTracker(tracked(tmp_path))
    tracker.log(POINTS)
    tracker.log_samples(2, 11.5, SAMPLES)
    tracker.close("finished")
    again = MlflowTracker(tracked(tmp_path, id=tracker.id))
    again.log([Point(3, 12.0, {"train/loss": 0.5})])
    again.close("finished")
    client = library.MlflowClient(tracking_uri=f"sqlite:///{tmp_path / 'mlflow.db'}")
    history = client.get_metric_history(tracker.id, "train/loss")
    assert [(one.step, one.value) for one in history] == [(1, 2.0), (2, 1.0), (3, 0.5)]
    run = client.get_run(tracker.id)
    assert run.info.status == "FINISHED"
    assert run.data.params["train.epochs"] == "3.0"
