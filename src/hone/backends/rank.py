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
from dataclasses import asdict
from typing import BinaryIO

from hone.backends.job import Job, Place
from hone.backends.post import Post
from hone.backends.pulse import Page
from hone.errors import HoneError

_PR_SET_PDEATHSIG = 1  # of Linux's prctl.h


def main(arguments: list[str]) -> int:
    """Do the job; returns the exit code."""
    launcher = os.getppid()
    ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGKILL)
    if os.getppid() != launcher:
        return 1  # it died before it could be asked to take us along
    faulthandler.enable()
    faulthandler.register(signal.SIGUSR1, all_threads=True)  # the launcher asks so where we hang
    post, page = Post(int(arguments[0])), Page(int(arguments[1]))
    line = sys.stdin.buffer.readline()
    if not line:
        return 1
    threading.Thread(target=_end_with, args=(sys.stdin.buffer,), daemon=True).start()
    job, place = Job.decode(line)
    try:
        post.done(_train(job, place, post, page))
    except HoneError as error:
        post.fault(error)
        return error.exit_code
    except KeyboardInterrupt as error:
        post.fault(error)
        return 130
    except BaseException as error:  # noqa: BLE001 - the launcher says it, whatever it is
        traceback.print_exc()
        post.fault(error)
        return 1
    return 0


def _end_with(launcher: BinaryIO) -> None:
    """End at once when the launcher's end of the pipe closes: nobody would hear of what follows."""
    launcher.read()
    os._exit(1)


def _train(job: Job, place: Place, post: Post, page: Page) -> dict[str, object]:
    page.beat("work", "loading libraries")
    import torch

    from hone.engine.ranks import Ranks
    from hone.recipes.train import train

    device = torch.device("cuda", place.local_rank) if place.on_gpu else torch.device("cpu")
    ranks = Ranks.join(
        rank=place.rank,
        world=place.world,
        local_rank=place.local_rank,
        local_world=place.local_world,
        device=device,
        meeting=place.store,
        pulse=page,
    )
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
