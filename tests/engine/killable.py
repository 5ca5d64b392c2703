"""Runs of the real loop in a real run folder, as processes that a test may kill.

Started once, it reads folders from its input, one a line. For each it forks (so torch is loaded once only), prints
the process id, and when that process has ended, its exit code. A run goes on where its newest checkpoint stands,
writes the hash of its final weights to FOLDER.result, and what a user would be told to FOLDER.told.
"""

from __future__ import annotations

import hashlib
import os
import sys
from pathlib import Path

import torch

from hone.engine.loop import train
from hone.engine.plan import Plan
from hone.engine.stop import StopRequest
from hone.errors import HoneError
from hone.runs.folder import RunFolder
from tests.engine.stand_in import TinyLoss, TinySource

PLAN = Plan(
    steps=240,
    learning_rate=0.02,
    budgets=((1, 40),),
    warmup_ratio=0.1,
    weight_decay=0.1,
    steps_per_epoch=3,
    save_steps=5,
    eval_steps=15,
)


def main(path: Path) -> int:
    torch.manual_seed(0)
    folder = RunFolder.create(path)
    module = TinyLoss(noise=0.1)
    try:
        with StopRequest("killable.py") as stop, folder.lock(), folder.events() as log:
            folder.write_identity({"budgets": PLAN.budgets})
            checkpoints = folder.checkpoints(keep=2)
            with stop.at_step_boundaries():
                outcome = train(
                    module,
                    TinySource(),
                    PLAN,
                    checkpoints=checkpoints,
                    say=log.say,
                    should_stop=stop,
                    resume=checkpoints.latest(log.say),
                    held_out=TinySource(rows=4, seed=8),
                )
    except HoneError as error:
        path.with_suffix(".told").write_text(str(error))
        return error.exit_code
    digest = hashlib.sha256()
    for name, parameter in module.named_parameters():
        digest.update(name.encode() + parameter.detach().numpy().tobytes())
    ended = (outcome.steps, outcome.loss, outcome.best_step, outcome.tokens)
    path.with_suffix(".result").write_text(f"{digest.hexdigest()} {ended}")
    return 0


def serve() -> None:
    torch.set_num_threads(1)
    torch.optim.AdamW([torch.zeros(1)])  # the first optimizer of a process loads more of torch
    for line in sys.stdin:
        child = os.fork()
        if child == 0:
            os._exit(main(Path(line.strip())))
        print(child, flush=True)
        _, status = os.waitpid(child, 0)
        print(os.waitstatus_to_exitcode(status), flush=True)


if __name__ == "__main__":
    serve()
