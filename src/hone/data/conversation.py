"""The Conversation: what was said, by whom, and how much of it is to be learned. It knows no file format and no tokens."""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

from hone.data.example import Origin

ROLES: Final = ("system", "developer", "user", "assistant", "tool")

Json = Mapping[str, Any]


@dataclass(frozen=True, slots=True)
class ToolCall:
    """A function that the assistant calls.

    `arguments` is the JSON value that the text meant, because templates write it as JSON themselves;
    text that is not a JSON object stays text.
    """

    name: str
    arguments: Json | str
    id: str | None = None


@dataclass(frozen=True, slots=True)
class Message:
    """One turn. `weight` is None where the row says nothing: then the settings decide."""

    role: str
    content: str
    reasoning: str | None = None
    tool_calls: tuple[ToolCall, ...] = ()
    tool_call_id: str | None = None
    name: str | None = None
    weight: float | None = None

    def as_template(self) -> dict[str, Any]:
        """The dictionary that chat templates read."""
        told: dict[str, Any] = {"role": self.role, "content": self.content}
        if self.reasoning is not None:
            # One text under the two names that templates use; `transformers` fills both as well.
            told["reasoning_content"] = told["thinking"] = self.reasoning
        if self.tool_calls:
            told["tool_calls"] = [
                {
                    **({"id": call.id} if call.id is not None else {}),
                    "type": "function",
                    "function": {"name": call.name, "arguments": call.arguments},
                }
                for call in self.tool_calls
            ]
        for key in ("tool_call_id", "name"):
            if getattr(self, key) is not None:
                told[key] = getattr(self, key)
        return told


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order, the tools that they may call, and where they came from.

    `remarks` are codes of what the row's reader noticed and a user should hear of (see `ledger`).
    """

    messages: tuple[Message, ...]
    origin: Origin
    tools: tuple[Json, ...] = ()
    remarks: tuple[str, ...] = field(default=(), compare=False)

    def content_hash(self) -> int:
        """A 64-bit name of what is said and learned, whatever file and line it stands on."""
        told = [[message.as_template(), message.weight] for message in self.messages]
        text = json.dumps([told, self.tools], ensure_ascii=False, separators=(",", ":"))
        digest = hashlib.sha256(text.encode("utf-8", "surrogatepass")).digest()
        return int.from_bytes(digest[:8], "little")
