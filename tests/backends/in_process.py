"""A stand-in for the training process that trains in this one: the same orders and answers, without the start."""

from __future__ import annotations

import contextlib
import json
from collections.abc import Mapping
from pathlib import Path
from typing import Any

from hone.backends.local_process import Hear
from hone.config.sections import Config
from hone.errors import Interrupted
from hone.recipes.call_steps import Call
from hone.recipes.herald import Herald
from hone.recipes.trainee import Trainee, open_trainee
from hone.runs.events import Event


class InProcess:
    """What `TrainingProcess` is to a LocalBackend. What goes over its wire is JSON here too."""

    pid = 0

    def __init__(self, hello: Mapping[str, Any], log: Path) -> None:
        self.is_alive = True
        self._hello = json.loads(json.dumps(hello))
        self._log = log
        self._hear: Hear = lambda message: None
        self._stack = contextlib.ExitStack()
        self._trainee: Trainee | None = None
        self._stopped = False

    def ask(self, order: Mapping[str, Any] | None, hear: Hear) -> dict[str, Any]:
        self._hear = hear
        if order is None:
            herald = Herald([self._event])
            self._trainee = self._stack.enter_context(
                open_trainee(
                    Path(self._hello["path"]),
                    self._hello["base_name"],
                    Config.model_validate(self._hello["config"]),
                    say=herald.say,
                    should_stop=lambda: Interrupted("stopped") if self._stopped else None,
                    attach=herald.attach,
                )
            )
            return {"step": self._trainee.begin()}
        self._stopped = False
        assert self._trainee is not None
        call = Call(
            Path(order["rows"]), order["batch_size"], tuple(order["rates"]), order["train_on"]
        )
        done = self._trainee.train(call, lambda told: self._send({"event": "call", **told}))
        return json.loads(json.dumps(vars(done)))

    def stop(self) -> None:
        self._stopped = True

    def close(self) -> None:
        self.is_alive = False
        self._stack.close()

    def _event(self, event: Event) -> None:
        self._send({"event": event.name, **event.fields})

    def _send(self, message: dict[str, Any]) -> None:
        self._hear(json.loads(json.dumps(message, default=str)))
