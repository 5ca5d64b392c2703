"""ServerlessBackend against the service itself: its worker trains, and it comes to the bits that this machine's does."""

from __future__ import annotations

import hashlib
from collections.abc import Iterator
from pathlib import Path

import pytest

from hone import LocalBackend, ServerlessBackend, TrainableModel, TrainSFTConfig, Trajectory
from hone.errors import ConfigError, EnvironmentFault
from hone.service.shift import Slots
from tests.folders import WORDS, model_folder
from tests.service.served import Served, serving


@pytest.fixture
def base(tmp_path: Path) -> Path:
    return model_folder(tmp_path / "tiny")


@pytest.fixture
def served(tmp_path: Path, base: Path, monkeypatch: pytest.MonkeyPatch) -> Iterator[Served]:
    monkeypatch.chdir(tmp_path)
    monkeypatch.setenv("OMP_NUM_THREADS", "1")
    with serving(tmp_path / "root", Slots(1, threads=1), models={"tiny": str(base)}) as one:
        yield one


def rows(count: int) -> list[Trajectory]:
    words = WORDS.split()
    found: list[Trajectory] = []
    for i in range(count):
        ask, reply = words[i % 6], words[6 + i % 5]
        said = [{"role": "user", "content": ask}, {"role": "assistant", "content": reply}]
        found.append(Trajectory(messages_and_choices=said))
    return found


def weights(folder: Path) -> list[str]:
    """A digest of each checkpoint's adapter."""
    files = sorted(folder.glob("checkpoints/*/adapter_model.safetensors"))
    return [hashlib.sha256(file.read_bytes()).hexdigest() for file in files[1:]]  # 0 is as it began


@pytest.mark.slow
def test_two_calls_come_to_the_weights_of_local_backend(served: Served, base: Path, tmp_path: Path) -> None:  # fmt: skip
    told = {"name": "agent 1", "project": "it's ü"}
    config = TrainSFTConfig(learning_rate=[1e-3, 1e-4], batch_size=2)
    more = {"lora_config": {"rank": 4}}
    with ServerlessBackend(base_url=served.service.base_url, api_key=served.key) as backend:
        one = TrainableModel(**told, **more, base_model="tiny")
        one.blocking.register(backend)
        assert one.blocking.get_step() == 0
        first = one.blocking.train_sft(rows(4), config)
        second = one.blocking.train_sft(rows(3), TrainSFTConfig(assistant_turns="last"))
        assert (first.step, first.gradient_steps, second.step) == (1, 2, 2)
        assert one.get_inference_name() == "it's ü/agent 1@2"
        assert served.store.count_jobs() == {"succeeded": 2}
        assert served.client().files.list(purpose="fine-tune").data == [], "the rows are tidied away"  # fmt: skip
    there = served.store.root / "trainable/bob/it's ü/models/agent 1"
    with LocalBackend(path=tmp_path / "local", compute={"threads": 1}) as backend:
        one = TrainableModel(**told, **more, base_model=str(base))
        one.blocking.register(backend)
        here = one.blocking.train_sft(rows(4), config)
        one.blocking.train_sft(rows(3), TrainSFTConfig(assistant_turns="last"))
        assert one.folder is not None
        local = one.folder.path
    assert first.loss == here.loss
    assert weights(there) == weights(local)
    assert len(set(weights(there))) == 2


def test_what_the_service_refuses_is_said_in_its_words(served: Served) -> None:
    with ServerlessBackend(base_url=served.service.base_url, api_key=served.key) as backend:
        with pytest.raises(ConfigError, match=r"there are: tiny"):
            TrainableModel(name="a", project="p", base_model="other").blocking.register(backend)
        one = TrainableModel(name="a", project="p", base_model="tiny")
        one.blocking.register(backend)
        one.blocking.delete_checkpoints()
        with pytest.raises(ConfigError, match="no checkpoint of step 1"):
            one.get_inference_name(1)
    with (
        ServerlessBackend(base_url=served.service.base_url, api_key="sk-hone-no") as backend,
        pytest.raises(EnvironmentFault, match="does not accept the key"),
    ):
        TrainableModel(name="a", project="p", base_model="tiny").blocking.register(backend)
