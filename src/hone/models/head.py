"""The output head of a causal language model: from hidden states to logits, with the family's cap or scale.

It knows no Packs. Legend: S positions, E hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any, cast

import torch
from torch import Tensor, nn
from transformers import PreTrainedModel


@dataclass(frozen=True)
class Head:
    """Trunk and head of a model, apart; `logits(trunk(x)[0])` equals the model's own logits.

    `cap` is Gemma's soft cap (`cap * tanh(logits / cap)`), `factor` Granite's and Cohere's scale.
    """

    trunk: nn.Module
    projection: nn.Module
    cap: float | None
    factor: float
    vocab_size: int

    @classmethod
    def of(cls, model: PreTrainedModel) -> Head:
        """Find trunk and head, and read cap and scale from the config."""
        projection = cast(nn.Module, model.get_output_embeddings())
        trunk = getattr(model, model.base_model_prefix)
        config: Any = model.config.get_text_config()
        cap = getattr(config, "final_logit_softcapping", None)
        factor = 1.0
        if getattr(config, "logits_scaling", None):
            factor = 1.0 / float(config.logits_scaling)
        if getattr(config, "logit_scale", None):
            factor *= float(config.logit_scale)
        return cls(trunk, projection, cap, factor, int(config.vocab_size))

    @classmethod
    def whole(cls, model: PreTrainedModel) -> Head:
        """The model's own logits in one piece, for families whose head is not understood."""
        return cls(
            _Logits(model), nn.Identity(), None, 1.0, int(model.config.get_text_config().vocab_size)
        )

    @property
    def device(self) -> torch.device:
        """Where the weights lie."""
        return next(self.trunk.parameters()).device

    def equals(self, model: PreTrainedModel) -> bool:
        """Whether trunk and head apart give the model's own logits, tried on one short row."""
        ids = torch.arange(1, 12, device=self.device).unsqueeze(0) * 7919 % self.vocab_size
        trains = model.training
        model.eval()  # noise is named by a step and its Pack, of which there is none here
        try:
            with torch.no_grad():
                want = model(input_ids=ids, use_cache=False).logits[0].float()
                got = self.logits(self.trunk(input_ids=ids, use_cache=False)[0][0]).float()
        finally:
            model.train(trains)
        return bool(torch.allclose(got, want, rtol=1e-3, atol=1e-3 * float(want.abs().max())))

    def logits(self, hidden: Tensor) -> Tensor:
        """Logits [S, V] of hidden states [S, E]."""
        out: Tensor = self.projection(hidden)
        if self.factor != 1.0:
            out = out * self.factor
        if self.cap is not None:
            out = self.cap * torch.tanh(out / self.cap)
        return out

    def trained_parameters(self) -> Iterator[nn.Parameter]:
        """Parameters of the head that are trained (a tied embedding is one)."""
        return (p for p in self.projection.parameters() if p.requires_grad)


class _Logits(nn.Module):
    """A model as a trunk whose hidden states are its logits already."""

    def __init__(self, model: PreTrainedModel) -> None:
        super().__init__()
        self.model = model

    def forward(self, **arguments: Any) -> tuple[Tensor]:
        """Logits [1, T, V], as the first of a tuple."""
        return (self.model(**arguments).logits,)
