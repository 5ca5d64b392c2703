"""Names to replies: bases shared, adapters side by side, checkpoints as they come, and what does not fit."""

from __future__ import annotations

import json
import queue
import shutil
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any, NamedTuple

import pytest
import torch
from peft import LoraConfig, get_peft_model
from transformers import AutoModelForCausalLM

from hone.config.layers import resolve
from hone.errors import ConfigError, ModelError
from hone.infer import shelf as shelf_module
from hone.infer.batch import Bounds
from hone.infer.completer import Sampling, Wanted
from hone.infer.open import open_model
from hone.infer.served import Growing, Served
from hone.infer.shelf import Shelf
from hone.infer.writer import Crowded, Ended, Piece, Told, UnknownModel
from hone.recipes.train import train
from tests.folders import chat_rows, model_folder

ASK = [{"role": "user", "content": "the red cat"}]
TOKENS = 10


def adapter(base: Path, folder: Path, seed: int, **more: Any) -> Path:
    torch.manual_seed(seed)
    config = LoraConfig(r=4, target_modules="all-linear", init_lora_weights=False, **more)
    get_peft_model(AutoModelForCausalLM.from_pretrained(base), config).save_pretrained(folder)
    return folder


def said(told: queue.Queue[Told]) -> tuple[str, Ended]:
    text = ""
    while True:
        what = told.get(timeout=200)
        if isinstance(what, Ended):
            return text, what
        assert isinstance(what, Piece)
        text += what.text


def begin(shelf: Shelf, name: str, messages: Any = ASK, **more: Any) -> queue.Queue[Told]:
    voice = shelf.voice(name)
    told: queue.Queue[Told] = queue.Queue()
    wanted = Wanted(**{"max_tokens": TOKENS, **more})
    shelf.write(voice, voice.renderer.prompt(messages), wanted, told.put)
    return told


def text(shelf: Shelf, name: str, **more: Any) -> str:
    reply, end = said(begin(shelf, name, **more))
    assert end.failure is None
    return reply


def alone(name: Path) -> str:
    """What `hone chat` says: `generate` of transformers."""
    return open_model(str(name)).completer.reply(ASK, sampling=Sampling(max_tokens=TOKENS)).text


