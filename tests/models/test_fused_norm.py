"""The fused norm is a family's own, forward and backward, or is not put in its place."""

from __future__ import annotations

import pytest
import torch
from torch import nn
from transformers.models.gemma2.modeling_gemma2 import Gemma2RMSNorm
from transformers.models.gemma3.modeling_gemma3 import Gemma3RMSNorm
from transformers.models.llama.modeling_llama import LlamaRMSNorm
from transformers.models.olmo2.modeling_olmo2 import Olmo2RMSNorm
from transformers.models.phi3.modeling_phi3 import Phi3RMSNorm
from transformers.models.qwen3.modeling_qwen3 import Qwen3RMSNorm

from hone.models.fused_norm import FusedRMSNorm, fuse_norms

KINDS = [LlamaRMSNorm, Qwen3RMSNorm, Olmo2RMSNorm, Phi3RMSNorm, Gemma2RMSNorm, Gemma3RMSNorm]


def pair(kind, dtype, size=48):
    torch.manual_seed(0)
    own = kind(size)
    with torch.no_grad():
        own.weight.copy_(torch.randn(size) * 0.3 + (0.0 if "Gemma" in kind.__name__ else 1.0))
    own = own.to(dtype)
    holder = nn.ModuleDict({"norm": kind(size).to(dtype)})
    holder["norm"].load_state_dict(own.state_dict())
    assert fuse_norms(holder) == 1
    assert isinstance(holder["norm"], FusedRMSNorm)
    assert holder.state_dict().keys() == {"norm.weight"}
    return own, holder["norm"]


@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("trains", [True, False])
def test_the_same_numbers_and_gradients(kind, trains):
    own, fused = pair(kind, torch.float32)
    for module in (own, fused):
        module.weight.requires_grad_(trains)
    x = (torch.randn(3, 7, 48) * 2).requires_grad_()
    twin = x.detach().clone().requires_grad_()
    grad = torch.randn(3, 7, 48)
    a, b = own(x), fused(twin)
    torch.testing.assert_close(b, a, rtol=1e-6, atol=1e-6)
    a.backward(grad)
    b.backward(grad)
    torch.testing.assert_close(twin.grad, x.grad, rtol=1e-5, atol=1e-6)
    if trains:
        torch.testing.assert_close(fused.weight.grad, own.weight.grad, rtol=1e-5, atol=1e-5)
    else:
        assert fused.weight.grad is None


@pytest.mark.parametrize("kind", KINDS)
def test_in_bfloat16_it_rounds_where_the_family_does(kind):
    own, fused = pair(kind, torch.bfloat16)
    x = (torch.randn(64, 48) * 2).bfloat16().requires_grad_()
    twin = x.detach().clone().requires_grad_()
    a, b = own(x), fused(twin)
    assert a.dtype == b.dtype
    assert (a == b).float().mean() > 0.98
    grad = torch.randn(64, 48).bfloat16()
    a.backward(grad)
    b.backward(grad)
    error = (twin.grad.float() - x.grad.float()).norm() / x.grad.float().norm()
    assert error < 1e-2


def test_the_gradient_is_that_of_the_formula():
    torch.manual_seed(1)
    weight = nn.Parameter(torch.randn(6))
    fused = FusedRMSNorm(weight, 1e-5, shift=1.0, rounds_first=False)
    x = torch.randn(4, 6, requires_grad=True)
    wide, wide_weight = (
        x.detach().double().requires_grad_(),
        weight.detach().double().requires_grad_(),
    )
    grad = torch.randn(4, 6)
    fused(x).backward(grad)
    y = wide / (wide.pow(2).mean(-1, keepdim=True) + 1e-5).sqrt() * (1 + wide_weight)
    y.backward(grad.double())
    torch.testing.assert_close(x.grad.double(), wide.grad, rtol=1e-5, atol=1e-6)
    torch.testing.assert_close(weight.grad.double(), wide_weight.grad, rtol=1e-5, atol=1e-6)


class OtherRMSNorm(nn.Module):
    """Computes something else under the same name."""

    def __init__(self):
        super().__init__()
        self.weight = nn.Parameter(torch.ones(8))
        self.eps = 1e-6

    def forward(self, x):
        return self.weight * x / (x.abs().mean(-1, keepdim=True) + self.eps)


def test_another_form_is_left_alone():
    holder = nn.ModuleDict({"norm": OtherRMSNorm(), "layer": nn.LayerNorm(8)})
    assert fuse_norms(holder) == 0
    assert isinstance(holder["norm"], OtherRMSNorm)
    assert torch.equal(holder["norm"].weight, torch.ones(8))
