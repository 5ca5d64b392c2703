"""What a pass keeps, by arithmetic, against what autograd is seen to save, family by family."""

from __future__ import annotations

from pathlib import Path
from typing import Any, cast

import pytest
import torch

from hone.config.layers import resolve
from hone.engine.demand import one_pass
from hone.engine.rehearsal import made_up_pack
from hone.engine.room import activation_bytes_per_token
from hone.models import attention
from hone.models.recompute import recompute
from hone.models.shape import read_shape
from hone.models.source import read_config
from hone.models.tuning import Start
from hone.recipes.build import _wrap  # pyright: ignore[reportPrivateUsage]
from hone.recipes.subject import Precision, recomputed_layers, subject
from tests.tiny import FAMILIES

ROWS = [40, 24]
TOKENS = sum(ROWS)
PREDICTIONS = 16
ALL = ["llama", "mistral", "qwen2", "qwen3", "gemma2", "gemma3", "phi3", "gpt2", "olmo2", "gpt-neox",
       "granite", "cohere"]  # fmt: skip
ROUGHLY = ["qwen3-moe", "mixtral", "gpt-oss"]


def seen_and_counted(tmp_path: Path, family: str, *words: str) -> tuple[float, float]:
    """Bytes that a pass of a family's tiny model keeps: seen by autograd's hooks, and counted."""
    config = resolve(overrides=list(words)).config
    precision = cast(Precision, config.train.precision)
    full = config.tuning.method == "full"
    dtype = torch.bfloat16 if precision == "bf16" and not full else torch.float32
    wide: dict[str, Any] = {"hidden_size": 64, "intermediate_size": 192}
    if family == "gpt2":
        wide = {"n_embd": 64}
    if family == "gpt-neox":
        wide = {"hidden_size": 64, "intermediate_size": 256}
    if family in ("qwen3-moe",):
        wide = {"hidden_size": 64, "moe_intermediate_size": 96}
    model = FAMILIES[family].make(dtype=dtype, **wide)
    model.save_pretrained(tmp_path)
    shape = read_shape(tmp_path, read_config(tmp_path))
    attention.register()
    loss = _wrap(model, config, precision, Start(), held=dtype, shared=True).loss
    layers = recomputed_layers(config, shape) or 0
    recompute(loss.model, layers)
    pack = made_up_pack(ROWS, vocab_size=loss.head.vocab_size, predictions=PREDICTIONS)
    seen = activation_bytes_per_token(loss, pack) * TOKENS
    who = subject(config, shape, precision)
    assert who.trained_numbers == sum(p.numel() for p in loss.parameters() if p.requires_grad)
    each = one_pass(who, tokens=TOKENS, predictions=PREDICTIONS, recomputed=layers)
    head = PREDICTIONS * shape.hidden * who.how.held
    head += 4 * shape.vocabulary * shape.hidden if who.trains_head else 0
    return seen, each.kept + head


@pytest.mark.parametrize("family", ALL)
def test_adapters_beside_frozen_weights(tmp_path: Path, family: str) -> None:
    words = ("train.precision=fp32", "tuning.lora.r=4")
    seen, counted = seen_and_counted(tmp_path, family, *words)
    assert counted == pytest.approx(seen, rel=0.02)


@pytest.mark.parametrize("family", ALL)
def test_all_weights(tmp_path: Path, family: str) -> None:
    seen, counted = seen_and_counted(tmp_path, family, "train.precision=fp32", "tuning.method=full")
    assert counted == pytest.approx(seen, rel=0.02)


@pytest.mark.parametrize("family", ALL)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_in_bf16(tmp_path: Path, family: str, method: str) -> None:
    words = (
        ("train.precision=bf16", "tuning.lora.r=4")
        if method == "lora"
        else ("train.precision=bf16",)
    )
    seen, counted = seen_and_counted(tmp_path, family, *words, f"tuning.method={method}")
    assert counted == pytest.approx(seen, rel=0.05)


@pytest.mark.parametrize("family", ["llama", "gemma2", "gpt2"])
@pytest.mark.parametrize("precision", ["fp32", "bf16"])
def test_adapters_with_dropout(tmp_path: Path, family: str, precision: str) -> None:
    words = (f"train.precision={precision}", "tuning.lora.r=4", "tuning.lora.dropout=0.1")
    seen, counted = seen_and_counted(tmp_path, family, *words)
    assert counted == pytest.approx(seen, rel=0.02)


@pytest.mark.parametrize("family", ["llama", "gemma3", "gpt2"])
def test_layers_computed_again(tmp_path: Path, family: str) -> None:
    words = ("train.precision=fp32", "tuning.lora.r=4", "compute.gradient_checkpointing=true")
    seen, counted = seen_and_counted(tmp_path, family, *words)
    assert counted == pytest.approx(seen, rel=0.2)  # rotary tables reach the layers past the hooks


@pytest.mark.parametrize("family", ROUGHLY)
@pytest.mark.parametrize("method", ["lora", "full"])
def test_experts_roughly(tmp_path: Path, family: str, method: str) -> None:
    words = ("train.precision=fp32", f"tuning.method={method}")
    seen, counted = seen_and_counted(tmp_path, family, *words)
    assert counted == pytest.approx(seen, rel=0.3)
