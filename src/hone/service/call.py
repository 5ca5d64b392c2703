"""One call of `train_sft` on a trainable model of the service, in a job's own process; once, however often it begins.

A model lies as LocalBackend keeps it, and is trained by the same code; its call's name is the job's folder, which the
checkpoint that comes of it keeps.
"""

from __future__ import annotations

import dataclasses
import math
import signal
import time
from collections.abc import Generator, Mapping
from contextlib import contextmanager
from pathlib import Path
from types import FrameType
from typing import Any

from hone.backends.local_call import CallListener
from hone.backends.local_settings import open_model
from hone.errors import ConfigError, Interrupted, Stopped
from hone.runs.events import Event, EventLog
from hone.service.order import RUN, TRAINING_ROWS, CallOrder, Outcome
from hone.trainable.file import get_file_row_count
from hone.trainable.folder import ModelFolder
from hone.trainable.model import TrainableModel
from hone.trainable.settings import TrainSFTConfig


def train_call(order: CallOrder, folder: Path) -> Outcome:
    """Do the call that `folder` was ordered, or say what it came to before. Raises HoneError."""
    from hone.recipes.herald import Herald
    from hone.recipes.memory_fault import memory_faults
    from hone.recipes.trainee import open_trainee

    model = TrainableModel(
        name=order.name,
        project=order.project,
        base_model=order.base_model,
        lora_config=order.settings.get("lora_config"),
        _internal_config={"init_args": order.settings.get("init_args") or {}},
    )
    place = ModelFolder(Path(order.root), order.project, order.name)
    place.make()
    opened = open_model(model, place, order.compute)
    (folder / RUN).mkdir(exist_ok=True)
    with EventLog(folder / RUN / "events.jsonl") as log, _asked_to_stop() as should_stop:
        history = CallListener(
            place, verbose=False, log_metrics=True, dollars_an_hour=None, told=opened.told
        )

        def hear(event: Event) -> None:
            log.say(event.name, **event.fields)
            history.hear({"event": event.name, **event.fields})

        def tell(told: Mapping[str, Any]) -> None:
            history.hear({"event": "call", **told})
            log.say("call", **told)

        herald = Herald([hear])
        began = time.monotonic()
        trainee = open_trainee(
            place.path, opened.base_name, opened.config,
            say=herald.say, should_stop=should_stop, attach=herald.attach,
        )  # fmt: skip
        with memory_faults(lambda: herald.phase), trainee as one:
            done = one.made_by(folder.name)
            if done is None:
                _check_step(order, one.begin())
                place.write_model(opened.about)
                done = one.train(_call(order, folder), tell)
                history.finish(dataclasses.asdict(done), seconds=time.monotonic() - began)
    return Outcome("finished", done.steps, done.loss, step=done.step)


def _check_step(order: CallOrder, step: int) -> None:
    expected = order.expected_step
    if expected is not None and expected != step:
        raise ConfigError(
            f"{order.project}/{order.name} is at step {step}, and the call was meant for step {expected}",
            remedy="ask the model for its step, then train on from there",
        )


def _call(order: CallOrder, folder: Path) -> Any:
    from hone.recipes.call_steps import Call

    rows = folder / TRAINING_ROWS
    TrainSFTConfig(learning_rate=order.learning_rate, batch_size=order.batch_size)
    rates = order.learning_rate if isinstance(order.learning_rate, list) else [order.learning_rate]
    batches = math.ceil(get_file_row_count(rows) / order.batch_size)
    if len(rates) not in (1, batches):
        raise ConfigError(
            f"learning_rate has {len(rates)} entries, and there are {batches} batches",
            remedy="give one rate for all, or one for each batch",
        )
    return Call(rows, order.batch_size, tuple(rates), order.train_on, folder.name)


@contextmanager
def _asked_to_stop() -> Generator[Any]:
    """What says whether SIGTERM or SIGINT has come; a second one ends the process."""
    asked: list[int] = []

    def note(number: int, frame: FrameType | None) -> None:
        del frame
        asked.append(number)
        if len(asked) > 1:
            raise KeyboardInterrupt

    def should_stop() -> Stopped | None:
        return Interrupted("the call was stopped; what it had trained is kept") if asked else None

    before = {one: signal.signal(one, note) for one in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield should_stop
    finally:
        for one, handler in before.items():
            signal.signal(one, handler)
