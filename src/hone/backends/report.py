"""How a gang ended, in one result or one error: the cause, not what the other ranks suffered from it."""

from __future__ import annotations

import signal
import time
from typing import Any, Final

from hone.backends.gang import Gang, Member
from hone.backends.post import error_of
from hone.errors import HoneError, Interrupted, RankLost, Stopped, Terminated

_TAIL_LINES: Final = 12
_LOST_PEER: Final = (
    "connection closed by peer",
    "connection reset by peer",
    "broken pipe",
    "socket timeout",
    "nccl",
    "[gloo",
)
_AGAIN: Final = "the same command resumes from the last checkpoint"


def result_of(gang: Gang) -> dict[str, Any]:
    """What the first rank came to. Raises what ended the run."""
    error = _failure(gang)
    if error is not None:
        raise error
    first = gang.members[0].result
    if first is None:
        raise HoneError("the first rank ended without a result", remedy=_AGAIN)
    return first


def _failure(gang: Gang) -> HoneError | None:
    if gang.was_urged:
        return _stopped(gang, "work since the last checkpoint is not saved")
    if gang.verdict is not None:
        return _hung(gang)
    for member in gang.members:
        died = not member.killed and member.fault is None and member.process.returncode != 0
        if died and -member.process.returncode == gang.asked:
            return _stopped(gang, "nothing had to be saved yet")
        if died:
            return _dead(gang, member)
    return _told(gang)


def _told(gang: Gang) -> HoneError | None:
    """The error that ranks themselves tell: ours before a library's, the first before its consequences."""
    failed = sorted((m for m in gang.members if m.fault is not None), key=lambda m: m.fault_at)
    ours = [error_of(m.fault) for m in failed if m.fault is not None and m.fault["kind"]]
    for error in [*(e for e in ours if not isinstance(e, Stopped)), *ours]:
        return error
    for member in failed:
        return _crashed(gang, member)
    return None


def _hung(gang: Gang) -> RankLost:
    assert gang.verdict is not None
    stuck = gang.verdict
    one = len(stuck.ranks) == 1
    names = f"rank {stuck.ranks[0]}" if one else f"ranks {', '.join(map(str, stuck.ranks))}"
    member = gang.member(stuck.ranks[0])
    error = RankLost(
        f"{names} of {gang.world} gave no sign of life for {stuck.silent_seconds:.0f} s in "
        f"{stuck.doing}; all ranks were ended",
        where=None if member is None else _where(member),
        remedy=_AGAIN if member is None else f"{_AGAIN}; the log says where it hung",
    )
    return error if member is None else _with_tail(error, member)


def _dead(gang: Gang, member: Member) -> RankLost:
    code = member.process.returncode
    if code < 0:
        name = signal.Signals(-code).name
        how = f"was killed by {name}"
        if -code == signal.SIGKILL:
            how += " (where memory runs out, the system does that: see `dmesg`)"
    else:
        how = f"ended with exit code {code}"
    sign = gang.signs.get(member.rank)
    last = ""
    if sign is not None:
        silent = max(0.0, time.monotonic() - sign.at)
        last = f"; its last sign of life, {silent:.0f} s ago, was {sign.what or 'its start'!r}"
    error = RankLost(
        f"rank {member.rank} of {gang.world} {how}{last}; all ranks were ended",
        where=_where(member),
        remedy=_AGAIN,
    )
    return _with_tail(error, member)


def _crashed(gang: Gang, member: Member) -> HoneError:
    assert member.fault is not None
    what = str(member.fault["what"])
    if is_lost_peer(what):
        error: HoneError = RankLost(
            f"rank {member.rank} of {gang.world} lost another rank: {what.splitlines()[0]}",
            where=_where(member),
            remedy=_AGAIN,
        )
        return error
    return HoneError(
        f"rank {member.rank} of {gang.world}: unexpected {what}",
        where=_where(member),
        remedy="this is a fault of Hone; please report it with that log",
    )


def is_lost_peer(what: str) -> bool:
    """Whether an error is only what a rank suffers when another one ends."""
    return any(sign in what.lower() for sign in _LOST_PEER)


def _stopped(gang: Gang, saved: str) -> Stopped:
    kind = Interrupted if gang.asked in (None, signal.SIGINT) else Terminated
    word = "terminated" if kind is Terminated else "interrupted"
    return kind(f"{word}; {saved}", remedy=_AGAIN)


def _with_tail(error: RankLost, member: Member) -> RankLost:
    lines = member.transcript.tail(_TAIL_LINES)
    if lines:
        error.what += "\n  the end of its log:\n    " + "\n    ".join(lines)
    return error


def _where(member: Member) -> str | None:
    path = member.transcript.path
    return None if path is None else str(path)
