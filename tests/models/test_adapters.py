"""Adapters: which layers get one, how they begin, and that the fused product equals the stock one."""

import pytest
import torch

from hone.config.sections import LoraSection
from hone.errors import ConfigError
from hone.models.adapters import attach_lora
from hone.models.fused_lora import FusedLinear
from tests.tiny import FAMILIES


def _wake(model: torch.nn.Module) -> None:
    """Give B values: at its zero start half of the gradient is zero."""
    torch.manual_seed(3)
    for name, parameter in model.named_parameters():
        if "lora_B" in name:
            torch.nn.init.normal_(parameter, std=0.2)


@pytest.mark.parametrize("name", ["qwen2", "qwen3", "phi3", "gpt-neox"])
@pytest.mark.parametrize("dtype", [torch.float32, torch.float64])
def test_fused_layers_equal_the_stock_ones(name: str, dtype: torch.dtype, monkeypatch) -> None:
    ids = torch.arange(1, 20).unsqueeze(0)
    outputs = []
    for fused in (True, False):
        if not fused:
            monkeypatch.setattr(FusedLinear, "_plain_adapter", lambda self: None)
        model = FAMILIES[name].make(dtype=dtype)
        adapted = attach_lora(model, LoraSection(r=4, alpha=8), seed=1)
        _wake(adapted)
        adapted.to(dtype)
        count = sum(isinstance(m, FusedLinear) for m in adapted.modules())
        assert count > 0
        logits = model(input_ids=ids, use_cache=False).logits
        logits.square().sum().backward()
        grads = {n: p.grad for n, p in adapted.named_parameters() if p.requires_grad}
        outputs.append((logits.detach(), grads))
    (got, got_grads), (want, want_grads) = outputs
    tolerance = {"rtol": 1e-4, "atol": 1e-4} if dtype == torch.float32 else {}
    torch.testing.assert_close(got, want, **tolerance)
    for key, grad in want_grads.items():
        scale = float(grad.abs().max())
        torch.testing.assert_close(got_grads[key] / scale, grad / scale, **tolerance)


def test_the_seed_names_the_weights() -> None:
    def weights(seed: int) -> list[torch.Tensor]:
        adapted = attach_lora(FAMILIES["llama"].make(), LoraSection(), seed=seed)
        return [p.detach() for n, p in adapted.named_parameters() if "lora_A" in n]

    first, again, other = weights(1), weights(1), weights(2)
    assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
    assert not all(torch.equal(a, b) for a, b in zip(first, other, strict=True))


def test_gpt2_needs_no_setting() -> None:
    adapted = attach_lora(FAMILIES["gpt2"].make(), LoraSection(), seed=0)
    names = {
        n.split(".lora_A")[0].rsplit(".", 1)[-1]
        for n, _ in adapted.named_parameters()
        if "lora_A" in n
    }
    assert {"c_attn", "c_proj", "c_fc"} <= names


def test_a_pattern_that_matches_nothing_names_the_nearest() -> None:
    with pytest.raises(ConfigError, match="q_proj"):
        attach_lora(FAMILIES["llama"].make(), LoraSection(target_modules=["q_projj"]), seed=0)
