"""The next step's layout, made in a background thread while this step computes. It knows no tensors.

A layout is a pure function of (index, budget): made early, late or twice, it is the same.
"""

from __future__ import annotations

from collections.abc import Callable
from concurrent.futures import Future, ThreadPoolExecutor
from typing import Protocol

from hone.pack import Step


class Source(Protocol):
    """Where steps come from; a pure function of its arguments."""

    def step(self, index: int, micro_batch_tokens: int) -> Step:
        """The 0-based step `index`, in Packs of at most so many tokens where Examples allow it."""
        ...


class Ahead:
    """`take` hands out a step, waiting for it if it is on its way; `prepare` starts one.

    `ready(step)` is told in the thread of a step that was laid out ahead.
    """

    def __init__(self, source: Source, *, ready: Callable[[Step], object] | None = None) -> None:
        self._source = source
        self._ready = ready
        self._thread = ThreadPoolExecutor(max_workers=1, thread_name_prefix="layout")
        self._wanted: tuple[int, int] | None = None
        self._coming: Future[Step] | None = None

    def prepare(self, index: int, micro_batch_tokens: int) -> None:
        """Start laying out a step; what was prepared before and not taken is forgotten."""
        self._wanted = (index, micro_batch_tokens)
        self._coming = self._thread.submit(self._lay_out, index, micro_batch_tokens)

    def take(self, index: int, micro_batch_tokens: int) -> Step:
        """The step, from the thread where it was prepared with these very arguments."""
        coming, self._coming = self._coming, None
        if coming is not None and self._wanted == (index, micro_batch_tokens):
            return coming.result()
        return self._source.step(index, micro_batch_tokens)

    def _lay_out(self, index: int, micro_batch_tokens: int) -> Step:
        step = self._source.step(index, micro_batch_tokens)
        if self._ready is not None:
            self._ready(step)
        return step

    def __enter__(self) -> Ahead:
        return self

    def __exit__(self, *_: object) -> None:
        self._thread.shutdown(wait=False, cancel_futures=True)
