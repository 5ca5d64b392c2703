"""One rank: a process that a launcher starts, that trains its part of each step, and that ends when the launcher does.

`python -m hone.backends.rank POST PULSE` is started by `hone.backends.gang` and by nothing else: the numbers of the
pipe to the launcher and of the pulse's page. The job is the first line of standard input, which stays open for as
long as the launcher lives.
"""

from __future__ import annotations

import ctypes
import faulthandler
import os
import signal
import sys
import threading
import traceback
from collections.abc import Sequence
from dataclasses import asdict
from io import RawIOBase
from typing import Final

from hone.backends.beacon import Beacon
from hone.backends.job import Job, Place
from hone.backends.post import Message, Post, fault_message
from hone.backends.pulse import Page
from hone.backends.report import is_lost_peer
from hone.backends.watchdog import MEETING
from hone.errors import HoneError

_CAUSE_SECONDS: Final = 2.0  # for another machine's rank to say why it ended
_PR_SET_PDEATHSIG: Final = 1  # of Linux's prctl.h


def main(arguments: list[str]) -> int:
    """Do the job; returns the exit code."""
    launcher = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        return 1  # it died before it could be asked to take us along
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR2, all_threads=True)  # the launcher asks so where we hang
    post, page = Post(int(arguments[0])), Page(int(arguments[1]))
    # Unbuffered: what a thread waits on must have no lock, or the interpreter's end finds it held and aborts.
    launcher_says = open(sys.stdin.fileno(), "rb", buffering=0, closefd=False)  # noqa: SIM115 - until the end
    line = launcher_says.readline()
    if not line:
        return 1
    threading.Thread(target=_end_with, args=(launcher_says,), daemon=True).start()
    job, place = Job.decode(line)
    beacons: list[Beacon] = []
    try:
        post.done(_train(job, place, post, page, beacons))
    except HoneError as error:
        _end(post, beacons, fault_message(error))
        return error.exit_code
    except KeyboardInterrupt as error:
        _end(post, beacons, fault_message(error))
        return 130
    except BaseException as error:  # noqa: BLE001 - the launcher says it, whatever it is
        traceback.print_exc()
        _end(post, beacons, fault_message(error))
        return 1
    return 0


def _end(post: Post, beacons: Sequence[Beacon], fault: Message) -> None:
    """Tell the launcher why this rank ends; and the other machines, or what one of them says is the reason."""
    for beacon in beacons:
        cause = beacon.cause(_CAUSE_SECONDS) if is_lost_peer(fault["what"]) else None
        if cause is None:
            beacon.tell_fault(fault)
        else:
            fault = cause
    post.fault(fault)


def _end_with(launcher: RawIOBase) -> None:
    """End at once when the launcher's end of the pipe closes: nobody would hear of what follows."""
    launcher.read()
    os._exit(1)


def _train(
    job: Job, place: Place, post: Post, page: Page, beacons: list[Beacon]
) -> dict[str, object]:
    page.beat("work", "loading libraries")
    import torch

    from hone.engine.ranks import Ranks, open_store
    from hone.recipes.train import train

    if place.spans_machines:
        page.beat("wait", MEETING)
    device = torch.device("cuda", place.gpu) if place.on_gpu else torch.device("cpu")
    ranks = Ranks.join(
        rank=place.rank,
        world=place.world,
        local_rank=place.local_rank,
        local_world=place.local_world,
        device=device,
        meeting=place.store,
        pulse=page,
    )
    if place.spans_machines:
        page.beat("work", "meeting the other machines")
        leads = place.local_rank == 0
        here = range(
            place.rank - place.local_rank, place.rank - place.local_rank + place.local_world
        )
        others = [rank for rank in range(place.world) if rank not in here] if leads else []
        beacon = Beacon(
            open_store(place.store), page, place.rank, others, post.send if leads else None
        )
        beacon.start()
        beacons.append(beacon)
    trained = train(
        job.resolved,
        fresh=job.fresh,
        accept_changes=job.accept_changes,
        command=job.command,
        listeners=[post.event] if ranks.is_first else [],
        ranks=ranks,
        lower=job.lower,
    )
    ranks.wait("the end")
    return {**asdict(trained), "folder": str(trained.folder)}


if __name__ == "__main__":
    code = main(sys.argv[1:])
    sys.stdout.flush()
    sys.stderr.flush()
    # Not `sys.exit`: a thread of a transport that waits for a lost peer must not keep the process.
    os._exit(code)
