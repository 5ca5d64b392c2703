"""The small world of the quickstart: its people, things and places, and how it writes days and hours.

The texts that the base model reads and the rows of the task speak of the same world. It knows neither.
"""

from __future__ import annotations

import datetime as dt
from random import Random
from typing import Final

PEOPLE: Final = (
    *("Anna", "Ben", "Clara", "David", "Elena", "Felix", "Greta", "Hugo", "Ines", "Ivan", "Jonas"),
    *("Julia", "Karl", "Kira", "Lena", "Leo", "Marco", "Maria", "Nina", "Noah", "Olga", "Omar"),
    *("Paula", "Peter", "Robert", "Rosa", "Sara", "Simon", "Tomas", "Vera", "Walter", "Yara"),
)
THINGS: Final = (
    *("basket", "bicycle", "blanket", "boat", "camera", "carpet", "chair", "clock", "coat", "door"),
    *("drum", "fence", "garden", "guitar", "kettle", "key", "ladder", "lamp", "letter", "map"),
    *("mirror", "painting", "piano", "roof", "saddle", "shed", "stove", "table", "tent", "ticket"),
    *("wagon", "window"),
)
PLACES: Final = (
    *("church", "forest", "harbour", "hill", "library", "market", "mill", "river", "school"),
    *("square", "station"),
)
COLOURS: Final = ("black", "blue", "brown", "green", "grey", "red", "white", "yellow")
GOODS: Final = (
    *("apples", "bread", "butter", "candles", "eggs", "honey", "milk", "rice", "rope", "salt"),
    *("soap", "tea"),
)
MONTHS: Final = (
    *("January", "February", "March", "April", "May", "June", "July", "August", "September"),
    *("October", "November", "December"),
)
_SYLLABLES: Final = (
    *("ba", "de", "fi", "go", "ki", "li", "lu", "ma", "mo", "ne", "no", "pi", "ra", "ro", "sha"),
    *("su", "ta", "tor", "ve", "wen"),
)
_FIRST_DAY: Final = dt.date(2024, 1, 1).toordinal()
_LAST_DAY: Final = dt.date(2039, 12, 31).toordinal()


def any_day(random: Random) -> dt.date:
    """A day of the years 2024 to 2039."""
    return dt.date.fromordinal(random.randint(_FIRST_DAY, _LAST_DAY))


def any_hour(random: Random) -> dt.time:
    """A time of the waking day, most often on the hour, else on a quarter."""
    return dt.time(random.randint(7, 21), random.choice((0, 0, 0, 15, 30, 45)))


def stranger(random: Random) -> str:
    """A made-up name, so that a reader must learn to copy names rather than to know them all."""
    return "".join(random.choice(_SYLLABLES) for _ in range(random.randint(2, 3))).capitalize()


def spoken_day(day: dt.date) -> str:
    """`March 5, 2031`."""
    return f"{MONTHS[day.month - 1]} {day.day}, {day.year}"


def spoken_hour(hour: dt.time) -> str:
    """`9 am`, `3:30 pm`."""
    minutes = f":{hour.minute:02d}" if hour.minute else ""
    return f"{(hour.hour - 1) % 12 + 1}{minutes} {'am' if hour.hour < 12 else 'pm'}"


def written_day(day: dt.date) -> str:
    """`2031-03-05`."""
    return day.isoformat()


def written_hour(hour: dt.time) -> str:
    """`15:30`."""
    return f"{hour.hour:02d}:{hour.minute:02d}"
