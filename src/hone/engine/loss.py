"""PackLoss: a causal language model turned into a function from a Pack to its share of the step's loss.

The trunk runs once over the Pack; the output head runs at predicting positions only, in chunks whose
logits live one at a time. It knows no rows, no optimizer and no ranks.

Legend: T tokens, S predicting positions, N predictions, E hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, nullcontext
from typing import Any, cast

import numpy as np
import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hone.engine.demand import CHUNK_BYTES, GPU_TIMES
from hone.engine.noise import PackNoise
from hone.engine.objective import NLL, Objective, weighted_losses
from hone.engine.placed import Placed, Placing
from hone.models.attention import ARGUMENT
from hone.models.head import Head
from hone.models.offload import Offload
from hone.models.visible import LEAST_SAVED
from hone.pack import Int64, Pack, Step

_Bounds = tuple[tuple[int, int], tuple[int, int]]  # positions, predictions
Terms = Callable[..., "tuple[Tensor, Tensor | None]"]


class PackLoss(nn.Module):
    """`forward(pack, scale)` is `scale * sum(weight * -log p(target | what source sees))`.

    While the model trains, `objective` may make more of a prediction than its negative log-likelihood.
    `model` is a causal language model of transformers (adapters injected or not) whose attention is
    `hone.models.attention` when `shared` is true. With `shared` false the model keeps its own attention
    and takes Packs of one row only: the way of families whose state cannot be shared.
    """

    def __init__(
        self,
        model: PreTrainedModel,
        *,
        shared: bool = True,
        head: Head | None = None,
        autocast: torch.dtype | None = None,
        objective: Objective = NLL,
    ) -> None:
        super().__init__()
        self.model = model
        self.objective = objective
        self.shared = shared
        self.head = head if head is not None else Head.of(model)
        self.autocast = autocast
        self.least_saved = LEAST_SAVED  # pairs; see Visible
        self.offload: Offload | None = None
        self.lows: dict[nn.Parameter, Tensor] = {}  # see hone.engine.split_weights
        self.terms: Terms = weighted_losses  # or the same, compiled
        self.row_terms: Tensor | None = None
        self._noises = [m for m in model.modules() if isinstance(m, PackNoise)]
        device = self.head.device
        self.placing = Placing(
            device=device,
            shared=shared,
            on_gpu=device.type == "cuda",
            rounds_up=device.type == "cuda",
            last_layer=int(model.config.get_text_config().num_hidden_layers) - 1,
            wants_prefix=bool(self._noises),
        )

    def prepare(self, step: Step) -> None:
        """Make ready what the next step's first Packs need, while this one computes. Any thread may call it."""
        self.placing.prepare(step.packs, least_saved=self.least_saved)

    def begin_step(self, step: int, seed: int) -> None:
        """Name the noise of a step, before its first forward."""
        for noise in self._noises:
            noise.begin_step(step, seed)

    def forward(self, pack: Pack, scale: float) -> Tensor:
        """The Pack's term of the step's loss, a float32 scalar with its graph."""
        placed = self.placing.take(pack, least_saved=self.least_saved)
        for noise in self._noises:
            noise.begin_pack(placed.pack, placed.prefix)
        device = self.placing.device
        with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            with self._saving():
                hidden = self._trunk(placed)
            picked = hidden[0].index_select(0, placed.predict)
            return self._loss(picked, placed, scale)

    def _saving(self) -> AbstractContextManager[None]:
        """Where what the trunk keeps for its backward pass goes."""
        if self.offload is None or not torch.is_grad_enabled():
            return nullcontext()
        return self.offload.saving(
            frozenset(p.untyped_storage().data_ptr() for p in self.parameters())
        )

    def _trunk(self, placed: Placed) -> Tensor:
        """Hidden states [1, T, E] before the head."""
        arguments: dict[str, Any] = {}
        if self.shared:
            arguments[ARGUMENT] = placed.visible
            arguments["position_ids"] = placed.position_ids.unsqueeze(0)
        elif len(placed.pack.nodes) > 1:
            raise RuntimeError("a model that cannot share takes Packs of one row")
        ids = placed.input_ids.unsqueeze(0)
        output = self.head.trunk(input_ids=ids, use_cache=False, **arguments)
        hidden: Tensor = output[0]
        return hidden

    def _loss(self, picked: Tensor, placed: Placed, scale: float) -> Tensor:
        wide = torch.float64 if picked.dtype == torch.float64 else torch.float32
        by_row = torch.zeros(placed.pack.num_rows, dtype=wide, device=picked.device)
        predictions = _Predictions(
            self.head,
            placed,
            placed.weight.to(wide) * scale,
            by_row,
            _bounds(placed.sources, picked.shape[0], chunk=self.chunk_positions),
            self.objective if self.model.training else NLL,
            self.terms,
        )
        trained = tuple(self.head.trained_parameters())
        loss = cast(Tensor, _ChunkedLoss.apply(picked, predictions, *trained))
        self.row_terms = by_row
        return loss

    @property
    def chunk_positions(self) -> int:
        """Predicting positions whose logits exist at a time."""
        size = CHUNK_BYTES * (GPU_TIMES if self.placing.device.type == "cuda" else 1)
        return max(1, size // (4 * self.head.vocab_size))


class _Predictions:
    """What is predicted, sorted by source, and the head that predicts it."""

    def __init__(
        self,
        head: Head,
        placed: Placed,
        weight: Tensor,
        by_row: Tensor,
        bounds: list[_Bounds],
        objective: Objective,
        terms: Terms,
    ) -> None:
        self.head = head
        self.source = placed.source  # [N] ascending
        self.target = placed.target  # [N]
        self.row = placed.row  # [N]
        self.weight = weight  # [N]
        self.by_row = by_row  # [R] what each row adds to the loss, filled in the forward pass
        self.bounds = bounds  # of the chunks
        self.wants_gradient = torch.is_grad_enabled()  # inside a Function it never is
        self.objective = objective
        self.terms = terms


class _ChunkedLoss(torch.autograd.Function):
    """The objective's sum, its gradient taken chunk by chunk in the forward pass.

    The loss is linear in what comes back in the backward pass, so the gradients with respect to the
    picked hidden states and to the head's trained parameters are kept and only scaled there.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, picked: Tensor, predictions: _Predictions, *trained: Tensor
    ) -> Tensor:
        want = predictions.wants_gradient and any(t.requires_grad for t in (picked, *trained))
        ctx.needs = want
        wide = predictions.weight.dtype
        into_picked = torch.empty_like(picked) if want else None
        into_trained: list[Tensor | None] = [None] * len(trained)
        total = torch.zeros((), dtype=wide, device=picked.device)
        for (low, high), (first, last) in predictions.bounds:
            piece = picked[low:high].detach().requires_grad_(want)
            with torch.set_grad_enabled(want):
                logits = predictions.head.logits(piece)
            source = predictions.source[first:last] - low
            target = predictions.target[first:last]
            weight = predictions.weight[first:last]
            terms, grad = predictions.terms(
                logits.detach(), source, target, weight, predictions.objective, want=want
            )
            total += terms.sum()
            predictions.by_row.index_add_(0, predictions.row[first:last], terms)
            if want and into_picked is not None and grad is not None:
                parts = torch.autograd.grad(
                    logits, (piece, *trained), grad.to(logits.dtype), allow_unused=True
                )
                into_picked[low:high] = parts[0]
                _accumulate(into_trained, parts[1:])
        ctx.save_for_backward(into_picked, *into_trained)
        return total

    @staticmethod
    def backward(ctx: Any, *grads: Tensor) -> tuple[Tensor | None, ...]:  # type: ignore[override]
        into_picked, *into_trained = ctx.saved_tensors
        scaled = [None if g is None else g * grads[0].to(g.dtype) for g in into_trained]
        return (into_picked * grads[0].to(into_picked.dtype), None, *scaled)


def _bounds(sources: Int64, positions: int, *, chunk: int) -> list[_Bounds]:
    """Ranges of positions, and of the predictions that they make, chunk by chunk. Known without the device."""
    edges = [*range(0, positions, chunk), positions]
    cuts: list[int] = np.searchsorted(sources, edges).tolist()
    return [((edges[i], edges[i + 1]), (cuts[i], cuts[i + 1])) for i in range(len(edges) - 1)]


def _accumulate(into: list[Tensor | None], parts: Sequence[Tensor | None]) -> None:
    for i, part in enumerate(parts):
        if part is not None:
            before = into[i]
            if before is None:  # sums of many chunks are kept in float32, whatever the weight is
                into[i] = part.to(torch.promote_types(part.dtype, torch.float32))
            else:
                before.add_(part)
