"""Attention over a Pack by its definition: one T x T matrix of scores, in the numbers' own precision."""

from __future__ import annotations

import math

import torch
from torch import Tensor

from hone.pack import Pack


def attend_densely(
    pack: Pack,
    query: Tensor,
    key: Tensor,
    value: Tensor,
    scale: float,
    window: int | None,
    cap: float | None,
    sinks: Tensor | None,
) -> Tensor:
    """[1, T, H, D] from queries [1, H, T, D] and keys and values [1, G, T, D]."""
    device = query.device
    places = torch.arange(pack.num_tokens, device=device)
    until = torch.from_numpy(pack.visible_until).to(device)
    depth = torch.from_numpy(pack.position_ids).to(device)
    seen = (places[None, :] <= places[:, None]) & (places[:, None] < until[None, :])
    if window is not None:
        seen &= depth[:, None] - depth[None, :] < window
    groups = query.shape[1] // key.shape[1]
    key, value = (t.repeat_interleave(groups, dim=1) for t in (key, value))
    scores = query @ key.transpose(-1, -2) * scale
    if cap is not None:
        scores = cap * torch.tanh(scores / cap)
    scores = scores.masked_fill(~seen, -math.inf)
    if sinks is not None:
        extra = sinks[None, :, None, None].expand(1, -1, pack.num_tokens, 1)
        scores = torch.cat([scores, extra], dim=-1)
    weights = torch.softmax(scores, dim=-1)[..., : pack.num_tokens]
    return (weights @ value).transpose(1, 2)
