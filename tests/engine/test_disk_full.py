"""A disk that fills up in the middle of a run: told with numbers, the last checkpoint whole, resumable."""

from __future__ import annotations

import subprocess
import sys
from pathlib import Path

import pytest

from hone.engine.loop import train
from hone.engine.plan import Plan
from hone.errors import DiskError
from hone.runs.checkpoint import CheckpointStore
from hone.runs.disk import Disk
from tests.conftest import ROOT
from tests.engine.stand_in import Said, TinyLoss, TinySource

CHILD = """
import resource, sys
from pathlib import Path
from hone.engine.loop import train
from hone.engine.plan import Plan
from hone.errors import DiskError
from hone.runs.checkpoint import CheckpointStore
from tests.engine.stand_in import TinyLoss, TinySource

class Fills(TinySource):
    def step(self, index, budget):
        if index == 5:  # saved after 3; no file may grow beyond half of the weights from here on
            resource.setrlimit(resource.RLIMIT_FSIZE, (2000, 2000))
        return super().step(index, budget)

plan = Plan(steps=9, learning_rate=0.1, budgets=((1, 99),), save_steps=3)
store = CheckpointStore(Path(sys.argv[1]), keep=3)
try:
    train(TinyLoss(), Fills(), plan, checkpoints=store, say=lambda event, **fields: None)
except DiskError as error:
    print(error)
    sys.exit(error.exit_code)
"""


@pytest.mark.fault(3)
def test_a_write_beyond_the_limit_keeps_the_last_checkpoint(tmp_path: Path) -> None:
    done = subprocess.run(
        [sys.executable, "-c", CHILD, str(tmp_path)],
        cwd=ROOT,
        env={"PYTHONPATH": f"{ROOT / 'src'}:{ROOT}", "OMP_NUM_THREADS": "1"},
        capture_output=True,
        text=True,
        check=False,
    )
    assert done.returncode == 4, done.stderr
    assert "the checkpoint was not saved: File too large" in done.stdout.replace("\n", " ")
    assert "bytes needed" in done.stdout
    assert "ulimit" in done.stdout
    assert sorted(path.name for path in tmp_path.iterdir()) == ["step-00000003"]
    said = Said()
    latest = CheckpointStore(tmp_path, keep=3).latest(said)
    assert latest is not None
    assert latest.step == 3
    assert not said.events


class Room(Disk):
    def __init__(self, free: int) -> None:
        self.free = free

    def free_bytes(self, path: Path) -> int:
        return self.free


@pytest.mark.parametrize("free", [0, 2**20])
def test_too_little_room_is_told_before_the_first_step(tmp_path: Path, free: int) -> None:
    module, said = TinyLoss(), Said()
    with pytest.raises(DiskError, match="not enough space") as caught:
        train(
            module,
            TinySource(),
            Plan(steps=9, learning_rate=0.1, budgets=((1, 99),), save_steps=3),
            checkpoints=CheckpointStore(tmp_path, keep=3, disk=Room(free)),
            say=said,
        )
    assert caught.value.exit_code == 4
    assert not said.events
    assert not module.begun
