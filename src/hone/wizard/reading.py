"""What a typed answer becomes: checked, or refused with a remedy. It knows no question and no order of them."""

from __future__ import annotations

import json
import math
import os
import re
from collections.abc import Callable, Mapping
from pathlib import Path
from typing import Any, Final, cast
from urllib.parse import urlsplit

from hone.errors import ConfigError, DataError, DiskError, nearest
from hone.trainable.folder import check_name
from hone.wizard.answers import Answers
from hone.wizard.dataset import check_dataset
from hone.wizard.question import Taken

Read = Callable[[Any, Answers], Taken]

_VARIABLE: Final = re.compile(r"[A-Z_][A-Z0-9_]{0,63}")
_ROLES: Final = ("system", "user", "assistant")
_MOST_LISTED_BYTES: Final = 10_000_000
_YES: Final = {"y": "yes", "yes": "yes", "true": "yes", "n": "no", "no": "no", "false": "no"}


def choice(*values: str) -> Read:
    """One of these words."""

    def read(raw: Any, _: Answers) -> Taken:
        text = _line(raw).lower()
        if text not in values:
            raise ConfigError(f"no such choice: {text!r}", remedy=nearest(text, values))
        return Taken(text)

    return read


def yes_or_no(raw: Any, _: Answers) -> Taken:
    """`yes` or `no`."""
    text = _line(raw).lower()
    if text not in _YES:
        raise ConfigError(f"neither yes nor no: {text!r}", remedy="answer yes or no")
    return Taken(_YES[text])


def text(raw: Any, _: Answers) -> Taken:
    """A line that says something."""
    return Taken(_line(raw))


def folder_name(raw: Any, _: Answers) -> Taken:
    """A name that a trainable model can have, and that a terminal can show."""
    name = _line(raw)
    check_name(name, "this")
    if not name.isprintable():
        raise ConfigError(f"{name!r} cannot be shown", remedy="leave out control characters")
    return Taken(name)


def dataset(raw: Any, answers: Answers) -> Taken:
    """A file of rows, checked at once; its path becomes absolute."""
    path = Path(os.path.abspath(answers.path(_line(raw))))
    found = check_dataset(path, framework=answers.text("framework") or "hone")
    return Taken(str(path), (f"Valid! {found.rows} rows",), rows=found.rows)


def conversations(raw: Any, _: Answers) -> Taken:
    """Examples: each a list of messages, or `{"messages": [...]}`; as JSON where they come as text."""
    told: Any = _json(raw) if isinstance(raw, str) else raw
    items = cast("list[Any]", told) if isinstance(told, list) else [told]
    if items and all(isinstance(one, Mapping) and "role" in one for one in items):
        items = [items]  # a single conversation
    items = [_json(one) if isinstance(one, str) else one for one in items]
    if not items:
        raise DataError("there is no example", remedy="give at least one")
    read = [_conversation(one, place) for place, one in enumerate(items, 1)]
    return Taken(cast("list[Any]", read), rows=len(read))


def prompts(raw: Any, answers: Answers) -> Taken:
    """What the teacher is asked: texts, or `@FILE` with one in each line."""
    if isinstance(raw, str) and raw.startswith("@"):
        path = Path(os.path.abspath(answers.path(raw[1:])))
        lines = _lines_of(path)
        return Taken(f"@{path}", (f"{len(lines)} prompts",), rows=len(lines))
    told: Any = raw
    if isinstance(raw, str):
        told = _json(raw) if raw.lstrip().startswith("[") else raw.split("\n")
    if not isinstance(told, list):
        raise ConfigError("prompts are a list of texts", remedy="or @FILE with one in each line")
    listed = [one.strip() for one in cast("list[Any]", told) if isinstance(one, str)]
    if len(listed) != len(cast("list[Any]", told)):
        raise ConfigError("a prompt is a text", remedy="put numbers and the like in quotes")
    listed = [_checked(one) for one in listed if one]
    if not listed:
        raise DataError("there is no prompt", remedy="give at least one")
    return Taken(cast("list[Any]", listed), rows=len(listed))


def address(raw: Any, _: Answers) -> Taken:
    """The base address of an OpenAI-compatible service, without a key in it."""
    url = _line(raw)
    try:
        parts = urlsplit(url)
        named = bool(parts.hostname)
    except ValueError:
        named = False
        parts = urlsplit("")
    if parts.scheme not in ("http", "https") or not named or any(c.isspace() for c in url):
        raise ConfigError(
            f"no address of a service: {url!r}", remedy="e.g. https://openrouter.ai/api/v1"
        )
    if parts.username or parts.password or parts.query:
        raise ConfigError(
            "an address with a user, a password or a query may hold a secret",
            remedy="give the plain address; the key is read from the environment",
        )
    return Taken(url)


