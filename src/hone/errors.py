"""The one tree of exceptions; each knows what to do next and the exit code that a shell sees.

    HoneError                 1    the run failed
    ├── ConfigError           2    a setting, a flag or a combination of them
    │   ├── UnknownSetting    2    a name that is no setting; a TypeError and an AttributeError too
    │   ├── NoSuchConfig      2    a configuration file that is not there; a FileNotFoundError too
    │   └── ChangedSettings   2    a run goes on only with the settings that it began with
    ├── DataError             3    rows that cannot be used
    │   └── NothingLeft       3    rows of which nothing is left to train on
    ├── EnvironmentFault      4    what the machine or the files around the rows do not allow
    │   ├── ModelError        4    a model folder: missing, unsafe, incomplete
    │   ├── DiskError         4    no space, no permission, a read or write that failed
    │   └── LockedError       4    the output folder belongs to a live run
    ├── OutOfMemory           5    does not fit, even at the smallest budget
    ├── RemoteError           6    another machine's API
    ├── RankLost              7    one of several ranks died or hung; all were ended
    ├── BudgetReached         8    no more tokens or money may be spent
    ├── GateMissed            9    an evaluation is worse than a gate allows
    ├── NonFiniteError        1    a loss or a gradient norm that is not a number
    ├── CallbackError         1    code of a user's own, called while training, raised
    └── Stopped
        ├── Interrupted     130    Ctrl-C: saved, resumable
        └── Terminated      143    SIGTERM, SIGHUP, SIGUSR1: saved, resumable

To add one: subclass the nearest, set `exit_code` only if a script must tell it apart.
"""

from __future__ import annotations

import difflib
from collections.abc import Iterable

EXIT_CODES: dict[int, str] = {
    0: "done",
    1: "the run failed (a loss that is not a number, or a fault of ours)",
    2: "usage or configuration: an unknown key, a wrong type, an impossible combination",
    3: "data: a file or rows that cannot be used",
    4: "environment: model files, disk, permissions, an output folder in use",
    5: "out of memory, even at the smallest budget",
    6: "a remote API failed",
    7: "one of several ranks died or hung; all were ended, the same command resumes",
    8: "a budget of tokens or money is reached; what was answered is kept",
    9: "a gate is missed: a measure of `hone evaluate` is worse than --fail-under allows; the result is written",
    130: "interrupted (Ctrl-C); saved, the same command resumes",
    143: "terminated (SIGTERM, SIGHUP or SIGUSR1); saved, the same command resumes",
}


class HoneError(Exception):
    """What happened, where, and what to do next.

    `HoneError("unknown role 'bot'", where="chat.jsonl line 3 /messages/0/role", remedy="use 'user'")`
    prints as three short lines; no traceback is shown to a user.
    """

    exit_code = 1

    def __init__(self, what: str, *, where: str | None = None, remedy: str | None = None) -> None:
        super().__init__(what)
        self.what = what
        self.where = where
        self.remedy = remedy

    def __str__(self) -> str:
        lines = [self.what]
        if self.where:
            lines.append(f"  where: {self.where}")
        if self.remedy:
            lines.append(f"  remedy: {self.remedy}")
        return "\n".join(lines)

    def __reduce__(self) -> tuple[object, ...]:
        return (_rebuild, (type(self), self.what, self.where, self.remedy))


def _rebuild(kind: type[HoneError], what: str, where: str | None, remedy: str | None) -> HoneError:
    return kind(what, where=where, remedy=remedy)


class ConfigError(HoneError, ValueError):
    """A setting, a flag, or a combination of them that cannot be honoured."""

    exit_code = 2


class UnknownSetting(ConfigError, TypeError, AttributeError):
    """A name that is no setting, given to a Python object or a file."""


class NoSuchConfig(ConfigError, FileNotFoundError):
    """A configuration file that is not there."""


class ChangedSettings(ConfigError):
    """A run that was begun with other settings."""


class DataError(HoneError, ValueError):
    """Rows that cannot be used; `where` names file, line and JSON pointer."""

    exit_code = 3


class NothingLeft(DataError):
    """Every row was dropped; each was counted with its reason."""


class EnvironmentFault(HoneError, RuntimeError):
    """What the machine, or the files around the rows, do not allow."""

    exit_code = 4


class ModelError(EnvironmentFault):
    """A model folder that is missing, incomplete or unsafe."""


class DiskError(EnvironmentFault):
    """No space, no permission, or a read or write that failed."""


class LockedError(EnvironmentFault):
    """The output folder belongs to a run that is alive."""


class OutOfMemory(HoneError, MemoryError):
    """The work does not fit, even at the smallest token budget."""

    exit_code = 5
    smaller: tuple[int, int] | None = None
    """(from_step, micro_batch_tokens): where ranks cannot redo a step, a new start with this budget may fit."""


class RemoteError(HoneError, RuntimeError):
    """A remote API failed."""

    exit_code = 6


class RankLost(HoneError, RuntimeError):
    """One of several ranks died or hung, and all were ended; the last checkpoint is whole."""

    exit_code = 7


class BudgetReached(HoneError, RuntimeError):
    """No more tokens or money may be spent; what was answered is kept."""

    exit_code = 8


class GateMissed(HoneError, RuntimeError):
    """An evaluation came to something worse than a gate allows; its result is written."""

    exit_code = 9


class NonFiniteError(HoneError, ArithmeticError):
    """A loss or a gradient norm that is not finite; raised before the optimizer moves."""


class CallbackError(HoneError):
    """A callback raised; the work up to there is saved."""


class Stopped(HoneError):
    """The run was asked to stop; it saved and can be resumed."""

    signal_name = ""
    """The signal that asked."""


class Interrupted(Stopped):
    """Ctrl-C."""

    exit_code = 130
    signal_name = "SIGINT"


class Terminated(Stopped):
    """SIGTERM, or another signal that a machine ends programs with."""

    exit_code = 143
    signal_name = "SIGTERM"


def nearest(name: str, allowed: Iterable[str]) -> str:
    """A remedy that starts with the nearest allowed name and then lists what is allowed."""
    names = sorted(allowed)
    close = difflib.get_close_matches(name, names, n=1, cutoff=0.5)
    hint = f"did you mean {close[0]!r}? " if close else ""
    return f"{hint}allowed: {', '.join(names)}"
