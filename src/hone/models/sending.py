"""Arrays of the host, put on the device in one copy that the host does not wait for. It knows no Packs."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

import numpy as np
import torch
from numpy.typing import NDArray
from torch import Tensor

_ALIGNED = 16  # bytes; a view into the buffer starts at a multiple of its own type's size
_TYPES: dict[str, torch.dtype] = {
    "bool": torch.bool,
    "int32": torch.int32,
    "int64": torch.int64,
    "float32": torch.float32,
    "float64": torch.float64,
}


def send(arrays: Mapping[str, NDArray[Any]], device: torch.device) -> dict[str, Tensor]:
    """The arrays as tensors on `device`, by name.

    On a GPU they travel together, from page-locked memory, on the current stream: what is computed there
    afterwards sees them, and the host goes on at once. Elsewhere they stay where they are.
    """
    if device.type == "cpu":
        return {name: torch.from_numpy(np.ascontiguousarray(a)) for name, a in arrays.items()}
    buffer, places = laid_together(arrays)
    sent = torch.from_numpy(buffer).pin_memory().to(device, non_blocking=True)
    return taken_apart(sent, arrays, places)


def laid_together(
    arrays: Mapping[str, NDArray[Any]],
) -> tuple[NDArray[np.uint8], dict[str, int]]:
    """All arrays behind one another as bytes, and where each begins."""
    places: dict[str, int] = {}
    end = 0
    for name, array in arrays.items():
        places[name] = end
        end += -(-array.nbytes // _ALIGNED) * _ALIGNED
    buffer = np.zeros(max(end, _ALIGNED), dtype=np.uint8)
    for name, array in arrays.items():
        flat = np.ascontiguousarray(array).reshape(-1).view(np.uint8)
        buffer[places[name] : places[name] + flat.shape[0]] = flat
    return buffer, places


def taken_apart(
    buffer: Tensor, arrays: Mapping[str, NDArray[Any]], places: Mapping[str, int]
) -> dict[str, Tensor]:
    """Views into the bytes `buffer`, of the types and shapes of `arrays`."""
    return {
        name: buffer[places[name] : places[name] + array.nbytes]
        .view(_TYPES[array.dtype.name])
        .view(array.shape)
        for name, array in arrays.items()
    }
