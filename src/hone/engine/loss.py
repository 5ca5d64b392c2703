"""PackLoss: a causal language model turned into a function from a Pack to its share of the step's loss.

The trunk runs once over the Pack; the output head runs at predicting positions only, in chunks whose
logits live one at a time. It knows no rows, no optimizer and no ranks.

Legend: T tokens, S predicting positions, N predictions, E hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel

from hone.engine.noise import PackNoise
from hone.engine.objective import NLL, Objective, weighted_losses
from hone.models.attention import ARGUMENT
from hone.models.head import Head
from hone.models.visible import LEAST_SAVED, Visible
from hone.pack import Pack

CHUNK_BYTES = 64 * 2**20  # logits of one chunk in float32; a larger one gains nothing measurable


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
        self.row_terms: Tensor | None = None
        self._last_layer = int(model.config.get_text_config().num_hidden_layers) - 1
        self._noises = [m for m in model.modules() if isinstance(m, PackNoise)]

    def begin_step(self, step: int, seed: int) -> None:
        """Name the noise of a step, before its first forward."""
        for noise in self._noises:
            noise.begin_step(step, seed)

    def forward(self, pack: Pack, scale: float) -> Tensor:
        """The Pack's term of the step's loss, a float32 scalar with its graph."""
        device = self.head.device
        for noise in self._noises:
            noise.begin_pack(pack)
        with torch.autocast(device.type, self.autocast, enabled=self.autocast is not None):
            hidden = self._trunk(pack, device)
            picked = hidden[0].index_select(0, torch.from_numpy(pack.predict).to(device))
            return self._loss(picked, pack, scale)

    def _trunk(self, pack: Pack, device: torch.device) -> Tensor:
        """Hidden states [1, T, E] before the head."""
        arguments: dict[str, Any] = {}
        if self.shared:
            arguments[ARGUMENT] = Visible(
                pack, last_layer=self._last_layer, least_saved=self.least_saved
            )
            positions = torch.from_numpy(pack.position_ids).to(device)
            arguments["position_ids"] = positions.unsqueeze(0)
        elif len(pack.nodes) > 1:
            raise RuntimeError("a model that cannot share takes Packs of one row")
        ids = torch.from_numpy(pack.input_ids).to(device).unsqueeze(0)
        output = self.head.trunk(input_ids=ids, use_cache=False, **arguments)
        hidden: Tensor = output[0]
        return hidden

    def _loss(self, picked: Tensor, pack: Pack, scale: float) -> Tensor:
        device = picked.device
        order = torch.from_numpy(pack.source.argsort(kind="stable")).to(device)
        source = torch.from_numpy(pack.source).to(device)[order]
        target = torch.from_numpy(pack.target).to(device)[order]
        weight = torch.from_numpy(pack.weight).to(device)[order]
        row = torch.from_numpy(pack.row).to(device)[order]
        wide = torch.float64 if picked.dtype == torch.float64 else torch.float32
        weight = weight.to(wide) * scale
        chunk = max(1, CHUNK_BYTES // (4 * self.head.vocab_size))
        objective = self.objective if self.model.training else NLL
        by_row = torch.zeros(pack.num_rows, dtype=wide, device=device)
        predictions = _Predictions(self.head, source, target, weight, row, by_row, chunk, objective)
        trained = tuple(self.head.trained_parameters())
        loss = cast(Tensor, _ChunkedLoss.apply(picked, predictions, *trained))
        self.row_terms = by_row
        return loss


class _Predictions:
    """What is predicted, sorted by source, and the head that predicts it."""

    def __init__(
        self,
        head: Head,
        source: Tensor,
        target: Tensor,
        weight: Tensor,
        row: Tensor,
        by_row: Tensor,
        chunk: int,
        objective: Objective,
    ) -> None:
        self.head = head
        self.source = source  # [N] ascending
        self.target = target  # [N]
        self.weight = weight  # [N]
        self.row = row  # [N]
        self.by_row = by_row  # [R] what each row adds to the loss, filled in the forward pass
        self.chunk = chunk  # predicting positions per chunk
        self.objective = objective


class _ChunkedLoss(torch.autograd.Function):
    """The objective's sum, its gradient taken chunk by chunk in the forward pass.

    The loss is linear in what comes back in the backward pass, so the gradients with respect to the
    picked hidden states and to the head's trained parameters are kept and only scaled there.
    """

    @staticmethod
    def forward(  # type: ignore[override]
        ctx: Any, picked: Tensor, predictions: _Predictions, *trained: Tensor
    ) -> Tensor:
        want = picked.requires_grad or any(p.requires_grad for p in trained)
        ctx.needs = want
        wide = predictions.weight.dtype
        into_picked = torch.empty_like(picked) if want else None
        into_trained: list[Tensor | None] = [None] * len(trained)
        bounds = _bounds(predictions, picked.shape[0])
        total = torch.zeros((), dtype=wide, device=picked.device)
        for (low, high), (first, last) in bounds:
            piece = picked[low:high].detach().requires_grad_(want)
            with torch.set_grad_enabled(want):
                logits = predictions.head.logits(piece)
            source = predictions.source[first:last] - low
            target = predictions.target[first:last]
            weight = predictions.weight[first:last]
            objective = predictions.objective
            terms, grad = weighted_losses(
                logits.detach(), source, target, weight, objective, want=want
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


def _bounds(
    predictions: _Predictions, positions: int
) -> list[tuple[tuple[int, int], tuple[int, int]]]:
    """Ranges of positions, and of the predictions that they make, chunk by chunk."""
    edges = [*range(0, positions, predictions.chunk), positions]
    places = torch.tensor(edges, device=predictions.source.device)
    cuts = cast("list[int]", torch.searchsorted(predictions.source, places).tolist())
    return [((edges[i], edges[i + 1]), (cuts[i], cuts[i + 1])) for i in range(len(edges) - 1)]


def _accumulate(into: list[Tensor | None], parts: Sequence[Tensor | None]) -> None:
    for i, part in enumerate(parts):
        if part is not None:
            before = into[i]
            into[i] = part if before is None else before.add_(part)
