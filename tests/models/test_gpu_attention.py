"""What of a GPU's attention runs on a CPU: which kernel, what is visible, and flex attention's forward pass.

Its backward pass is not implemented on a CPU; tests/gpu holds it against the definition.
"""

from __future__ import annotations

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.layout import branch, lay_out
from hone.engine.loss import PackLoss
from hone.models import attention
from hone.models.attention import ARGUMENT
from hone.models.gpu_attention import (
    NAME,
    VisibleOnGpu,
    choose_kernel,
    pack_attention_on_gpu,
    register,
)
from hone.pack import Pack, padded
from tests.models.dense import attend_densely
from tests.tiny import FAMILIES, rows_with_shared_beginnings

CPU = torch.device("cpu")


def pack_of(seed: int, *, longest: int = 40, share: bool = True, fill: int = 0) -> Pack:
    rows = rows_with_shared_beginnings(seed, longest=longest)
    made = [branch(i, row.input_ids, row.weight) for i, row in enumerate(rows)]
    (pack,) = lay_out([b for b in made if b], budget=10**6, share_prefixes=share, pack=True)
    return padded(pack, pack.num_tokens + fill)


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@settings(deadline=None, max_examples=10)
@given(
    seed=st.integers(0, 10_000),
    window=st.sampled_from([None, 1, 9, 1000]),
    kind=st.sampled_from(["plain", "cap", "sinks"]),
    heads=st.sampled_from([(4, 4), (4, 2), (4, 1)]),
    fill=st.sampled_from([0, 60]),
)
def test_flex_equals_the_definition_forward(seed, window, kind, heads, fill) -> None:
    pack = pack_of(seed, longest=150, fill=fill)
    torch.manual_seed(seed)
    query = torch.randn(1, heads[0], pack.num_tokens, 16)
    key, value = (torch.randn(1, heads[1], pack.num_tokens, 16) for _ in range(2))
    cap = 1.5 if kind == "cap" else None
    sinks = torch.randn(heads[0]) if kind == "sinks" else None
    want = attend_densely(pack, query, key, value, 0.4, window, cap, sinks)
    with torch.no_grad():
        got, _ = pack_attention_on_gpu(
            torch.nn.Module(), query, key, value, None, scaling=0.4, sliding_window=window,
            softcap=cap, s_aux=sinks, **{ARGUMENT: VisibleOnGpu(pack, device=CPU)},
        )  # fmt: skip
    torch.testing.assert_close(got, want, rtol=1e-4, atol=1e-5)


class Layer(torch.nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        self.layer_idx = index


@pytest.mark.filterwarnings("ignore:flex_attention called without")
def test_the_last_layer_is_exact_where_it_is_read() -> None:
    pack = pack_of(11, longest=500)
    torch.manual_seed(0)
    query, key, value = (torch.randn(1, 2, pack.num_tokens, 16) for _ in range(3))
    want = attend_densely(pack, query, key, value, 0.25, None, None, None)
    visible = VisibleOnGpu(pack, device=CPU, last_layer=7)
    assert visible.mask(None, 7) is not visible.mask(None, 6)
    for layer in (6, 7):
        got, _ = pack_attention_on_gpu(
            Layer(layer), query, key, value, None, scaling=0.25, **{ARGUMENT: visible}
        )
        read = torch.from_numpy(pack.predict) if layer == 7 else slice(None)
        torch.testing.assert_close(got[:, read], want[:, read], rtol=1e-4, atol=1e-5)


HALF = {"dtype": torch.bfloat16, "head_sizes": (128, 128), "softcap": False, "sinks": False}


@pytest.mark.parametrize(
    ("other", "kernel"),
    [
        ({}, "flash"),
        ({"shares": True}, "flex"),
        ({"has_flash": False}, "flex"),
        ({"dtype": torch.float32}, "flex"),
        ({"dtype": torch.float16}, "flash"),
        ({"head_sizes": (256, 256)}, "flash"),
        ({"head_sizes": (512, 512)}, "flex"),
        ({"head_sizes": (100, 100)}, "flex"),
        ({"head_sizes": (192, 128)}, "flex"),
        ({"softcap": True}, "flex"),
        ({"sinks": True}, "flex"),
    ],
)
def test_which_kernel_follows_from_pack_and_layer(other, kernel) -> None:
    assert choose_kernel(**{"shares": False, "has_flash": True, **HALF, **other}) == kernel


def test_the_pack_says_whether_flash_attention_may_serve_it() -> None:
    assert VisibleOnGpu(pack_of(3), device=CPU).shares
    apart = VisibleOnGpu(pack_of(3, share=False), device=CPU)
    assert not apart.shares
    assert apart.row_bounds.dtype == torch.int32


def test_masks_are_made_once_for_each_window() -> None:
    visible = VisibleOnGpu(pack_of(2, longest=200), device=CPU)
    assert visible.mask(50) is visible.mask(50)
    assert visible.mask(50) is not visible.mask(None)
    assert visible.mask(10**6) is visible.mask(None)


def test_refuses_what_would_be_silently_wrong() -> None:
    pack = pack_of(0)
    q = torch.randn(1, 2, pack.num_tokens, 8)
    visible = VisibleOnGpu(pack, device=CPU)
    with pytest.raises(RuntimeError, match="without"):
        pack_attention_on_gpu(torch.nn.Module(), q, q, q, None)
    for wrong in ({"dropout": 0.1}, {"attention_mask": torch.ones(1)}):
        mask = wrong.pop("attention_mask", None)
        with pytest.raises(RuntimeError, match="no mask and no dropout"):
            pack_attention_on_gpu(torch.nn.Module(), q, q, q, mask, **wrong, **{ARGUMENT: visible})


@pytest.mark.filterwarnings("ignore:flex_attention called without")
@pytest.mark.parametrize("name", FAMILIES)
def test_every_family_gives_the_same_loss_and_nobody_looks_at_positions(name, monkeypatch) -> None:
    """transformers' search for packed rows would have the host wait for the device in every forward pass."""
    register()
    attention.register()
    model = FAMILIES[name].make()
    model.set_attn_implementation(attention.NAME)
    loss, pack = PackLoss(model), pack_of(5)
    with torch.no_grad():
        want = float(loss(pack, 1.0))
        model.set_attn_implementation(NAME)
        loss.placing.on_gpu = True

        def looked(*_: object, **__: object) -> None:
            raise AssertionError("the positions were looked at")

        monkeypatch.setattr("transformers.masking_utils.find_packed_sequence_indices", looked)
        for rounds_up in (False, True):
            loss.placing.rounds_up = rounds_up
            assert float(loss(pack, 1.0)) == pytest.approx(want, rel=2e-6)
