"""The output head of a causal language model: from hidden states to logits, with the family's cap or scale.

It knows no Packs. Legend: S positions, E hidden size, V vocabulary.
"""

from __future__ import annotations

from collections.abc import Iterator
from dataclasses import dataclass
from typing import Any

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
        projection = model.get_output_embeddings()
        trunk = getattr(model, model.base_model_prefix)
        config: Any = model.config.get_text_config()
        cap = getattr(config, "final_logit_softcapping", None)
        factor = 1.0
        if getattr(config, "logits_scaling", None):
            factor = 1.0 / float(config.logits_scaling)
        if getattr(config, "logit_scale", None):
            factor *= float(config.logit_scale)
        return cls(trunk, projection, cap, factor, int(config.vocab_size))

    @property
    def device(self) -> torch.device:
        """Where the head's weights lie."""
        return next(self.projection.parameters()).device

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
