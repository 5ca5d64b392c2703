"""The watchdog: whether ranks still get on with their work. It knows signs of life, and neither processes nor tensors.

A rank is stuck when it gives no sign for longer than what it does may take. One that waits for others is not
stuck while one of them works: the cause is told, not who suffers from it. Where a CPU computes, a process that
still uses it is at work, however slowly; a GPU's driver spins while it waits, so there only signs count.
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Final

from hone.backends.pulse import Sign

PACK_FLOOR: Final = 20.0  # seconds; no Pack is called stuck sooner
PACK_CEILING: Final = 50.0  # nor later, unless a Pack was measured to take a third of that
MEETING: Final = "the other machines"
"""What a rank says it waits for while others have still to be started, by hand perhaps; that wait has its own end."""
GONE_LIMIT: Final = 45.0  # without any word of a rank on another machine
WORK_LIMIT: Final = 50.0  # without a sign, without using a processor or a disk
_TIMES: Final = 10.0  # a Pack may take so many times the worst one of the rehearsal
_LEAST_TIMES: Final = 3.0
_ABSOLUTE: Final = 1800.0  # however busy it looks


@dataclass(frozen=True)
class Verdict:
    """Who is stuck, in what, and for how long. `ranks` are in ascending order."""

    ranks: tuple[int, ...]
    doing: str
    silent_seconds: float


def pack_limit(pack_seconds: float) -> float:
    """Seconds that one Pack may take, from what the worst one of the rehearsal took."""
    usual = min(max(PACK_FLOOR, _TIMES * pack_seconds), PACK_CEILING)
    return max(usual, _LEAST_TIMES * pack_seconds)


@dataclass
class Watchdog:
    """Judges from time to time. `on_gpu`: whether the Packs are computed there."""

    on_gpu: bool = False
    _moved: dict[int, tuple[int, float]] = field(default_factory=dict[int, tuple[int, float]])

    def judge(
        self,
        now: float,
        signs: Mapping[int, Sign],
        used: Mapping[int, int],
        others: Mapping[int, Sign] | None = None,
        heard: Mapping[int, float] | None = None,
    ) -> Verdict | None:
        """`signs` of all ranks that have not ended, and how much processor and disk each has `used` so far.

        `others` are the last signs of ranks on other machines, which are judged there, and here only for being
        `heard` of at all. All times are by the clock of the signs. Returns None while all is well.
        """
        if any(sign.what == MEETING for sign in signs.values()):
            return None
        others, heard = others or {}, heard or {}
        gone = [rank for rank, at in heard.items() if now - at > GONE_LIMIT]
        if gone:
            silent = max(now - heard[rank] for rank in gone)
            return Verdict(tuple(sorted(gone)), "their part, on another machine", silent)
        quiet = {
            rank: self._quiet(now, rank, sign, used.get(rank, 0)) for rank, sign in signs.items()
        }
        busy = [rank for rank, sign in signs.items() if sign.doing != "wait"]
        stuck = [rank for rank in busy if quiet[rank] > self._limit(now, signs[rank])]
        busy += [rank for rank, sign in others.items() if sign.doing != "wait"]
        shortest = min([*quiet.values(), *(now - sign.at for sign in others.values())], default=0.0)
        if not stuck and not busy and signs and shortest > PACK_FLOOR:
            stuck = list(signs)
        if not stuck:
            return None
        first = signs[min(stuck)]
        doing = first.what or "an unknown place"
        if first.doing == "wait":
            doing = f"a wait for {doing}"
        return Verdict(tuple(sorted(stuck)), doing, max(now - signs[r].at for r in stuck))

    def _limit(self, now: float, sign: Sign) -> float:
        absolute = max(_ABSOLUTE, 10 * pack_limit(sign.pack_seconds))
        if now - sign.at > absolute:
            return 0.0
        return WORK_LIMIT if sign.doing == "work" else pack_limit(sign.pack_seconds)

    def _quiet(self, now: float, rank: int, sign: Sign, used: int) -> float:
        """Seconds since the rank last gave a sign, or was seen at work where that counts."""
        before, at = self._moved.get(rank, (-1, sign.at))
        if used != before:
            at = now if before >= 0 else sign.at
            self._moved[rank] = (used, at)
        counts = sign.doing == "work" or not self.on_gpu
        if now - sign.at > max(_ABSOLUTE, 10 * pack_limit(sign.pack_seconds)):
            counts = False
        return now - (max(sign.at, at) if counts else sign.at)
