"""Noise on embeddings: as large as the paper's, named by prefix and length, the same in every layout."""

from __future__ import annotations

import math

import numpy as np
import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.layout import branch, lay_out, write_pack
from hone.engine.loss import PackLoss
from hone.engine.noise import EmbeddingNoise, disturb_embeddings
from hone.models import attention
from hone.pack import Pack
from tests.tiny import (
    FAMILIES,
    Row,
    gradients,
    loss_row_by_row,
    rows_with_shared_beginnings,
    worst_gradient_error,
)

attention.register()
torch.set_num_threads(1)


def row_alone(length: int, seed: int = 0) -> Pack:
    ids = np.random.default_rng(seed).integers(0, 50, length + 1).astype(np.int32)
    return write_pack([branch(0, ids, np.ones(length + 1, np.float32))], share_prefixes=False)  # type: ignore[list-item]


def drawn(noise: EmbeddingNoise, pack: Pack, width: int) -> torch.Tensor:
    noise.begin_pack(pack)
    return noise(torch.zeros(1, pack.num_tokens, width))[0]


@pytest.mark.parametrize(("length", "width", "alpha"), [(400, 130, 5.0), (90, 512, 15.0)])
def test_it_is_uniform_within_alpha_over_the_root_of_length_and_width(
    length: int, width: int, alpha: float
) -> None:
    noise = EmbeddingNoise(alpha)
    noise.begin_step(4, 2)
    reach = alpha / math.sqrt(length * width)
    found = drawn(noise, row_alone(length), width) / reach
    assert 0.99 < float(found.abs().max()) < 1
    assert abs(float(found.mean())) < 0.01
    assert float((found**2).mean()) == pytest.approx(1 / 3, rel=0.02)
    counts = torch.histc(found, 10, -1, 1) / found.numel()
    assert float((counts - 0.1).abs().max()) < 0.01
    assert float(found.mean(dim=1).abs().max()) < 0.3  # no row and no column of its own
    assert float(found.mean(dim=0).abs().max()) < 0.3


def test_it_differs_by_step_and_seed_and_is_off_outside_training() -> None:
    noise, pack = EmbeddingNoise(5.0), row_alone(20)
    found = []
    for step, seed in ((0, 0), (1, 0), (0, 1), (0, 0)):
        noise.begin_step(step, seed)
        found.append(drawn(noise, pack, 16))
    assert not torch.equal(found[0], found[1])
    assert not torch.equal(found[0], found[2])
    assert torch.equal(found[0], found[3])
    noise.train(False)
    assert not drawn(noise, pack, 16).any()


def test_it_takes_no_pack_in_which_rows_share() -> None:
    for others in (
        [5, 6, 8, 9],
        [5, 6, 7, 9],
        [5, 6],
    ):  # parts, differs in its last target, ends sooner
        rows = [
            branch(i, np.array(ids, np.int32), np.ones(len(ids), np.float32))
            for i, ids in enumerate(([5, 6, 7, 8], others))
        ]
        rows.sort(key=lambda item: item.key)  # type: ignore[union-attr]
        shared = write_pack(rows, share_prefixes=True)  # type: ignore[arg-type]
        with pytest.raises(RuntimeError, match="share nothing"):
            drawn(EmbeddingNoise(5.0), shared, 8)
    with pytest.raises(RuntimeError, match="without its Pack"):
        EmbeddingNoise(5.0)(torch.zeros(1, 3, 4))


@pytest.mark.parametrize("name", ["llama-tied", "gemma3", "gpt2"])
@settings(deadline=None, max_examples=6)
@given(seed=st.integers(0, 10_000), budget=st.integers(8, 300), pack=st.booleans())
def test_packs_equal_row_by_row(name: str, seed: int, budget: int, pack: bool) -> None:
    """Each row through the plain model with noise of its own length, against Packs of any size."""
    model = FAMILIES[name].make(seed=seed % 7)
    embedding = model.get_input_embeddings()
    disturb_embeddings(embedding, 5.0)
    loss = PackLoss(model)
    loss.begin_step(3, 11)
    rows = [cut(row) for row in rows_with_shared_beginnings(seed)]
    mass = sum(float(row.weight.sum(dtype="float64")) for row in rows)

    def alone(row: Row) -> None:
        """The plain model is given the last token too, from which nothing is predicted."""
        noise = embedding.embedding_noise
        ids = torch.from_numpy(row.input_ids[:-1].astype(np.int64))
        noise.begin_pack(write_pack([branch(0, row.input_ids, row.weight)], share_prefixes=False))  # type: ignore[list-item]
        disturbed = noise(torch.zeros(1, ids.shape[0], 32))
        handle = embedding.register_forward_hook(
            lambda _module, _given, out: out + torch.nn.functional.pad(disturbed, (0, 0, 0, 1))
        )
        noise.alpha, before = 0.0, noise.alpha
        undo.append((handle, before))

    undo: list[tuple[torch.utils.hooks.RemovableHandle, float]] = []
    total = torch.zeros(())
    for row in rows:
        one = loss_row_by_row(model, [row], before=alone)
        handle, embedding.embedding_noise.alpha = undo.pop()
        handle.remove()
        total = total + one * (float(row.weight.sum(dtype="float64")) / mass)
    total.backward()
    want = gradients(model)
    model.zero_grad()
    model.set_attn_implementation(attention.NAME)
    branches = [branch(i, row.input_ids, row.weight) for i, row in enumerate(rows)]
    value = 0.0
    for made in lay_out(branches, budget=budget, share_prefixes=False, pack=pack):  # type: ignore[arg-type]
        term = loss(made, 1 / mass)
        term.backward()
        value += term.item()
    assert value == pytest.approx(total.item(), rel=1e-6)
    assert worst_gradient_error(gradients(model), want) <= 1e-5


def cut(row: Row) -> Row:
    """The row up to its last trained token: all that a step computes of it."""
    last = int(np.flatnonzero(row.weight[1:]).max()) + 2
    return Row(row.input_ids[:last], row.weight[:last])


def test_no_weight_gets_another_name_and_none_is_added() -> None:
    model = FAMILIES["llama"].make()
    before = list(model.state_dict())
    disturb_embeddings(model.get_input_embeddings(), 5.0)
    assert list(model.state_dict()) == before
