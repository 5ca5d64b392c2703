"""What the forward pass keeps for the backward pass, in page-locked memory of the host meanwhile.

Copies run beside the computation on a stream of their own; coming back, the next tensor is on its way while the
present one is used. Numbers do not change. It knows no model.
"""

from __future__ import annotations

from collections import deque
from collections.abc import Generator
from contextlib import contextmanager
from typing import Any

import torch
from torch import Tensor

_LEAST_BYTES = 1 << 20  # smaller tensors stay: moving them frees nothing
_AHEAD = 2  # tensors on their way back at a time
_RECENT = 8  # tensors just sent, among which one that is kept twice is found again


class Moved:
    """A tensor that went to the host: its copy there, and on the way back the one on the device."""

    def __init__(self, host: Tensor, device: torch.device, before: Moved | None) -> None:
        self.host = host
        self.device = device
        self.before = before  # the one sent before it, which is wanted after it
        self.back: Tensor | None = None
        self.done: torch.cuda.Event | None = None


class Offload:
    """Sends saved tensors away and brings them back; `saving()` is entered around one forward pass."""

    def __init__(self, device: torch.device, *, least_bytes: int = _LEAST_BYTES) -> None:
        self._device = device
        self._least_bytes = least_bytes
        self._on_gpu = device.type == "cuda"
        self._side: Any = torch.cuda.Stream(device) if self._on_gpu else None
        self._last: Moved | None = None
        self._recent: deque[tuple[Tensor, int, Moved]] = deque(maxlen=_RECENT)
        self.moved_bytes = 0
        """Sent to the host so far."""

    @contextmanager
    def saving(self, stays: frozenset[int] = frozenset()) -> Generator[None]:
        """What autograd keeps meanwhile goes to the host; storages at the addresses `stays` (weights) do not."""
        self._last = None

        def away(tensor: Tensor) -> Tensor | Moved:
            kept = tensor.untyped_storage().data_ptr() in stays
            if kept or tensor.device != self._device or tensor.nbytes < self._least_bytes:
                return tensor
            return self._send(tensor)

        try:
            with torch.autograd.graph.saved_tensors_hooks(away, self._fetch):
                yield
        finally:
            self._recent.clear()
            self._last = None

    def _send(self, tensor: Tensor) -> Moved:
        for sent, version, moved in self._recent:
            if _same(sent, tensor) and version == tensor._version:
                return moved
        host = torch.empty(tensor.shape, dtype=tensor.dtype, pin_memory=self._on_gpu)
        moved = Moved(host, tensor.device, self._last)
        if self._on_gpu:
            self._side.wait_stream(torch.cuda.current_stream(self._device))
            with torch.cuda.stream(self._side):
                host.copy_(tensor, non_blocking=True)
                tensor.record_stream(self._side)
        else:
            host.copy_(tensor)
        # Held for a moment, so that no other tensor can take its place in memory and be taken for it.
        self._recent.append((tensor, tensor._version, moved))
        self._last = moved
        self.moved_bytes += tensor.nbytes
        return moved

    def _fetch(self, kept: Tensor | Moved) -> Tensor:
        if isinstance(kept, Tensor):
            return kept
        if not self._on_gpu:
            return kept.host
        self._bring(kept)
        ahead = kept.before
        for _ in range(_AHEAD):
            if ahead is None:
                break
            self._bring(ahead)
            ahead = ahead.before
        back, done = kept.back, kept.done
        assert back is not None
        assert done is not None
        stream = torch.cuda.current_stream(self._device)
        stream.wait_event(done)
        back.record_stream(stream)
        kept.before = None  # the chain behind it is not needed a second time
        return back

    def _bring(self, moved: Moved) -> None:
        """Start the way back, once."""
        if moved.back is not None:
            return
        with torch.cuda.stream(self._side):
            moved.back = moved.host.to(moved.device, non_blocking=True)
            moved.done = torch.cuda.Event()
            moved.done.record(self._side)


def _same(one: Tensor, other: Tensor) -> bool:
    """Whether two tensors are the same numbers in the same place."""
    return (
        one.data_ptr() == other.data_ptr()
        and one.shape == other.shape
        and one.stride() == other.stride()
        and one.dtype == other.dtype
    )
