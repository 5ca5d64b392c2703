"""The attention kernels of a GPU against the definition, forward and backward."""

from __future__ import annotations

import pytest
import torch

from hone.models import varlen
from hone.models.attention import ARGUMENT
from hone.models.gpu_attention import VisibleOnGpu, choose_kernel, pack_attention_on_gpu
from hone.pack import padded
from tests.gpu.small import packs_of, rows_of
from tests.models.dense import attend_densely

KINDS = ["plain", "cap", "sinks"]
TOLERANCE = {torch.float32: 1e-5, torch.bfloat16: 2e-2}


class Layer(torch.nn.Module):
    def __init__(self, index: int) -> None:
        super().__init__()
        self.layer_idx = index


def both(gpu, *, dtype, share, window, kind, heads, size=64, seed=0, layer=0, last=None):
    (pack,) = packs_of(rows_of(seed), share=share)
    pack = padded(pack, -(-pack.num_tokens // 128) * 128)
    torch.manual_seed(seed)
    shapes = [(1, heads[0], pack.num_tokens, size)] + [(1, heads[1], pack.num_tokens, size)] * 2
    inputs = [torch.randn(shape, device=gpu).to(dtype).requires_grad_() for shape in shapes]
    cap = 5.0 if kind == "cap" else None
    sinks = (
        torch.randn(heads[0], device=gpu).to(dtype).requires_grad_() if kind == "sinks" else None
    )
    leaves = inputs + ([sinks] if sinks is not None else [])
    upstream = torch.randn(1, pack.num_tokens, heads[0], size, device=gpu)
    if last is not None:
        upstream[:, [i for i in range(pack.num_tokens) if i not in set(pack.predict.tolist())]] = 0
    wide = [leaf.detach().double().requires_grad_() for leaf in leaves]
    sink = wide[3] if sinks is not None else None
    want = attend_densely(pack, *wide[:3], size**-0.5, window, cap, sink)
    want_grads = torch.autograd.grad(want, wide, upstream.double())
    visible = VisibleOnGpu(pack, device=gpu, last_layer=last)
    got, _ = pack_attention_on_gpu(
        Layer(layer), *inputs, None, sliding_window=window, softcap=cap, s_aux=sinks,
        **{ARGUMENT: visible},
    )  # fmt: skip
    got_grads = torch.autograd.grad(got, leaves, upstream.to(dtype))
    return pack, (got, *got_grads), (want, *want_grads)


def check(gpu, dtype, **named) -> None:
    pack, got, want = both(gpu, dtype=dtype, **named)
    read = slice(None) if named.get("last") is None else torch.from_numpy(pack.predict).to(gpu)
    got, want = (got[0][:, read], *got[1:]), (want[0][:, read], *want[1:])
    for ours, true in zip(got, want, strict=True):
        off = (ours.double() - true).norm() / true.norm()
        assert off <= TOLERANCE[dtype], (off, named)


@pytest.mark.parametrize("dtype", TOLERANCE)
@pytest.mark.parametrize("window", [None, 60])
@pytest.mark.parametrize("kind", KINDS)
@pytest.mark.parametrize("heads", [(4, 4), (8, 2)])
def test_shared_rows(gpu, dtype, window, kind, heads) -> None:
    check(gpu, dtype, share=True, window=window, kind=kind, heads=heads)


@pytest.mark.parametrize("size", [16, 64, 128, 256])
def test_head_sizes(gpu, size) -> None:
    named = {"window": None, "kind": "plain", "heads": (4, 2), "size": size}
    for share in (True, False):
        check(gpu, torch.bfloat16, share=share, **named)


@pytest.mark.parametrize("window", [None, 60, 10_000])
@pytest.mark.parametrize("heads", [(4, 4), (8, 2)])
def test_rows_that_share_nothing_go_through_flash_attention(gpu, window, heads) -> None:
    here = {"has_flash": varlen.is_here(), "softcap": False, "sinks": False, "shares": False}
    assert choose_kernel(dtype=torch.bfloat16, head_sizes=(64, 64), **here) == "flash"
    check(gpu, torch.bfloat16, share=False, window=window, kind="plain", heads=heads)


@pytest.mark.parametrize("window", [None, 60])
def test_the_last_layer_where_it_is_read(gpu, window) -> None:
    named = {"share": True, "kind": "plain", "heads": (4, 2), "window": window}
    check(gpu, torch.float32, layer=3, last=3, **named)


def test_many_packs_need_no_new_kernel(gpu) -> None:
    from hone.models.compiled import graphs

    for seed in (1, 2):
        check(gpu, torch.bfloat16, share=True, window=None, kind="plain", heads=(4, 2), seed=seed)
    made = graphs()
    for seed in range(3, 9):
        check(gpu, torch.bfloat16, share=True, window=None, kind="plain", heads=(4, 2), seed=seed)
    assert graphs() == made


def test_the_same_bits_each_time(gpu) -> None:
    for share in (True, False):
        named = {"share": share, "window": None, "kind": "plain", "heads": (8, 2)}
        _, first, _ = both(gpu, dtype=torch.bfloat16, **named)
        _, again, _ = both(gpu, dtype=torch.bfloat16, **named)
        assert all(torch.equal(a, b) for a, b in zip(first, again, strict=True))
