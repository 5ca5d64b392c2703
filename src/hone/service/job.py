"""The process of one job: a folder with an order becomes a trained run. `python -m hone.service.job FOLDER`.

It knows no database and no network. Started again in the same folder it goes on from the last checkpoint and ends with
the same bits; SIGTERM stops it after the step that it is in, saved. Its standard input is its lifeline: when that ends,
it ends at once. How it ended stands in `outcome.json`; its exit code is that of `hone train`.
"""

from __future__ import annotations

import math
import os
import shutil
import sys
import time
import traceback
from collections.abc import Callable
from pathlib import Path
from typing import Final, TypeVar

from hone.errors import HoneError, LockedError
from hone.service.lifeline import hold
from hone.service.order import BEGINNING, Order, Outcome

_LOCK_PATIENCE_SECONDS: Final = 60.0
_LOOK_SECONDS: Final = 0.2

_T = TypeVar("_T")


def main() -> int:
    """Do what the folder on the command line orders."""
    os.umask(0o077)
    folder = Path(sys.argv[1]).resolve()
    hold(sys.stdin.fileno())
    Outcome.forget(folder)
    try:
        outcome = do(Order.read(folder), folder)
    except Exception as error:  # noqa: BLE001 - whoever started this process is told
        if not isinstance(error, HoneError):
            traceback.print_exception(error)
        Outcome.of_error(error).write(folder)
        return error.exit_code if isinstance(error, HoneError) else 1
    outcome.write(folder)
    return 0


def do(order: Order, folder: Path) -> Outcome:
    """Train as ordered. Raises HoneError."""
    if order.call is not None:
        from hone.service.call import train_call

        call = order.call
        return when_free(lambda: train_call(call, folder))
    job = order.run
    assert job is not None
    from hone.backends.training import train

    if order.begins_at is not None:
        _write_beginning(Path(order.begins_at), folder / BEGINNING)
    done = when_free(lambda: train(job.resolved, command=job.command))
    loss = done.loss if math.isfinite(done.loss) else None
    return Outcome("finished", done.steps, loss, done.validation_loss)


def _write_beginning(checkpoint: Path, folder: Path) -> None:
    """Make an adapter of the checkpoint that the job begins with; what a killed process left is written again."""
    from hone.infer.checkpoint_adapter import write_adapter
    from hone.infer.place import find_place

    if (folder / "adapter_config.json").is_file():
        return
    place = find_place(str(checkpoint))
    assert place.config is not None
    shutil.rmtree(folder, ignore_errors=True)
    beside = folder.with_name(f".{folder.name}")
    shutil.rmtree(beside, ignore_errors=True)
    beside.mkdir()
    write_adapter(place.folder, place.config, place.base, beside)
    os.rename(beside, folder)


def when_free(work: Callable[[], _T], *, patience_seconds: float = _LOCK_PATIENCE_SECONDS) -> _T:
    """Do it, once a former process of this job, which is about to end, has let go of its lock."""
    until = time.monotonic() + patience_seconds
    while True:
        try:
            return work()
        except LockedError:
            if time.monotonic() >= until:
                raise
            time.sleep(_LOOK_SECONDS)


if __name__ == "__main__":
    sys.exit(main())
