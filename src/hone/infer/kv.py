"""Keys and values of the conversations under way: one slot each, in one tensor a layer. It knows no model.

Legend: S slots, G key heads, C tokens that a slot holds, D head size.
"""

from __future__ import annotations

import torch
from torch import Tensor

_FEWEST_SLOTS = 4
_FEWEST_TOKENS = 64


class Slots:
    """What attention has to remember, in [S, G, C, D] for each layer; it grows by doubling.

    Slots are kept dense: those in use are the first ones, so that a batch reads them without a copy.
    """

    def __init__(self) -> None:
        self._layers: dict[int, tuple[Tensor, Tensor]] = {}
        self._slots = _FEWEST_SLOTS
        self._tokens = _FEWEST_TOKENS

    def reserve(self, slots: int, tokens: int) -> None:
        """Make room for `slots` conversations of `tokens` each; what is held stays."""
        while self._slots < slots:
            self._slots *= 2
        while self._tokens < tokens:
            self._tokens *= 2

    def layer(self, index: int, key: Tensor, value: Tensor) -> tuple[Tensor, Tensor]:
        """The two tensors of a layer, of the kind of `key` and `value` [N, G, 1, D]."""
        held = self._layers.get(index)
        if held is None:
            held = (self._new(key), self._new(value))
        elif held[0].shape[0] < self._slots or held[0].shape[2] < self._tokens:
            held = (self._grown(held[0]), self._grown(held[1]))
        else:
            return held
        self._layers[index] = held
        return held

    def move(self, source: int, target: int, tokens: int) -> None:
        """Put the first `tokens` of a slot into another one."""
        for pair in self._layers.values():
            for tensor in pair:
                tensor[target, :, :tokens] = tensor[source, :, :tokens]

    def clear(self) -> None:
        """Forget everything, and give the memory back."""
        self._layers.clear()
        self._slots, self._tokens = _FEWEST_SLOTS, _FEWEST_TOKENS

    @property
    def held_bytes(self) -> int:
        """Memory in use."""
        return sum(t.numel() * t.element_size() for pair in self._layers.values() for t in pair)

    def _new(self, like: Tensor) -> Tensor:
        # Zeros, because a weight of 0 times whatever lay in memory may be no number.
        return torch.zeros(
            (self._slots, like.shape[1], self._tokens, like.shape[3]),
            dtype=like.dtype,
            device=like.device,
        )

    def _grown(self, held: Tensor) -> Tensor:
        larger = self._new(held)
        larger[: held.shape[0], :, : held.shape[2]] = held
        return larger
