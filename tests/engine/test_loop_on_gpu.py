"""The loop with what a GPU brings along, run on a CPU: halved masters, compiled layers, and no wait for the device."""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import Any

import pytest
import torch
from torch import Tensor
from torch.overrides import TorchFunctionMode
from torch.utils._python_dispatch import TorchDispatchMode

from hone.engine import loop as loop_module
from hone.engine.loop import train
from hone.engine.loss import PackLoss
from hone.engine.numbers import read_numbers
from hone.engine.plan import Plan
from hone.engine.split_weights import split_weights
from hone.models import gpu_attention
from hone.models.fused_norm import fuse_norms
from hone.models.recompute import recompute
from hone.pack import Pack
from hone.runs.checkpoint import CheckpointStore
from tests.engine.stand_in import Said, TinyLoss
from tests.engine.test_loop import plan, run
from tests.gpu import small

BF16 = torch.bfloat16


def test_what_is_compiled_on_the_way_is_said(tmp_path: Path, monkeypatch) -> None:
    made = iter([5, 7, 7, 8, *[8] * 20])
    monkeypatch.setattr("hone.engine.loop.graphs", lambda: next(made))
    said = Said()
    run(tmp_path, TinyLoss(), said)
    assert said.of("compiled") == [{"step": 1, "graphs": 2}, {"step": 3, "graphs": 1}]


def test_halved_masters_train_and_resume_to_the_bit(tmp_path: Path) -> None:
    """The loop over weights in two halves: saved, read back and moved as others are."""

    class Halved(TinyLoss):
        def __init__(self) -> None:
            super().__init__()
            self.lows = split_weights([self.embed, self.mix.weight])

        def forward(self, pack: Pack, scale: float) -> torch.Tensor:
            with torch.autocast("cpu", torch.bfloat16):
                return super().forward(pack, scale).float()

    def even(steps: int) -> Plan:
        return plan(steps=steps, schedule="constant", warmup_ratio=0.0)

    whole = Halved()
    run(tmp_path / "whole", whole, plan=even(6))
    run(tmp_path / "parts", Halved(), plan=even(3))
    again, said = Halved(), Said()
    run(tmp_path / "parts", again, said, plan=even(6))
    assert said.of("resumed") == [{"step": 3}]
    assert again.embed.dtype == torch.bfloat16
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, dict(whole.named_parameters())[name]), name
    for low, other in zip(again.lows.values(), whole.lows.values(), strict=True):
        assert torch.equal(low, other)
        assert bool(low.any())


class Waits(TorchDispatchMode):
    """Notes each operation by which the host would learn a number from the device, and so wait for it."""

    def __init__(self) -> None:
        super().__init__()
        self.found: list[str] = []
        self.methods = _Methods(self.found)

    def __torch_dispatch__(self, func, types, args=(), kwargs=None):
        name = func.overloadpacket.__name__
        if name in ("_local_scalar_dense", "item", "equal", "is_nonzero", "nonzero") or any(
            part in name for part in ("unique", "masked_select", "bincount")
        ):
            self.found.append(name)
        if name in ("index", "index_put", "index_put_"):
            places = [place for place in args[1] if place is not None]
            self.found += [f"{name} by a mask" for p in places if p.dtype == torch.bool]
        return func(*args, **(kwargs or {}))

    def __enter__(self):
        self.methods.__enter__()
        return super().__enter__()

    def __exit__(self, *error: Any) -> None:
        super().__exit__(*error)
        self.methods.__exit__(*error)


class _Methods(TorchFunctionMode):
    """Notes the methods of a tensor that hand its numbers to Python."""

    names = frozenset({"item", "tolist", "cpu", "numpy", "__bool__", "__int__", "__float__"})

    def __init__(self, found: list[str]) -> None:
        super().__init__()
        self.found = found

    def __torch_function__(self, func, types, args=(), kwargs=None):
        name = getattr(func, "__name__", "")
        if name in self.names:
            self.found.append(name)
        return func(*args, **(kwargs or {}))


@pytest.mark.parametrize(
    ("name", "code"),
    [
        ("item", lambda x: x.sum().item()),
        ("tolist", lambda x: x.tolist()),
        ("__bool__", lambda x: bool(x[0] > 0)),
        ("__float__", lambda x: float(x[0])),
        ("index by a mask", lambda x: x[x > 0]),
        ("nonzero", lambda x: x.nonzero()),
    ],
)
def test_a_wait_is_seen_where_there_is_one(name: str, code: Callable[[Tensor], object]) -> None:
    waits = Waits()
    with waits:
        code(torch.randn(4))
    assert name in waits.found


@pytest.mark.parametrize("family", ["llama", "gemma2"])
@pytest.mark.parametrize("adapted", [True, False])
@pytest.mark.parametrize("share", [True, False])
def test_a_step_reads_the_device_once(
    tmp_path: Path, monkeypatch, family: str, adapted: bool, share: bool
) -> None:
    """Whole steps of a GPU's road, on a CPU: its masks are made, only the kernel that attends is another one."""
    gpu_attention.register()
    torch.manual_seed(3)
    model = small.model_of(family, torch.device("cpu"), dtype=BF16 if adapted else torch.float32)
    if adapted:
        small.adapt(model, dropout=0.1)
    fuse_norms(model)
    recompute(model, 1)
    model.set_attn_implementation(gpu_attention.NAME)
    loss = PackLoss(model, autocast=BF16)
    monkeypatch.setattr(gpu_attention, "_flex", lambda q, k, v, mask, **_: q + (k + v).mean())
    loss.placing.on_gpu = loss.placing.rounds_up = True
    if not adapted:
        loss.lows = split_weights(loss.parameters())
    waits, reads = Waits(), []

    def read(tensors):
        reads.append(len(tensors))
        kept = list(waits.found)
        found = read_numbers(tensors)
        waits.found[:] = kept
        return found

    class Saving(CheckpointStore):
        """Saving, after the last step, may read."""

        def save(self, *args: Any, **named: Any) -> Any:
            waits.__exit__(None, None, None)
            return super().save(*args, **named)

    monkeypatch.setattr(loop_module, "read_numbers", read)
    settings = Plan(steps=3, learning_rate=1e-3, budgets=((1, 500),), save_steps=3)
    store, said = Saving(tmp_path / "checkpoints", keep=1), Said()
    optimizer = loop_module.plan_optimizer

    def built(*args: Any, **named: Any) -> torch.optim.Optimizer:
        made = optimizer(*args, **named)  # made before the first step
        waits.__enter__()
        return made

    monkeypatch.setattr(loop_module, "plan_optimizer", built)
    train(loss, small.Rows(share=share), settings, checkpoints=store, say=said)
    assert waits.found == []
    assert len(reads) == 3
