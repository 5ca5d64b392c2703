"""A Pack on the device: its arrays sent there in one copy, predictions in the order of their sources.

On a GPU the host never waits for a copy, and the first Packs of a step are made ready while the step before it
still computes. It knows no model's weights and no rows.

Legend: T tokens, S predicting positions, N predictions.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Sequence
from dataclasses import dataclass, field
from typing import TYPE_CHECKING

import numpy as np
import torch
from torch import Tensor

from hone.engine.buckets import bucket
from hone.models.sending import send
from hone.models.visible import Visible
from hone.pack import Int64, Pack, padded

if TYPE_CHECKING:
    from hone.models.gpu_attention import VisibleOnGpu

_AHEAD = (
    2  # Packs of a step made ready before it; by the third the host is ahead of the device anyway
)
_KEPT = 2 * _AHEAD  # of a step that was laid out anew, the old ones are dropped


@dataclass(frozen=True, eq=False)
class Placed:
    """What one forward needs of a Pack, where the weights are."""

    pack: Pack
    """As it runs: rounded up to its bucket where that is asked for."""
    input_ids: Tensor  # int64[T]
    position_ids: Tensor  # int64[T]
    predict: Tensor  # int64[S]
    source: Tensor  # int64[N] ascending
    target: Tensor  # int64[N]
    weight: Tensor  # float32[N]
    row: Tensor  # int32[N]
    sources: Int64  # `source` on the host
    visible: Visible | VisibleOnGpu | None
    prefix: Tensor | None  # int64[T] the names of `Pack.prefix_hash`, where noise is drawn by them


@dataclass
class Placing:
    """How Packs are placed for one model. Thread-safe where `prepare` and `take` are called by two threads."""

    device: torch.device
    shared: bool
    last_layer: int
    wants_prefix: bool = False
    on_gpu: bool = False
    """Whether attention is that of `hone.models.gpu_attention`."""
    rounds_up: bool = False
    _ready: OrderedDict[int, tuple[Pack, Placed]] = field(
        default_factory=OrderedDict[int, tuple[Pack, Placed]]
    )

    def prepare(self, packs: Sequence[Pack], *, least_saved: int) -> None:
        """Make the first Packs of a coming step ready, where that spares a GPU its waiting."""
        if self.device.type != "cuda":
            return
        try:
            with torch.cuda.device(self.device):
                for pack in packs[:_AHEAD]:
                    self._ready[id(pack)] = (pack, self._place(pack, least_saved))
                    while len(self._ready) > _KEPT:
                        self._ready.popitem(last=False)
        except torch.OutOfMemoryError:
            self._ready.clear()  # the step itself will meet it, and knows what to do

    def take(self, pack: Pack, *, least_saved: int) -> Placed:
        """The Pack on the device."""
        ready = self._ready.pop(id(pack), None)
        return ready[1] if ready is not None else self._place(pack, least_saved)

    def _place(self, pack: Pack, least_saved: int) -> Placed:
        if self.rounds_up and self.shared:
            pack = padded(pack, bucket(pack.num_tokens))
        order = pack.source.argsort(kind="stable")
        sources = pack.source[order]
        arrays = {
            "input_ids": pack.input_ids,
            "position_ids": pack.position_ids,
            "predict": pack.predict,
            "source": sources,
            "target": pack.target[order],
            "weight": pack.weight[order],
            "row": pack.row[order],
        }
        if self.wants_prefix:
            arrays["prefix"] = pack.prefix_hash.view(np.int64)
        sent = send(arrays, self.device)
        return Placed(
            pack=pack,
            input_ids=sent["input_ids"],
            position_ids=sent["position_ids"],
            predict=sent["predict"],
            source=sent["source"],
            target=sent["target"],
            weight=sent["weight"],
            row=sent["row"],
            sources=sources,
            visible=self._visible(pack, least_saved) if self.shared else None,
            prefix=sent.get("prefix"),
        )

    def _visible(self, pack: Pack, least_saved: int) -> Visible | VisibleOnGpu:
        if not self.on_gpu:
            return Visible(pack, last_layer=self.last_layer, least_saved=least_saved)
        from hone.models.gpu_attention import VisibleOnGpu

        return VisibleOnGpu(pack, device=self.device, last_layer=self.last_layer)
