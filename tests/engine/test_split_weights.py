"""Halved master weights are float32 masters, bit for bit, and their update is AdamW's."""

from __future__ import annotations

import numpy as np
import torch
from hypothesis import given
from hypothesis import strategies as st
from torch import nn

from hone.engine.optimizer import update_bytes
from hone.engine.split_weights import LOW, SplitAdamW, halves, joined, split_weights

FLOATS = st.floats(width=32, min_value=-(2.0**127), max_value=2.0**127)


@given(st.lists(FLOATS, min_size=1, max_size=40), st.integers(0, 2**32 - 1))
def test_halves_give_the_number_back(numbers: list[float], seed: int) -> None:
    bits = np.random.default_rng(seed).integers(0, 2**31, 500).astype(np.int32)
    drawn = bits.view(np.float32)
    some = drawn[np.isfinite(drawn) & (np.abs(drawn) < 3e38)]
    wide = torch.from_numpy(np.concatenate([np.asarray(numbers, dtype=np.float32), some, -some]))
    high, low = halves(wide)
    assert high.dtype == torch.bfloat16
    assert low.dtype == torch.int16
    assert torch.equal(joined(high, low).view(torch.int32), wide.view(torch.int32))
    nearest = wide.to(torch.bfloat16)
    apart = (high.view(torch.int16).int() - nearest.view(torch.int16).int()).abs()
    assert int(apart.max()) <= 1  # a tie may go the other way
    assert float((high == nearest).float().mean()) > 0.97


def test_ties_go_away_from_zero_and_come_back() -> None:
    bits = torch.tensor([0x3F808000, 0x3F818000, 0x3F807FFF, 0x3F808001], dtype=torch.int32)
    wide = torch.cat([bits.view(torch.float32), -bits.view(torch.float32)])
    assert torch.equal(joined(*halves(wide)), wide)


def test_the_update_is_adamw_on_the_float32_masters(monkeypatch) -> None:
    monkeypatch.setattr(
        "hone.engine.split_weights._AT_A_TIME", 48
    )  # several pieces, each of whole vectors
    torch.manual_seed(0)
    shapes = [(9, 13), (40, 3), (11,)]
    masters = [nn.Parameter(torch.randn(shape)) for shape in shapes]
    ours = [nn.Parameter(p.detach().clone()) for p in masters]
    lows = split_weights(ours)
    assert [p in lows for p in ours] == [True, True, False]
    assert [p.dtype for p in ours] == [torch.bfloat16, torch.bfloat16, torch.float32]
    named = {"lr": 1e-2, "betas": (0.9, 0.95)}
    plain = torch.optim.AdamW(
        [
            {"params": masters[:2], "weight_decay": 0.1},
            {"params": masters[2:], "weight_decay": 0.0},
        ],
        fused=True,
        **named,
    )
    split = SplitAdamW(
        [{"params": ours[:2], "weight_decay": 0.1}, {"params": ours[2:], "weight_decay": 0.0}],
        lows,
        betas=(0.9, 0.95),
    )
    for turn in range(5):
        for group in split.param_groups:
            group["lr"] = 1e-2
        for master, own in zip(masters, ours, strict=True):
            master.grad = torch.randn(master.shape) * 10.0 ** (turn - 3)
            own.grad = master.grad.clone()
        plain.step()
        split.step()
        for master, own in zip(masters, ours, strict=True):
            whole = joined(own.data, split.state[own][LOW]) if own in lows else own.data
            assert torch.equal(whole, master.data)
            for key in ("exp_avg", "exp_avg_sq", "step"):
                assert torch.equal(split.state[own][key], plain.state[master][key])


def test_a_halved_master_asks_for_the_memory_of_a_whole_gradient() -> None:
    weight = nn.Parameter(torch.zeros(3, 4))
    before = update_bytes("adamw", {"weight": weight}, {"weight": "inside"})
    split_weights([weight])
    assert weight.element_size() == 2
    assert update_bytes("adamw", {"weight": weight}, {"weight": "inside"}) == before


def test_gradients_are_summed_in_float32() -> None:
    weight = nn.Parameter(torch.ones(4, 4))
    split_weights([weight])
    for _ in range(300):
        (weight * torch.full((4, 4), 1.0 / 256, dtype=torch.bfloat16)).sum().backward()
    assert weight.grad is not None
    assert weight.grad.dtype == torch.float32
    assert torch.equal(weight.grad, torch.full((4, 4), 300 / 256))


def test_small_steps_are_not_lost() -> None:
    weight = nn.Parameter(torch.full((2, 2), 100.0))
    lows = split_weights([weight])
    optimizer = SplitAdamW([{"params": [weight], "weight_decay": 0.0}], lows, betas=(0.9, 0.999))
    optimizer.param_groups[0]["lr"] = 1e-3
    for _ in range(400):
        weight.grad = torch.ones(2, 2)
        optimizer.step()
    assert torch.allclose(joined(weight.data, lows[weight]), torch.full((2, 2), 99.6), atol=1e-2)
