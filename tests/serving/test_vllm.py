"""vLLM as a writer, with a stand-in for the executable: what it is started with, asked, and what becomes of it."""

from __future__ import annotations

import json
import os
import queue
import sys
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest

from hone.errors import ConfigError, EnvironmentFault, RemoteError
from hone.infer.completer import Wanted
from hone.infer.served import Growing, Served
from hone.infer.writer import Crowded, Ended, Told
from hone.serving.vllm import VllmWriter
from tests.folders import model_folder
from tests.infer.test_shelf import adapter, said

ASK = [{"role": "user", "content": "the red cat"}]


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("vllm") / "base")


@pytest.fixture(scope="module")
def lora(base: Path) -> Path:
    return adapter(base, base.parent / "agent" / "checkpoints" / "0001", 1)


@pytest.fixture
def executable(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> Path:
    path = tmp_path / "vllm"
    fake = Path(__file__).with_name("fake_vllm.py")
    path.write_text(f'#!/bin/sh\nexec "{sys.executable}" "{fake}" "$@"\n')
    path.chmod(0o755)
    monkeypatch.setenv("FAKE_VLLM_LOG", str(tmp_path / "log"))
    monkeypatch.setenv("HONE_API_KEY", "ours")
    return path


@pytest.fixture
def writer(base: Path, lora: Path, executable: Path) -> Iterator[VllmWriter]:
    served = [Served("base", str(base)), Growing("agent", lora.parent.parent, str(base))]
    made = VllmWriter(served, rows=2, waiting=1, executable=str(executable))
    yield made
    made.close()
    assert made._process.poll() is not None


def begin(writer: VllmWriter, name: str, **more: Any) -> tuple[Any, queue.Queue[Told]]:
    voice = writer.voice(name)
    told: queue.Queue[Told] = queue.Queue()
    prompt = voice.renderer.prompt(ASK)
    return writer.write(voice, prompt, Wanted(**more), told.put), told


def noted(executable: Path) -> list[dict[str, Any]]:
    return [json.loads(line) for line in executable.with_name("log").read_text().splitlines()]


def test_it_is_asked_with_our_ids_and_its_replies_are_told(
    writer: VllmWriter, executable: Path, base: Path
) -> None:
    reply, end = said(begin(writer, "base", temperature=0.5, seed=3, stop=("x",))[1])
    assert (reply, end.finish, end.tokens) == ("base", "stop", 5)
    start, asked = noted(executable)
    words = start["words"]
    assert words[:2] == ["serve", str(base.resolve())]
    assert words[words.index("--host") + 1] == "127.0.0.1"
    assert "--enable-lora" in words
    assert start["lora"] == "True"
    assert not any(writer._key in word or "ours" in word for word in words)
    assert asked["key"]
    body = asked["body"]
    assert body["prompt"] == writer.voice("base").renderer.prompt(ASK)
    assert body["stop_token_ids"] == list(writer.voice("base").stop_ids)
    assert (body["temperature"], body["seed"], body["stop"]) == (0.5, 3, ["x"])
    assert "logprobs" not in body
    assert "structured_outputs" not in body


def test_adapters_are_loaded_once_and_asked_by_name(writer: VllmWriter, executable: Path) -> None:
    assert writer.names() == ["base", "agent", "agent@0", "agent@1"]
    schema = {"type": "object"}
    for name in ("agent", "agent@1", "agent@0"):
        said(begin(writer, name, schema=schema, logit_bias={5: 1.0})[1])
    loads = [one["body"] for one in noted(executable) if one["path"] == "/v1/load_lora_adapter"]
    asked = [one["body"] for one in noted(executable) if one["path"] == "/v1/completions"]
    assert len(loads) == 1
    assert [one["model"] for one in asked] == [loads[0]["lora_name"]] * 2 + ["base"]
    assert asked[0]["structured_outputs"] == {"json": schema}
    assert asked[0]["logit_bias"] == {"5": 1.0}


def test_probabilities_are_read(writer: VllmWriter) -> None:
    _, told = begin(writer, "base", top_logprobs=2)
    first = told.get(timeout=60)
    assert not isinstance(first, Ended)
    assert first.chances[0].logprob == -0.5
    assert first.chances[0].top == ((0, -0.5), (9, -1.5))


def test_what_breaks_off_is_said_and_who_goes_frees_a_place(
    writer: VllmWriter, executable: Path
) -> None:
    text, end = said(begin(writer, "base", max_tokens=13)[1])
    assert text == "half"
    assert isinstance(end.failure, RemoteError)
    slow = [begin(writer, "base", max_tokens=99) for _ in range(3)]
    with pytest.raises(Crowded):
        begin(writer, "base")
    slow[0][1].get(timeout=60)
    slow[0][0].cancel()
    until = time.monotonic() + 60
    while len(writer._under_way) > 2 and time.monotonic() < until:
        time.sleep(0.02)
    assert said(begin(writer, "base")[1])[0] == "base"
    assert slow[0][1].empty()


def test_what_it_cannot_do_is_refused(
    base: Path, executable: Path, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    other = model_folder(tmp_path / "other")
    both = [Served("a", str(base)), Served("b", str(other))]
    with pytest.raises(ConfigError, match="one base at a time"):
        VllmWriter(both, rows=1, waiting=1, executable=str(executable))
    with pytest.raises(EnvironmentFault, match="not installed"):
        VllmWriter(both[:1], rows=1, waiting=1, executable=os.devnull + "x")
    monkeypatch.setenv("FAKE_VLLM_FAILS", "1")
    with pytest.raises(EnvironmentFault, match="code 3"):
        VllmWriter(both[:1], rows=1, waiting=1, executable=str(executable))
