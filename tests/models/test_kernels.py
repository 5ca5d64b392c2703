"""Where liger's kernels may stand: only in place of what they compute. They run on a GPU (tests/gpu)."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hone.models.fused_norm import fuse_norms
from hone.models.kernels import (
    KernelGate,
    KernelNorm,
    find_activation,
    put_kernels,
    take_back,
    why_not,
)
from tests.engine.test_exactness import lora_model
from tests.tiny import FAMILIES

ACTIVATIONS = {
    "llama": "silu",
    "qwen3": "silu",
    "olmo2": "silu",
    "cohere": "silu",
    "gemma2": "gelu_tanh",
    "gemma3": "gelu_tanh",
}


@pytest.mark.parametrize("name", FAMILIES)
def test_a_gated_block_is_known_by_what_it_computes(name: str) -> None:
    model = FAMILIES[name].make()
    blocks = [m for m in model.modules() if hasattr(m, "gate_proj") and hasattr(m, "down_proj")]
    found = {find_activation(block) for block in blocks if isinstance(block.gate_proj, nn.Linear)}
    assert found <= {ACTIVATIONS.get(name, "silu")}
    if name in ACTIVATIONS:
        assert found == {ACTIVATIONS[name]}


def test_another_formula_is_left_alone() -> None:
    block = FAMILIES["llama"].make().model.layers[0].mlp
    block.act_fn = nn.ReLU()
    assert find_activation(block) is None
    block.act_fn = nn.SiLU()
    assert find_activation(block) == "silu"
    block.extra = nn.Linear(2, 2)
    assert find_activation(block) is None


@pytest.mark.parametrize("name", ["llama", "gemma2", "qwen3"])
def test_weights_keep_their_names_and_everything_goes_back(name: str) -> None:
    model = lora_model(name, 0.0)
    fuse_norms(model)
    before = dict(model.named_parameters())
    kinds = [type(m) for m in model.modules()]
    replaced = put_kernels(model, ("rms_norm", "activation"))
    made = [type(m) for m in model.modules() if isinstance(m, KernelNorm | KernelGate)]
    assert made.count(KernelGate) == 2
    assert made.count(KernelNorm) >= 5
    assert len(replaced) == len(made)
    after = dict(model.named_parameters())
    assert {key: id(p) for key, p in after.items()} == {key: id(p) for key, p in before.items()}
    assert all(module.training for module in model.modules())
    take_back(replaced)
    assert [type(m) for m in model.modules()] == kinds


def test_only_what_is_named() -> None:
    model = FAMILIES["llama"].make()
    fuse_norms(model)
    put_kernels(model, ("activation",))
    assert not any(isinstance(m, KernelNorm) for m in model.modules())
    assert any(isinstance(m, KernelGate) for m in model.modules())


def test_a_cpu_has_no_place_for_them() -> None:
    assert "GPU" in (why_not(torch.device("cpu")) or "")
