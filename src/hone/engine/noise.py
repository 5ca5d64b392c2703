"""Noise that is named by (seed, step, site, prefix): rows that begin alike share it.

With a stream of random numbers, a token shared by two rows would be disturbed once where apart it is
disturbed twice, each way its own, and neither layout nor resume would leave the gradient alone.
"""

from __future__ import annotations

import hashlib
from typing import cast

import numpy as np
import torch
from torch import Tensor, nn

from hone.pack import Pack, splitmix64

_LANES = 4  # 16-bit numbers in one 64-bit hash
_HALF = 32768  # numbers below zero, and from zero on, in one lane


class PackNoise(nn.Module):
    """What needs to know step and Pack to draw its numbers. `site` is the name of where it stands."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self._site = np.uint64(int.from_bytes(hashlib.sha256(site.encode()).digest()[:8], "little"))
        self._stream = np.uint64(0)
        self._pack: Pack | None = None

    def begin_step(self, step: int, seed: int) -> None:
        """Name the step."""
        mixed = splitmix64(np.asarray([seed], dtype=np.uint64)) + np.uint64(step)
        self._stream = splitmix64(splitmix64(mixed) ^ self._site)[0]

    def begin_pack(self, pack: Pack) -> None:
        """Name the tokens of the next forward (and of its recomputation in the backward pass)."""
        self._pack = pack

    def pack_of(self, x: Tensor) -> Pack:
        """The Pack whose tokens `x` [1, T, E] (or [T, E]) holds."""
        if self._pack is None or self._pack.num_tokens != x.shape[-2]:
            raise RuntimeError(f"{type(self).__name__} was called without its Pack")
        return self._pack

    def draw(self, x: Tensor) -> Tensor:
        """int16[T, E] beside `x`, uniform: one 64-bit hash of (stream, prefix, column group) gives four columns."""
        pack, columns = self.pack_of(x), x.shape[-1]
        groups = -(-columns // _LANES)
        rows = splitmix64(pack.prefix_hash ^ self._stream).view(np.int64)
        steps = np.arange(1, groups + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        mixed = torch.from_numpy(rows).to(x.device).unsqueeze(1)
        mixed = mixed + torch.from_numpy(steps.view(np.int64)).to(x.device)
        mixed ^= (mixed >> 32) & 0xFFFFFFFF
        mixed *= -0x4B47D0C5A3B1E1E1 | 1
        mixed ^= (mixed >> 29) & 0x7FFFFFFFF
        mixed *= -0x61C8864680B583EB
        mixed ^= (mixed >> 32) & 0xFFFFFFFF
        return mixed.view(torch.int16)[:, :columns]


class PrefixDropout(PackNoise):
    """Zeroes each input with probability `p` (met to 1/65,536) and scales the rest by 1 / (1 - p)."""

    def __init__(self, p: float, site: str) -> None:
        super().__init__(site)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """`x` is [1, T, E] (or [T, E])."""
        if not self.training or self.p == 0.0:
            return x
        keep = self.draw(x) >= round(self.p * 65536) - _HALF
        return x * (keep.to(x.dtype) * (1.0 / (1.0 - self.p)))


class EmbeddingNoise(PackNoise):
    """NEFTune (Jain et al. 2023): adds to embeddings noise from (-1, 1), times `alpha / sqrt(L * E)`.

    L is the length of the token's own row: the tokens of it that a step computes. A token that two rows
    shared would need two noises, so it takes Packs in which nothing is shared.
    """

    def __init__(self, alpha: float, site: str = "neftune") -> None:
        super().__init__(site)
        self.alpha = alpha

    def forward(self, x: Tensor) -> Tensor:
        """`x` is [1, T, E], what the embedding gave."""
        if not self.training or self.alpha == 0.0:
            return x
        pack = self.pack_of(x)
        if pack.shares or len(pack.nodes) < np.unique(pack.row).shape[0]:
            raise RuntimeError("noise on embeddings takes Packs of rows that share nothing")
        wide = torch.promote_types(x.dtype, torch.float32)
        rows = [node.end - node.start for node in pack.nodes]
        lengths = np.repeat(rows, rows)
        reach = self.alpha / np.sqrt(lengths * x.shape[-1]) / _HALF
        noise = self.draw(x).to(wide) + 0.5
        noise *= torch.from_numpy(reach).to(device=x.device, dtype=wide).unsqueeze(-1)
        return x + noise.to(x.dtype)


def disturb_embeddings(embedding: nn.Module, alpha: float) -> None:
    """Have what a model's input embedding gives pass through EmbeddingNoise; no name of a weight changes."""
    embedding.add_module("embedding_noise", EmbeddingNoise(alpha))
    embedding.register_forward_hook(_disturb)


def _disturb(embedding: nn.Module, given: object, found: Tensor) -> Tensor:
    del given
    return cast("EmbeddingNoise", embedding.embedding_noise)(found)
