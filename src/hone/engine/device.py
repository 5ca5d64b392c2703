"""Where the step is computed, and what a GPU is asked for beforehand. It knows no model."""

from __future__ import annotations

import os
from typing import Any

import torch

from hone.errors import EnvironmentFault


def resolve_device(setting: str) -> torch.device:
    """The device of `compute.device`: for `auto` a GPU where one is here.

    Of several GPUs this process takes the one that its launcher named by `LOCAL_RANK`. Raises EnvironmentFault
    where `cuda` is asked for and there is none.
    """
    here = torch.cuda.is_available()
    if setting == "cpu" or (setting == "auto" and not here):
        return torch.device("cpu")
    if not here:
        built = torch.version.cuda
        why = "this torch is built without CUDA" if built is None else "torch sees no GPU"
        raise EnvironmentFault(
            f"compute.device=cuda, and {why}",
            remedy="install a CUDA build of torch, look at `nvidia-smi` and CUDA_VISIBLE_DEVICES, or set "
            "compute.device=cpu",
        )
    return torch.device("cuda", int(os.environ.get("LOCAL_RANK", "0")))


def ask_for_same_bits(device: torch.device, wanted: bool) -> None:
    """Have a GPU's kernels give the same bits in each run, as they do on a CPU with equal threads anyway.

    Must come before the GPU is first used: its matrix products need their workspace fixed.
    """
    if device.type != "cuda":
        return
    if wanted:
        os.environ.setdefault("CUBLAS_WORKSPACE_CONFIG", ":4096:8")
        settings: Any = torch.utils.deterministic
        settings.fill_uninitialized_memory = False  # it costs a pass over each tensor
    torch.use_deterministic_algorithms(wanted)


def same_bits_cannot_be_had(complaint: str) -> bool:
    """Whether torch complains of an operation that has no kernel with fixed bits; then no more such are asked for."""
    if "deterministic" not in complaint or not torch.are_deterministic_algorithms_enabled():
        return False
    torch.use_deterministic_algorithms(False)
    return True


def device_name(device: torch.device) -> str:
    """The card's own name, or `CPU`."""
    return torch.cuda.get_device_name(device) if device.type == "cuda" else "CPU"