@pytest.fixture(scope="module")
def base(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return model_folder(tmp_path_factory.mktemp("served") / "base")


@pytest.fixture(scope="module")
def adapters(base: Path) -> list[Path]:
    return [adapter(base, base.parent / f"adapter{seed}", seed) for seed in (1, 2, 3)]


@pytest.fixture
def open_shelf() -> Iterator[Callable[..., Shelf]]:
    made: list[Shelf] = []

    def make(*served: Served, **bounds: int) -> Shelf:
        made.append(Shelf(served, Bounds(**bounds)))
        return made[-1]

    yield make
    for shelf in made:
        shelf.close()


def test_adapters_and_their_base_answer_in_one_batch_as_each_alone(
    base: Path, adapters: list[Path], open_shelf: Callable[..., Shelf]
) -> None:
    places = {"base": base, **{f"a{i}": folder for i, folder in enumerate(adapters)}}
    shelf = open_shelf(*(Served(name, str(place)) for name, place in places.items()))
    want = {name: alone(place) for name, place in places.items()}
    assert len(set(want.values())) == 4
    for name in want:
        shelf.voice(name)
    assert len(shelf._bases) == 1
    assert not shelf._own
    asked = [(name, begin(shelf, name)) for name in [*want, *want, *reversed(want)]]
    for name, told in asked:
        assert said(told)[0] == want[name]
    voices = [shelf.voice(name) for name in want]
    assert len({id(voice.renderer) for voice in voices}) == 1  # one vocabulary in memory


def test_an_adapter_that_is_more_than_products_gets_weights_of_its_own(
    base: Path, adapters: list[Path], tmp_path: Path, open_shelf: Callable[..., Shelf]
) -> None:
    dora = adapter(base, tmp_path / "dora", 5, use_dora=True)
    shelf = open_shelf(Served("dora", str(dora)), Served("plain", str(adapters[0])))
    assert text(shelf, "dora") == alone(dora)
    assert text(shelf, "plain") == alone(adapters[0])
    assert len(shelf._own) == 1


def test_adapters_of_a_base_whose_rows_run_alone(
    tmp_path: Path, open_shelf: Callable[..., Shelf]
) -> None:
    rope = {"rope_type": "dynamic", "factor": 2.0, "rope_theta": 1e4}
    base = model_folder(tmp_path / "base", rope_parameters=rope)
    places = {
        "base": base,
        "a": adapter(base, tmp_path / "a", 1),
        "b": adapter(base, tmp_path / "b", 2),
    }
    shelf = open_shelf(*(Served(name, str(place)) for name, place in places.items()))
    want = {name: alone(place) for name, place in places.items()}
    assert len(set(want.values())) == 3
    asked = [(name, begin(shelf, name)) for name in [*want, *want]]
    for name, told in asked:
        assert said(told)[0] == want[name]


def test_an_adapter_that_does_not_fit_leaves_the_others_as_they_were(
    base: Path, adapters: list[Path], tmp_path: Path, open_shelf: Callable[..., Shelf]
) -> None:
    other = model_folder(tmp_path / "other", hidden_size=48)
    stranger = adapter(other, tmp_path / "stranger", 5)
    path = stranger / "adapter_config.json"
    path.write_text(
        json.dumps({**json.loads(path.read_text()), "base_model_name_or_path": str(base)})
    )
    shelf = open_shelf(
        Served("base", str(base)), Served("stranger", str(stranger)), Served("a", str(adapters[0]))
    )
    want = text(shelf, "base")
    for _ in range(2):
        with pytest.raises(ModelError, match="does not fit"):
            shelf.voice("stranger")
        assert text(shelf, "base") == want
    assert text(shelf, "a") == alone(adapters[0])
    with pytest.raises(ModelError, match="does not fit"):
        shelf.voice("stranger")
    assert text(shelf, "a") == alone(adapters[0])
    assert text(shelf, "base") == want == alone(base)


def test_a_growing_folder_is_its_newest_checkpoint_and_old_ones_go(
    base: Path,
    adapters: list[Path],
    tmp_path: Path,
    open_shelf: Callable[..., Shelf],
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    monkeypatch.setattr(shelf_module, "_MOST_ADAPTERS", 2)
    shelf = open_shelf(Growing("g", tmp_path, str(base)))
    want = [alone(folder) for folder in adapters]
    assert shelf.names() == ["g", "g@0"]
    assert text(shelf, "g") == text(shelf, "g@0") == alone(base)
    with pytest.raises(UnknownModel, match="no checkpoint '1'"):
        shelf.voice("g@1")
    for step, folder in enumerate(adapters, start=1):
        shutil.copytree(folder, tmp_path / "checkpoints" / f"{step:04d}")
        assert shelf.names()[-1] == f"g@{step}"
        assert text(shelf, "g") == want[step - 1]
    assert [text(shelf, f"g@{step}") for step in (1, 2, 3, 1)] == [*want, want[0]]
    (weights,) = shelf._bases.values()
    assert len(weights.adapters) <= 3
    assert text(shelf, "g@0") == alone(base)
    shutil.rmtree(tmp_path / "checkpoints" / "0003")
    assert text(shelf, "g") == want[1]
    shutil.rmtree(tmp_path / "checkpoints" / "0002")
    shutil.copytree(adapters[2], tmp_path / "checkpoints" / "0002")
    assert text(shelf, "g@2") == want[2]  # written anew under an old number


class Runs(NamedTuple):
    lora: Path
    full: Path


@pytest.fixture(scope="module")
def runs(base: Path) -> Runs:
    rows = chat_rows(base.parent / "rows.jsonl")
    with pytest.MonkeyPatch.context() as patch:
        patch.setenv("HONE_CACHE", str(base.parent / "cache"))
        for method in ("lora", "full"):
            settings = [
                *("train.precision=fp32", "compute.threads=1", "train.batch_size=6"),
                *(f"data.path={rows}", f"model.name={base}", f"output.dir={base.parent / method}"),
                *(f"tuning.method={method}", "train.learning_rate=1e-2", "train.epochs=4"),
                "train.save_steps=8",
            ]
            train(resolve(overrides=settings), command=["hone", "train"])
    return Runs(base.parent / "lora", base.parent / "full")


def test_runs_and_their_checkpoints(
    runs: Runs, base: Path, open_shelf: Callable[..., Shelf]
) -> None:
    shelf = open_shelf(
        Served("l", str(runs.lora)), Served("f", str(runs.full)), Served("b", str(base))
    )
    steps = [f"{name}@{step}" for name in "lf" for step in (8, 16)]
    assert set(shelf.names()) == {"l", "f", "b", *steps}
    places = {"l": runs.lora, "f": runs.full, "b": base}
    for name, run in (("l", runs.lora), ("f", runs.full)):
        for step in (8, 16):
            places[f"{name}@{step}"] = run / "checkpoints" / f"step-{step:08d}"
    want = {name: alone(place) for name, place in places.items()}
    assert want["l@8"] != want["b"]
    for name in [*want, *want]:
        assert text(shelf, name) == want[name], name
    assert len(shelf._bases) == 1  # the checkpoints of the LoRA run stand on the base
    with pytest.raises(UnknownModel, match="8, 16"):
        shelf.voice("l@9")


def test_what_each_request_asks_is_honoured(base: Path, open_shelf: Callable[..., Shelf]) -> None:
    shelf = open_shelf(Served("m", str(base)))
    whole = text(shelf, "m")
    stop = whole[3:5]
    assert text(shelf, "m", stop=(stop,)) == whole[: whole.index(stop)]
    schema = {
        "type": "object",
        "properties": {"a": {"enum": ["cat", "dog"]}, "b": {"type": "boolean"}},
        "required": ["a", "b"],
        "additionalProperties": False,
    }
    for seed in range(3):
        reply, end = said(
            begin(shelf, "m", schema=schema, max_tokens=100, temperature=1.0, seed=seed)
        )
        assert end.finish == "stop"
        found = json.loads(reply)
        assert set(found) == {"a", "b"}
        assert found["a"] in ("cat", "dog")
    drawn = [text(shelf, "m", temperature=1.0, seed=3) for _ in range(2)]
    assert drawn[0] == drawn[1] != text(shelf, "m", temperature=1.0, seed=4)
    with pytest.raises(ConfigError, match="no token 999"):
        begin(shelf, "m", logit_bias={999: 1.0})


def test_places_are_few_and_freed(base: Path, open_shelf: Callable[..., Shelf]) -> None:
    shelf = open_shelf(Served("m", str(base)), rows=2, waiting=3)
    want = text(shelf, "m", max_tokens=100)
    (weights,) = shelf._bases.values()
    batch = weights.batch
    voice = shelf.voice("m")
    prompt = voice.renderer.prompt(ASK)
    heard: queue.Queue[Told] = queue.Queue()

    def blocked() -> list[Any]:
        """Between two steps nothing is taken from the queue: exactly three may wait."""

        def ask() -> Any:
            return shelf.write(voice, prompt, Wanted(max_tokens=100), heard.put)

        tickets = [ask() for _ in range(3)]
        with pytest.raises(Crowded) as caught:
            ask()
        assert caught.value.retry_after_s >= 1
        return tickets

    tickets = batch.between_steps(blocked)
    assert len(tickets) == 3
    tickets[1].cancel()
    ends = []
    texts: list[str] = []
    while len(ends) < 2:
        what = heard.get(timeout=200)
        if isinstance(what, Ended):
            ends.append(what)
        else:
            texts.append(what.text)
    assert "".join(sorted("".join(texts))) == "".join(sorted(want * 2))
    assert batch.between_steps(lambda: batch.busy) == 0
    assert batch.decoder._slots.held_bytes == 0  # type: ignore[attr-defined]


def test_a_step_that_fails_ends_its_replies_and_not_the_server(
    base: Path,
    open_shelf: Callable[..., Shelf],
    monkeypatch: pytest.MonkeyPatch,
    capfd: pytest.CaptureFixture[str],
) -> None:
    shelf = open_shelf(Served("m", str(base)))
    want = text(shelf, "m")
    (weights,) = shelf._bases.values()
    with monkeypatch.context() as patch:
        patch.setattr(weights.batch.decoder, "step", lambda lines: 1 / 0)
        _, end = said(begin(shelf, "m"))
    assert end.failure is not None
    assert "division" not in str(end.failure)
    assert "ZeroDivisionError" in capfd.readouterr().err
    assert text(shelf, "m") == want
