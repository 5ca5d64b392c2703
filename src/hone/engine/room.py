"""How much memory a step may take on this device, and what a token of a Pack needs. It knows no rows."""

from __future__ import annotations

from collections.abc import Callable

import torch

from hone.engine import machine
from hone.engine.loss import PackLoss
from hone.pack import Pack


def available_bytes(device: torch.device, *, sharers: int = 1) -> int:
    """Free memory of the device; on a CPU the least of the machine's and the control group's, divided by
    the `sharers` that want it."""
    if device.type == "cuda":
        free, _ = torch.cuda.mem_get_info(device)
        return int(free) + torch.cuda.memory_reserved(device) - torch.cuda.memory_allocated(device)
    return machine.available_bytes() // sharers


def activation_bytes_per_token(loss: PackLoss, pack: Pack) -> float:
    """What one forward keeps for its backward, per token: measured by watching what autograd saves.

    Storages that parameters own are not counted; a storage saved twice counts once.
    """
    owned = {p.untyped_storage().data_ptr() for p in loss.parameters()}
    seen: dict[int, int] = {}

    def note(tensor: torch.Tensor) -> torch.Tensor:
        storage = tensor.untyped_storage()
        if storage.data_ptr() not in owned:
            seen[storage.data_ptr()] = storage.nbytes()
        return tensor

    with torch.autograd.graph.saved_tensors_hooks(note, lambda tensor: tensor):
        term = loss(pack, 1.0)
    del term
    return sum(seen.values()) / pack.num_tokens


def peak_bytes_of(
    device: torch.device, run: Callable[[], object], discard: Callable[[], object]
) -> int:
    """Most bytes that `run`, a forward and backward, allocates on the GPU beyond what is there, gradients included;
    `discard` forgets these."""
    torch.cuda.synchronize(device)
    before = torch.cuda.memory_allocated(device)
    torch.cuda.reset_peak_memory_stats(device)
    run()
    torch.cuda.synchronize(device)
    peak = torch.cuda.max_memory_allocated(device) - before
    discard()
    return peak
