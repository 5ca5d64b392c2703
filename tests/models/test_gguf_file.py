"""GGUF files: every family's weights under the right names, read back, and refused where llama.cpp computes otherwise."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import gguf
import numpy as np
import pytest
import torch
from safetensors.torch import load_file, save_file

from hone.errors import ModelError
from hone.models.gguf_file import FORMS, Form, check_gguf, gguf_bytes, write_gguf
from hone.models.gguf_layout import read_layout
from tests.adapted import base_folder

WIDE: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 96}
FAMILIES: dict[str, tuple[str, dict[str, Any]]] = {
    "llama": ("LlamaConfig", {}),
    "llama-tied": ("LlamaConfig", {"tie_word_embeddings": True}),
    "llama-biased": ("LlamaConfig", {"attention_bias": True}),
    "llama-3-scaled": (
        "LlamaConfig",
        {
            "rope_parameters": {
                "rope_type": "llama3", "rope_theta": 500000.0, "factor": 8.0, "low_freq_factor": 1.0,
                "high_freq_factor": 4.0, "original_max_position_embeddings": 32,
            }
        },
    ),
    "mistral": ("MistralConfig", {"sliding_window": None}),
    "qwen2": ("Qwen2Config", {}),
    "qwen2-linear": ("Qwen2Config", {"rope_parameters": {"rope_type": "linear", "rope_theta": 10000.0, "factor": 4.0}}),
    "qwen2-yarn": (
        "Qwen2Config",
        {
            "rope_parameters": {
                "rope_type": "yarn", "rope_theta": 10000.0, "factor": 4.0, "original_max_position_embeddings": 64,
            }
        },
    ),
    "qwen3": ("Qwen3Config", {"head_dim": 32}),
    "gemma": ("GemmaConfig", {"head_dim": 16, "tie_word_embeddings": True}),
    "gemma2": (
        "Gemma2Config",
        {
            "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 6, "attn_logit_softcapping": 2.0,
            "final_logit_softcapping": 3.0, "tie_word_embeddings": True,
        },
    ),
    "gemma3": (
        "Gemma3TextConfig",
        {
            "head_dim": 16, "query_pre_attn_scalar": 16, "sliding_window": 6, "num_hidden_layers": 3,
            "layer_types": ["sliding_attention", "full_attention", "sliding_attention"], "tie_word_embeddings": True,
        },
    ),
}  # fmt: skip


def made(folder: Path, family: str, **more: Any) -> Path:
    config, numbers = FAMILIES[family]
    base_folder(folder, config=config, **{**WIDE, **numbers, **more})
    path = folder / "model.safetensors"
    state = load_file(path)
    for (
        name,
        tensor,
    ) in state.items():  # norms and biases begin as ones and zeros, which tell nothing
        if tensor.ndim == 1:
            torch.manual_seed(len(name))
            tensor.add_(torch.randn_like(tensor) * 0.1)
    save_file(state, path, metadata={"format": "pt"})
    return folder


@pytest.mark.parametrize("family", FAMILIES)
def test_every_weight_of_a_family_is_written_and_read_back(tmp_path: Path, family: str) -> None:
    folder = made(tmp_path / "model", family)
    layout = read_layout(folder)
    written = write_gguf(tmp_path / "model.gguf", folder, layout, {"general.name": "tiny"}, "f32")
    assert written.largest_error < 1e-6
    read = gguf.GGUFReader(tmp_path / "model.gguf")
    stored = {one.name: one for one in read.tensors}
    assert ("output.weight" in stored) == (
        family not in ("llama-tied", "gemma", "gemma2", "gemma3")
    )
    assert ("rope_freqs.weight" in stored) == (family == "llama-3-scaled")
    assert tuple(stored["token_embd.weight"].data.shape) == (320, 64)
    name = layout.architecture
    assert read.fields[f"{name}.attention.head_count_kv"].contents() == 2
    assert read.fields[f"{name}.rope.freq_base"].contents() == (500000.0 if "llama-3" in family else 10000.0 if family != "gemma3" else 1000000.0)  # fmt: skip
    expected = 2 * (9 if "biased" not in family else 13) + 2
    if family in ("llama", "llama-biased", "mistral"):
        assert written.tensors == expected + 1


def test_rotary_pairs_stand_beside_each_other(tmp_path: Path) -> None:
    folder = made(tmp_path / "model", "llama")
    write_gguf(tmp_path / "model.gguf", folder, read_layout(folder), {}, "f32")
    stored = {one.name: one.data for one in gguf.GGUFReader(tmp_path / "model.gguf").tensors}
    weight = load_file(folder / "model.safetensors")[
        "model.layers.0.self_attn.q_proj.weight"
    ].numpy()
    size = 16  # four heads of 64 features
    for head in range(4):
        for j in range(size // 2):
            row = head * size + j
            assert np.array_equal(stored["blk.0.attn_q.weight"][head * size + 2 * j], weight[row])
            second = stored["blk.0.attn_q.weight"][head * size + 2 * j + 1]
            assert np.array_equal(second, weight[row + size // 2])


@pytest.mark.parametrize("form", FORMS)
@pytest.mark.parametrize("family", ["llama", "gemma2"])
def test_each_form_holds_what_it_can(tmp_path: Path, family: str, form: Form) -> None:
    folder = made(tmp_path / "model", family)
    layout = read_layout(folder)
    path = tmp_path / "model.gguf"
    written = write_gguf(path, folder, layout, {}, form)
    bounds = {"f32": 1e-6, "f16": 2.0**-10, "bf16": 2.0**-7, "q8_0": 1 / 127}
    assert 0 <= written.largest_error < bounds[form]
    assert (written.largest_error > 1e-4) == (form != "f32")
    assert abs(path.stat().st_size - gguf_bytes(layout, form)) < 12_000
    kinds = {one.name: one.tensor_type.name for one in gguf.GGUFReader(path).tensors}
    assert kinds["blk.0.attn_norm.weight"] == "F32"
    assert kinds["blk.1.ffn_up.weight"] == form.upper()


def test_rows_that_have_no_blocks_stay_in_half_precision(tmp_path: Path) -> None:
    folder = made(tmp_path / "model", "qwen2", intermediate_size=48)
    written = write_gguf(tmp_path / "m.gguf", folder, read_layout(folder), {}, "q8_0")
    assert written.wider == ("blk.0.ffn_down.weight", "blk.1.ffn_down.weight")


def test_numbers_beyond_half_precision_are_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "model", "qwen2")
    state = load_file(folder / "model.safetensors")
    state["model.layers.0.mlp.up_proj.weight"][0, 0] = 1e6
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="beyond the range of half precision"):
        write_gguf(tmp_path / "m.gguf", folder, read_layout(folder), {}, "f16")
    write_gguf(tmp_path / "n.gguf", folder, read_layout(folder), {}, "bf16")


@pytest.mark.parametrize("form", FORMS)
def test_a_file_that_was_changed_is_found(tmp_path: Path, form: Form) -> None:
    folder = made(tmp_path / "model", "llama")
    layout = read_layout(folder)
    path = tmp_path / "m.gguf"
    write_gguf(path, folder, layout, {"general.name": "tiny"}, form)
    assert check_gguf(path, folder, layout, {"general.name": "tiny"}, form) >= 0
    with pytest.raises(ModelError, match=r"general\.name does not say"):
        check_gguf(path, folder, layout, {"general.name": "other"}, form)
    (tensor,) = (one for one in gguf.GGUFReader(path).tensors if one.name == "blk.1.ffn_up.weight")
    data = bytearray(path.read_bytes())
    data[tensor.data_offset + tensor.n_bytes // 2 + 1] ^= 0x40
    path.write_bytes(data)
    with pytest.raises(ModelError, match=r"blk\.1\.ffn_up\.weight is not what it was made from"):
        check_gguf(path, folder, layout, {}, form)


def test_a_window_becomes_the_longest_text(tmp_path: Path) -> None:
    layout = read_layout(made(tmp_path / "model", "mistral", sliding_window=32))
    assert layout.fields["llama.context_length"] == 32
    assert "no attention window" in layout.notices[0]
    assert not read_layout(made(tmp_path / "other", "mistral", sliding_window=4096)).notices


def test_windows_by_layer_are_named_where_they_are_unusual(tmp_path: Path) -> None:
    layout = read_layout(made(tmp_path / "model", "gemma3"))
    assert layout.fields["gemma3.attention.sliding_window_pattern"] == [True, False, True]
    usual = read_layout(made(tmp_path / "usual", "gemma2")).fields
    assert "gemma2.attention.sliding_window_pattern" not in usual


@pytest.mark.parametrize(
    ("family", "changes", "why"),
    [
        ("llama", {"hidden_act": "relu"}, "activation relu"),
        ("llama", {"rope_parameters": {"rope_type": "dynamic", "rope_theta": 1e4, "factor": 2.0}}, "scaling dynamic"),
        ("qwen2", {"rope_parameters": {"rope_type": "yarn", "rope_theta": 1e4, "factor": 2.0, "beta_fast": 9.0, "original_max_position_embeddings": 64}}, "scaling yarn"),
        ("gemma2", {"query_pre_attn_scalar": 99}, "query_pre_attn_scalar 99"),
        ("gemma2", {"attn_logit_softcapping": None}, "no soft caps"),
        ("gemma3", {"attn_logit_softcapping": 5.0}, "attn_logit_softcapping"),
        ("gemma", {"tie_word_embeddings": False}, "its head is not its embeddings"),
        ("llama", {"model_type": "gpt_neox"}, "'gpt_neox' are not written as GGUF"),
    ],
)  # fmt: skip
def test_what_llama_cpp_computes_otherwise_is_refused(
    tmp_path: Path, family: str, changes: dict[str, Any], why: str
) -> None:
    folder = made(tmp_path / "model", family)
    path = folder / "config.json"
    path.write_text(json.dumps(json.loads(path.read_bytes()) | changes))
    with pytest.raises(ModelError, match=why) as caught:
        read_layout(folder)
    assert "safetensors" in str(caught.value)


def test_a_weight_without_a_place_is_refused(tmp_path: Path) -> None:
    folder = made(tmp_path / "model", "llama")
    state = load_file(folder / "model.safetensors")
    state["model.layers.0.self_attn.sinks"] = torch.zeros(4)
    save_file(state, folder / "model.safetensors", metadata={"format": "pt"})
    with pytest.raises(ModelError, match="sinks"):
        read_layout(folder)
