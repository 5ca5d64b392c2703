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

from hone.models.sending import send
from hone.pack import Pack, splitmix64

_LANES = 4  # 16-bit numbers in one 64-bit hash
_BLOCK = 2**18  # numbers whose hashes live at a time on a CPU: 512 KiB
_HALF = 32768  # numbers below zero, and from zero on, in one lane


class PackNoise(nn.Module):
    """What needs to know step and Pack to draw its numbers. `site` is the name of where it stands."""

    def __init__(self, site: str) -> None:
        super().__init__()
        self._site = np.uint64(int.from_bytes(hashlib.sha256(site.encode()).digest()[:8], "little"))
        self._stream = np.uint64(0)
        self._pack: Pack | None = None
        self._prefix: Tensor | None = None

    def begin_step(self, step: int, seed: int) -> None:
        """Name the step."""
        named = splitmix64(np.asarray([seed], dtype=np.uint64)) + np.uint64(step)
        self._stream = splitmix64(splitmix64(named) ^ self._site)[0]

    def begin_pack(self, pack: Pack, prefix: Tensor | None = None) -> None:
        """Name the tokens of the next forward (and of its recomputation in the backward pass).

        `prefix` is `pack.prefix_hash` as int64[T] on the device, where it lies there already.
        """
        self._pack = pack
        self._prefix = prefix

    def pack_of(self, x: Tensor) -> Pack:
        """The Pack whose tokens `x` [1, T, E] (or [T, E]) holds."""
        if self._pack is None or self._pack.num_tokens != x.shape[-2]:
            raise RuntimeError(f"{type(self).__name__} was called without its Pack")
        return self._pack

    def draw(self, x: Tensor) -> Tensor:
        """int16[T, E] beside `x`, uniform: one 64-bit hash of (stream, prefix, column group) gives four columns."""
        return self._drawn(self._rows(x), x.shape[-1])

    def _rows(self, x: Tensor) -> Tensor:
        """int64[T]: what the hashes of each token begin with."""
        names = self._names(self.pack_of(x), x.device)
        return mixed(names ^ int(self._stream.view(np.int64)))

    @staticmethod
    def _drawn(rows: Tensor, columns: int) -> Tensor:
        """int16[t, E] of so many tokens."""
        groups = -(-columns // _LANES)
        steps = torch.arange(1, groups + 1, device=rows.device) * _signed(0x9E3779B97F4A7C15)
        drawn = rows.unsqueeze(1) + steps
        drawn ^= (drawn >> 32) & 0xFFFFFFFF
        drawn *= -0x4B47D0C5A3B1E1E1 | 1
        drawn ^= (drawn >> 29) & 0x7FFFFFFFF
        drawn *= -0x61C8864680B583EB
        drawn ^= (drawn >> 32) & 0xFFFFFFFF
        return drawn.view(torch.int16)[:, :columns]

    def _names(self, pack: Pack, device: torch.device) -> Tensor:
        """int64[T] the names of the tokens' beginnings."""
        if self._prefix is not None and self._prefix.device == device:
            return self._prefix
        return torch.from_numpy(pack.prefix_hash.view(np.int64)).to(device)


class PrefixDropout(PackNoise):
    """Zeroes each input with probability `p` (met to 1/65,536) and scales the rest by 1 / (1 - p)."""

    def __init__(self, p: float, site: str) -> None:
        super().__init__(site)
        self.p = p

    def forward(self, x: Tensor) -> Tensor:
        """`x` is [1, T, E] (or [T, E])."""
        if not self.training or self.p == 0.0:
            return x
        return x * self._mask(x)

    def _mask(self, x: Tensor) -> Tensor:
        """0 or 1 / (1 - p) for each input: [T, E], in the type of `x`.

        On a CPU a few tokens at a time: hashes of a whole Pack, several times as large as what is kept of them, would leave the
        heap with gaps that little fits into.
        """
        rows, columns = self._rows(x), x.shape[-1]
        mask = torch.empty(rows.shape[0], columns, dtype=x.dtype, device=x.device)
        whole = rows.shape[0] if x.is_cuda else max(1, _BLOCK // columns)
        least = round(self.p * 65536) - _HALF
        for begin in range(0, rows.shape[0], whole):
            part = rows[begin : begin + whole]
            torch.ge(self._drawn(part, columns), least, out=mask[begin : begin + whole])
        return mask.mul_(1.0 / (1.0 - self.p))


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
        noise *= send({"reach": reach}, x.device)["reach"].to(wide).unsqueeze(-1)
        return x + noise.to(x.dtype)


def disturb_embeddings(embedding: nn.Module, alpha: float) -> None:
    """Have what a model's input embedding gives pass through EmbeddingNoise; no name of a weight changes."""
    embedding.add_module("embedding_noise", EmbeddingNoise(alpha))
    embedding.register_forward_hook(_disturb)


def _disturb(embedding: nn.Module, given: object, found: Tensor) -> Tensor:
    del given
    return cast("EmbeddingNoise", embedding.embedding_noise)(found)


def mixed(x: Tensor) -> Tensor:
    """`hone.pack.splitmix64` of int64 numbers taken as unsigned ones, on whatever device they lie."""
    x = (x ^ _shifted(x, 30)) * _signed(0xBF58476D1CE4E5B9)
    x = (x ^ _shifted(x, 27)) * _signed(0x94D049BB133111EB)
    return x ^ _shifted(x, 31)


def _shifted(x: Tensor, places: int) -> Tensor:
    """To the right, with zeros from the left."""
    return (x >> places) & ((1 << (64 - places)) - 1)


def _signed(number: int) -> int:
    """The int64 with the bits of an unsigned number."""
    return number - (1 << 64) if number >> 63 else number
