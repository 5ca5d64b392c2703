"""Everything here needs a CUDA device: `make gpu`, or on a bare machine `python -m pytest -m gpu tests/gpu`.

The files import nothing that such a machine lacks: torch, transformers, peft, numpy, safetensors, pytest, hypothesis.
"""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

import pytest
import torch

from hone.engine.device import ask_for_same_bits, resolve_device
from hone.models import attention, gpu_attention

HERE = Path(__file__).parent


def pytest_collection_modifyitems(items: list[pytest.Item]) -> None:
    """Each test of this folder is marked, so that no run without `-m gpu` takes it."""
    for item in items:
        if item.path.is_relative_to(HERE):
            item.add_marker(pytest.mark.gpu)


@pytest.fixture(autouse=True)
def gpu() -> Iterator[torch.device]:
    """The device; a test skips with the reason where there is none."""
    if not torch.cuda.is_available():
        why = "is built without CUDA" if torch.version.cuda is None else "sees no GPU"
        pytest.skip(f"torch {torch.__version__} {why}")
    device = resolve_device("cuda")
    ask_for_same_bits(device, True)
    attention.register()
    gpu_attention.register()
    torch.manual_seed(0)
    yield device
    ask_for_same_bits(device, False)
    torch.cuda.empty_cache()
