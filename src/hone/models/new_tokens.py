"""New tokens in a model: rows for them in embeddings and head, where these begin, and that they train.

It knows no text and no tokenizer: a token is its id, and the ids that spelled it before.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Any, Literal, cast

import torch
from peft.tuners.trainable_tokens import TrainableTokensLayer
from peft.utils.other import TrainableTokensWrapper
from torch import Tensor, nn
from transformers import PreTrainedModel

from hone.errors import ConfigError
from hone.models.parts import embeddings_name, embeddings_of, head_name, head_of, is_tied


@dataclass(frozen=True)
class NewRow:
    """A token's id, and the ids that spelled it before it was one."""

    id: int
    pieces: tuple[int, ...] = ()


def row_count(model: PreTrainedModel) -> int:
    """How many tokens the embeddings have a row for."""
    return int(cast(Any, embeddings_of(model)).weight.shape[0])


def grow(model: PreTrainedModel, tokens: int) -> int:
    """Give embeddings and head a row for each of `tokens` tokens; returns how many were added.

    Spare rows, which many models have to round their vocabulary up, are used as they are.
    """
    before = row_count(model)
    if tokens <= before:
        return 0
    with torch.random.fork_rng(devices=[]):  # what transformers puts there is written over
        cast(Any, model).resize_token_embeddings(tokens, mean_resizing=False)
    return tokens - before


@torch.no_grad()
def begin(model: PreTrainedModel, rows: Sequence[NewRow], how: Literal["pieces", "mean"]) -> None:
    """Set the embedding of each new token, and what the head knows of it, to the mean over its pieces, or
    (`mean`, and for a token without pieces) over all tokens before the new ones."""
    first = min(row.id for row in rows)
    tensors = [cast(Tensor, cast(Any, embeddings_of(model)).weight)]
    if not is_tied(model):
        head = cast(Any, head_of(model))
        tensors += [head.weight] if head.bias is None else [head.weight, head.bias]
    for tensor in tensors:
        every = tensor[:first].mean(dim=0, dtype=torch.float32)
        means = [
            tensor[list(row.pieces)].mean(dim=0, dtype=torch.float32)
            if row.pieces and how == "pieces"
            else every
            for row in rows
        ]
        for row, mean in zip(rows, means, strict=True):
            tensor[row.id] = mean.to(tensor.dtype)


def trained_rows(
    model: PreTrainedModel, rows: Sequence[NewRow], *, whole: Sequence[str]
) -> dict[str, list[int]]:
    """Which rows train, by the whole name of their module, where the modules in `whole` train anyway.

    Raises ConfigError for a head whose bias would have to train too.
    """
    ids = [row.id for row in rows]
    if not ids:
        return {}
    names = [embeddings_name(model)]
    if not is_tied(model):
        names.append(head_name(model))
    wanted = {name: ids for name in names if name not in whole}
    if names[-1] in wanted and getattr(head_of(model), "bias", None) is not None:
        raise ConfigError(
            "the output head of this model has a bias, whose new entries an adapter cannot train alone",
            remedy="set tuning.lora.modules_to_save=[embeddings, head]",
        )
    return wanted


class TrainedRows(TrainableTokensLayer):
    """PEFT's layer for trained rows without a copy of the whole table: only the rows' own products are made.

    The head runs in many chunks, and a copy of 150,000 rows for each would cost more than the chunk.
    """

    def forward_adapters(
        self, x: Tensor, active_adapters: Sequence[str], *args: Any, **kwargs: Any
    ) -> Tensor:
        """Ids [..., T] to vectors [..., T, E], or vectors [..., E] to logits [..., V]."""
        plain = len(active_adapters) == 1 and not self.disable_adapters and not self.merged
        if not plain or args or kwargs:
            return super().forward_adapters(x, active_adapters, *args, **kwargs)
        name = active_adapters[0]
        trained = cast(Tensor, self.trainable_tokens_delta[name])  # [n, E]
        ids = self._ids(name, x.device)  # [n]
        base = self.base_layer
        if isinstance(base, nn.Embedding):
            return self._vectors(x, base(x), trained, ids)
        logits = cast(Tensor, base(x))
        return logits.index_copy(
            -1, ids, nn.functional.linear(x, trained.to(x.dtype)).to(logits.dtype)
        )

    def _ids(self, name: str, device: torch.device) -> Tensor:
        """The trained rows' ids, moved to the device once."""
        kept = cast("dict[Any, Tensor]", vars(self).get("_kept_ids", {}))
        if (name, device) not in kept:
            kept[name, device] = torch.tensor(self._indices(name), device=device)
            self._kept_ids = kept
        return kept[name, device]

    def _indices(self, name: str) -> list[int]:
        return cast("dict[str, list[int]]", self.token_indices)[name]

    def _vectors(self, x: Tensor, known: Tensor, trained: Tensor, ids: Tensor) -> Tensor:
        count = max(self._indices(self.active_adapters[0])) + 2
        place = torch.full((count,), -1, device=x.device)
        place.index_copy_(0, ids, torch.arange(len(ids), device=x.device))
        row = place[x.clamp(max=len(place) - 1)]  # which trained row a token has; -1: none
        scale = self._get_embed_scale()
        vectors = nn.functional.embedding(row.clamp(min=0), trained)
        if scale is not None:
            vectors = vectors * scale.to(vectors.dtype)
        return torch.where((row >= 0).unsqueeze(-1), vectors.to(known.dtype), known)


def settle_rows(model: nn.Module) -> None:
    """Put `TrainedRows` in the place of PEFT's own layers, around the same weights."""
    made: dict[int, TrainedRows] = {}
    wrappers = [m for m in model.modules() if isinstance(m, TrainableTokensWrapper)]
    for wrapper in sorted(
        wrappers, key=lambda one: cast(Any, one).token_adapter.tied_adapter is not None
    ):
        old: Any = wrapper.token_adapter
        tied = old.tied_adapter
        new: Any = TrainedRows(
            old.base_layer, old.active_adapter, tied_adapter=made[id(tied)] if tied else None
        )
        if not tied:
            new.trainable_tokens_delta = old.trainable_tokens_delta
            new.trainable_tokens_original = old.trainable_tokens_original
            new.token_indices = old.token_indices
        made[id(old)] = new
        wrapper.token_adapter = new.train(old.training)
