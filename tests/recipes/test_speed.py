"""What makes a step fast: on where it gives the same numbers, off with its reason where it does not."""

from __future__ import annotations

import functools
import json
from dataclasses import replace
from pathlib import Path
from types import SimpleNamespace
from typing import cast

import pytest
import torch
from torch import nn

from hone.config.sections import ComputeSection, Config
from hone.data.dataset import Figures
from hone.engine.device import ask_for_same_bits, resolve_device
from hone.engine.loss import PackLoss
from hone.errors import EnvironmentFault
from hone.models import attention, kernels
from hone.models.fused_norm import fuse_norms
from hone.models.tuning import Tuned
from hone.recipes import speed
from hone.recipes import train as train_recipe
from hone.recipes.build import Built
from hone.runs.events import Event
from tests.engine.stand_in import Said
from tests.engine.test_exactness import lora_model
from tests.recipes.test_train import losses, run
from tests.tiny import FAMILIES

attention.register()
CPU, GPU = torch.device("cpu"), torch.device("cuda", 0)


@pytest.fixture
def built() -> Built:
    torch._dynamo.reset()
    model = lora_model("qwen3", 0.0)
    fuse_norms(model)
    model.set_attn_implementation(attention.NAME)
    return Built(PackLoss(model), model, Tuned(None), None)


def config(optimizer: str = "adamw", **settings: object) -> Config:
    """The two sections that are read."""
    told = SimpleNamespace(optimizer=optimizer, epochs=2.0, max_steps=None, batch_size=8)
    return cast(Config, SimpleNamespace(compute=ComputeSection(**settings), train=told))


def quicken(
    built: Built, why_not: str | None = "not asked for", **settings: object
) -> speed.Engine:
    said = Said()
    engine = speed.quicken(
        built,
        config(**settings),
        precision="fp32",
        why_not_compiled=why_not,
        say=said,
        backend="eager",
    )
    (event,) = said.of("engine")
    assert event["on"] == engine.on
    assert event["off"] == engine.off
    return engine


def reason(engine: speed.Engine, what: str) -> str:
    return next(part["why"] for part in engine.off if part["what"].startswith(what))


def test_a_cpu_says_what_is_on_and_nothing_about_kernels_of_a_gpu(built: Built) -> None:
    engine = quicken(built)
    assert engine.on == [
        "fp32",
        "attention by shared beginnings",
        "fused adapters",
        "fused norms",
        "fused linear cross-entropy",
    ]
    assert [part["what"] for part in engine.off] == ["compiled layers"]


@pytest.mark.parametrize(
    ("precision", "here", "why"),
    [("bf16", True, None), ("fp32", True, "float32"), ("bf16", False, "varlen_attn")],
)
def test_a_gpu_says_which_attention_a_pack_takes(built, monkeypatch, precision, here, why) -> None:
    """On a card that is only named: which parts are put on is decided before anything is sent there."""
    monkeypatch.setattr(speed.varlen, "is_here", lambda: here)
    monkeypatch.setattr(speed, "device_name", lambda device: "Some Card")
    monkeypatch.setattr(speed, "_kernels", lambda *_, **__: None)
    built.loss.placing.device, built.loss.placing.on_gpu = GPU, True
    said = Said()
    engine = speed.quicken(
        built,
        config(split_weights=False),
        precision=precision,
        why_not_compiled="not asked for",
        say=said,
    )
    assert said.of("engine")[0]["device"] == "Some Card"
    assert "flex attention where rows share" in engine.on
    assert ("flash attention where none do" in engine.on) == (why is None)
    if why is not None:
        assert why in reason(engine, "flash attention")
    assert "nothing is patched" in reason(engine, "fused rotary")


def test_what_was_asked_for_and_has_no_object_here_is_said(built: Built) -> None:
    engine = quicken(built, kernels=["rms_norm"], offload_activations=True, deterministic=False)
    for what in ("liger kernels", "offloaded activations", "kernels without fixed bits"):
        assert reason(engine, what).startswith("not applicable here"), what
    assert built.loss.offload is None
    assert reason(quicken(built, kernels="none"), "liger kernels") == "compute.kernels=none"


def test_layers_are_compiled_and_give_the_same(built: Built) -> None:
    before = speed._read(built.loss)
    engine = quicken(built, why_not=None, compile=True)
    assert any(text.startswith("compiled layers") for text in engine.on), engine
    assert built.loss.placing.rounds_up
    after = speed._read(built.loss)
    assert after[0] == pytest.approx(before[0], rel=1e-6)


