"""What a file of prompts asks: conversations that end before an answer. It knows no model and no teacher."""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from hone.data.conversation import Conversation, Message
from hone.data.formats import RowFormat
from hone.data.importers.formats import TABLES
from hone.data.messages import read_messages
from hone.data.reader import Row, RowReader
from hone.data.remarks import Remarks
from hone.data.tools import read_tools
from hone.errors import DataError
from hone.recipes.change import imported


@dataclass(frozen=True)
class Asked:
    """A question: its name (file and line), the turns up to it, and the tools that an answer may call.

    `wanted` is what the row itself answers, where it does.
    """

    name: str
    messages: list[Message]
    tools: tuple[Any, ...] = ()
    wanted: str | None = None


@dataclass(frozen=True)
class AskedFile:
    """A file of questions. `said_by` is the setting or option that named it, for messages."""

    path: Path
    said_by: str
    columns: Mapping[str, str] = field(default_factory=dict[str, str])
    tags: Mapping[str, str] = field(default_factory=dict[str, str])

    def __iter__(self) -> Iterator[Asked]:
        """One question a line of a .txt file, or one a row. Of a row's answers the last is what is wanted.

        Raises DataError for a file or a row that asks nothing.
        """
        return self._lines() if self.path.suffix == ".txt" else self._rows()

    def _lines(self) -> Iterator[Asked]:
        try:
            lines = self.path.read_text(encoding="utf-8").split("\n")
        except (OSError, UnicodeDecodeError) as error:
            what = f"{self.said_by} cannot be read: {error}"
            raise DataError(what, where=str(self.path)) from error
        for number, line in enumerate(lines, start=1):
            if line.strip():
                yield asked_text(f"{self.path.name}:{number}", line.rstrip("\r"))

    def _rows(self) -> Iterator[Asked]:
        rows = RowFormat("auto", self.columns, self.tags)
        table = imported(self.path) if self.path.suffix in TABLES else None
        path = self.path if table is None else table.path
        for row in RowReader(path, name=str(self.path)):
            messages, tools = self._messages(row, rows)
            wanted = None
            if messages and messages[-1].role == "assistant":
                wanted = messages.pop().content
            if not messages:
                raise DataError(f"{self.said_by}: nothing is asked", where=str(row.origin))
            yield Asked(f"{self.path.name}:{row.origin.line}", messages, tools, wanted)

    def _messages(self, row: Row, rows: RowFormat) -> tuple[list[Message], tuple[Any, ...]]:
        """A row's turns and tools. Unlike a row to train on, one of `messages` may end with a question."""
        where, value = str(row.origin), row.value
        if "messages" in value:
            remarks = Remarks()
            messages = read_messages(value["messages"], f"{where} /messages", remarks)
            return messages, tuple(read_tools(value.get("tools"), where, remarks))
        if isinstance(value.get("prompt"), str) and "completion" not in value:
            return [Message("user", cast(str, value["prompt"]))], ()
        content = rows.read(row)
        if not isinstance(content, Conversation):
            raise DataError(
                f"{self.said_by}: a row without turns asks nothing",
                where=where,
                remedy="give rows of messages, or a .txt file with a prompt on each line",
            )
        return list(content.messages), content.tools


def asked_text(name: str, text: str) -> Asked:
    """A text as a user's only turn."""
    return Asked(name, [Message("user", text)])
