"""What each optimizer keeps for a weight, in bytes: arithmetic on its shape. It knows no tensors and loads no torch."""

from __future__ import annotations

from collections.abc import Sequence
from math import prod
from typing import Final, Literal

OptimizerName = Literal[
    "adamw",
    "adamw_8bit",
    "paged_adamw",
    "paged_adamw_8bit",
    "adafactor",
    "lion",
    "lion_8bit",
    "muon",
]
Place = Literal["embedding", "head", "inside"]
"""Where a weight stands: the input embedding (a tied head too), the output head, or between them."""

ELEMENTWISE: Final = frozenset({"adamw", "lion"})
"""Each number is moved by its own gradient alone: right on any part of a weight too."""
FROM_BITSANDBYTES: Final = frozenset({"adamw_8bit", "paged_adamw", "paged_adamw_8bit", "lion_8bit"})
LEAST_QUANTIZED: Final = (
    4096  # numbers; bitsandbytes keeps the moments of a smaller weight in float32
)
LEAST_PAGED: Final = 100_000  # numbers; bitsandbytes pages the moments of a larger weight
_BLOCK: Final = 256  # numbers that share one float32 scale


def is_paged(name: OptimizerName) -> bool:
    """Whether a GPU's driver may move the moments to the host when the GPU is full."""
    return name.startswith("paged_")


def moves_by_muon(shape: Sequence[int], place: Place) -> bool:
    """Whether `muon` orthogonalises this weight's updates: the 2-D weights inside (Jordan et al. 2024)."""
    return len(shape) == 2 and place == "inside"


def is_quantized(name: OptimizerName, shape: Sequence[int], place: Place) -> bool:
    """Whether the moments are 8-bit: not an embedding's (Dettmers et al. 2022), nor a small weight's."""
    return name.endswith("_8bit") and place != "embedding" and prod(shape) >= LEAST_QUANTIZED


def moment_bytes(name: OptimizerName, shape: Sequence[int], place: Place = "inside") -> int:
    """Bytes that the optimizer keeps for one float32 weight: exactly what a checkpoint holds of it.

    AdamW keeps two moments, Lion and Muon one. Adafactor keeps a matrix's second moment as its row and
    column means (Shazeer and Stern 2018). Quantised moments take a byte a number, and a float32 scale for
    each block of 256.
    """
    numbers = prod(shape)
    if name == "adafactor":
        factored = len(shape) > 1
        kept = numbers // shape[-1] + numbers // shape[-2] if factored else numbers
        return 4 * kept + 4  # and the weight's root mean square
    if name == "lion" or (name == "muon" and moves_by_muon(shape, place)):
        return 4 * numbers
    moments = 1 if name == "lion_8bit" else 2
    if is_quantized(name, shape, place):
        return moments * (numbers + 4 * -(-numbers // _BLOCK))
    step = 0 if name in FROM_BITSANDBYTES else 4  # torch's AdamW counts in a tensor
    return moments * 4 * numbers + step
