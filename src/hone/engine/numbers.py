"""Scalars on the device, read by the host in one wait. It knows nothing of what they mean."""

from __future__ import annotations

from collections.abc import Sequence
from typing import cast

import torch
from torch import Tensor


def read_numbers(scalars: Sequence[Tensor]) -> list[float]:
    """The values of scalars of one device; float32 and float64 come over exactly."""
    if not scalars:
        return []
    together = torch.stack([scalar.double() for scalar in scalars])
    return cast("list[float]", together.tolist())  # pyright: ignore[reportUnknownMemberType]