@pytest.mark.parametrize("fault", ["raises", "lies"])
def test_a_compiler_that_fails_or_lies_is_left_out(built: Built, fault: str, monkeypatch) -> None:
    from hone.models import compiled

    def broken(model, **_: object):
        layer = model.model.layers[0]
        if fault == "raises":
            layer.mlp._compiled_call_impl = lambda x: 1 / 0
        else:
            layer.mlp._compiled_call_impl = lambda x: x
        return 1, ()

    monkeypatch.setattr(compiled, "compile_layers", broken)
    before = speed._read(built.loss)
    engine = quicken(built, why_not=None, compile=True)
    why = reason(engine, "compiled layers")
    assert ("ZeroDivisionError" if fault == "raises" else "another result") in why
    assert not built.loss.placing.rounds_up
    after = speed._read(built.loss)
    assert after[0] == before[0]
    assert torch.equal(after[1], before[1])


def test_kernels_that_give_another_result_are_taken_back(built: Built, monkeypatch) -> None:
    monkeypatch.setattr(speed, "why_not", lambda device: None)

    class Wrong(nn.Module):
        def forward(self, x: torch.Tensor) -> torch.Tensor:
            return x * 1.5

    def put(model: nn.Module, names: object) -> kernels.Replaced:
        layer = model.model.layers[0]
        replaced = [(layer, "input_layernorm", layer.input_layernorm)]
        layer.input_layernorm = Wrong()
        return replaced

    monkeypatch.setattr(speed, "put_kernels", put)
    before = speed._read(built.loss)
    engine = quicken(built)
    assert "another result" in reason(engine, "liger kernels")
    assert speed._read(built.loss)[0] == before[0]


def test_kernels_stay_out_of_the_compilers_way_unless_asked_for(built: Built, monkeypatch) -> None:
    monkeypatch.setattr(speed, "why_not", lambda device: None)
    monkeypatch.setattr(speed, "put_kernels", lambda model, names: [])
    monkeypatch.setattr(speed, "_compile", lambda *_, **__: None)
    engine = quicken(built, why_not=None)
    assert "compiled layers fuse" in reason(engine, "liger kernels")
    engine = quicken(built, why_not=None, kernels="activation")
    assert "this family" in reason(engine, "liger kernels")


@pytest.mark.parametrize(
    ("setting", "device", "tokens", "why"),
    [
        ("auto", GPU, 10**13, None),
        (False, GPU, 10**13, "compute.compile=false"),
        ("auto", CPU, 10**13, "CPU"),
        ("auto", GPU, 1000, "short: about 1 s"),
        (True, CPU, 1000, None),
    ],
)
def test_when_layers_are_compiled(setting, device, tokens, why, monkeypatch) -> None:
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: object())
    monkeypatch.setattr(speed.shutil, "which", lambda name: f"/bin/{name}")
    found = speed.cannot_compile(device, setting, parameters=75_000_000_000, tokens=tokens)
    assert (found is None) if why is None else (why in (found or ""))


def test_a_machine_without_a_compiler_says_so(monkeypatch) -> None:
    monkeypatch.setattr(speed.shutil, "which", lambda name: None)
    monkeypatch.delenv("CXX", raising=False)
    assert "no compiler" in (speed.cannot_compile(CPU, True, parameters=1, tokens=1) or "")
    monkeypatch.setattr(speed.importlib.util, "find_spec", lambda name: None)
    assert "triton" in (speed.cannot_compile(GPU, True, parameters=1, tokens=1) or "")


def test_what_a_run_was_told_about_compiling_holds(built: Built) -> None:
    figures = Figures(rows=100, examples=100, tokens=10**12, trained_tokens=1, longest=9, ready=100)
    built.loss.placing.device = GPU
    told = {"not_compiled": "the run is short: about 3 s"}
    assert speed.why_not_compile(built, config(), figures, told) == told["not_compiled"]
    asked = config(compile=False)
    assert speed.why_not_compile(built, asked, figures, told) == "compute.compile=false"
    assert "short" not in (speed.why_not_compile(built, config(), figures, {}) or "")
    few = replace(figures, tokens=1000)
    assert "short" in (speed.why_not_compile(built, config(), few, {}) or "")


