"""One row on its way through a shape, and how it becomes a Conversation. It knows no single shape."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, replace
from typing import Any

from hone.data.conversation import Conversation, Document, Json, Message
from hone.data.example import Origin
from hone.data.messages import read_tools
from hone.data.remarks import Remarks
from hone.data.shapes.loss_mask import masked
from hone.data.shapes.tags import Tags
from hone.data.values import refuse, text_of


@dataclass(frozen=True, slots=True)
class Given:
    """A row under our names, with what its reader needs to say where something stands."""

    value: Mapping[str, Any]
    origin: Origin
    remarks: Remarks
    tags: Tags
    input_heading: str | None = None

    @property
    def where(self) -> str:
        """File and line."""
        return str(self.origin)

    def at(self, pointer: str) -> str:
        """File, line and a JSON pointer."""
        return f"{self.origin} {pointer}"

    def text(self, key: str) -> str:
        """The text of a column. Raises DataError for anything else."""
        return text_of(self.value[key], self.at(f"/{key}"))

    def text_if_any(self, key: str) -> str:
        """The text of a column, empty where the column is missing or null."""
        return "" if self.value.get(key) is None else self.text(key)

    def with_system(self, messages: list[Message]) -> list[Message]:
        """The messages after the text of the system column, if it says anything.

        A system turn that the messages begin with goes before the column.
        """
        text = self.text_if_any("system")
        if not text:
            return messages
        if messages and messages[0].role in ("system", "developer"):
            if messages[0].content != text:
                self.remarks.add("system-twice")
            return messages
        return [Message("system", text), *messages]

    def tools(self) -> list[Json]:
        """The tools of the row, under either of OpenAI's names."""
        if self.value.get("tools") is None and self.value.get("functions") is not None:
            return read_tools(self.value["functions"], self.where, self.remarks, "functions")
        return read_tools(self.value.get("tools"), self.where, self.remarks)

    def conversation(
        self,
        messages: list[Message],
        *,
        tools: list[Json] | None = None,
        own: int | None = None,
    ) -> Conversation:
        """The Conversation of these messages; tools are the row's own unless given.

        `own` is how many messages the row itself lists, at the end: a list of truth values in
        `loss_mask` speaks of those. None where the row lists none. Raises DataError when nothing of
        it can be learned.
        """
        mask = self.value.get("loss_mask")
        if mask is not None:
            messages = masked(messages, mask, self.at("/loss_mask"), own=own)
        if not any(one.role == "assistant" or one.weight for one in messages):
            refuse(
                "no assistant turn: there is nothing to learn from this row",
                self.where,
                "add a message with role 'assistant', or remove the row",
            )
        if any(one.weight and one.role != "assistant" for one in messages):
            self.remarks.add("trains-other-roles")
        told = self.tools() if tools is None else tools
        return Conversation(tuple(messages), self.origin, tuple(told), tuple(self.remarks.codes))

    def document(self, text: str) -> Document:
        """The Document of a text."""
        return Document(text, self.origin, tuple(self.remarks.codes))


def without_weight(messages: list[Message]) -> list[Message]:
    """The messages with every assistant turn as context, unless the row gives it a weight."""
    return [
        replace(one, weight=0.0) if one.role == "assistant" and one.weight is None else one
        for one in messages
    ]
