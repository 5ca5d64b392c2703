"""What to do about memory: before a run, when others hold it, and after one that ran out of it. It ends no process."""

from __future__ import annotations

from typing import Final

from hone.engine.nvidia import Answer, CardHere, ask
from hone.wizard.answers import Answers
from hone.wizard.launch import Ended
from hone.wizard.literal import number

_FREE_SHARE: Final = 0.8  # of a card's memory; less is worth a word before a run
_LEAST_SHARE: Final = 0.1


def before_run(answers: Answers, seen: Answer | None = None) -> list[str]:
    """Who holds memory of the cards here, where a training on this machine would miss it."""
    if answers.text("backend") != "local":
        return []
    cards = (ask() if seen is None else seen).cards
    taken = [card for card in cards if card.free_mib < _FREE_SHARE * card.total_mib]
    return [line for card in taken for line in _held(card)]


def after_run(answers: Answers, ended: Ended, seen: Answer | None = None) -> list[str]:
    """What to do about a run that ended badly; nothing for one that went well."""
    if ended.code == 0:
        return []
    how = f"signal {-ended.code}" if ended.code < 0 else f"exit code {ended.code}"
    if not ended.is_memory:
        return [f"the script ended with {how}; its own words are above"]
    said = [f"the script ran out of memory ({how})"]
    if answers.text("backend") != "local":
        return [*said, "take shorter rows or a smaller base model, then run it again"]
    cards = (ask() if seen is None else seen).cards
    if not cards:
        return [*said, "there is no GPU here: take a smaller base model or shorter rows"]
    now = answers.number("gpu_memory_utilization")
    less = max(_LEAST_SHARE, round(now - 0.2, 2))
    if less < now:
        said.append(
            f"in {answers.text('script')}, lower gpu_memory_utilization from {number(now)}, "
            f"e.g. to {number(less)}, and run it again"
        )
    return said + [line for card in cards for line in _held(card)]


def _held(card: CardHere) -> list[str]:
    """What a card says of its memory, and who could free some."""
    gib = 1024
    said = [
        f"GPU {card.index} ({card.name}): {card.free_mib / gib:.1f} of "
        f"{card.total_mib / gib:.1f} GiB are free"
    ]
    for one in card.holders:
        size = "some of it" if one.used_mib is None else f"{one.used_mib / gib:.1f} GiB"
        said.append(
            f"process {one.pid} ({one.name}) holds {size}; "
            f"if it is a run of yours that should be over: kill {one.pid}"
        )
    return said
