"""Graphics cards by name: memory, and the most that their matrix units can do. A table; it asks no driver.

`memory_mib` is what nvidia-smi reports as the card's total with error correction as delivered. `bf16` is the peak of
dense products in bfloat16 with sums in float32, in TFLOP/s, as the maker's data sheet says it (half of the figure
"with sparsity"); None where the card has no bfloat16 units. `fp32` is the peak of plain float32, without tensor cores.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Final

from hone.errors import ConfigError, nearest


@dataclass(frozen=True)
class Card:
    """One model of card."""

    name: str
    says: str
    """What the driver calls it."""
    memory_mib: int
    bf16: float | None
    """TFLOP/s."""
    fp32: float
    """TFLOP/s."""
    source: str

    @property
    def memory_bytes(self) -> int:
        """All of it; the driver and its context take their part."""
        return self.memory_mib * 2**20

    def peak_flops(self, precision: str) -> float:
        """Floating-point operations a second at the very most, in `fp32` or `bf16` arithmetic."""
        best = self.bf16 if precision == "bf16" and self.bf16 is not None else self.fp32
        return best * 1e12


_HOPPER: Final = "NVIDIA H100 and H200 data sheets"
_AMPERE: Final = "NVIDIA A100 data sheet"
_GA102: Final = "NVIDIA Ampere GA102 whitepaper 2.1, appendices"
_ADA: Final = "NVIDIA Ada GPU architecture whitepaper 2.1, appendix"

CARDS: Final = (
    Card("b200", "NVIDIA B200", 183_359, 2250.0, 75.0, "NVIDIA DGX B200 data sheet"),
    Card("h200", "NVIDIA H200", 143_771, 989.4, 66.9, _HOPPER),
    Card("h100", "NVIDIA H100 80GB HBM3", 81_559, 989.4, 66.9, _HOPPER),
    Card("h100-nvl", "NVIDIA H100 NVL", 95_830, 835.0, 60.0, "NVIDIA H100 NVL data sheet"),
    Card("h100-pcie", "NVIDIA H100 PCIe", 81_559, 756.0, 51.2, "NVIDIA H100 whitepaper"),
    Card("a100-80", "NVIDIA A100-SXM4-80GB", 81_920, 312.0, 19.5, _AMPERE),
    Card("a100-40", "NVIDIA A100-SXM4-40GB", 40_960, 312.0, 19.5, _AMPERE),
    Card("l40s", "NVIDIA L40S", 46_068, 362.0, 91.6, "NVIDIA L40S data sheet"),
    Card("l4", "NVIDIA L4", 23_034, 121.0, 30.3, "NVIDIA L4 data sheet"),
    Card("a10", "NVIDIA A10", 23_028, 125.0, 31.2, "NVIDIA A10 data sheet"),
    Card("a6000", "NVIDIA RTX A6000", 49_140, 154.8, 38.7, _GA102),
    Card("rtx5090", "NVIDIA GeForce RTX 5090", 32_607, 209.5, 104.8, "NVIDIA RTX Blackwell whitepaper"),
    Card("rtx4090", "NVIDIA GeForce RTX 4090", 24_564, 165.2, 82.6, _ADA),
    Card("rtx3090", "NVIDIA GeForce RTX 3090", 24_576, 71.0, 35.6, _GA102),
    Card("v100-32", "Tesla V100-SXM2-32GB", 32_768, None, 15.7, "NVIDIA V100 data sheet"),
    Card("v100-16", "Tesla V100-SXM2-16GB", 16_384, None, 15.7, "NVIDIA V100 data sheet"),
    Card("t4", "Tesla T4", 15_360, None, 8.1, "NVIDIA T4 data sheet"),
)  # fmt: skip

_BY_NAME: Final = {card.name: card for card in CARDS}
_SAME: Final = {"a100": "a100-80", "v100": "v100-32", "4090": "rtx4090", "3090": "rtx3090"}
_MOST_CARDS: Final = 4096


def read_cards(text: str) -> tuple[Card, int]:
    """The card and the count that `h100:8` (or `h100`, one of them) names. Raises ConfigError."""
    match = re.fullmatch(r"([a-z0-9-]+)(?::([0-9]{1,5}))?", text.strip().lower())
    name = _SAME.get(match[1], match[1]) if match else text
    count = int(match[2] or 1) if match else 0
    if name not in _BY_NAME:
        raise ConfigError(f"no card is known by the name {text!r}", remedy=nearest(name, _BY_NAME))
    if not 1 <= count <= _MOST_CARDS:
        raise ConfigError(f"--gpu {text}: {count} cards", remedy="write a count, such as h100:8")
    return _BY_NAME[name], count


def card_called(says: str) -> Card | None:
    """The card that a driver calls so; None for one that stands in no table."""
    return next((card for card in CARDS if card.says.lower() == says.strip().lower()), None)