def variable(raw: Any, answers: Answers) -> Taken:
    """The name of the variable that holds a key. What looks like the key itself is refused, and never repeated."""
    name = _line(raw)
    if not _VARIABLE.fullmatch(name):
        raise ConfigError(
            "that is no name of a variable (capital letters, digits, _)",
            remedy="give the name, e.g. OPENROUTER_API_KEY; the key itself is never written anywhere",
        )
    if answers.place.environment.get(name):
        return Taken(name)
    return Taken(name, (f"{name} is not set here: export it, or put it in .env beside the script",))


def whole(name: str, *, most: int = 1_000_000) -> Read:
    """A whole number above 0."""

    def read(raw: Any, _: Answers) -> Taken:
        typed = _line(str(raw))
        if not re.fullmatch(r"\d{1,9}", typed, re.ASCII) or not 1 <= int(typed) <= most:
            raise ConfigError(
                f"{name} is a whole number from 1 on; found {typed!r}", remedy="e.g. 2"
            )
        return Taken(int(typed))

    return read


def decimal(name: str, *, above: bool, most: float, example: str) -> Read:
    """A number from 0 (`above`: above 0) to `most`."""

    def read(raw: Any, _: Answers) -> Taken:
        typed = _line(str(raw))
        try:
            value = float(typed)
        except ValueError:
            value = math.nan
        if not (0 <= value <= most) or (above and value == 0):
            least = "above 0" if above else "from 0 on"
            raise ConfigError(
                f"{name} is a number {least}, at most {most:g}; found {typed!r}",
                remedy=f"e.g. {example}",
            )
        return Taken(value)

    return read


def script_path(raw: Any, answers: Answers) -> Taken:
    """Where the script goes: a `.py` file in a folder that is there."""
    typed = _line(raw)
    path = answers.path(typed)
    if path.suffix != ".py":
        raise ConfigError(f"a script is a .py file; found {typed!r}", remedy="e.g. sft_train.py")
    if path.is_dir():
        raise ConfigError("a folder has that name", where=str(path), remedy="take another name")
    if not path.parent.is_dir():
        raise ConfigError(
            "no such folder", where=str(path.parent), remedy="make it first, or take another name"
        )
    if not os.access(path.parent, os.W_OK):
        raise DiskError(
            "you may not write there", where=str(path.parent), remedy="take another folder"
        )
    return Taken(typed)


def _line(raw: Any) -> str:
    """One line of text, without the spaces around it."""
    if not isinstance(raw, str):
        raise ConfigError("a single text is wanted", remedy="give one line")
    said = raw.strip()
    if not said:
        raise ConfigError("nothing was said", remedy="give one line")
    if "\n" in said or "\r" in said:
        raise ConfigError("several lines came at once", remedy="give one line")
    return _checked(said)


def _checked(said: str) -> str:
    if "\0" in said:
        raise ConfigError("a NUL character is no text", remedy="remove it")
    return said


def _json(said: str) -> Any:
    try:
        return json.loads(said)
    except (ValueError, RecursionError) as error:
        raise ConfigError(
            f"not JSON: {error}",
            remedy='write [{"role": "user", "content": "..."}, {"role": "assistant", "content": "..."}]',
        ) from None


def _conversation(told: Any, place: int) -> list[dict[str, str]]:
    """The messages of an example; judged by the code that reads rows for training."""
    where = f"example {place}"
    said: Any = (
        cast("Mapping[str, Any]", told).get("messages") if isinstance(told, Mapping) else told
    )
    if not isinstance(said, list) or not said:
        raise DataError(
            "an example is a list of messages", where=where, remedy="give role and content"
        )
    messages: list[dict[str, str]] = []
    for one in cast("list[Any]", said):
        message: dict[str, Any] = (
            dict(cast("Mapping[str, Any]", one)) if isinstance(one, Mapping) else {}
        )
        role, content = message.get("role"), message.get("content")
        if role not in _ROLES or set(message) != {"role", "content"}:
            raise DataError(
                "a message of an example has a role (system, user, assistant) and content, no more",
                where=where,
                remedy="put richer rows in a .jsonl file and train from that",
            )
        if not isinstance(content, str) or not content.strip():
            raise DataError(f"the {role} message is empty", where=where, remedy="give it a text")
        messages.append({"role": role, "content": _checked(content)})
    if messages[-1]["role"] != "assistant":
        raise DataError(
            "the last message is not the assistant's, and that is what is learned",
            where=where,
            remedy="end the example with an assistant message",
        )
    return messages


def _lines_of(path: Path) -> list[str]:
    try:
        if path.stat().st_size > _MOST_LISTED_BYTES:
            raise DataError(
                "too large for a list of prompts",
                where=str(path),
                remedy="take a file of prompts, one in each line",
            )
        lines = path.read_text(encoding="utf-8").split("\n")
    except OSError as error:
        raise DataError(
            f"cannot read the prompts: {error.strerror or error}",
            where=str(path),
            remedy="give @FILE with one prompt in each line",
        ) from None
    except UnicodeDecodeError:
        raise DataError("not UTF-8 text", where=str(path), remedy="save it as UTF-8") from None
    found = [line.strip() for line in lines if line.strip()]
    if not found:
        raise DataError(
            "there is no prompt in the file", where=str(path), remedy="one in each line"
        )
    return found
