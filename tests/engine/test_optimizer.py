"""AdamW: the textbook's update, decay only where it belongs, and moments there from the start."""

from __future__ import annotations

import pytest
import torch
from torch import nn

from hone.engine.optimizer import (
    build_optimizer,
    clip_gradients,
    gradient_norm,
    is_exempt,
    set_learning_rate,
    trained_parameters,
)
from tests.engine.stand_in import TinyLoss


def test_biases_norms_and_single_rows_are_exempt_from_decay() -> None:
    trained = trained_parameters(TinyLoss())
    assert {name for name, p in trained.items() if is_exempt(name, p)} == {
        "mix.bias",
        "norm.weight",
        "norm.bias",
    }
    assert is_exempt("experts.down_proj_bias", torch.zeros(4, 8))
    assert not is_exempt("layers.0.q_proj.lora_A.default.weight", torch.zeros(4, 8))


def test_what_does_not_train_is_left_out() -> None:
    assert "frozen" not in trained_parameters(TinyLoss())
    module = TinyLoss()
    for parameter in module.parameters():
        parameter.requires_grad_(False)
    with pytest.raises(ValueError, match="no parameter"):
        trained_parameters(module)


def test_the_update_is_the_textbook_one() -> None:
    """Loshchilov and Hutter 2019, algorithm 2, in float64."""
    torch.manual_seed(0)
    weight = nn.Parameter(torch.randn(5, 3, dtype=torch.float64))
    bias = nn.Parameter(torch.randn(3, dtype=torch.float64))
    expected = {"w": weight.detach().clone(), "bias": bias.detach().clone()}
    moments = {name: [torch.zeros_like(p), torch.zeros_like(p)] for name, p in expected.items()}
    optimizer = build_optimizer({"w": weight, "bias": bias}, weight_decay=0.1, betas=(0.8, 0.95))
    for step in range(1, 6):
        rate = 0.1 / step
        set_learning_rate(optimizer, rate)
        for name, parameter in (("w", weight), ("bias", bias)):
            parameter.grad = torch.randn_like(parameter)
            first, second = moments[name]
            first.mul_(0.8).add_(0.2 * parameter.grad)
            second.mul_(0.95).add_(0.05 * parameter.grad**2)
            if name == "w":
                expected[name] *= 1 - rate * 0.1
            expected[name] -= (
                rate * (first / (1 - 0.8**step)) / ((second / (1 - 0.95**step)).sqrt() + 1e-8)
            )
        optimizer.step()
    torch.testing.assert_close(weight.detach(), expected["w"], rtol=1e-10, atol=1e-12)
    torch.testing.assert_close(bias.detach(), expected["bias"], rtol=1e-10, atol=1e-12)


def test_moments_are_there_before_the_first_step_and_stay_in_place() -> None:
    trained = trained_parameters(TinyLoss())
    optimizer = build_optimizer(trained, weight_decay=0.0, betas=(0.9, 0.999))
    places = {name: optimizer.state[p]["exp_avg"].data_ptr() for name, p in trained.items()}
    assert len(places) == 6
    for parameter in trained.values():
        parameter.grad = torch.ones_like(parameter)
    set_learning_rate(optimizer, 0.1)
    optimizer.step()
    assert places == {name: optimizer.state[p]["exp_avg"].data_ptr() for name, p in trained.items()}
    assert all(float(optimizer.state[p]["step"]) == 1 for p in trained.values())


def test_the_norm_is_over_all_gradients_and_clipping_brings_it_down() -> None:
    parameters = [nn.Parameter(torch.zeros(3, 4)), nn.Parameter(torch.zeros(7))]
    unused = nn.Parameter(torch.zeros(2))
    for seed, parameter in enumerate(parameters):
        parameter.grad = torch.randn(parameter.shape, generator=torch.Generator().manual_seed(seed))
    together = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    norm = gradient_norm([*parameters, unused])
    torch.testing.assert_close(norm, together.norm())
    clip_gradients([*parameters, unused], norm, 0.5)
    assert float(gradient_norm(parameters)) == pytest.approx(0.5, rel=1e-5)
    clipped = torch.cat([p.grad.flatten() for p in parameters if p.grad is not None])
    torch.testing.assert_close(clipped / clipped.norm(), together / together.norm())
