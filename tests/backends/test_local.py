"""LocalBackend: what a script sees of it, with the training process itself, and with a stand-in where that is slow."""

from __future__ import annotations

import asyncio
import json
import logging
import os
import signal
import socket
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import openai
import pytest
from safetensors.torch import load_file

from hone import LocalBackend, LoRAConfig, TrainableModel, TrainSFTConfig, Trajectory
from hone.backends import local, local_server
from hone.backends.local_process import _environment
from hone.errors import ConfigError, DataError, EnvironmentFault, LockedError
from hone.runs.lock import holder
from hone.trainable.file import train_sft_from_file
from tests.backends.in_process import InProcess
from tests.folders import chat_rows, model_folder

COMPUTE = {"micro_batch_tokens": 256, "threads": 1}
PLAIN = {"init_args": {"load_in_4bit": False, "dtype": "float32"}}


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("base") / "model")


@pytest.fixture
def in_process(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(local, "TrainingProcess", InProcess)


def model_of(base: Path, name: str = "agent-001", **more: Any) -> TrainableModel:
    about: dict[str, Any] = {"_internal_config": PLAIN, **more}
    return TrainableModel(name=name, project="sft-project", base_model=str(base), **about)


def rows(*numbers: int, reply: str = "runs and sings") -> list[Trajectory]:
    return [
        Trajectory(
            messages_and_choices=[
                {"role": "user", "content": f"the cat {number}"},
                {"role": "assistant", "content": reply},
            ]
        )
        for number in numbers
    ]


def wait_until_gone(backend: LocalBackend, pids: set[int] | None = None) -> None:
    """These processes of it, or all."""
    until = time.monotonic() + 60
    while set(backend.pids) & pids if pids is not None else backend.pids:
        assert time.monotonic() < until
        time.sleep(0.05)


def is_server(pid: int) -> bool:
    return b"hone.serving" in Path(f"/proc/{pid}/cmdline").read_bytes()


def answer(address: str, model: str) -> str:
    """What a model of the backend's server says."""
    asked = [{"role": "user", "content": "the red cat"}]
    with openai.OpenAI(base_url=address, api_key="none") as client:
        said = client.chat.completions.create(
            model=model, messages=asked, max_tokens=12, temperature=0, logprobs=True
        )
    assert said.choices[0].logprobs is not None
    return str([one.logprob for one in said.choices[0].logprobs.content or []])


def history(home: Path) -> Iterator[dict[str, Any]]:
    for line in (home / "history.jsonl").read_text().splitlines():
        yield json.loads(line)


def test_training_after_training_through_a_killed_process(tmp_path: Path, base: Path) -> None:
    """The real process: registered, trained, killed from outside, trained on; nothing is left at the end."""
    calls = [rows(1, 2, 3), rows(4, 5, 6)]
    straight, killed = model_of(base, "straight"), model_of(base, "killed")
    config = TrainSFTConfig(learning_rate=1e-2)
    with LocalBackend(path=tmp_path, compute=COMPUTE) as backend:
        killed.blocking.register(backend)
        assert killed.blocking.train_sft(calls[0], config).step == 1
        (pid,) = backend.pids
        lock = tmp_path / "sft-project/models/killed/training/lock"
        owner = holder(lock)
        assert owner is not None
        assert owner.pid == pid
        os.kill(pid, signal.SIGKILL)
        wait_until_gone(backend)
        assert killed.blocking.train_sft(calls[1], config).step == 2
        assert killed.get_inference_name() == "killed@2"
        straight.blocking.register(backend)
        last = backend.pids
        assert holder(lock) is None
        for call in calls:
            straight.blocking.train_sft(call, config)
        assert backend.pids == last
    for step in range(3):
        ours, theirs = (
            load_file(tmp_path / f"sft-project/models/{name}/checkpoints/{step:04d}/adapter_model.safetensors")
            for name in ("straight", "killed")
        )  # fmt: skip
        assert all(bool((ours[key] == theirs[key]).all()) for key in ours)
    assert not Path(f"/proc/{last[0]}").exists()
    assert holder(tmp_path / "sft-project/models/straight/training/lock") is None
    assert not list(tmp_path.rglob(".rows-*"))
    with pytest.raises(EnvironmentFault, match="closed"):
        straight.blocking.train_sft(calls[0], config)


@pytest.mark.slow
def test_five_calls_each_in_a_process_of_its_own_end_as_five_in_one(
    tmp_path: Path, base: Path
) -> None:
    """And the server of one of them is up all along, and knows each step; after the end nothing of it all is left."""
    config = TrainSFTConfig(learning_rate=[1e-2, 5e-3])
    straight, killed = model_of(base, "straight"), model_of(base, "killed")
    names: dict[str, list[str]] = {"straight": [], "killed": []}
    answers: list[str] = []
    with LocalBackend(path=tmp_path, compute=COMPUTE) as backend:
        for model in (straight, killed):
            model.blocking.register(backend)
            for first in range(5):
                model.blocking.train_sft(rows(first, first + 1, first + 2), config)
                names[model.name].append(model.get_inference_name())
                if model is killed:
                    address = killed.openai_client().base_url
                    answers.append(answer(str(address), names["killed"][-1]))
                    server = [pid for pid in backend.pids if is_server(pid)]
                    (training,) = set(backend.pids) - set(server)
                    os.kill(training, signal.SIGKILL)
                    wait_until_gone(backend, {training})
                    assert [pid for pid in backend.pids if is_server(pid)] == server
        pids = backend.pids
    assert len(answers) == 5
    assert len(set(answers)) > 1, "each step answers by its own weights"
    assert pids
    assert not [pid for pid in pids if Path(f"/proc/{pid}").exists()]
    with socket.socket() as port:
        port.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        port.bind(("127.0.0.1", address.port))
    for name in names:
        assert holder(tmp_path / f"sft-project/models/{name}/training/lock") is None
    assert names["straight"] == [f"straight@{step}" for step in range(1, 6)]
    assert names["killed"] == [f"killed@{step}" for step in range(1, 6)]
    for step in range(6):
        one, other = (
            load_file(tmp_path / f"sft-project/models/{name}/checkpoints/{step:04d}/adapter_model.safetensors")
            for name in ("straight", "killed")
        )  # fmt: skip
        assert all(bool((one[key] == other[key]).all()) for key in one)


def test_the_layout_and_the_history_of_two_calls(
    tmp_path: Path, base: Path, in_process: None
) -> None:
    with LocalBackend(path=tmp_path, compute=COMPUTE, gpu_cost_per_hour_usd=2.0) as backend:
        model = model_of(base, config={"note": "mine"})
        model.blocking.register(backend)
        config = TrainSFTConfig(learning_rate=[1e-2, 5e-3], batch_size=2)
        done = model.blocking.train_sft(rows(1, 2, 3), config)
        model.blocking.train_sft(rows(4), TrainSFTConfig(learning_rate=1e-3))
        silent = model.blocking.train_sft(rows(5), log_metrics=False)
    home = tmp_path / "sft-project/models/agent-001"
    assert (done.step, done.gradient_steps) == (1, 2)
    assert done.checkpoint == home / "checkpoints/0001"
    assert silent.step == 3
    about = json.loads((home / "model.json").read_text())
    assert (about["base_model"], about["config"]) == (str(base), {"note": "mine"})
    state = json.loads((home / "state.json").read_text())
    assert (state["training_step"], state["gradient_steps"]) == (3, 4)
    told = list(history(home))
    assert [row["step"] for row in told] == [1, 1, 1, 2, 2]
    assert [row.get("sft/gradient_step") for row in told] == [1, 2, None, 1, None]
    assert [row["sft/loss/learning_rate"] for row in told[:2]] == [1e-2, 5e-3]
    assert [row["sft/data/step_num_trajectories"] for row in told[:2]] == [2, 1]
    assert [row["sft/data/cum/num_trajectories"] for row in (told[0], told[1], told[3])] == [
        2,
        3,
        4,
    ]
    whole = told[2]
    assert whole["loss/train"] == pytest.approx(
        (told[0]["sft/loss/train"] + told[1]["sft/loss/train"]) / 2
    )
    assert (whole["data/step_num_trajectories"], whole["data/step_num_gradient_steps"]) == (3, 2)
    assert whole["data/step_trainer_tokens"] == sum(
        row["sft/data/step_trainer_tokens"] for row in told[:2]
    )
    assert whole["time/step_wall_s"] >= whole["time/step_trainer_s"] > 0
    assert "costs/gpu" not in whole  # no GPU, no price


def test_a_registered_model_goes_on_and_old_checkpoints_can_go(
    tmp_path: Path, base: Path, in_process: None
) -> None:
    with LocalBackend(path=tmp_path, compute=COMPUTE) as backend:
        model = model_of(base)
        model.blocking.register(backend)
        for number in range(3):
            model.blocking.train_sft(rows(number))
    with LocalBackend(path=tmp_path, compute=COMPUTE) as backend:
        again = model_of(base)
        again.blocking.register(backend)
        assert backend._live.process is None  # nothing is loaded before it is needed
        assert again.blocking.get_step() == 3
        assert again.get_inference_name(1) == "agent-001@1"
        with pytest.raises(ConfigError, match="no checkpoint of step 7") as caught:
            again.get_inference_name(7)
        assert "0, 1, 2, 3" in str(caught.value.remedy)
        again.blocking.log(metrics={"reward": 0.9}, step=1)
        again.blocking.log(rows(1, 2), metrics={"reward": 0.1}, step=2)
        again.blocking.delete_checkpoints()
        home = tmp_path / "sft-project/models/agent-001"
        assert sorted(path.name for path in (home / "checkpoints").iterdir()) == ["0001", "0003"]
        logged = (home / "trajectories/val/0002.jsonl").read_text().splitlines()
        assert len(logged) == 2
        assert again.blocking.train_sft(rows(9)).step == 4


def test_a_file_is_one_call_and_empty_ones_are_none(
    tmp_path: Path, base: Path, in_process: None, capsys: pytest.CaptureFixture[str]
) -> None:
    path = chat_rows(tmp_path / "rows.jsonl", 7)
    empty = tmp_path / "empty.jsonl"
    empty.write_text("\n\n")

    async def script() -> list[Any]:
        async with LocalBackend(path=tmp_path, compute=COMPUTE) as backend:
            model = model_of(base)
            await model.register(backend)
            found = [
                await train_sft_from_file(model, path, epochs=3, peak_lr=1e-3, verbose=True),
                await train_sft_from_file(model, path, initial_step=2, final_step=3),
                await train_sft_from_file(model, path, initial_step=4, verbose=True),
                await train_sft_from_file(model, empty, verbose=True),
                await model.train_sft([]),
            ]
            return [*found, await model.get_step()]

    first, second, beyond, nothing, none, step = asyncio.run(script())
    assert (first.step, first.gradient_steps) == (1, 11)  # ceil(7 * 3 / 2): over epochs
    assert (second.step, second.gradient_steps) == (2, 1)
    assert (beyond, nothing, none.gradient_steps, step) == (None, None, 0, 2)
    said = capsys.readouterr().err
    assert "sft train  11/11" in said
    assert "nothing to train" in said


def test_qlora_is_the_default_where_bitsandbytes_is(
    tmp_path: Path, base: Path, in_process: None, caplog: pytest.LogCaptureFixture
) -> None:
    internal = {"engine_args": {"gpu_memory_utilization": 0.7}}
    with LocalBackend(path=tmp_path, compute=COMPUTE) as backend, caplog.at_level(logging.WARNING):
        model = model_of(base, _internal_config=internal)
        model.blocking.register(backend)
        model.blocking.train_sft(rows(1, 2))
    assert "gpu_memory_utilization=0.7 is not applicable here" in caplog.text
    kept = json.loads((tmp_path / "sft-project/models/agent-001/training/run.json").read_text())
    assert kept["tuning"]["method"] == "qlora"
    assert (kept["tuning"]["lora"]["r"], kept["tuning"]["lora"]["alpha"]) == (8, 16.0)
    train = kept["config"]["train"]
    assert (train["optimizer"], train["betas"]) == ("paged_adamw_8bit", [0.9, 0.99])
    assert (train["weight_decay"], train["max_grad_norm"]) == (0.0, 1.0)


def test_without_bitsandbytes_the_base_is_whole_for_the_models_life(
    tmp_path: Path,
    base: Path,
    in_process: None,
    monkeypatch: pytest.MonkeyPatch,
    caplog: pytest.LogCaptureFixture,
) -> None:
    with monkeypatch.context() as patched:
        patched.setattr("hone.backends.local_settings._has_quantizer", lambda: False)
        with LocalBackend(path=tmp_path, compute=COMPUTE) as backend:
            model_of(base, _internal_config=None).blocking.register(backend)
    assert "hone[quantize]" in caplog.text
    with LocalBackend(path=tmp_path, compute=COMPUTE) as backend:
        model = model_of(base, _internal_config=None)
        model.blocking.register(backend)
        assert model.blocking.train_sft(rows(1)).step == 1
    with LocalBackend(path=tmp_path) as backend:
        other = model_of(base, _internal_config={"init_args": {"load_in_4bit": True}})
        with pytest.raises(ConfigError, match="registered with other settings"):
            other.blocking.register(backend)


def test_an_adapter_is_trained_further(tmp_path: Path, base: Path, in_process: None) -> None:
    with LocalBackend(path=tmp_path, compute=COMPUTE) as backend:
        first = model_of(base, lora_config=LoRAConfig(rank=4))
        first.blocking.register(backend)
        done = first.blocking.train_sft(rows(1, 2), TrainSFTConfig(learning_rate=1e-2))
        assert done.checkpoint is not None
        second = model_of(done.checkpoint, "second")
        second.blocking.register(backend)
        start = load_file(
            tmp_path / "sft-project/models/second/checkpoints/0000/adapter_model.safetensors"
        )
        end = load_file(done.checkpoint / "adapter_model.safetensors")
        assert all(bool((start[key] == end[key]).all()) for key in end)
        assert second.blocking.train_sft(rows(3)).step == 1
        with pytest.raises(ConfigError, match="keeps the settings"):
            model_of(done.checkpoint, "third", lora_config={"rank": 2}).blocking.register(backend)


@pytest.mark.parametrize(
    ("trajectories", "config", "fault", "said"),
    [
        ([{"messages": []}], {}, DataError, "a Trajectory is wanted"),
        (rows(1, 2, 3), {"learning_rate": [1e-3]}, ConfigError, "there are 2 batches"),
        ([Trajectory(messages_and_choices=[{"role": "user", "content": "x"}])], {}, DataError, "no assistant turn"),
        ([Trajectory(messages_and_choices=[{"role": "user", "content": "x"}])], {"assistant_turns": "last"}, DataError, "last message"),
        ([Trajectory(messages_and_choices=[{"role": "user", "content": {1}}])], {}, DataError, "JSON"),
    ],
)  # fmt: skip
def test_what_cannot_be_trained_is_refused_by_name(
    tmp_path: Path, base: Path, in_process: None, trajectories: Any, config: Any, fault: type, said: str
) -> None:  # fmt: skip
    with LocalBackend(path=tmp_path, compute=COMPUTE) as backend:
        model = model_of(base)
        model.blocking.register(backend)
        with pytest.raises(fault, match=said):
            model.blocking.train_sft(trajectories, TrainSFTConfig(**config))
        assert model.blocking.get_step() == 0


def test_a_call_that_is_cancelled_ends_and_keeps_what_it_has(
    tmp_path: Path, base: Path, in_process: None
) -> None:
    async def script() -> int:
        async with LocalBackend(path=tmp_path, compute=COMPUTE) as backend:
            model = model_of(base)
            await model.register(backend)
            call = asyncio.create_task(model.train_sft(rows(*range(400)), TrainSFTConfig()))
            home = tmp_path / "sft-project/models/agent-001/history.jsonl"
            while not home.exists():
                await asyncio.sleep(0.01)
            call.cancel()
            with pytest.raises(asyncio.CancelledError):
                await call
            step = await model.get_step()
            assert list((home.parent / "training/pending").glob("step-*"))
            return step

    assert asyncio.run(script()) == 0


def test_two_backends_cannot_train_one_model(tmp_path: Path, base: Path, in_process: None) -> None:
    with (
        LocalBackend(path=tmp_path, compute=COMPUTE) as one,
        LocalBackend(path=tmp_path, compute=COMPUTE) as other,
    ):
        first, second = model_of(base), model_of(base)
        first.blocking.register(one)
        second.blocking.register(other)
        with pytest.raises(LockedError):
            second.blocking.train_sft(rows(1))


def test_settings_of_the_backend_are_checked(tmp_path: Path, base: Path) -> None:
    with pytest.raises(ConfigError, match="in_process"):
        LocalBackend(in_process=True)
    with pytest.raises(ConfigError, match="gpu_cost"):
        LocalBackend(gpu_cost_per_hour_usd=-1)
    with LocalBackend(path=tmp_path, compute={"micro_batch": 1}) as backend:
        with pytest.raises(ConfigError, match=r"compute\.micro_batch"):
            model_of(base).blocking.register(backend)
        with pytest.raises(ConfigError, match="not registered"):
            model_of(base).blocking.train_sft(rows(1))


def test_the_process_gets_no_secret(monkeypatch: pytest.MonkeyPatch) -> None:
    for name in ("HF_TOKEN", "OPENAI_API_KEY", "MY_SECRET", "WANDB_API_KEY", "DB_PASSWORD"):
        monkeypatch.setenv(name, "s3cr3t-value")
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    found = _environment()
    assert "s3cr3t-value" not in json.dumps(found)
    assert found["OMP_NUM_THREADS"] == "1"


def test_a_model_without_a_server_says_so(
    tmp_path: Path, base: Path, in_process: None, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(local_server, "_SERVING", "hone_without_serving")
    with LocalBackend(path=tmp_path, compute=COMPUTE) as backend:
        model = model_of(base)
        model.blocking.register(backend)
        with pytest.raises(EnvironmentFault, match="cannot be served"):
            model.openai_client()
