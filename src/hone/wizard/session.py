"""A wizard that answers one call at a time: where it stands waits in a file. It prints nothing."""

from __future__ import annotations

import json
from collections.abc import Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final, cast

from hone.errors import ConfigError
from hone.wizard.answers import Answers, Place
from hone.wizard.flow import Flow
from hone.wizard.interview import BY_KEY
from hone.wizard.question import Question
from hone.wizard.written import write_whole

STATE: Final = Path(".hone-wizard.json")
_VERSION: Final = 1


@dataclass(frozen=True)
class Session:
    """The file where a flow waits between two calls."""

    file: Path

    def load(self, place: Place) -> Flow:
        """The flow as it was left; a new one where there is no file. Raises ConfigError for a damaged file."""
        try:
            told: Any = json.loads(self.file.read_bytes())
        except FileNotFoundError:
            return Flow(Answers(place))
        except (OSError, ValueError) as error:
            raise self._damaged(str(error)) from None
        try:
            state = cast("dict[str, Any]", told)
            if state["version"] != _VERSION:
                raise self._damaged(f"it is of version {state['version']!r}")
            values, counts = dict(state["values"]), dict(state["counts"])
            asked, waiting = list(state["asked"]), dict(state["waiting"])
            refused = set(state["refused"])
        except (KeyError, TypeError, ValueError) as error:
            raise self._damaged(repr(error)) from None
        if unknown := ({*values, *counts, *asked, *waiting, *refused} - set(BY_KEY)):
            raise self._damaged(f"there is no question {min(unknown)!r}")
        return Flow(Answers(place, values, counts), asked, waiting, refused)

    def save(self, flow: Flow) -> None:
        """Keep the flow for the next call. Raises DiskError."""
        told = {
            "version": _VERSION,
            "values": flow.answers.values,
            "counts": flow.answers.counts,
            "asked": flow.asked,
            "waiting": flow.waiting,
            "refused": sorted(flow.refused),
        }
        text = json.dumps(told, indent=1, ensure_ascii=True) + "\n"
        write_whole(self.file, text.encode(), replace=True)

    def forget(self) -> None:
        """Begin anew."""
        self.file.unlink(missing_ok=True)

    def _damaged(self, why: str) -> ConfigError:
        return ConfigError(
            f"the wizard's state cannot be read: {why}",
            where=str(self.file),
            remedy="begin anew: hone wizard --json --restart",
        )


def told(question: Question, answers: Answers) -> dict[str, Any]:
    """A question for a program: everything that may be answered is in it."""
    options: Sequence[dict[str, str]] = [
        {"value": one.value, "label": one.label, "note": one.note}
        for one in question.options(answers)
    ]
    return {
        "key": question.key,
        "text": question.text,
        "hint": question.hint,
        "kind": question.kind,
        "options": options,
        "other": question.other,
        "default": question.default(answers),
        "flag": question.flag,
    }
