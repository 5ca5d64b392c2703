"""Attention over a Pack on a GPU: flex attention over a block mask, or flash attention row by row in one call.

It is registered with transformers' attention interface under `NAME` and receives the Pack as the keyword argument
`pack_visible`, as the attention of a CPU does. It knows no model and no rows.

What runs on a CPU is tested there: which kernel is chosen, the masks, and flex attention's forward pass against the
definition. The kernels themselves and every backward pass are proved by the tests marked `gpu`.

Legend: H query heads, G key heads (G divides H), T tokens, D head size, R rows.
"""

from __future__ import annotations

import math
from collections.abc import Callable
from functools import lru_cache
from typing import Any, Literal, cast

import torch
from torch import Tensor
from torch.nn.attention.flex_attention import AuxRequest, BlockMask, flex_attention
from transformers import AttentionInterface

from hone.models import attention, varlen
from hone.models.attention import ARGUMENT
from hone.models.block_mask import block_mask, find_blocks, mask_function
from hone.models.sending import send
from hone.pack import Pack

NAME = "hone_pack_gpu"
_HALF = (torch.bfloat16, torch.float16)
_LARGEST_HEAD = 256  # of the flash kernels
_GRAPHS = 64  # that torch.compile may keep of one function; beyond its default of 8 it would go on uncompiled

Kernel = Literal["flash", "flex"]


def name_for(device: torch.device) -> str:
    """The attention implementation for Packs on this device."""
    return NAME if device.type == "cuda" else attention.NAME


def register() -> None:
    """Make `attn_implementation=NAME` known to transformers; calling it again changes nothing.

    No mask function is registered beside it. For such an implementation transformers makes no mask at all; with
    one it would first look at the positions for packed rows, and the host would wait for the answer.
    Compiled layers call it as it is: it compiles its own kernel, and what a Pack looks like is no part of theirs.
    """
    AttentionInterface.register(NAME, torch.compiler.disable(pack_attention_on_gpu))


def choose_kernel(
    *,
    shares: bool,
    dtype: torch.dtype,
    head_sizes: tuple[int, int],
    softcap: bool,
    sinks: bool,
    has_flash: bool,
) -> Kernel:
    """`flash` where no row shares its beginning and the kernel can say what the layer asks for, else `flex`.

    `head_sizes` are those of keys and of values. Flash attention's kernels take 16-bit numbers, one head size up to
    256 in steps of 8, and neither soft caps nor sinks.
    """
    keys, values = head_sizes
    takes = dtype in _HALF and keys == values and keys % 8 == 0 and keys <= _LARGEST_HEAD
    return "flash" if has_flash and takes and not (shares or softcap or sinks) else "flex"


class VisibleOnGpu:
    """What a Pack's tokens see, on the device; what the attention function receives.

    Masks are made once for each window, row bounds once. In the last layer, blocks of queries that nothing reads
    see nothing and get zeros.
    """

    def __init__(self, pack: Pack, *, device: torch.device, last_layer: int | None = None) -> None:
        self.tokens = pack.num_tokens
        self.shares = pack.shares
        self._pack = pack
        self._device = device
        self._last_layer = last_layer
        self._deepest = int(pack.position_ids.max())
        self._bounds = None if pack.shares else varlen.row_bounds(pack)
        arrays = {
            "until": pack.visible_until.astype("int32"),
            "positions": pack.position_ids.astype("int32"),
        }
        if self._bounds is not None:
            arrays["bounds"] = self._bounds
        self._sent = send(arrays, device)
        self._mask = lru_cache(maxsize=8)(self._make_mask)

    def mask(self, window: int | None, layer: int | None = None) -> BlockMask:
        """The block mask of a layer with this window; a window that no row reaches is none."""
        return self._mask(self.narrowed(window), layer is not None and layer == self._last_layer)

    def narrowed(self, window: int | None) -> int | None:
        """`window`, or None where no row of the Pack is that long."""
        return None if window is not None and window > self._deepest else window

    @property
    def row_bounds(self) -> Tensor:
        """int32[R + 1]: where each row begins, and the end. Only where no row shares."""
        return self._sent["bounds"]

    @property
    def longest(self) -> int:
        """Tokens of the longest row."""
        assert self._bounds is not None
        return int((self._bounds[1:] - self._bounds[:-1]).max())

    def _make_mask(self, window: int | None, only_read: bool) -> BlockMask:
        function = mask_function(self._sent["until"], self._sent["positions"], window)
        found = find_blocks(self._pack, window=window, only_read=only_read)
        return block_mask(found, function, tokens=self.tokens, device=self._device)


