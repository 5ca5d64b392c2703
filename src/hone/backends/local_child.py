"""The process that trains: it owns the device and one model's folder, and does what it is told line by line.

`python -m hone.backends.local_child`; orders come as JSON on its standard input, answers and events go to its
standard output. It ends when the input does. Nothing else speaks on that output: what libraries print goes to its
log. `LocalBackend` starts it.
"""

from __future__ import annotations

import json
import os
import queue
import sys
import threading
import traceback
from pathlib import Path
from typing import Any

from hone.backends.local_wire import fault_of
from hone.config.sections import Config
from hone.errors import HoneError, Interrupted, Stopped
from hone.recipes.call_steps import Call, Called
from hone.recipes.herald import Herald
from hone.recipes.memory_fault import memory_faults
from hone.recipes.trainee import Trainee, open_trainee
from hone.runs.events import Event

Order = dict[str, Any]


class _Wire:
    """Both directions: answers go out from any thread, orders come in through a thread of its own."""

    def __init__(self) -> None:
        self._out = os.dup(1)
        os.dup2(2, 1)  # whatever prints, prints to the log
        self._turn = threading.Lock()
        self._orders: queue.SimpleQueue[Order | None] = queue.SimpleQueue()
        self._asked_to_stop = threading.Event()
        self.is_over = False
        threading.Thread(target=self._listen, name="orders", daemon=True).start()

    def send(self, message: Order) -> None:
        """One line; silence where nobody hears any more."""
        line = json.dumps(message, default=str).encode() + b"\n"
        try:
            with self._turn:
                while line:
                    line = line[os.write(self._out, line) :]
        except OSError:
            self.is_over = True

    def event(self, event: Event) -> None:
        """Pass on an event of the run."""
        self.send({"event": event.name, **event.fields})

    def order(self) -> Order | None:
        """The next order; None after the last."""
        order = self._orders.get()
        return None if self.is_over else order

    def should_stop(self) -> Stopped | None:
        """What to raise at the end of a step, where it was asked for or where nobody is left to answer to."""
        if self._asked_to_stop.is_set() or self.is_over:
            return Interrupted(
                "the call was stopped; what it had trained is kept",
                remedy="the same call goes on from there, any other begins at the newest checkpoint",
            )
        return None

    def _listen(self) -> None:
        # A stream of this thread's own: held inside sys.stdin's, it would make the interpreter's end abort.
        for line in os.fdopen(os.dup(sys.stdin.fileno()), "rb"):
            order: Order = json.loads(line)
            if order["do"] == "stop":
                self._asked_to_stop.set()
            else:
                self._asked_to_stop.clear()  # that was for the order before
                self._orders.put(order)
        self.is_over = True
        self._orders.put(None)


def main() -> None:
    """Open the model that the first order names, then do the others."""
    wire = _Wire()
    order = wire.order()
    if order is None:
        return
    herald = Herald([wire.event])
    try:
        opened = open_trainee(
            Path(order["path"]),
            order["base_name"],
            Config.model_validate(order["config"]),
            say=herald.say,
            should_stop=wire.should_stop,
            attach=herald.attach,
        )
        with memory_faults(lambda: herald.phase), opened as trainee:
            wire.send({"answer": {"step": trainee.begin()}})
            while (order := wire.order()) is not None:
                _answer(order, trainee, wire, herald)
    except Exception as error:  # noqa: BLE001 - whoever started this process is told
        wire.send({"fault": _fault(error)})


def _answer(order: Order, trainee: Trainee, wire: _Wire, herald: Herald) -> None:
    """One call of training; a fault ends the call, not the process."""
    try:
        call = Call(
            Path(order["rows"]), order["batch_size"], tuple(order["rates"]), order["train_on"]
        )
        with memory_faults(lambda: herald.phase):
            done: Called = trainee.train(call, lambda told: wire.send({"event": "call", **told}))
    except HoneError as error:
        if not isinstance(error, Stopped):
            herald.say("failed", error=error.what, exit_code=error.exit_code)
        wire.send({"fault": _fault(error)})
    else:
        wire.send({"answer": vars(done)})


def _fault(error: Exception) -> Order:
    if not isinstance(error, HoneError):
        traceback.print_exception(error)
    return fault_of(error)


if __name__ == "__main__":
    main()
