"""Compiled layers: the same numbers, graphs that serve every length, and what is left alone.

The backend `eager` traces and guards as the real compiler does and runs torch's own operations, in seconds.
"""

from __future__ import annotations

import pytest
import torch

from hone.data.layout import branch, lay_out
from hone.engine.buckets import bucket
from hone.engine.loss import PackLoss
from hone.engine.objective import weighted_losses
from hone.engine.probe import read_pack
from hone.engine.rehearsal import made_up_pack
from hone.models import attention, compiled
from hone.models.fused_norm import fuse_norms
from hone.models.recompute import recompute
from tests.engine.test_exactness import lora_model, step_gradients
from tests.tiny import FAMILIES, VOCAB, rows_with_shared_beginnings, worst_gradient_error

attention.register()


@pytest.fixture(autouse=True)
def _fresh():
    torch._dynamo.reset()
    yield
    torch._dynamo.reset()
    attention.register()


def loss_of(name: str, *, adapted: bool) -> PackLoss:
    model = lora_model(name, 0.0) if adapted else FAMILIES[name].make()
    fuse_norms(model)
    model.set_attn_implementation(attention.NAME)
    return PackLoss(model)


@pytest.mark.parametrize(
    ("name", "adapted"),
    [("llama", True), pytest.param("gemma2", False, marks=pytest.mark.slow)],
)
def test_the_numbers_stay_and_two_lengths_make_graphs_for_all(name: str, adapted: bool) -> None:
    loss = loss_of(name, adapted=adapted)
    rows = rows_with_shared_beginnings(1)
    want = step_gradients(loss, rows, budget=60)
    count, left = compiled.compile_layers(loss.model, backend="eager")
    assert count >= 8
    assert left == ()
    loss.placing.rounds_up = True
    before = compiled.graphs()
    got = step_gradients(loss, rows, budget=60)
    assert abs(got[0] - want[0]) <= 1e-6 * want[0]
    assert worst_gradient_error(got[1], want[1]) <= 1e-5
    step_gradients(loss, rows_with_shared_beginnings(2, rows=16, longest=60), budget=400)
    made = compiled.graphs()
    assert made > before
    for seed, longest in ((3, 90), (4, 120), (5, 50)):
        other = rows_with_shared_beginnings(seed, rows=12, longest=longest)
        step_gradients(loss, other, budget=900)
    assert compiled.graphs() == made
    recompute(loss.model, 1)
    again = step_gradients(loss, rows, budget=60)
    assert worst_gradient_error(again[1], want[1]) <= 1e-5
    assert compiled.graphs() == made
    compiled.undo(loss.model)
    assert step_gradients(loss, rows, budget=60)[0] == pytest.approx(want[0], rel=1e-6)


def test_twenty_packs_of_their_own_lengths_need_no_graph_of_their_own() -> None:
    """What is tried before a run (`hone.recipes.speed`) leaves graphs, of layers and of the loss, that serve all."""
    loss = loss_of("llama", adapted=True)
    compiled.compile_layers(loss.model, backend="aot_eager")
    loss.terms = torch.compile(
        weighted_losses, **compiled.settings("aot_eager", deterministic=True)
    )
    loss.placing.rounds_up = True
    for times in (1, 3):
        rows = [length * times for length in (96, 40, 120, 70)]
        read_pack(loss, made_up_pack(rows, vocab_size=VOCAB))
    made = compiled.graphs()
    assert made > 0
    lengths = set[int]()
    for seed in range(20):
        rows = rows_with_shared_beginnings(seed, rows=3 + seed, longest=40 + 9 * seed)
        branches = [branch(i, row.input_ids, row.weight) for i, row in enumerate(rows)]
        (pack,) = lay_out(
            [b for b in branches if b], budget=10**6, share_prefixes=bool(seed % 3), pack=True
        )
        lengths.add(bucket(pack.num_tokens))
        loss(pack, 1.0).backward()
    assert len(lengths) >= 8
    assert compiled.graphs() == made


def test_experts_are_left_alone() -> None:
    loss = loss_of("qwen3-moe", adapted=False)
    count, left = compiled.compile_layers(loss.model, backend="eager")
    assert left == ("Qwen3MoeSparseMoeBlock",)
    assert count == 2 * 3  # attention and two norms a layer
    rows = rows_with_shared_beginnings(1)
    compiled.undo(loss.model)
    want = step_gradients(loss, rows, budget=200)
    compiled.compile_layers(loss.model, backend="eager")
    got = step_gradients(loss, rows, budget=200)
    assert worst_gradient_error(got[1], want[1]) <= 1e-5


@pytest.mark.slow
@pytest.mark.parametrize("name", ["llama", "qwen3", "gemma2", "phi3", "gpt2"])
def test_the_real_compiler_gives_the_same_numbers(name: str) -> None:
    loss = loss_of(name, adapted=True)
    rows = rows_with_shared_beginnings(1)
    want = step_gradients(loss, rows, budget=60)
    compiled.compile_layers(loss.model, deterministic=True)
    got = step_gradients(loss, rows, budget=60)
    assert abs(got[0] - want[0]) <= 1e-6 * want[0]
    assert worst_gradient_error(got[1], want[1]) <= 1e-5