def pack_attention_on_gpu(
    module: torch.nn.Module,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    attention_mask: Tensor | None,
    *,
    scaling: float | None = None,
    dropout: float = 0.0,
    sliding_window: int | None = None,
    softcap: float | None = None,
    s_aux: Tensor | None = None,
    **others: Any,
) -> tuple[Tensor, None]:
    """Attend within the rows of a Pack.

    `query` is [1, H, T, D], `key` and `value` [1, G, T, D]; returns [1, T, H, D]. `sliding_window`, `softcap`
    (Gemma 2) and `s_aux` (sink logits, one per head) arrive per layer. Raises RuntimeError where no Pack arrives,
    where a mask does, or where dropout is asked for: each would be wrong silently.
    """
    visible = others.get(ARGUMENT)
    if not isinstance(visible, VisibleOnGpu):
        raise RuntimeError(f"attention {NAME!r} was called without {ARGUMENT}=")
    if attention_mask is not None or dropout != 0.0:
        raise RuntimeError(f"attention {NAME!r} takes no mask and no dropout")
    scale = scaling if scaling is not None else 1.0 / math.sqrt(query.shape[-1])
    query, key, value = (t.to(value.dtype) for t in (query, key, value))  # autocast leaves a mix
    kernel = choose_kernel(
        shares=visible.shares,
        dtype=value.dtype,
        head_sizes=(key.shape[-1], value.shape[-1]),
        softcap=softcap is not None,
        sinks=s_aux is not None,
        has_flash=varlen.is_here() and value.device.type == "cuda",
    )
    if kernel == "flash":
        out = varlen.attend(
            query[0].transpose(0, 1),
            key[0].transpose(0, 1),
            value[0].transpose(0, 1),
            bounds=visible.row_bounds,
            longest=visible.longest,
            scale=scale,
            window=visible.narrowed(sliding_window),
        )
        return out.unsqueeze(0), None
    mask = visible.mask(sliding_window, getattr(module, "layer_idx", None))
    out = _flex(query, key, value, mask, scale=scale, softcap=softcap, sinks=s_aux)
    return out.transpose(1, 2).contiguous(), None


def _flex(
    query: Tensor,
    key: Tensor,
    value: Tensor,
    mask: BlockMask,
    *,
    scale: float,
    softcap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """Flex attention [1, H, T, D], with Gemma's cap as a change of scores and a sink as one more key of value zero."""
    attend = (
        _compiled() if query.device.type == "cuda" else cast("Callable[..., Any]", flex_attention)
    )
    named: dict[str, Any] = {"block_mask": mask, "scale": scale, "enable_gqa": True}
    if softcap is not None:
        named["score_mod"] = _capped(softcap)
    if sinks is None:
        return cast(Tensor, attend(query, key, value, **named))
    named["return_aux"] = AuxRequest(lse=True)
    out, aux = cast("tuple[Tensor, Any]", attend(query, key, value, **named))
    lse = cast(Tensor, aux.lse)
    # exp(lse) / (exp(lse) + exp(sink)): the share of the softmax that is left to the keys
    share = torch.sigmoid(lse - sinks.to(lse.dtype)[None, :, None])
    return out * share.unsqueeze(-1).to(out.dtype)


def _capped(cap: float) -> Callable[..., Tensor]:
    def score(value: Tensor, _batch: Tensor, _head: Tensor, _query: Tensor, _key: Tensor) -> Tensor:
        return cap * torch.tanh(value / cap)

    return score


@lru_cache(maxsize=1)
def _compiled() -> Callable[..., Any]:
    """Flex attention as a fused kernel; uncompiled it would hold a T x T matrix for each head.

    The second length that it meets makes it a kernel for every length. Where the graphs that torch.compile keeps
    would run out it raises, rather than going on uncompiled.
    """
    import torch._dynamo

    settings: Any = torch._dynamo.config
    settings.recompile_limit = max(settings.recompile_limit, _GRAPHS)
    settings.fail_on_recompile_limit_hit = True
    return cast("Callable[..., Any]", torch.compile(flex_attention))
