"""Memory that runs out beside a step: while a model is loaded, rows are read, an artifact is written."""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Generator

from hone.engine.budget import is_out_of_memory
from hone.errors import OutOfMemory

_REMEDIES = {
    "loading": "load it smaller: tuning.method=qlora, train.precision=bf16 or a smaller model; or free memory on this "
    "machine",
    "saving": "free memory on this machine; what was trained is in the last checkpoint, and the same command goes on "
    "from there",
    "merging": "free memory on this machine, or merge on a larger one; nothing was left",
}
_ELSE = "free memory on this machine; the same command goes on from the last checkpoint"


@contextlib.contextmanager
def memory_faults(phase: Callable[[], str]) -> Generator[None]:
    """Turn an allocator's error inside into OutOfMemory, which says what was done when it came.

    What a step does about its own lack of memory is the engine's; here comes what nothing smaller can be made of.
    """
    try:
        yield
    except (MemoryError, RuntimeError) as error:
        if not is_out_of_memory(error):
            raise
        doing = phase() or "starting"
        said = str(error).strip().splitlines() or ["no more to be had"]
        raise OutOfMemory(
            f"out of memory while {doing}: {said[0]}", remedy=_REMEDIES.get(doing, _ELSE)
        ) from error
