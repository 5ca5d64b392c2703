"""The plain texts that the quickstart's base model reads: a small grammar of our own, no task and no chat.

A text is written with marks: what stands between ‹ and › follows from what stands before it (a name said
again, a date in another form). Those parts teach; the rest no reader could foretell.
"""

from __future__ import annotations

from collections.abc import Callable
from random import Random
from typing import Final

from hone.recipes.town import (
    COLOURS,
    GOODS,
    PEOPLE,
    PLACES,
    THINGS,
    any_day,
    any_hour,
    spoken_day,
    spoken_hour,
    stranger,
    written_day,
    written_hour,
)

_STRANGERS: Final = 0.2  # share of people whose name is made up


Part = tuple[str, bool]  # some text, and whether it follows from what stands before it


def any_text(random: Random) -> list[Part]:
    """One text of the corpus, in parts; the same state of `random` gives the same text."""
    (write,) = random.choices(_KINDS, weights=_SHARES)
    return parts_of(write(random))


def parts_of(marked: str) -> list[Part]:
    """The parts of a text with marks."""
    parts: list[Part] = []
    for piece in marked.split("›"):
        plain, _, following = piece.partition("‹")
        parts += [(plain, False), (following, True)]
    return [(text, follows) for text, follows in parts if text]


def _person(random: Random) -> str:
    return stranger(random) if random.random() < _STRANGERS else random.choice(PEOPLE)


def _questions(random: Random) -> str:
    """A sentence, and questions that it answers."""
    who, what, where = _person(random), random.choice(THINGS), random.choice(PLACES)
    colour, day, hour = random.choice(COLOURS), any_day(random), any_hour(random)
    match random.randrange(4):
        case 0:
            told = f"{who} has a {colour} {what} near the {where}."
            asked = [
                ("Who has it?", who),
                ("What is it?", f"a {what}"),
                ("Where?", f"the {where}"),
                ("Which colour?", colour),
            ]
        case 1:
            told = f"At {spoken_hour(hour)} {who} came to the {where} about the {what}."
            asked = [
                ("Who came?", who),
                ("What about?", f"the {what}"),
                ("Where?", f"the {where}"),
                ("When?", written_hour(hour)),
            ]
        case 2:
            told = f"The {what} of {who} was sold on {spoken_day(day)}."
            asked = [
                ("What was sold?", f"the {what}"),
                ("Whose?", who),
                ("When?", written_day(day)),
            ]
        case _:
            told = f"I told {who} on {spoken_day(day)} at {spoken_hour(hour)} about the {what}."
            asked = [
                ("Who?", who),
                ("Which day?", written_day(day)),
                ("What time?", written_hour(hour)),
                ("What about?", f"the {what}"),
            ]
    random.shuffle(asked)
    chosen = asked[: random.randint(2, 4)]
    return told + "".join(f" {question}‹ {answer}.›" for question, answer in chosen)


def _almanac(random: Random) -> str:
    """Days and hours said in two ways."""
    lines: list[str] = []
    for _ in range(random.randint(1, 3)):
        if random.random() < 0.5:
            day = any_day(random)
            pair = (spoken_day(day), written_day(day))
        else:
            hour = any_hour(random)
            pair = (spoken_hour(hour), written_hour(hour))
        first, second = random.sample(pair, 2)
        lines.append(f"{first} is‹ {second}.›")
    return " ".join(lines)


def _echo(random: Random) -> str:
    """Words that belong together in no other way than that they are said again."""
    words = random.choice((" ", ", ", " | ", "; ", " - ")).join(
        random.choice(
            (
                random.choice(THINGS),
                _person(random),
                random.choice(GOODS),
                random.choice(COLOURS),
                str(random.randint(1, 99)),
            )
        )
        for _ in range(random.randint(2, 6))
    )
    who = _person(random)
    if random.random() < 0.5:
        return f"{words}. Again:‹ {words}.›"
    return f'{who} said: "{words}". What did‹ {who} say? "{words}".›'


def _diary(random: Random) -> str:
    who, what, where = _person(random), random.choice(THINGS), random.choice(PLACES)
    day, hour = any_day(random), any_hour(random)
    said = f"{spoken_day(day)}"
    match random.randrange(3):
        case 0:
            return (
                f"{said} (‹{written_day(day)}›). At {spoken_hour(hour)} I met {who} at the {where}."
                f"‹ {who}› showed me the {what}. The‹ {what} is› old, but‹ {who}› likes it."
            )
        case 1:
            return (
                f"Diary, {said}. {who} came at {spoken_hour(hour)}, that is at‹ {written_hour(hour)},›"
                f" about the {what}. So on‹ {written_day(day)}› the‹ {what}› was mended by‹ {who}.›"
            )
        case _:
            return (
                f"On {said} at {spoken_hour(hour)} I must call {who} about the {what}."
                f" Done on‹ {written_day(day)}, {written_hour(hour)}: called {who} about the {what}.›"
            )


def _letter(random: Random) -> str:
    who, other, what = _person(random), _person(random), random.choice(THINGS)
    day, hour = any_day(random), any_hour(random)
    when = f"on {spoken_day(day)} at {spoken_hour(hour)}"
    match random.randrange(3):
        case 0:
            return (
                f"Dear {who}, please do not forget the {what}! I promised that we visit {other}"
                f" {when}.‹ {other}› wants to see the‹ {what}.› Thank you,‹ {who}!›"
            )
        case 1:
            return (
                f"Dear {who}, I hear that you met {other} {when}. Did‹ {other}› tell you about the"
                f" {what}? Remind me to ask‹ {other}› about the‹ {what}.›"
            )
        case _:
            return (
                f"Dear {who}, I should write to {other} about the {what}. It is to be mended {when},"
                f" so please note:‹ {written_day(day)}, {written_hour(hour)}.› Did you know,‹ {who}?›"
            )


def _story(random: Random) -> str:
    one, other = _person(random), _person(random)
    first, second = random.sample(THINGS, 2)
    colour = random.choice(COLOURS)
    return (
        f"{one} had a {colour} {first}. {other} came to‹ {one}› and asked about the‹ {first}.›"
        f' "It is‹ {colour},"› said‹ {one}.› Then‹ {other}› gave‹ {one}› a {second} for the‹ {first}.›'
        f" So‹ {other}› has the‹ {first}› and‹ {one}› has the‹ {second}.›"
    )


def _shopping(random: Random) -> str:
    who = _person(random)
    goods = ", ".join(random.sample(GOODS, random.randint(3, 5)))
    return f"{who} needs {goods}. At the market‹ {who}› bought‹ {goods}› and went home."


def _counting(random: Random) -> str:
    first, count = random.randint(1, 80), random.randint(4, 7)
    rest = ", ".join(str(first + i) for i in range(1, count))
    return f"Count from {first}:‹ {first}, {rest}.›"


_KINDS: Final[tuple[Callable[[Random], str], ...]] = (
    *(_questions, _almanac, _echo, _diary, _letter, _story, _shopping, _counting),
)
_SHARES: Final = (8, 4, 4, 3, 3, 2, 1, 1)
