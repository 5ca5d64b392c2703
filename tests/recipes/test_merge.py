"""Merging: the merged model says what the adapter on its base says, or nothing is left of it."""

from __future__ import annotations

import json
import shutil
from collections import namedtuple
from pathlib import Path
from typing import Any

import pytest
import torch
from safetensors.torch import load_file, save_file
from transformers import AutoConfig, AutoModelForCausalLM, AutoTokenizer

import hone.recipes.likeness as likeness
import hone.recipes.merge as merging
from hone.cli.main import run
from hone.config.layers import resolve
from hone.errors import ConfigError, DiskError, ModelError, OutOfMemory
from hone.models.load import load_model
from hone.models.saved_adapter import put_adapter
from hone.recipes.merge import merge
from hone.recipes.train import train
from tests.adapted import adapter_folder, base_folder, logits_of, tuned
from tests.folders import chat_rows

KINDS: dict[str, dict[str, Any]] = {
    "plain": {},
    "rank-stabilised dora": {"use_dora": True, "use_rslora": True},
    "embeddings and head": {"modules_to_save": ["embed_tokens", "lm_head"]},
    "new rows": {"trainable_token_indices": {"embed_tokens": [5, 6], "lm_head": [5, 6]}},
    "some layers": {"target_modules": ["q_proj", "down_proj"], "layers_to_transform": [1]},
}


@pytest.mark.parametrize("kind", KINDS)
def test_plain_transformers_says_what_the_adapter_says(tmp_path: Path, kind: str) -> None:
    base = base_folder(tmp_path / "base")
    adapter = adapter_folder(tmp_path / "adapter", base, **KINDS[kind])
    merged = merge(str(adapter))
    assert merged.folder == adapter / "merged"
    plain = logits_of(AutoModelForCausalLM.from_pretrained(merged.folder))
    wanted = logits_of(tuned(base, adapter))
    torch.testing.assert_close(plain, wanted, rtol=1e-4, atol=1e-4)
    alone = logits_of(AutoModelForCausalLM.from_pretrained(base))
    assert (plain - alone).abs().max() > 1e-2
    assert merged.likeness.difference < 1e-5 < merged.likeness.effect
    assert merged.sum_difference < 1e-5
    assert AutoTokenizer.from_pretrained(merged.folder).chat_template
    assert {path.name for path in merged.folder.iterdir()} >= {
        "generation_config.json",
        "README.md",
    }
    assert not [path for path in adapter.iterdir() if path.name.startswith(".")]


@pytest.mark.parametrize("tied", [True, False])
def test_a_mixture_of_experts_and_tied_heads_are_merged(tmp_path: Path, tied: bool) -> None:
    numbers = {
        "tie_word_embeddings": tied,
        "head_dim": 16,
        "num_experts": 4,
        "num_experts_per_tok": 2,
    }
    base = base_folder(
        tmp_path / "base", config="Qwen3MoeConfig", moe_intermediate_size=24, output_router_logits=False,
        **numbers,
    )  # fmt: skip
    adapter = adapter_folder(tmp_path / "adapter", base)
    merge(str(adapter), tmp_path / "merged")
    plain = logits_of(AutoModelForCausalLM.from_pretrained(tmp_path / "merged"))
    torch.testing.assert_close(plain, logits_of(tuned(base, adapter)), rtol=1e-4, atol=1e-4)


@pytest.mark.parametrize("kept", [torch.float32, torch.bfloat16])
@pytest.mark.parametrize("dtype", [None, "bf16", "fp16", "fp32"])
def test_each_sum_is_rounded_once_to_the_type_that_is_asked(
    tmp_path: Path, kept: torch.dtype, dtype: str | None
) -> None:
    base = base_folder(tmp_path / "base", dtype=kept)
    adapter = adapter_folder(tmp_path / "adapter", base)
    merged = merge(str(adapter), dtype=dtype)
    wanted = kept if dtype is None else merging.DTYPES[dtype]
    assert merged.folder.name == ("merged" if dtype is None else f"merged-{dtype}")
    name = "model.layers.1.mlp.down_proj.weight"
    written = load_file(merged.folder / "model.safetensors")
    assert {tensor.dtype for tensor in written.values()} == {wanted}
    assert AutoConfig.from_pretrained(merged.folder).dtype == wanted
    state = load_file(adapter / "adapter_model.safetensors")
    low = [
        state[f"base_model.model.{name.replace('weight', f'lora_{part}.weight')}"] for part in "BA"
    ]
    whole = load_file(base / "model.safetensors")[name].float() + 2.0 * (low[0] @ low[1])
    assert torch.equal(written[name], whole.to(wanted))