def test_only_what_adamw_moves_is_halved(built: Built) -> None:
    model = FAMILIES["llama"].make()
    whole = Built(PackLoss(model), model, Tuned(None), None)
    for optimizer, precision, why in (
        ("muon", "bf16", "train.optimizer=muon"),
        ("adamw", "fp32", "not applicable here"),
    ):
        said = Said()
        engine = speed.quicken(
            whole,
            config(optimizer, split_weights=True),
            precision=precision,
            why_not_compiled="not asked for",
            say=said,
        )
        assert why in reason(engine, "split weights")
        assert not whole.loss.lows
    said = Said()
    settings = config(split_weights=True)
    speed.quicken(whole, settings, precision="bf16", why_not_compiled="not asked for", say=said)
    assert whole.loss.lows
    assert model.lm_head.weight.dtype == torch.bfloat16
    assert model.model.norm.weight.dtype == torch.float32


def test_a_run_that_goes_on_elsewhere_says_so() -> None:
    said = Said()
    assert speed.take_device(ComputeSection(device="cpu"), None, say=said) == CPU
    assert speed.take_device(ComputeSection(device="cpu"), "cpu", say=said) == CPU
    assert not said.events
    speed.take_device(ComputeSection(device="cpu"), "cuda", say=said)
    assert "began on cuda" in str(said.of("notice")[0]["message"])


@pytest.mark.parametrize(
    ("setting", "layers"), [("auto", None), (False, 0), (True, 2), (0.5, 1), (0.1, 1), (0.0, 0)]
)
def test_how_many_layers_are_recomputed(built: Built, setting, layers) -> None:
    wanted = ComputeSection(gradient_checkpointing=setting)
    assert speed.layers_to_recompute(built, wanted) == layers
    model = FAMILIES["llama"].make()
    model.supports_gradient_checkpointing = False
    odd = Built(PackLoss(model), model, Tuned(None), None)
    assert speed.layers_to_recompute(odd, wanted) == 0
    if layers:
        assert "told apart" in reason(
            quicken(odd, gradient_checkpointing=setting), "recomputed layers"
        )


def test_the_device_is_the_one_that_is_here(monkeypatch) -> None:
    assert resolve_device("cpu") == CPU
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert resolve_device("auto") == CPU
    with pytest.raises(EnvironmentFault, match="torch"):
        resolve_device("cuda")
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    assert resolve_device("auto") == torch.device("cuda", 0)
    monkeypatch.setenv("LOCAL_RANK", "3")
    assert resolve_device("cuda") == torch.device("cuda", 3)
    assert resolve_device("cpu") == CPU


def test_a_cpu_is_asked_for_nothing() -> None:
    ask_for_same_bits(CPU, wanted=True)
    assert not torch.are_deterministic_algorithms_enabled()


@pytest.fixture
def _cache(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))


@pytest.mark.slow
@pytest.mark.usefixtures("_cache")
def test_a_compiled_run_ends_where_a_plain_one_does(tmp_path: Path, monkeypatch) -> None:
    torch._dynamo.reset()
    plain = run(tmp_path, "train.max_steps=3", out="plain")
    quick = functools.partial(speed.quicken, backend="eager")
    monkeypatch.setattr(train_recipe, "quicken", quick)
    heard: list[Event] = []
    compiled = run(
        tmp_path, "train.max_steps=3", "compute.compile=true", out="compiled", heard=heard
    )
    assert losses(compiled.folder) == pytest.approx(losses(plain.folder), rel=2e-6)
    (engine,) = [event for event in heard if event.name == "engine"]
    assert any("compiled layers" in text for text in engine["on"])
    assert not [event for event in heard if event.name == "compiled"]
    kept = json.loads((compiled.folder / "run.json").read_bytes())
    assert kept["not_compiled"] is None
    assert kept["device"] == "cpu"
    assert kept["recomputed"] == 0
    kept = json.loads((plain.folder / "run.json").read_bytes())
    assert "CPU" in kept["not_compiled"]


@pytest.mark.usefixtures("_cache")
def test_a_run_that_asks_for_a_gpu_where_none_is_ends_before_it_loads(tmp_path: Path) -> None:
    if torch.cuda.is_available():
        pytest.skip("a GPU is here")
    with pytest.raises(EnvironmentFault, match="cuda"):
        run(tmp_path, "compute.device=cuda")
