"""Objects of chat completions as they go over the wire, whole or in chunks. It knows no sockets."""

from __future__ import annotations

import json
import math
import secrets
import time
from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Final

from hone.data.tokenizer import TextTokenizer
from hone.infer.call_formats import Call
from hone.infer.parts import Part
from hone.infer.writer import Chance

_LEAST: Final = -9999.0  # stands for a probability of 0: infinity is no JSON


@dataclass
class Choice:
    """One reply of a request as it grows."""

    index: int
    content: str = ""
    reasoning: str = ""
    calls: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    chances: list[dict[str, Any]] = field(default_factory=list[dict[str, Any]])
    token_ids: list[int] = field(default_factory=list[int])
    finish: str | None = None
    tokens: int = 0

    def add(self, part: Part) -> dict[str, Any]:
        """Take the next part; the delta that tells it."""
        if part.kind == "reasoning":
            self.reasoning += part.text
            return {"reasoning_content": part.text}
        if part.kind == "content":
            self.content += part.text
            return {"content": part.text}
        assert part.call is not None
        told = call_object(part.call)
        self.calls.append(told)
        return {"tool_calls": [{"index": len(self.calls) - 1, **told}]}

    def as_message(self) -> dict[str, Any]:
        """The assistant's message."""
        content = self.content if self.content or not self.calls else None
        message: dict[str, Any] = {"role": "assistant", "content": content, "refusal": None}
        if self.reasoning:
            message["reasoning_content"] = self.reasoning
        if self.calls:
            message["tool_calls"] = self.calls
        return message


@dataclass(frozen=True)
class Wire:
    """What all objects of one answer have in common."""

    model: str
    wants_chances: bool
    wants_ids: bool
    prompt: Sequence[int]
    id: str = field(default_factory=lambda: f"chatcmpl-{secrets.token_hex(16)}")
    created: int = field(default_factory=lambda: int(time.time()))

    def completion(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """The whole answer."""
        return {
            **self._head("chat.completion"),
            "choices": [self._choice(one) for one in choices],
            "usage": self.usage(choices),
            **({"prompt_token_ids": list(self.prompt)} if self.wants_ids else {}),
        }

    def _choice(self, one: Choice) -> dict[str, Any]:
        told: dict[str, Any] = {"index": one.index, "message": one.as_message()}
        told["logprobs"] = {"content": one.chances, "refusal": None} if self.wants_chances else None
        told["finish_reason"] = one.finish
        if self.wants_ids:
            told["token_ids"] = one.token_ids
        return told

    def chunk(
        self,
        index: int,
        delta: Mapping[str, Any],
        *,
        finish: str | None = None,
        chances: Sequence[Mapping[str, Any]] = (),
    ) -> dict[str, Any]:
        """A part of the answer."""
        told = {"content": list(chances), "refusal": None} if chances else None
        choice = {"index": index, "delta": delta, "logprobs": told, "finish_reason": finish}
        return {**self._head("chat.completion.chunk"), "choices": [choice]}

    def last_chunk(self, choices: Sequence[Choice]) -> dict[str, Any]:
        """What the answer took, as the chunk after all others."""
        return {**self._head("chat.completion.chunk"), "choices": [], "usage": self.usage(choices)}

    def usage(self, choices: Iterable[Choice]) -> dict[str, int]:
        """Tokens read and written."""
        written = sum(one.tokens for one in choices)
        read = len(self.prompt)
        return {
            "prompt_tokens": read,
            "completion_tokens": written,
            "total_tokens": read + written,
        }

    def _head(self, kind: str) -> dict[str, Any]:
        return {"id": self.id, "object": kind, "created": self.created, "model": self.model}


def call_object(call: Call) -> dict[str, Any]:
    """A tool call with an id of its own."""
    arguments = json.dumps(dict(call.arguments), ensure_ascii=False)
    function = {"name": call.name, "arguments": arguments}
    return {"id": f"call_{secrets.token_hex(12)}", "type": "function", "function": function}


def chance_object(chance: Chance, tokenizer: TextTokenizer) -> dict[str, Any]:
    """The probability of one token, and of the likeliest at its place."""
    told = _likely(chance.token_id, chance.logprob, tokenizer)
    return {**told, "top_logprobs": [_likely(i, p, tokenizer) for i, p in chance.top]}


def _likely(token_id: int, logprob: float, tokenizer: TextTokenizer) -> dict[str, Any]:
    text = tokenizer.text_of(token_id)
    whole = "\N{REPLACEMENT CHARACTER}" not in text
    return {
        "token": text,
        "logprob": logprob if math.isfinite(logprob) else _LEAST,
        "bytes": list(text.encode()) if whole else None,
    }
