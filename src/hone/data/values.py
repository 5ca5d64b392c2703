"""One value of a row: its kind in words, its text, and how it is refused. It knows no messages and no shapes."""

from __future__ import annotations

from typing import Any, Final, NoReturn, cast

from hone.errors import DataError

MEDIA: Final = ("image", "images", "audio", "audios", "video", "videos")
"""Columns and parts that hold no text."""
_TEXT_PARTS: Final = ("text", "input_text", "output_text")


def refuse(what: str, where: str, remedy: str | None = None) -> NoReturn:
    """Raise DataError for what stands at `where`, a row and a JSON pointer."""
    raise DataError(what, where=where, remedy=remedy or "repair the row, or remove it")


def kind(value: object) -> str:
    """A value's kind in a user's words, with a glimpse of short ones."""
    match value:
        case None:
            return "null"
        case bool():
            return str(value).lower()
        case int() | float():
            return f"the number {value}"[:40]
        case str():
            return f"the text {value[:30]!r}"
        case list():
            return "a list"
        case dict():
            return "an object"
        case _:
            return type(value).__name__


def text_of(value: object, where: str) -> str:
    """Text, given as text or as a list of text parts. Raises DataError."""
    if isinstance(value, str):
        return value
    if isinstance(value, list):
        return "".join(_part(one, f"{where}/{i}") for i, one in enumerate(cast("list[Any]", value)))
    return refuse(
        f"text is wanted; found {kind(value)}",
        where,
        'put it in quotes: text stays as it is written, so "42" and "true" stay text'
        if isinstance(value, int | float)
        else "write text, or a list of text parts",
    )


def _part(value: object, where: str) -> str:
    if isinstance(value, str):
        return value
    if not isinstance(value, dict):
        refuse(f"a part of a content is an object; found {kind(value)}", where)
    part = cast("dict[str, Any]", value)
    sort = part.get("type") or next(
        (key for key in ("text", *MEDIA, "image_url") if key in part), None
    )
    if sort == "refusal" and isinstance(part.get("refusal"), str):
        return part["refusal"]
    if sort not in _TEXT_PARTS:
        refuse(
            f"a part of type {sort!r} cannot be trained on: only text",
            where,
            "remove the part, or the row",
        )
    if not isinstance(part.get("text"), str):
        refuse(f"the text of a part is text; found {kind(part.get('text'))}", f"{where}/text")
    return part["text"]
