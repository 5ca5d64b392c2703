"""What is refused before any rank is started, and when ranks are started anew."""

from __future__ import annotations

from pathlib import Path
from typing import Any

import pytest

from hone.backends import training
from hone.backends.job import Job
from hone.config.layers import Resolved, resolve
from hone.engine.callbacks import Callback
from hone.errors import ConfigError, HoneError, OutOfMemory
from hone.recipes.trained import Trained


def resolved(*words: str) -> Resolved:
    base = ["model.name=m", "data.path=rows.jsonl", "output.dir=out"]
    return resolve(overrides=[*base, *words], environment={})


def test_several_ranks_take_no_callbacks_and_no_second_launcher(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    with pytest.raises(ConfigError, match="callbacks are called in this process"):
        training.train(resolved("compute.nproc=2"), callbacks=[Callback()])
    monkeypatch.setenv("TORCHELASTIC_RUN_ID", "x")
    with pytest.raises(ConfigError, match="started by torchrun") as caught:
        training.train(resolved())
    assert "--nnodes" in str(caught.value.remedy)


def test_memory_that_ran_out_in_a_pass_means_a_new_start_with_less(
    monkeypatch: pytest.MonkeyPatch,
) -> None:
    seen: list[tuple[Any, ...]] = []
    done = Trained(Path("out"), 3, 1.0, None, 1.0)

    class Launch:
        def __init__(self, job: Job, _config: object, _local: int, attempt: int, *_: Any) -> None:
            self.job = job
            seen.append((job.fresh, job.lower, attempt))

        def run(self) -> Trained:
            if len(seen) < 3:
                fault = OutOfMemory("no room")
                fault.smaller = (len(seen), 64 // len(seen))
                raise fault
            return done

    monkeypatch.setattr(training, "_Launch", Launch)
    assert training.train(resolved("compute.nproc=2"), fresh=True) is done
    assert seen == [(True, None, 0), (False, (1, 64), 1), (False, (2, 32), 2)]

    class Hopeless(Launch):
        def run(self) -> Trained:
            raise OutOfMemory("every Example alone")

    monkeypatch.setattr(training, "_Launch", Hopeless)
    with pytest.raises(HoneError, match="every Example alone"):
        training.train(resolved("compute.nproc=2"))
