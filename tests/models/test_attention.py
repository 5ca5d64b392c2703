"""Attention over a Pack against its definition, in float64."""

import pytest
import torch
from hypothesis import given, settings
from hypothesis import strategies as st

from hone.data.layout import branch, lay_out
from hone.models.attention import ARGUMENT, pack_attention
from hone.models.visible import Visible
from hone.pack import Pack
from tests.models.dense import attend_densely
from tests.tiny import rows_with_shared_beginnings


def _pack(seed: int, longest: int = 40) -> Pack:
    rows = rows_with_shared_beginnings(seed, longest=longest)
    made = [branch(i, row.input_ids, row.weight) for i, row in enumerate(rows)]
    (pack,) = lay_out([b for b in made if b], budget=10**6, share_prefixes=True, pack=True)
    return pack


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    window=st.sampled_from([None, 1, 3, 9, 1000]),
    kind=st.sampled_from(["plain", "cap", "sinks"]),
    heads=st.sampled_from([(4, 4), (4, 2), (4, 1)]),
)
def test_equals_the_definition_in_float64(seed, window, kind, heads) -> None:
    pack = _pack(seed)
    torch.manual_seed(seed)
    shapes = [(1, heads[0], pack.num_tokens, 8)] + [(1, heads[1], pack.num_tokens, 8)] * 2
    inputs = [torch.randn(s, dtype=torch.float64).requires_grad_() for s in shapes]
    cap = 1.5 if kind == "cap" else None
    sinks = torch.randn(heads[0], dtype=torch.float64).requires_grad_() if kind == "sinks" else None
    leaves = inputs + ([sinks] if sinks is not None else [])
    upstream = torch.randn(1, pack.num_tokens, heads[0], 8, dtype=torch.float64)
    want = attend_densely(pack, *inputs, 0.4, window, cap, sinks)
    want_grads = torch.autograd.grad(want, leaves, upstream)
    got, _ = pack_attention(
        torch.nn.Module(), *inputs, None, scaling=0.4, sliding_window=window, softcap=cap,
        s_aux=sinks, **{ARGUMENT: Visible(pack)},
    )  # fmt: skip
    got_grads = torch.autograd.grad(got, leaves, upstream)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)
    for a, b in zip(got_grads, want_grads, strict=True):
        torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_long_windowed_rows_cross_query_blocks() -> None:
    pack = _pack(3, longest=900)
    assert pack.num_tokens > 600
    torch.manual_seed(0)
    q, k, v = (torch.randn(1, 2, pack.num_tokens, 8, dtype=torch.float64) for _ in range(3))
    got, _ = pack_attention(
        torch.nn.Module(), q, k, v, None, scaling=0.3, sliding_window=50,
        **{ARGUMENT: Visible(pack)},
    )  # fmt: skip
    want = attend_densely(pack, q, k, v, 0.3, 50, None, None)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


class _Layer(torch.nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        self.layer_idx = index


@settings(deadline=None, max_examples=60)
@given(
    seed=st.integers(0, 10_000),
    window=st.sampled_from([None, 3, 9]),
    kind=st.sampled_from(["plain", "cap", "sinks"]),
    least=st.sampled_from([1, 5, 40]),
)
def test_the_last_layer_is_exact_where_it_is_read(seed, window, kind, least) -> None:
    pack = _pack(seed)
    torch.manual_seed(seed)
    shapes = [(1, 4, pack.num_tokens, 8)] + [(1, 2, pack.num_tokens, 8)] * 2
    inputs = [torch.randn(s, dtype=torch.float64).requires_grad_() for s in shapes]
    cap = 1.5 if kind == "cap" else None
    sinks = torch.randn(4, dtype=torch.float64).requires_grad_() if kind == "sinks" else None
    leaves = inputs + ([sinks] if sinks is not None else [])
    read = torch.zeros(pack.num_tokens, dtype=torch.bool)
    read[pack.predict] = True
    upstream = torch.randn(1, pack.num_tokens, 4, 8, dtype=torch.float64)
    upstream[:, ~read] = 0
    want = attend_densely(pack, *inputs, 0.4, window, cap, sinks)
    want_grads = torch.autograd.grad(want, leaves, upstream)
    visible = Visible(pack, last_layer=7, least_saved=least)
    for layer in (7, 6):
        got, _ = pack_attention(
            _Layer(layer), *inputs, None, scaling=0.4, sliding_window=window, softcap=cap,
            s_aux=sinks, **{ARGUMENT: visible},
        )  # fmt: skip
        got_grads = torch.autograd.grad(got, leaves, upstream)
        where = read if layer == 7 else torch.ones_like(read)
        torch.testing.assert_close(got[:, where], want[:, where], rtol=1e-10, atol=1e-10)
        for a, b in zip(got_grads, want_grads, strict=True):
            torch.testing.assert_close(a, b, rtol=1e-9, atol=1e-10)


def test_the_last_layer_leaves_out_what_nothing_reads() -> None:
    row = branch(
        0, torch.arange(600, dtype=torch.int32).numpy(), (torch.arange(600) > 590).float().numpy()
    )
    (pack,) = lay_out([row], budget=1000, share_prefixes=True, pack=True)
    visible = Visible(pack, last_layer=1)
    everything, last = visible.tiles(None, 0), visible.tiles(None, 1)
    assert sum(tile.q1 - tile.q0 for tile in everything.calls) == 599
    assert {tile.q0 for tile in last.calls} == {590}
    assert not last.covers_all
    short = Visible(pack, last_layer=1, least_saved=10**6).tiles(None, 1)
    assert short.covers_all


def test_narrow_values_are_padded_and_cut() -> None:
    pack = _pack(1)
    q, k = (torch.randn(1, 2, pack.num_tokens, 12, dtype=torch.float64) for _ in range(2))
    v = torch.randn(1, 2, pack.num_tokens, 8, dtype=torch.float64)
    got, _ = pack_attention(torch.nn.Module(), q, k, v, None, **{ARGUMENT: Visible(pack)})
    want = attend_densely(pack, q, k, v, 12**-0.5, None, None, None)
    torch.testing.assert_close(got, want, rtol=1e-10, atol=1e-10)


def test_refuses_what_would_be_silently_wrong() -> None:
    pack = _pack(0)
    q = torch.randn(1, 2, pack.num_tokens, 8)
    with pytest.raises(RuntimeError, match="without"):
        pack_attention(torch.nn.Module(), q, q, q, None)
    for wrong in ({"dropout": 0.1}, {"attention_mask": torch.ones(1)}):
        mask = wrong.pop("attention_mask", None)
        with pytest.raises(RuntimeError, match="no mask and no dropout"):
            pack_attention(torch.nn.Module(), q, q, q, mask, **wrong, **{ARGUMENT: Visible(pack)})
