"""Dropout whose noise is named by (seed, step, site, prefix): rows that begin alike share it.

With a stream of random numbers, a token shared by two rows would be dropped once where apart it is
dropped twice, each way its own, and neither layout nor resume would leave the gradient alone.
"""

from __future__ import annotations

import hashlib

import numpy as np
import torch
from torch import Tensor, nn

from hone.pack import Pack, splitmix64

_LANES = 4  # 16-bit numbers in one 64-bit hash


class PrefixDropout(nn.Module):
    """Zeroes each input with probability `p` and scales the rest by 1 / (1 - p).

    `site` is the name of the layer. `p` is met to 1/65,536.
    """

    def __init__(self, p: float, site: str) -> None:
        super().__init__()
        self.p = p
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

    def forward(self, x: Tensor) -> Tensor:
        """`x` is [1, T, E] (or [T, E])."""
        if not self.training or self.p == 0.0:
            return x
        if self._pack is None or self._pack.num_tokens != x.shape[-2]:
            raise RuntimeError("PrefixDropout was called without its Pack")
        keep = self._keep(self._pack, x.shape[-1]).to(x.device)
        return x * (keep.to(x.dtype) * (1.0 / (1.0 - self.p)))

    def _keep(self, pack: Pack, columns: int) -> Tensor:
        """bool[T, columns]: one 64-bit hash of (stream, prefix, column group) gives four columns."""
        groups = -(-columns // _LANES)
        rows = splitmix64(pack.prefix_hash ^ self._stream).view(np.int64)
        steps = np.arange(1, groups + 1, dtype=np.uint64) * np.uint64(0x9E3779B97F4A7C15)
        x = torch.from_numpy(rows).unsqueeze(1) + torch.from_numpy(steps.view(np.int64))
        x ^= (x >> 32) & 0xFFFFFFFF
        x *= -0x4B47D0C5A3B1E1E1 | 1
        x ^= (x >> 29) & 0x7FFFFFFFF
        x *= -0x61C8864680B583EB
        x ^= (x >> 32) & 0xFFFFFFFF
        lanes = x.view(torch.int16)[:, :columns]
        threshold = round(self.p * 65536) - 32768
        return lanes >= threshold
