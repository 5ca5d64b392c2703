"""What a row comes to: a Conversation, a Document or a TokenRow, and how much of it is to be learned.

It knows no shapes of rows, no files and no tokenizer.
"""

from __future__ import annotations

import hashlib
import json
from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any, Final

import orjson

from hone.data.example import Origin
from hone.pack import Float32, Int32

ROLES: Final = ("system", "developer", "user", "assistant", "tool")

Json = Mapping[str, Any]

_OPENS: Final = "<think>"
_CLOSES: Final = "</think>"


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
    """One turn. `weight` is None where the row says nothing: then the settings decide.

    `reasoning` is what the row gave in a field of its own; a think block in `content` stays there, as
    the row wrote it, and `split_thought` finds it.
    """

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
        if self.tool_call_id is not None:
            told["tool_call_id"] = self.tool_call_id
        if self.name is not None:
            told["name"] = self.name
        return told


@dataclass(frozen=True, slots=True)
class Conversation:
    """Messages in order, the tools that they may call, and where they came from.

    `remarks` are codes of what the row's reader noticed and a user should hear of (see `remarks`).
    """

    messages: tuple[Message, ...]
    origin: Origin
    tools: tuple[Json, ...] = ()
    remarks: tuple[str, ...] = field(default=(), compare=False)

    def content_hash(self) -> int:
        """A 64-bit name of what is said and learned, whatever file and line it stands on."""
        told = [[message.as_template(), message.weight] for message in self.messages]
        return _hash([told, self.tools])


@dataclass(frozen=True, slots=True)
class Document:
    """Plain text without turns, all of which is learned, and its end."""

    text: str
    origin: Origin
    remarks: tuple[str, ...] = field(default=(), compare=False)

    def content_hash(self) -> int:
        """A 64-bit name of the text, whatever file and line it stands on."""
        return _hash({"text": self.text})


@dataclass(frozen=True, slots=True, eq=False)
class TokenRow:
    """Tokens that were made elsewhere. `weight[t]` is the loss weight of predicting token t; 0 is context."""

    input_ids: Int32  # [T]
    weight: Float32  # [T]
    origin: Origin
    remarks: tuple[str, ...] = ()

    def content_hash(self) -> int:
        """A 64-bit name of the tokens and their weights, whatever file and line they stand on."""
        told = self.input_ids.astype("<i4").tobytes() + self.weight.astype("<f4").tobytes()
        return int.from_bytes(hashlib.sha256(told).digest()[:8], "little")


Content = Conversation | Document | TokenRow
"""What a row may come to, and what the renderer takes."""


def split_thought(text: str) -> tuple[str, str] | None:
    """The reasoning and the rest of a text that begins with a think block, without the line breaks between.

    None where there is no such block, and where nothing stands in it: an empty block is itself what
    is to be learned.
    """
    if not text.startswith(_OPENS):
        return None
    inner, closes, rest = text[len(_OPENS) :].partition(_CLOSES)
    if not closes or not inner.strip():
        return None
    return inner.strip("\n"), rest.lstrip("\n")


def _hash(told: object) -> int:
    try:
        data = orjson.dumps(told)
    except TypeError:  # an integer beyond 64 bits, or a text that is no Unicode
        text = json.dumps(told, ensure_ascii=False, separators=(",", ":"))
        data = text.encode("utf-8", "surrogatepass")
    return int.from_bytes(hashlib.sha256(data).digest()[:8], "little")
