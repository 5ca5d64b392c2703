"""What a step minimises: each prediction's term, and its gradient. It knows no models and no Packs.

Legend: S positions, N predictions (several may share a position), V vocabulary.
"""

from __future__ import annotations

from dataclasses import dataclass
from typing import Literal

import torch
from torch import Tensor

LossName = Literal["nll", "dft"]


@dataclass(frozen=True)
class Objective:
    """The term of a prediction with target y and weight w, from the logits x of its position.

    With Z = sum(exp(x)), p = exp(x_y) / Z, nll = -log p and e = `label_smoothing`:

        w * f * ((1 - e) * nll + e * mean over v of (log Z - x_v)) + w * z_loss * log(Z)^2

    f is 1, or for `dft` p itself, held constant: dynamic fine-tuning (Wu et al. 2025, On the Generalization
    of SFT), which takes the factor 1 / p out of the gradient. Label smoothing: Szegedy et al. 2016, section
    7; z-loss: Chowdhery et al. 2022 (PaLM), section 5.
    """

    loss: LossName = "nll"
    label_smoothing: float = 0.0
    z_loss: float = 0.0


NLL = Objective()
"""Plain negative log-likelihood: what held-out rows are measured by, whatever is trained on."""


def weighted_losses(
    logits: Tensor,
    source: Tensor,
    target: Tensor,
    weight: Tensor,
    objective: Objective = NLL,
    *,
    want: bool,
) -> tuple[Tensor, Tensor | None]:
    """The terms [N] of `logits` [S, V], and where wanted their sum's gradient with respect to these.

    `source` [N] are positions, `target` [N] tokens. d/dx_v of a prediction's term is
    `w * f * (p_v - (1 - e) * [v = y] - e / V) + 2 * w * z_loss * log(Z) * p_v`, with p_v the softmax; so a
    position's predictions meet in two sums: of w * f, and of w.
    """
    wide = logits.to(weight.dtype)  # a copy unless logits are already that wide
    sums = torch.logsumexp(wide, dim=-1)
    nll = sums[source] - wide[source, target]
    paid = weight if objective.loss == "nll" else weight * torch.exp(-nll)
    smooth = objective.label_smoothing
    if smooth:
        nll = (1 - smooth) * nll + smooth * (sums - wide.mean(dim=-1))[source]
    terms = paid * nll
    if objective.z_loss:
        terms += objective.z_loss * weight * sums[source].square()
    if not want:
        return terms, None
    mass = torch.zeros_like(sums).index_add_(0, source, paid)
    slope = mass
    if objective.z_loss:
        whole = torch.zeros_like(sums).index_add_(0, source, weight)
        slope = mass + 2 * objective.z_loss * whole * sums
    grad = (
        torch.exp_(wide.sub_(sums.unsqueeze(-1)))
        if wide is not logits
        else torch.exp(wide - sums.unsqueeze(-1))
    )
    grad.mul_(slope.unsqueeze(-1))
    if smooth:
        grad.sub_((mass * (smooth / grad.shape[-1])).unsqueeze(-1))
        paid = (1 - smooth) * paid
    grad.index_put_((source, target), -paid, accumulate=True)
    return terms, grad
