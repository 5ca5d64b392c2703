"""ServerlessBackend against a service that keeps the wire: calls, lost connections, failures, and what is refused."""

from __future__ import annotations

import asyncio
import json
import logging
import threading
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hone import ServerlessBackend, TrainableModel, TrainSFTConfig, Trajectory, train_sft_from_file
from hone.backends import row_upload
from hone.backends.remote_history import RemoteHistory
from hone.errors import ConfigError, DiskError, EnvironmentFault, OutOfMemory, RemoteError
from hone.trainable import history
from tests.backends.fake_service import BASE, KEY, FakeService, fake_service
from tests.folders import chat_rows


@pytest.fixture
def service() -> Iterator[FakeService]:
    with fake_service() as running:
        yield running


@pytest.fixture(autouse=True)
def here(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    monkeypatch.chdir(tmp_path)
    return tmp_path


def row(text: str = "b") -> Trajectory:
    said = [{"role": "user", "content": "a"}, {"role": "assistant", "content": text}]
    return Trajectory(messages_and_choices=said)


def model(**more: Any) -> TrainableModel:
    return TrainableModel(**{"name": "agent 1", "project": "it's ü", "base_model": BASE, **more})


def opened(service: FakeService, **more: Any) -> ServerlessBackend:
    return ServerlessBackend(base_url=service.url, api_key=KEY, **more)


def trained(service: FakeService, rows: int = 5, **config: Any) -> Any:
    """A model that was registered and trained once, and what the call came to."""
    with opened(service, patience_seconds=20.0) as backend:
        one = model()
        one.blocking.register(backend)
        return one.blocking.train_sft(
            [row(str(i)) for i in range(rows)], TrainSFTConfig(**config), verbose=True
        )


def test_the_whole_way(service: FakeService, capsys: pytest.CaptureFixture[str]) -> None:
    async def go() -> None:
        async with opened(service) as backend:
            one = model()
            await one.register(backend)
            assert await one.get_step() == 0
            assert one.get_inference_name() == "it's ü/agent 1@0"
            done = await one.train_sft([row() for _ in range(5)], TrainSFTConfig(batch_size=2), verbose=True)  # fmt: skip
            assert (done.step, done.gradient_steps, done.checkpoint) == (1, 3, None)
            assert done.loss == pytest.approx(1 / 3)
            assert one.get_inference_name() == "it's ü/agent 1@1"
            assert one.get_inference_name(0) == "it's ü/agent 1@0"
            with pytest.raises(ConfigError, match="no checkpoint of step 2"):
                one.get_inference_name(2)
            client = one.openai_client()
            assert str(client.base_url) == f"{service.url}/"
            assert client.api_key == KEY
            await one.delete_checkpoints()
            assert (await one.train_sft([])).gradient_steps == 0
        with pytest.raises(EnvironmentFault, match="closed"):
            await one.get_step()

    asyncio.run(go())
    body, deleted = service.state.bodies
    told = body["x_hone"]["trainable"]
    assert (told["project"], told["name"]) == ("it's ü", "agent 1")
    assert (told["expected_step"], told["batch_size"]) == (0, 2)
    assert told["learning_rate"] == 5e-5
    assert deleted == {"keep": []}
    said = capsys.readouterr().err
    assert "sft train  3/3  loss 0.3333" in said
    assert said.count("a row was dropped") == 1
    assert service.state.files == {}, "the rows are tidied away"


def test_rows_go_as_they_are_and_the_last_turn_alone_is_said_by_weights(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    sent: list[bytes] = []
    keep = row_upload.send_rows

    def send(api: Any, file: Any, name: str, **more: Any) -> str:
        file.seek(0)
        sent.append(file.read())
        return keep(api, file, name, **more)

    monkeypatch.setattr("hone.backends.remote_call.send_rows", send)
    four = ["user", "assistant", "user", "assistant"]
    many = Trajectory(
        messages_and_choices=[{"role": role, "content": "c", "weight": 1} for role in four],
        tools=[{"type": "function", "function": {"name": "f", "parameters": {}}}],
    )
    with opened(service) as backend:
        one = model()
        one.blocking.register(backend)
        for turns in ("all", "last"):
            one.blocking.train_sft([many], TrainSFTConfig(assistant_turns=turns))
    whole, last = (json.loads(content) for content in sent)
    assert [m.get("weight") for m in whole["messages"]] == [1, 1, 1, 1]
    assert [m.get("weight") for m in last["messages"]] == [None, 0, None, 1]
    assert whole["tools"] == last["tools"] == many.tools


def test_many_rows_go_in_parts_which_are_sent_again(
    service: FakeService, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(row_upload.send_rows, "__kwdefaults__", {**row_upload.send_rows.__kwdefaults__, "part_bytes": 256, "whole_bytes": 512})  # fmt: skip
    service.state.faults += [("POST", "/parts", "drop"), ("POST", "/parts", "drop-after"), ("POST", "/complete", "500")]  # fmt: skip
    done = trained(service, rows=30, batch_size=10)
    assert done.gradient_steps == 3
    (kept,) = service.state.names.values()
    assert kept["bytes"] > 512
    assert kept["asked"]["expires_after"]["seconds"] >= 3600
    assert ("POST", "/files") not in service.state.asked


@pytest.mark.parametrize("where", ["jobs$", "/events", "jobs/[^/]+$", "/files$", "x_hone/models$"])
@pytest.mark.parametrize("what", ["drop", "drop-after", "500", "503"])
def test_a_lost_connection_is_awaited_and_nothing_is_done_twice(
    service: FakeService,
    where: str,
    what: str,
    capsys: pytest.CaptureFixture[str],
    caplog: pytest.LogCaptureFixture,
) -> None:
    method = "GET" if where in ("/events", "jobs/[^/]+$") else "POST"
    service.state.faults += [(method, where, what)] * 2
    with caplog.at_level(logging.WARNING, "hone"):
        done = trained(service)
    assert (done.step, done.gradient_steps) == (1, 3)
    assert len(service.state.jobs) == 1
    assert service.state.faults == []
    told = caplog.text + capsys.readouterr().err
    assert told.count("trying again") == told.count("the service answers again") == 1


def test_a_service_that_stays_away_is_said(service: FakeService) -> None:
    with opened(service, patience_seconds=0.1) as backend:
        one = model()
        one.blocking.register(backend)
        service.state.faults += [("POST", "jobs$", "drop")] * 99
        with pytest.raises(RemoteError, match="the service does not answer"):
            one.blocking.train_sft([row()])


def test_a_script_that_was_killed_finds_its_job(service: FakeService, caplog: pytest.LogCaptureFixture) -> None:  # fmt: skip
    """The first client is lost while the job runs; the same call later follows it and makes no second one."""
    service.state.holds.clear()
    with opened(service, patience_seconds=0.0) as first:
        one = model()
        one.blocking.register(first)
        service.state.faults += [("GET", "/events", "drop")] * 99
        with pytest.raises(RemoteError):
            one.blocking.train_sft([row("x"), row("y")], TrainSFTConfig(batch_size=1))
    service.state.faults.clear()
    with opened(service) as second, caplog.at_level(logging.WARNING, "hone"):
        one = model()
        one.blocking.register(second)
        threading.Timer(0.5, service.state.holds.set).start()
        done = one.blocking.train_sft([row("x"), row("y")], TrainSFTConfig(batch_size=1))
        assert len(service.state.jobs) == 1
        assert (done.step, done.gradient_steps) == (1, 2)
        other = one.blocking.train_sft([row("x"), row("z")], TrainSFTConfig(batch_size=1))
    assert other.step == 2
    assert len(service.state.jobs) == 2
    assert "following it" in caplog.text


def test_a_failed_call_may_be_made_again(service: FakeService) -> None:
    service.state.error = {"code": "out_of_memory", "message": "72 GiB are needed", "param": None}
    with opened(service) as backend:
        one = model()
        one.blocking.register(backend)
        with pytest.raises(OutOfMemory, match="72 GiB"):
            one.blocking.train_sft([row()])
        assert one.blocking.get_step() == 0
        service.state.error = {"code": "what_is_this", "message": "odd", "param": None}
        with pytest.raises(RemoteError, match="odd"):
            one.blocking.train_sft([row()])
        assert one.blocking.train_sft([row()]).step == 1
    assert len(service.state.jobs) == 3


def test_a_cancelled_call_ends_its_job(service: FakeService) -> None:
    service.state.step_seconds = 0.2

    async def go() -> float:
        async with opened(service) as backend:
            one = model()
            await one.register(backend)
            (task,) = [asyncio.create_task(one.train_sft([row() for _ in range(400)]))]
            while not service.state.jobs:
                await asyncio.sleep(0.02)
            began = time.monotonic()
            task.cancel()
            with pytest.raises(asyncio.CancelledError):
                await task
            return time.monotonic() - began

    assert asyncio.run(go()) < 5
    (job,) = service.state.jobs.values()
    assert job["status"] == "cancelled"


def test_a_job_that_someone_cancels_is_a_failure(service: FakeService) -> None:
    service.state.holds.clear()

    def end() -> None:
        while [job["status"] for job in service.state.jobs.values()] != ["running"]:
            time.sleep(0.01)
        for job in service.state.jobs.values():
            job["status"] = "cancelled"
        service.state.holds.set()

    thread = threading.Thread(target=end)
    thread.start()
    with pytest.raises(RemoteError, match="cancelled"):
        trained(service)
    thread.join()


@pytest.mark.parametrize(
    ("more", "said"),
    [
        ({"_internal_config": {"engine_args": {"gpu_memory_utilization": 0.7}}}, "_internal_config"),
        ({"entity": "team"}, "entity"),
        ({"base_model": "other"}, "base_model.*\n?.*no base model|no base model"),
    ],
)  # fmt: skip
def test_what_a_service_does_not_take_is_refused(service: FakeService, more: dict[str, Any], said: str) -> None:  # fmt: skip
    with opened(service) as backend, pytest.raises(ConfigError, match=said):
        model(**more).blocking.register(backend)
    assert service.state.models == {}


def test_the_adapters_settings_reach_the_service(service: FakeService) -> None:
    with opened(service) as backend:
        one = model(lora_config={"rank": 4})
        one.blocking.register(backend)
        one.blocking.train_sft([row()])
    (body,) = service.state.bodies
    assert body["x_hone"]["trainable"]["settings"]["lora_config"]["rank"] == 4


def test_rates_must_fit_the_batches(service: FakeService) -> None:
    with pytest.raises(ConfigError, match="2 entries, and there are 3 batches"):
        trained(service, learning_rate=[1e-4, 1e-5], batch_size=2)
    assert trained(service, learning_rate=[1e-4, 1e-5, 0.0], batch_size=2).step == 1


def test_a_wrong_key_and_no_service_are_said(service: FakeService) -> None:
    with (
        ServerlessBackend(base_url=service.url, api_key="wrong") as backend,
        pytest.raises(EnvironmentFault, match="does not accept the key") as told,
    ):
        model().blocking.register(backend)
    assert "wrong" not in str(told.value)
    with (
        ServerlessBackend(base_url="http://127.0.0.1:9", api_key="k", patience_seconds=0.0) as away,
        pytest.raises(RemoteError, match="does not answer"),
    ):
        model().blocking.register(away)


def test_a_file_in_one_call(service: FakeService, tmp_path: Path) -> None:
    data = chat_rows(tmp_path / "rows.jsonl", 6)
    with opened(service) as backend:
        one = model()
        one.blocking.register(backend)
        done = one.blocking.train_sft_from_file(data, epochs=2, batch_size=3)
        assert done is not None
        assert (done.step, done.gradient_steps) == (1, 4)
    (body,) = service.state.bodies
    assert len(body["x_hone"]["trainable"]["learning_rate"]) == 4
    assert callable(train_sft_from_file)


def test_the_history_is_kept_here_too(service: FakeService, here: Path) -> None:
    with opened(service) as backend:
        one = model()
        one.blocking.register(backend)
        for reward, shown in ((1.0, True), (5.0, True), (2.0, False)):
            one.blocking.train_sft([row(str(reward)), row("x"), row("y")], log_metrics=shown)
            one.blocking.log([row()], metrics={"reward": reward})
        folder = one.folder
        assert folder is not None
        assert folder.path == here / ".hone/serverless/it's ü/models/agent 1"
        rows = history.read(folder.history)
        steps = [(r["step"], r["sft/loss/train"]) for r in rows if "sft/gradient_step" in r]
        assert steps == [(1, 1.0), (1, 0.5), (2, 1.0), (2, 0.5)]
        calls = [r for r in rows if "time/step_wall_s" in r]
        assert [(r["step"], r["loss/train"]) for r in calls] == [(1, 0.75), (2, 0.75)]
        assert [r["data/step_num_gradient_steps"] for r in calls] == [2, 2]
        one.blocking.delete_checkpoints()
    assert service.state.bodies[-1] == {"keep": [2]}, "the best by val/reward"


def test_a_job_that_is_followed_again_is_told_once(service: FakeService) -> None:
    with opened(service) as backend:
        one = model()
        one.blocking.register(backend)
        one.blocking.train_sft([row(), row(), row()])
        folder, (job,) = one.folder, service.state.jobs
        assert folder is not None
        before = folder.history.read_bytes()
        again = RemoteHistory(folder, job, 1, is_kept=True)
        for step in (1, 2):
            again.hear({"train_loss": 1.0}, step)
        again.finish(seconds=1.0)
        assert folder.history.read_bytes() == before
        again.hear({"train_loss": 1.0}, 3)
        assert folder.history.read_bytes() != before


def test_a_history_that_cannot_be_kept_is_said_before_anything_runs(
    service: FakeService, here: Path
) -> None:
    (here / "file").write_text("in the way")
    with opened(service) as backend, pytest.raises(DiskError, match="history"):
        model(base_path=str(here / "file")).blocking.register(backend)
