"""The peers, and the settings that each is tried at, so that it is compared at its best. It runs nothing.

A step always takes 8 rows: `rows` at a time in `passes` forward and backward passes. With packing a pass takes one
pack, and the packs of a step hold about as many tokens as 8 rows do.
"""

from __future__ import annotations

import sys
from dataclasses import dataclass
from typing import Any

Setting = dict[str, Any]


@dataclass(frozen=True)
class Peer:
    """A system that Hone is measured beside."""

    name: str
    script: str
    precisions: dict[str, tuple[str, ...]]
    """By Hone's: weights and arithmetic in float32; arithmetic, weights, or both in bfloat16."""
    python: str = sys.executable
    only_padded: bool = False
    """Whether it is tried without packing only: its own kind needs a GPU's attention."""

    def settings(self, kind: str, *, compiled: bool = False) -> dict[str, Setting]:
        """By name, for rows of a kind. `compiled` adds torch.compile, which spends minutes before its first step."""
        chosen = _LONG if kind == "airline" else _SHORT
        if self.only_padded:
            return {name: one for name, one in chosen.items() if set(one) <= _PADDED}
        return {**chosen, **_COMPILED} if compiled else chosen


def trl() -> Peer:
    """TRL's SFTTrainer, of this environment."""
    precisions = {
        "fp32": ("fp32",),
        "bf16": ("bf16-autocast", "pure-bf16", "pure-bf16-autocast"),
    }
    return Peer("TRL", "trl_side.py", precisions)


def llamafactory(python: str) -> Peer:
    """LLaMA-Factory, of the environment whose interpreter is `python`."""
    precisions = {"fp32": ("fp32",), "bf16": ("bf16-autocast", "pure-bf16")}
    return Peer("LLaMA-Factory", "llamafactory_side.py", precisions, python, only_padded=True)


_PADDED = {"rows", "passes", "group", "attention"}

_SHORT: dict[str, Setting] = {
    "default, 8 x 1": {"rows": 8, "passes": 1},
    "default, 4 x 2": {"rows": 4, "passes": 2},
    "one row at a time, 1 x 8": {"rows": 1, "passes": 8},
    "group_by_length, 8 x 1": {"rows": 8, "passes": 1, "group": True},
    "group_by_length, 4 x 2": {"rows": 4, "passes": 2, "group": True},
    "group_by_length, 2 x 4": {"rows": 2, "passes": 4, "group": True},
    "group_by_length, 8 x 1, eager": {"rows": 8, "passes": 1, "group": True, "attention": "eager"},
    "padding_free, 8 x 1": {"rows": 8, "passes": 1, "padding_free": True},
    "padding_free, 2 x 4": {"rows": 2, "passes": 4, "padding_free": True},
    "packing bfd 1,024 x 2": {"rows": 1, "passes": 2, "packing": "bfd", "pack_tokens": 1024},
}

_LONG: dict[str, Setting] = {
    "default, 4 x 2": {"rows": 4, "passes": 2},
    "default, 2 x 4": {"rows": 2, "passes": 4},
    "one row at a time, 1 x 8": {"rows": 1, "passes": 8},
    "group_by_length, 4 x 2": {"rows": 4, "passes": 2, "group": True},
    "group_by_length, 2 x 4": {"rows": 2, "passes": 4, "group": True},
    "one row at a time, 1 x 8, eager": {"rows": 1, "passes": 8, "attention": "eager"},
    "padding_free, 2 x 4": {"rows": 2, "passes": 4, "padding_free": True},
    "packing bfd 12,000 x 5": {"rows": 1, "passes": 5, "packing": "bfd", "pack_tokens": 12_000},
}

_COMPILED = {
    "group_by_length, 8 x 1, torch.compile": {
        "rows": 8,
        "passes": 1,
        "group": True,
        "compile": True,
    }
}


def briefly(setting: Setting, rows: int) -> Setting:
    """The same setting with steps of about `rows` rows."""
    return {**setting, "passes": max(1, setting["passes"] * rows // 8)}
