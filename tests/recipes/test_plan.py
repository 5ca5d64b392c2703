"""What `hone plan` says, against what the run then does, and against the model itself."""

from __future__ import annotations

import json
import subprocess
import sys
from pathlib import Path
from typing import Any, cast

import pytest
import torch
from transformers import AutoModelForCausalLM

from hone.cli.main import run as command
from hone.config.layers import resolve
from hone.engine.moments import moment_bytes
from hone.engine.optimizer import places_of, trained_parameters
from hone.errors import ConfigError, EnvironmentFault
from hone.models.shape import read_shape
from hone.models.source import read_config
from hone.models.tuning import Start, tune
from hone.recipes.advice import advise
from hone.recipes.build import DTYPES, _held_in, _wrap  # pyright: ignore[reportPrivateUsage]
from hone.recipes.plan import RunPlan, make_plan
from hone.recipes.subject import subject
from hone.recipes.train import train
from hone.runs.events import Event
from tests.folders import chat_rows, model_folder
from tests.hollow import LLAMA_8B, hollow_folder

GIB = 2**30
QUICK = ["compute.threads=1", "train.batch_size=6", "train.epochs=2", "train.precision=fp32"]


@pytest.fixture(autouse=True)
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))


@pytest.fixture(scope="module")
def llama_8b(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return hollow_folder(tmp_path_factory.mktemp("llama-8b"), **LLAMA_8B)


def words(tmp_path: Path, *more: str, model: Path | None = None) -> list[str]:
    rows, folder = tmp_path / "rows.jsonl", model or tmp_path / "model"
    if not rows.exists():
        chat_rows(rows)
    if not folder.exists():
        model_folder(folder)
    named = [f"data.path={rows}", f"model.name={folder}", f"output.dir={tmp_path / 'run'}"]
    return [*named, *more]


def long_rows(path: Path, *, rows: int = 40, tokens: int = 4000) -> Path:
    row = {
        "input_ids": [5 + i % 200 for i in range(tokens)],
        "weight": [0.0] * 9 + [1.0] * (tokens - 9),
    }
    with path.open("w", encoding="utf-8") as file:
        for i in range(rows):
            row["input_ids"][0] = 5 + i
            file.write(json.dumps(row) + "\n")
    return path


def plan(settings: list[str], **target: Any) -> RunPlan:
    return make_plan(resolve(overrides=settings).config, lambda *_, **__: None, **target)


WAYS = [
    [],
    ["compute.micro_batch_tokens=64"],
    ["compute.share_prefixes=false", "compute.micro_batch_tokens=96"],
    ["compute.pack=false", "compute.micro_batch_tokens=96"],
    ["train.neftune_alpha=5", "compute.micro_batch_tokens=128"],
    ["data.validation_split=0.25", "train.max_steps=3"],
    ["data.max_length=49", "data.too_long=drop"],
    ["train.batch_size=5", "train.epochs=1.5", "data.shuffle=false"],
]


@pytest.mark.parametrize("way", WAYS, ids=" ".join)
def test_steps_and_tokens_are_those_of_the_run(tmp_path: Path, way: list[str]) -> None:
    typed = words(tmp_path, *QUICK, *way)
    before = plan(typed)
    heard: list[Event] = []
    train(resolve(overrides=typed), listeners=[heard.append])
    steps = [event for event in heard if event.name == "step"]
    assert before.is_exact
    assert before.course.steps == len(steps)
    assert before.course.tokens == sum(int(event["tokens"]) for event in steps)
    assert before.course.trained_tokens == sum(int(event["trained_tokens"]) for event in steps)
    if "compute.micro_batch_tokens" in " ".join(way):
        computed = sum(int(event["computed_tokens"]) for event in steps)
        assert before.course.computed_tokens == computed
    told = next(event for event in heard if event.name == "plan")
    assert told["steps"] == len(steps)
    assert told["tokens"] == before.course.tokens


def test_several_sources_by_weight_are_counted_as_they_are_mixed(tmp_path: Path) -> None:
    typed = words(tmp_path, *QUICK)[1:]
    other = chat_rows(tmp_path / "other.jsonl", rows=9)
    listed = f"[{{path: {tmp_path}/rows.jsonl, weight: 0.7}}, {{path: {other}, weight: 0.3}}]"
    typed.append(f"data.sources={listed}")
    before = plan(typed)
    heard: list[Event] = []
    train(resolve(overrides=typed), listeners=[heard.append])
    steps = [event for event in heard if event.name == "step"]
    assert before.course.tokens == sum(int(event["tokens"]) for event in steps)


METHODS = [
    ["tuning.method=lora"],
    ["tuning.method=lora", "tuning.lora.dora=true", "tuning.lora.r=3"],
    ["tuning.method=lora", "tuning.lora.target_modules=[q_proj, v_proj]", "tuning.lora.layers=[1]"],
    ["tuning.method=lora", "tuning.lora.modules_to_save=[embeddings, head]"],
    ["tuning.method=freeze", "tuning.freeze.trainable_layers=1"],
    [
        "tuning.method=freeze",
        "tuning.freeze.trainable_layers=-1",
        "tuning.freeze.extra_modules=[head]",
    ],
    ["tuning.method=full"],
]
OPTIMIZERS = ["adamw", "adamw_8bit", "paged_adamw_8bit", "adafactor", "lion", "lion_8bit", "muon"]


@pytest.mark.parametrize("method", METHODS, ids=" ".join)
@pytest.mark.parametrize("tied", [False, True])
def test_what_trains_and_what_its_optimizers_keep(
    tmp_path: Path, method: list[str], tied: bool
) -> None:
    folder = model_folder(
        tmp_path / "model", hidden_size=64, intermediate_size=96, tie_word_embeddings=tied
    )
    shape = read_shape(folder, read_config(folder))
    model = AutoModelForCausalLM.from_pretrained(folder)
    assert shape.parameters == sum(p.numel() for p in model.parameters())
    config = resolve(overrides=method).config
    tune(model, config, start=Start())
    trained = {n: p for n, p in model.named_parameters() if p.requires_grad}
    for name in OPTIMIZERS:
        config = resolve(overrides=[*method, f"train.optimizer={name}"]).config
        who = subject(config, shape, "fp32")
        assert who.trained_numbers == sum(p.numel() for p in trained.values())
        shapes = sorted(tuple(p.shape) for p in trained.values())
        assert sorted(one.shape for one in who.trained) == shapes
        assert who.gradient_bytes == 4 * who.trained_numbers


@pytest.mark.parametrize("name", OPTIMIZERS)
@pytest.mark.parametrize("method", ["full", "lora"])
def test_an_optimizers_bytes_are_those_of_its_own_tensors(
    tmp_path: Path, name: str, method: str
) -> None:
    folder = model_folder(tmp_path / "model", hidden_size=64, intermediate_size=96)
    config = resolve(overrides=[f"tuning.method={method}", f"train.optimizer={name}"]).config
    shape = read_shape(folder, read_config(folder))
    loss = _wrap(
        AutoModelForCausalLM.from_pretrained(folder),
        config,
        "fp32",
        Start(),
        held=torch.float32,
        shared=False,
    ).loss
    trained = trained_parameters(loss)
    places = places_of(loss, trained)
    kept = sum(moment_bytes(config.train.optimizer, p.shape, places[n]) for n, p in trained.items())
    assert subject(config, shape, "fp32").state_bytes == kept


@pytest.mark.parametrize("precision", ["fp32", "bf16"])
@pytest.mark.parametrize("method", ["lora", "full", "freeze"])
def test_weights_are_counted_in_the_types_in_which_they_are_held(
    tmp_path: Path, method: str, precision: str
) -> None:
    from hone.recipes.build import build

    folder = model_folder(tmp_path / "model", hidden_size=64, intermediate_size=96)
    chosen = cast(Any, precision)
    config = resolve(
        overrides=[
            f"tuning.method={method}",
            f"train.precision={precision}",
            "tuning.freeze.trainable_layers=1",
        ]
    ).config
    built = build(folder, config, precision=chosen, longest=64, say=lambda *_, **__: None)
    held = sum(p.numel() * p.element_size() for p in built.loss.parameters())
    who = subject(config, read_shape(folder, read_config(folder)), chosen)
    assert who.weight_bytes + who.adapter_bytes == held
    assert DTYPES[precision] == _held_in(config, chosen) or method == "full"


def test_planning_loads_no_torch(tmp_path: Path) -> None:
    typed = words(tmp_path)
    code = (
        "import sys\nfrom hone.cli.main import run\n"
        f"assert run(['plan', *{typed!r}, '--gpu', 'h100:8']) == 0\n"
        f"assert run(['plan', *{typed!r}]) == 0\n"
        "assert run(['doctor', '--json']) in (0, 4)\n"
        "print([n for n in ('torch', 'transformers', 'peft', 'bitsandbytes') if n in sys.modules])"
    )
    done = subprocess.run(
        [sys.executable, "-c", code], capture_output=True, text=True, check=True, timeout=120
    )
    assert done.stdout.splitlines()[-1] == "[]"


def test_an_8b_model_by_hand(tmp_path: Path, llama_8b: Path) -> None:
    found = plan(
        words(tmp_path, "tuning.method=full", "compute.strategy=fsdp", model=llama_8b),
        gpu="h200:8",
    )
    parts = {part.name: part.num_bytes for part in found.memory.parts}
    numbers = 8_030_261_248
    assert found.shape.parameters == numbers
    assert parts["weights"] == pytest.approx(4 * numbers / 8, rel=1e-9)  # float32 masters
    assert found.subject.gradient_bytes == 4 * numbers
    assert parts["optimizer"] == pytest.approx(8 * numbers / 8, rel=1e-6)
    assert found.memory.free_bytes == 143_771 * 2**20
    quantized = plan(words(tmp_path, "tuning.method=qlora", model=llama_8b), gpu="h100")
    linear = 32 * (2 * 4096 * 4096 + 2 * 4096 * 1024 + 3 * 4096 * 14_336)
    rest = numbers - linear
    expected = linear * (0.5 + 1 / 64 + 4 / (64 * 256)) + 2 * rest
    assert quantized.subject.weight_bytes == pytest.approx(expected, rel=1e-9)
    assert quantized.subject.trained_numbers == 41_943_040  # rank 16 beside every linear layer


@pytest.mark.parametrize(
    ("target", "settings"),
    [
        ("t4", ["tuning.method=lora"]),
        ("l4", ["tuning.method=lora", "compute.micro_batch_tokens=16384"]),
        ("a100-40", ["tuning.method=full"]),
        ("h100:8", ["tuning.method=full", "compute.strategy=ddp"]),
        ("a100-40", ["tuning.method=full", "compute.nproc=4", "compute.deepspeed=zero1"]),
        ("h100", ["compute.gradient_checkpointing=false", "compute.micro_batch_tokens=32768"]),
    ],
)
def test_what_is_proposed_fits_when_it_is_pasted(
    tmp_path: Path, llama_8b: Path, target: str, settings: list[str]
) -> None:
    rows = long_rows(tmp_path / "rows.jsonl")
    assert rows.exists()
    typed = words(tmp_path, *settings, model=llama_8b)
    before = plan(typed, gpu=target)
    assert not before.fits
    changes = advise(before)
    assert any(change.fits for change in changes)
    for change in changes:
        after = plan([*typed, *change.words.split()], gpu=target)
        assert after.memory.fits == change.fits, change.words
        assert after.memory.peak_bytes < before.memory.peak_bytes
        if "micro_batch_tokens" in " ".join(
            [*settings, change.words]
        ):  # else Packs use what is freed
            assert after.memory.peak_bytes == pytest.approx(change.peak_bytes, rel=0.02)


def test_a_plan_that_does_not_fit_exits_with_5_and_says_what_to_add(
    tmp_path: Path, llama_8b: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = words(tmp_path, "tuning.method=full", model=llama_8b)
    assert command(["plan", *typed, "--gpu", "l4"]) == 5
    told = capsys.readouterr().out
    assert "would not fit" in told
    assert "tuning.method=qlora" in told
    assert command(["plan", *typed, "--gpu", "l4", "--json"]) == 5
    answer = json.loads(capsys.readouterr().out)
    assert answer["fits"] is False
    assert any(change["fits"] for change in answer["changes"])


def test_training_says_what_does_not_fit_before_it_loads_anything(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    """Memory and disk before the start: the numbers, and a setting that helps."""
    import shutil

    from hone.engine import machine

    typed = words(tmp_path, *QUICK, "train.max_steps=1")
    usage = shutil.disk_usage(tmp_path)
    monkeypatch.setattr(machine, "available_bytes", lambda: 0)
    monkeypatch.setattr(shutil, "disk_usage", lambda _: usage._replace(free=1000))
    heard: list[Event] = []
    with pytest.raises(Exception, match="longest row"):
        train(resolve(overrides=typed), listeners=[heard.append])
    codes = [event["code"] for event in heard if event.name == "notice"]
    assert "plan-memory" in codes
    assert "plan-disk" in codes
    names = [event.get("name") or event.name for event in heard]
    assert names.index("plan") < names.index("loading")


def test_after_a_run_the_plan_knows_a_time(tmp_path: Path) -> None:
    typed = words(tmp_path, *QUICK)
    before = plan(typed)
    assert before.time.seconds is None
    train(resolve(overrides=typed))
    after = plan(typed)
    assert after.time.seconds is not None
    assert after.time.seconds > 0
    again = plan([*typed, "train.epochs=20"])
    assert again.time.seconds == pytest.approx(10 * after.time.seconds, rel=0.05)


def test_a_family_whose_layers_are_not_known_is_said(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    folder = model_folder(tmp_path / "model", config="OlmoConfig")
    assert command(["plan", *words(tmp_path, model=folder)]) == 0
    assert "counted as Llama's" in " ".join(capsys.readouterr().out.split())


def test_a_card_that_does_not_exist_and_two_numbers_of_ranks_are_refused(tmp_path: Path) -> None:
    typed = words(tmp_path)
    with pytest.raises(ConfigError, match="no card"):
        plan(typed, gpu="h1000")
    with pytest.raises(ConfigError, match=r"--gpu h100:4 is 4 ranks.*compute.nproc is 2"):
        plan([*typed, "compute.nproc=2"], gpu="h100:4")


MACHINES = ["compute.nnodes=2", "compute.rdzv_endpoint=one:29500"]


@pytest.mark.parametrize(
    ("gpu", "settings", "ranks", "strategy"),
    [
        ("h200:8", [], 8, "fsdp"),  # 128 GiB of weights, gradients and moments
        ("h200:8", ["tuning.method=lora"], 8, "ddp"),
        ("h200", ["compute.nproc=4", "compute.strategy=ddp"], 4, "ddp"),
        ("h200:8", ["compute.deepspeed=zero2"], 8, "zero2"),
        ("h200:8", ["compute.deepspeed=zero3-offload"], 8, "zero3"),
        ("h200:8", MACHINES, 16, "fsdp"),
        ("h200", [], 1, None),
    ],
)
def test_ranks_and_strategy_are_those_that_training_would_take(
    tmp_path: Path, llama_8b: Path, gpu: str, settings: list[str], ranks: int, strategy: str | None
) -> None:
    method = [] if "tuning.method=lora" in settings else ["tuning.method=full"]
    found = plan(words(tmp_path, *method, *settings, model=llama_8b), gpu=gpu)
    assert (found.target.count, found.target.sharding) == (ranks, strategy)
    who, parts = found.subject, {part.name: part.num_bytes for part in found.memory.parts}
    held = ranks if strategy in ("fsdp", "zero3") else 1
    moved = ranks if strategy in ("fsdp", "zero2", "zero3") else 1
    if "compute.deepspeed=zero3-offload" in settings:
        assert "weights" not in parts
        assert "optimizer" not in parts
        return
    assert parts["weights"] == pytest.approx(who.weight_bytes / held, rel=1e-6)
    assert parts["optimizer"] == pytest.approx(who.state_bytes / moved, rel=1e-6)


def test_what_ranks_that_hold_parts_cannot_do_is_refused_by_the_plan_too(
    tmp_path: Path, llama_8b: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    typed = words(tmp_path, "train.optimizer=muon", "compute.nproc=2", model=llama_8b)
    with pytest.raises(ConfigError, match="under fsdp a rank holds parts"):
        plan([*typed, "compute.strategy=fsdp"])
    monkeypatch.setattr("hone.recipes.holding.has_deepspeed", lambda: False)
    with pytest.raises(EnvironmentFault, match="not installed"):
        plan([*typed, "train.optimizer=adamw", "compute.deepspeed=zero2"])
    assert plan([*typed, "compute.strategy=ddp"]).target.sharding == "ddp"


def test_ranks_of_one_processor_share_its_memory(tmp_path: Path) -> None:
    typed = words(tmp_path, *QUICK)
    one, two = plan(typed), plan([*typed, "compute.nproc=2"])
    assert two.target.count == 2
    assert two.target.free_bytes == pytest.approx(one.target.free_bytes / 2, rel=0.1)
    assert str(two.target).startswith("2 ranks on this machine's CPU")
    told = two.summary()
    assert (told["ranks"], told["strategy"], told["seconds"]) == (2, "ddp", None)


def test_the_page_fits_its_width_and_the_next_command_is_the_one_that_was_typed(
    tmp_path: Path, capsys: pytest.CaptureFixture[str]
) -> None:
    typed = words(tmp_path)
    assert command(["plan", *typed]) == 0
    told = capsys.readouterr().out
    assert max(len(line) for line in told.splitlines() if "next:" not in line) <= 100
    assert f"next: hone train {typed[0]}" in told
