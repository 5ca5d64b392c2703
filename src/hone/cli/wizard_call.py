"""The wizard for programs: one call, one JSON object, and where it stands in a file. It decides nothing."""

from __future__ import annotations

import json
import shlex
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

from hone.errors import ConfigError

if TYPE_CHECKING:
    from hone.wizard.flow import Flow


@dataclass
class Call:
    """A wizard that answers one call: a question, or what became of the script."""

    answer: str | None
    back: bool
    restart: bool
    state: Path | None
    defaults: bool

    def serve(self, told: dict[str, Any]) -> int:
        """One call; the exit code. An answer that is refused leaves the state as it was."""
        from hone.wizard.finish import write_script
        from hone.wizard.forecast import forecast
        from hone.wizard.launch import commands
        from hone.wizard.memory import here
        from hone.wizard.outlook import outlook
        from hone.wizard.session import STATE, Session
        from hone.wizard.session import told as as_json

        if self.answer is not None and self.back:
            raise ConfigError("--answer and --back exclude each other", remedy="take one")
        session = Session(self.state or STATE)
        if self.restart:
            session.forget()
        flow = session.load(here())
        flow.give(told)
        notes = flow.settle(defaults=self.defaults)
        notes += self._step(flow)
        notes += flow.settle(defaults=self.defaults)
        question = flow.open_question()
        if question is not None:
            session.save(flow)
            self._put(
                {
                    "event": "question",
                    "question": as_json(question, flow.answers),
                    "notes": notes,
                    "answers": flow.answers.values,
                    "state": str(session.file),
                    "next": "hone wizard --json --answer VALUE",
                }
            )
            return 0
        notes += [*flow.settle_idle(), *outlook(flow.answers), *forecast(flow.answers)]
        path = write_script(flow.answers)
        session.forget()
        ways = commands(flow.answers.text("script"))
        self._put(
            {
                "event": "done",
                "script": str(path),
                "notes": notes,
                "answers": flow.answers.values,
                "run": [shlex.join(command) for command in ways.values()],
            }
        )
        return 0

    def _step(self, flow: Flow) -> list[str]:
        if self.back and not flow.back():
            raise ConfigError("this is the first question", remedy="answer it with --answer")
        if self.answer is None:
            return []
        question = flow.open_question()
        if question is None:
            raise ConfigError("no question is open", remedy="leave --answer out")
        return list(flow.take(question, self.answer).notes)

    def _put(self, told: dict[str, Any]) -> None:
        sys.stdout.write(json.dumps(told, ensure_ascii=True) + "\n")