def test_a_base_in_two_bytes_a_weight_merges_to_the_same_bits(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_folder(tmp_path / "base", dtype=torch.bfloat16)
    adapter = adapter_folder(tmp_path / "adapter", base, use_dora=True)
    roomy = merge(str(adapter), tmp_path / "roomy")
    count = sum(t.numel() for t in load_file(base / "model.safetensors").values())
    monkeypatch.setattr(merging, "_SPARE_BYTES", 0)
    monkeypatch.setattr(merging, "available_bytes", lambda: 5 * count)
    narrow = merge(str(adapter), tmp_path / "narrow")
    assert any("no memory for float32" in notice for notice in narrow.notices)
    assert not any("no memory" in notice for notice in roomy.notices)
    one, other = (load_file(tmp_path / name / "model.safetensors") for name in ("roomy", "narrow"))
    assert all(torch.equal(one[name], other[name]) for name in one)
    monkeypatch.setattr(merging, "available_bytes", lambda: 3 * count)
    with pytest.raises(OutOfMemory, match="bytes of memory"):
        merge(str(adapter), tmp_path / "none")
    monkeypatch.setattr(merging, "available_bytes", lambda: 5 * count)
    with pytest.raises(OutOfMemory, match="--dtype bf16"):
        merge(str(adapter), tmp_path / "none", dtype="fp16")
    assert not (tmp_path / "none").exists()


def test_a_merge_that_says_something_else_leaves_nothing(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_folder(tmp_path / "base")
    adapter = adapter_folder(tmp_path / "adapter", base)
    before = sorted(adapter.iterdir())
    write = merging.write_artifact

    def wrong(folder: Path, **more: Any) -> list[str]:
        names = write(folder, **more)
        state = load_file(folder / "model.safetensors")
        state["model.layers.0.self_attn.q_proj.weight"] *= 1.5
        save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
        return names

    monkeypatch.setattr(merging, "write_artifact", wrong)
    with pytest.raises(ModelError, match="not the model that was trained"):
        merge(str(adapter))
    assert sorted(adapter.iterdir()) == before


def test_a_wrong_sum_does_not_hide_behind_rounding(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_folder(tmp_path / "base")
    adapter = adapter_folder(tmp_path / "adapter", base, strength=0.003)
    merge_layers = merging.merge_layers

    def wrong(adapted: Any) -> Any:
        model = merge_layers(adapted)
        model.model.layers[0].self_attn.q_proj.weight.data.mul_(1.001)
        return model

    monkeypatch.setattr(merging, "merge_layers", wrong)
    with pytest.raises(ModelError, match="the sum of base and adapter is not the model"):
        merge(str(adapter), dtype="bf16")


def test_numbers_that_are_not_finite_are_refused(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    adapter = adapter_folder(tmp_path / "adapter", base)
    path = adapter / "adapter_model.safetensors"
    state = load_file(path)
    next(iter(state.values()))[0, 0] = float("nan")
    save_file(state, path, metadata={"format": "pt"})
    with pytest.raises(ModelError, match="cannot be merged"):
        merge(str(adapter))
    assert not (adapter / "merged").exists()


def test_nothing_is_overwritten_and_a_full_disk_is_told_first(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    base = base_folder(tmp_path / "base")
    adapter = adapter_folder(tmp_path / "adapter", base)
    (tmp_path / "taken").mkdir()
    (tmp_path / "taken" / "mine.txt").write_text("mine")
    with pytest.raises(ConfigError, match="nothing is overwritten"):
        merge(str(adapter), tmp_path / "taken")
    with pytest.raises(ConfigError, match="no adapter"):
        merge(str(base))
    usage = namedtuple("usage", "total used free")
    monkeypatch.setattr(shutil, "disk_usage", lambda path: usage(10, 9, 1))
    with pytest.raises(DiskError, match="bytes needed, 1 bytes free"):
        merge(str(adapter), tmp_path / "new")
    assert not (tmp_path / "new").exists()


def test_rounding_that_drowns_the_adapter_is_told(tmp_path: Path) -> None:
    base = base_folder(tmp_path / "base")
    adapter = adapter_folder(tmp_path / "adapter", base, strength=0.0003)
    assert any("--dtype fp32" in notice for notice in merge(str(adapter), dtype="bf16").notices)
    assert not merge(str(adapter), dtype="fp32").notices


def test_the_command_tells_the_numbers(tmp_path: Path, capsys: pytest.CaptureFixture[str]) -> None:
    base = base_folder(tmp_path / "base")
    adapter = adapter_folder(tmp_path / "adapter", base)
    assert run(["merge", str(adapter), "--to", str(tmp_path / "out"), "--json"]) == 0
    said = json.loads(capsys.readouterr().out)
    assert said["dtype"] == "fp32"
    assert 0 <= said["difference"] <= said["tolerance"] < said["adapter_effect"]
    card = (tmp_path / "out" / "README.md").read_text()
    assert "logits differ by" in card
    assert str(tmp_path) not in card
    assert run(["merge", str(adapter), "--dtype", "bf61"]) == 2
    assert "bf16" in capsys.readouterr().err


def test_likeness_tells_models_apart() -> None:
    one = torch.randn(64, 50, generator=torch.Generator().manual_seed(0))
    same = likeness.compare(one, one + 1e-7, one * 0.5, within=1e-4)
    assert same.difference < 1e-6
    assert same.same_choice == 1.0
    same.check("it")
    other = likeness.compare(one, one.flip(0), one, within=1e-4)
    assert other.same_choice < 0.5
    assert other.widest_tie > 0
    with pytest.raises(ModelError):
        other.check("it")
    with pytest.raises(ModelError):
        likeness.compare(one, one * float("nan"), one, within=1e-4).check("it")
    narrow, wide = (
        likeness.tolerance(d, torch.float32, 2) for d in (torch.float32, torch.bfloat16)
    )
    assert narrow == 1e-4 < wide < likeness.tolerance(torch.bfloat16, torch.float32, 80) < 0.25
    half = likeness.tolerance(torch.float16, torch.float32, 2)
    assert half < wide < likeness.tolerance(torch.bfloat16, torch.bfloat16, 2)


def test_an_adapter_that_holds_what_rounding_took_is_merged_into_the_rounded_base(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setenv("HONE_CACHE", str(tmp_path / "cache"))
    base = base_folder(tmp_path / "base")
    words = [
        f"model.name={base}", f"data.path={chat_rows(tmp_path / 'rows.jsonl')}", f"output.dir={tmp_path / 'run'}",
        "train.max_steps=2", "compute.micro_batch_tokens=256", "tuning.method=qlora", "tuning.lora.init=loftq",
        "train.precision=fp32",
    ]  # fmt: skip
    resolved = resolve(overrides=words)
    train(resolved)
    merged = merge(str(tmp_path / "run"))
    section = resolved.config.tuning.quantization
    held = load_model(base, dtype=torch.float32, quantization=section).model
    wanted = logits_of(put_adapter(held, tmp_path / "run"))
    plain = logits_of(AutoModelForCausalLM.from_pretrained(merged.folder))
    torch.testing.assert_close(plain, wanted, rtol=1e-3, atol=1e-3)
    twice = logits_of(tuned(base, tmp_path / "run"))
    assert (plain - twice).abs().max() > 1e-2, "what rounding took would count twice"
    assert any("LoftQ" in notice for notice in merged.notices)
    assert merged.probes.startswith("the first 8 rows")
