"""Steps on a GPU: no waiting, nothing compiled on the way, resumed to the bit, and memory as it is asked for."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import numpy as np
import pytest
import torch

from hone.engine import loop as loop_module
from hone.engine.loop import Outcome, train
from hone.engine.loss import PackLoss
from hone.engine.plan import Plan
from hone.engine.rehearsal import made_up_pack, rehearse
from hone.engine.room import peak_bytes_of
from hone.models import compiled
from hone.models.layers import decoder_layers
from hone.models.offload import Offload
from hone.models.recompute import recompute, recomputed
from hone.models.sending import send
from hone.runs.checkpoint import CheckpointStore
from tests.engine.stand_in import Said
from tests.gpu.small import (
    VOCAB,
    Rows,
    adapt,
    apart,
    gradient_of,
    loss_of,
    model_of,
    packs_of,
    rows_of,
)

BF16 = torch.bfloat16


def module(
    gpu: torch.device, *, adapted: bool = True, compile_: bool = False, **more: Any
) -> PackLoss:
    torch.manual_seed(7)
    model = model_of("llama", gpu, dtype=BF16 if adapted else torch.float32, **more)
    if adapted:
        adapt(model, dropout=0.1)
    loss = loss_of(model, autocast=BF16)
    if compile_:
        torch._dynamo.reset()
        compiled.compile_layers(model, deterministic=True)
    return loss


def plan(steps: int, **changes: Any) -> Plan:
    """The same rates however many steps there are."""
    named = {"learning_rate": 1e-3, "schedule": "constant", "budgets": ((1, 700),)}
    return Plan(steps=steps, save_steps=3, **{**named, **changes})


def run(folder: Path, loss: PackLoss, steps: int, said: Said | None = None, **rows: Any) -> Outcome:
    said = said or Said()
    store = CheckpointStore(folder / "checkpoints", keep=3)
    resume = store.latest(said)
    return train(loss, Rows(**rows), plan(steps), checkpoints=store, say=said, resume=resume)


def test_arrays_arrive_as_they_were(gpu) -> None:
    arrays = {
        "a": np.arange(7),
        "b": np.zeros((0,), dtype=np.int64),
        "c": np.random.default_rng(0).random((3, 5)).astype(np.float32),
        "d": np.array([True, False]),
        "e": np.arange(4, dtype=np.int32)[None],
    }
    for name, tensor in send(arrays, gpu).items():
        assert tensor.device == gpu
        assert np.array_equal(tensor.cpu().numpy(), arrays[name])


@pytest.mark.parametrize("adapted", [True, False])
@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("compile_", [False, True])
def test_the_host_waits_once_a_step(
    gpu, tmp_path: Path, monkeypatch, adapted: bool, share: bool, compile_: bool
) -> None:
    loss = module(gpu, adapted=adapted, compile_=compile_)
    run(tmp_path / "warm", loss, 4, share=share)  # kernels are compiled, memory is taken
    read, waits = loop_module.read_numbers, []

    def counted(scalars):
        waits.append(len(scalars))
        torch.cuda.set_sync_debug_mode("default")
        try:
            return read(scalars)
        finally:
            torch.cuda.set_sync_debug_mode("error")

    monkeypatch.setattr(loop_module, "read_numbers", counted)
    source, said = Rows(share=share), Said()

    class Waiting(CheckpointStore):
        """Saving, after the last step, may wait."""

        def save(self, *args: Any, **named: Any) -> Any:
            torch.cuda.set_sync_debug_mode("default")
            return super().save(*args, **named)

    store = Waiting(tmp_path / "checkpoints", keep=1)
    settings = Plan(steps=5, learning_rate=1e-3, budgets=((1, 700),), save_steps=5)
    torch.cuda.set_sync_debug_mode("error")
    try:
        train(loss, source, settings, checkpoints=store, say=said)
    finally:
        torch.cuda.set_sync_debug_mode("default")
    assert len(waits) == 5
    assert len(said.of("step")) == 5


@pytest.mark.parametrize("share", [True, False])
def test_nothing_is_compiled_after_the_first_round(gpu, tmp_path: Path, share: bool) -> None:
    loss, said = module(gpu, compile_=True), Said()
    run(tmp_path, loss, 12, said, share=share)
    late = [event["step"] for event in said.of("compiled") if int(str(event["step"])) > 4]
    assert not late, said.of("compiled")


@pytest.mark.parametrize("family", ["llama", "qwen3", "gemma2", "phi3"])
def test_compiled_layers_give_the_same(gpu, family: str) -> None:
    torch._dynamo.reset()
    model = model_of(family, gpu)
    loss, packs = loss_of(model), packs_of(rows_of(2), budget=700)
    want = gradient_of(loss, packs)
    compiled.compile_layers(model)
    got = gradient_of(loss, packs)
    assert abs(got[0] - want[0]) <= 1e-5 * max(1.0, want[0])
    assert apart(got[1], want[1]) <= 1e-4


@pytest.mark.parametrize("share", [True, False])
@pytest.mark.parametrize("compile_", [False, True])
def test_resumed_to_the_bit(gpu, tmp_path: Path, share: bool, compile_: bool) -> None:
    def made() -> PackLoss:
        return module(gpu, compile_=compile_)

    whole = made()
    run(tmp_path / "whole", whole, 6, share=share)
    run(tmp_path / "parts", made(), 3, share=share)
    again = made()
    said = Said()
    run(tmp_path / "parts", again, 6, said, share=share)
    assert said.of("resumed") == [{"step": 3}]
    kept = dict(whole.named_parameters())
    for name, parameter in again.named_parameters():
        assert torch.equal(parameter, kept[name]), name


def big(gpu: torch.device) -> PackLoss:
    """Large enough that activations outweigh everything else."""
    sizes = {"hidden_size": 512, "intermediate_size": 1536, "num_hidden_layers": 8}
    return module(gpu, max_position_embeddings=8192, **sizes)


def test_recomputing_and_offloading_take_less_and_change_nothing(gpu) -> None:
    loss = big(gpu)
    layers = len(decoder_layers(loss.model))
    pack = made_up_pack([2048, 2048], vocab_size=VOCAB)
    want = gradient_of(loss, (pack,))
    peaks = []
    for count in (0, layers // 2, layers):
        recompute(loss.model, count)
        peaks.append(
            peak_bytes_of(
                gpu,
                lambda: loss(pack, 1.0).backward(),
                lambda: loss.zero_grad(set_to_none=True),
            )
        )
        got = gradient_of(loss, (pack,))
        assert apart(got[1], want[1]) <= 1e-3
    assert peaks[0] > 1.3 * peaks[1] > 1.3 * peaks[2], peaks
    for count in (0, layers):
        recompute(loss.model, count)
        before = peak_bytes_of(loss, pack)
        loss.offload = Offload(gpu)
        assert peak_bytes_of(loss, pack) < before
        assert loss.offload.moved_bytes > 0
        for _ in range(3):
            assert apart(gradient_of(loss, (pack,))[1], want[1]) <= 1e-3
        loss.offload = None


def test_the_rehearsal_takes_as_few_layers_as_memory_asks(gpu, monkeypatch) -> None:
    loss = big(gpu)
    layers = len(decoder_layers(loss.model))

    def layout(budget: int):
        from hone.engine.cost import Weight

        return [Weight(min(budget, 4096), 4096 * 2048)] * -(-8192 // min(budget, 4096))

    found = []
    for room in (40 * 2**30, 1, None):
        if room == 1:  # enough for the longest row only where most layers are computed again
            recompute(loss.model, layers)
            again = peak_bytes_of(loss, made_up_pack([4096], vocab_size=VOCAB))
            recompute(loss.model, 0)
            room = int(again * 1.6)
        if room is not None:
            monkeypatch.setattr("hone.engine.rehearsal.available_bytes", lambda _, r=room: r)
        rehearsed = rehearse(
            loss, longest=4096, wanted=None, state_bytes=0, trained_share=0.5, layout=layout,
            layers=None,
        )  # fmt: skip
        assert recomputed(loss.model) == rehearsed.recomputed
        assert rehearsed.peak_bytes is not None
        found.append(rehearsed.recomputed)
    assert found[0] == 0
    assert 0 < found[1] <= layers


def test_peak_memory_is_what_was_rehearsed(gpu, tmp_path: Path) -> None:
    """The worst Pack was tried: no step holds more than it did, but for the optimizer's state."""
    loss = module(gpu)
    rehearsed = rehearse(
        loss, longest=300, wanted=700, state_bytes=0, trained_share=0.5, layout=lambda _: []
    )
    trained = sum(p.numel() for p in loss.parameters() if p.requires_grad)
    torch.cuda.reset_peak_memory_stats(gpu)
    run(tmp_path, loss, 4)
    assert rehearsed.peak_bytes is not None
    state = 16 * trained + 8 * 2**20
    assert torch.cuda.max_memory_allocated(gpu) <= 1.05 * rehearsed.peak_bytes + state
