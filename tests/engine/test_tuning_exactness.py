"""For every tuning method: a step's loss and gradients equal those of the same rows run one at a time."""

from __future__ import annotations

from dataclasses import dataclass

import numpy as np
import pytest
import torch
from hypothesis import assume, given, settings
from hypothesis import strategies as st

from hone.config.layers import resolve
from hone.data.layout import branch, write_pack
from hone.engine.loss import PackLoss
from hone.engine.noise import PrefixDropout
from hone.models import attention
from hone.models.adapters import set_dropout
from hone.models.fused_norm import fuse_norms
from hone.models.new_tokens import NewRow
from hone.models.quantization import quantize_linears
from hone.models.tuning import Start, tune
from tests.engine.test_exactness import step_gradients
from tests.tiny import (
    FAMILIES,
    VOCAB,
    Row,
    gradients,
    loss_row_by_row,
    rows_with_shared_beginnings,
    worst_gradient_error,
)

attention.register()
torch.set_num_threads(1)

LORA = ["tuning.lora.r=4", "tuning.lora.alpha=8"]
QLORA = ["tuning.method=qlora", *LORA]


@dataclass(frozen=True)
class Method:
    """Settings of a method, and how many tokens are new."""

    settings: list[str]
    new_tokens: int = 0


METHODS = {
    "rslora-layers": Method([*LORA, "tuning.lora.rslora=true", "tuning.lora.layers=[-1]"]),
    "dora": Method([*LORA, "tuning.lora.dora=true"]),
    "dora-dropout": Method([*LORA, "tuning.lora.dora=true", "tuning.lora.dropout=0.3"]),
    "pissa": Method([*LORA, "tuning.lora.init=pissa"]),
    "whole-modules": Method([*LORA, "tuning.lora.modules_to_save=[embeddings, head]"]),
    "qlora-4": Method(QLORA),
    "qlora-4-dropout": Method([*QLORA, "tuning.lora.dropout=0.3"]),
    "qlora-fp4-dora": Method(
        [*QLORA, "tuning.quantization.quant_type=fp4", "tuning.quantization.double_quant=false",
         "tuning.lora.dora=true"]
    ),
    "qlora-8": Method([*QLORA, "tuning.quantization.bits=8"]),
    "qlora-8-dora-dropout": Method(
        [*QLORA, "tuning.quantization.bits=8", "tuning.lora.dora=true", "tuning.lora.dropout=0.2"]
    ),
    "freeze": Method(["tuning.method=freeze", "tuning.freeze.trainable_layers=1",
                      "tuning.freeze.extra_modules=[head]"]),
    "freeze-first": Method(["tuning.method=freeze", "tuning.freeze.trainable_layers=-1"]),
    "full": Method(["tuning.method=full"], new_tokens=3),
    "new-tokens": Method(LORA, new_tokens=3),
    "qlora-new-tokens": Method(QLORA, new_tokens=3),
}  # fmt: skip
FAMILY_NAMES = ["llama", "gemma2", "gpt2"]


def check(method: Method, family: str, seed: int, budget: int, *, checkpointing: bool) -> None:
    model = FAMILIES[family].make(seed=seed % 7)
    config = resolve(overrides=method.settings).config
    if config.tuning.method == "qlora":
        quantize_linears(model, config.tuning.quantization)
    new = [NewRow(VOCAB + i, (3 + i, 7)) for i in range(method.new_tokens)]
    tune(model, config, start=Start(new=new, tokens=VOCAB + len(new)))
    set_dropout(model, PrefixDropout)
    torch.manual_seed(seed)
    with torch.no_grad():  # at its zero start half of an adapter's gradient is zero
        for name, parameter in model.named_parameters():
            if parameter.requires_grad and ("lora_" in name or "trainable_tokens" in name):
                parameter.add_(torch.randn_like(parameter) * 0.1)
    rows = rows_with_shared_beginnings(seed, vocab=VOCAB + len(new))
    loss = PackLoss(model)
    loss.begin_step(3, 11)

    def alone(row: Row) -> None:
        whole = branch(0, np.append(row.input_ids, 3), np.ones(row.input_ids.shape[0] + 1))
        pack = write_pack([whole], share_prefixes=False)
        for module in model.modules():
            if isinstance(module, PrefixDropout):
                module.begin_pack(pack)

    reference = loss_row_by_row(model, rows, before=alone)
    reference.backward()
    want = gradients(model)
    assert any(grad.any() for grad in want.values())
    model.set_attn_implementation(attention.NAME)
    fuse_norms(model)
    if checkpointing:
        model.activation_checkpointing_enable()
    total, got = step_gradients(loss, rows, budget=budget)
    assert abs(total - reference.item()) <= 1e-6 * max(1.0, reference.item())
    assert worst_gradient_error(got, want) <= 1e-5


@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=3)
@given(
    seed=st.integers(0, 10_000),
    budget=st.integers(8, 300),
    family=st.sampled_from(FAMILY_NAMES),
    checkpointing=st.booleans(),
)
def test_every_method_equals_row_by_row(
    method: str, seed: int, budget: int, family: str, checkpointing: bool
) -> None:
    check(METHODS[method], family, seed, budget, checkpointing=checkpointing)


@pytest.mark.slow
@pytest.mark.parametrize("method", METHODS)
@settings(deadline=None, max_examples=30)
@given(
    seed=st.integers(0, 10**6),
    budget=st.integers(8, 300),
    family=st.sampled_from([*FAMILY_NAMES, "llama-tied", "qwen3", "phi3", "qwen3-moe"]),
    checkpointing=st.booleans(),
)
def test_every_method_equals_row_by_row_at_length(
    method: str, seed: int, budget: int, family: str, checkpointing: bool
) -> None:
    takes_experts = not any(word in method for word in ("dora", "dropout", "pissa"))
    assume(family != "qwen3-moe" or takes_experts)
    check(METHODS[method], family, seed, budget, checkpointing=checkpointing)
