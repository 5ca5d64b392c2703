"""What is wrong with one row, if anything: by what training can read, and by the rules for messages. It knows no file.

Two sets of rules come on top of what training needs. `first`: a conversation ends with a reply. `full`: each message
also says something, or calls a tool, and tools are a list. A logged request (`input`) needs no last reply in itself.
"""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

import orjson

from hone.data.conversation import Content, Conversation, Document
from hone.data.example import Origin
from hone.data.formats import SHAPES, RowFormat
from hone.data.reader import Row, too_large
from hone.data.strict import keeps_keys, parse_row
from hone.data.validation.finding import Finding
from hone.data.values import MEDIA, kind, refuse, text_of
from hone.errors import DataError

RULES: Final = ("full", "first")

_SCALARS: Final = frozenset({str, bool, int, type(None)})
_NAME: Final = "row"
_MEANT: Final = frozenset((*SHAPES["messages"].keys, *MEDIA))


class Judge:
    """Judges the rows of one file, all of which have the shape `shape`.

    `columns` and `tags` are the settings of that name. Raises ConfigError where they cannot be meant.
    """

    def __init__(
        self,
        shape: str = "auto",
        columns: Mapping[str, str] | None = None,
        tags: Mapping[str, str] | None = None,
        rules: str = "full",
    ) -> None:
        self._form = RowFormat(shape, columns, tags)
        self._columns = dict(columns or {})
        self._is_full = rules == "full"
        # Key lists of rows of messages of which only the messages mean anything.
        self._plain: set[tuple[str, ...]] = set()
        self._takes_messages = shape == "messages" and not columns

    def plain_keys(self, data: bytes | memoryview) -> int:
        """How many keys a row has, if it is one of plain messages that no rule speaks against; 0 means: look closer.

        What is left to show is that no key stands twice: `keeps_keys`, or `keep_keys` for many rows at once. No
        object is made here but those of the JSON parser, since a file may hold millions of rows.
        """
        try:
            value = orjson.loads(data)
            messages = value["messages"]
            num_names = len(value)
            if messages.__class__ is not list or (num_names > 1 and not self._is_plain(value)):
                return 0
            role: Any = None
            for said in messages:
                content, role = said["content"], said["role"]
                if len(said) != 2 or content.__class__ is not str:
                    return 0
                if not content or content.isspace():
                    return 0
                if role != "assistant" and role != "user" and role != "system":
                    return 0
        except (ValueError, TypeError, KeyError, IndexError):
            return 0
        is_good = role == "assistant" and self._takes_messages
        return num_names + 2 * len(messages) if is_good else 0

    def _is_plain(self, value: dict[str, Any]) -> bool:
        """Whether nothing of a row means anything but its messages."""
        return tuple(value) in self._plain and all(
            inner.__class__ in _SCALARS for key, inner in value.items() if key != "messages"
        )

    def look(self, data: bytes, line: int, *, is_too_large: bool = False) -> Finding | None:
        """What is wrong with the row on a line; None where nothing is."""
        if not is_too_large and (keys := self.plain_keys(data)) and keeps_keys(data, keys):
            return None
        origin = Origin(_NAME, line)
        value: dict[str, Any] | None = None
        try:
            if is_too_large:
                raise too_large(origin)
            value = parse_row(data, origin)
            self.read(value, origin, len(data))
        except DataError as error:
            return Finding.of(error, str(origin), line, value)
        if self._takes_messages and _MEANT.intersection(value) == frozenset({"messages"}):
            self._plain.add(tuple(value))
        return None

    def read(self, value: dict[str, Any], origin: Origin, num_bytes: int = 0) -> Content:
        """What the row comes to. Raises DataError for a row that is not good."""
        content = self._form.read(Row(value, origin, num_bytes))
        if not _is_learned(content):
            refuse(
                "nothing of the row is learned: every weight is 0, or there is no text",
                str(origin),
                "give what is to be learned a weight, or remove the row",
            )
        if self._form.shape in ("messages", "log"):
            self._check_messages(value, str(origin))
        return content

    @property
    def shape(self) -> str:
        """The shape of the rows; empty before the first."""
        return self._form.shape

    def _check_messages(self, value: Mapping[str, Any], where: str) -> None:
        is_log = self._form.shape == "log"
        if is_log:
            name = self._columns.get("input", "input")
            listed, at = value[name]["messages"], f"/{name}/messages"
        else:
            name = self._columns.get("messages", "messages")
            listed, at = value[name], f"/{name}"
        messages = cast("list[dict[str, Any]]", listed)
        if self._is_full:
            for i, said in enumerate(messages):
                _check_says(said, f"{where} {at}/{i}")
            self._check_tools(value, where)
        last = messages[-1]["role"]
        if not is_log and last != "assistant":
            refuse(
                f"the last message must be the assistant's; found {last!r}",
                f"{where} {at}/{len(messages) - 1}/role",
                "allowed: assistant; add the reply, or remove the turns after the last one",
            )

    def _check_tools(self, value: Mapping[str, Any], where: str) -> None:
        name = self._columns.get("tools", "tools")
        tools = value.get(name)
        if tools is not None and not isinstance(tools, list):
            refuse(
                f"tools are a list; found {kind(tools)}",
                f"{where} /{name}",
                'write [{"type": "function", "function": {…}}]; hone validate --fix reads JSON text',
            )


def _check_says(said: Mapping[str, Any], where: str) -> None:
    """Raise DataError for a message without a call and without a text that is more than space."""
    if said.get("tool_calls") or said.get("function_call"):
        return
    content = said.get("content")
    if content is not None and text_of(content, where).strip():
        return
    found = "only space" if content else kind(content) if content is None else "no text"
    refuse(
        f"the message has no content and calls no tool; found {found}",
        f"{where}/content",
        "write what it says, or remove the message",
    )


def _is_learned(content: Content) -> bool:
    """Whether training would learn anything of it, as far as the row itself says."""
    if isinstance(content, Conversation):
        return any(
            one.role == "assistant" if one.weight is None else one.weight > 0
            for one in content.messages
        )
    if isinstance(content, Document):
        return bool(content.text)
    return bool(content.weight[1:].any())
