"""How a template wants to be told contents and tool calls, found by trying each way on made-up messages. It knows
no row."""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, cast

from hone.data.sandbox import TemplateError

Objects = Sequence[Mapping[str, Any]]
Write = Callable[[Objects, Objects], str]
"""What a template makes of messages and tools as they are; raises TemplateError."""

_NAME: Final = "qwordname"
_KEY: Final = "qwordkey"
_VALUE: Final = "qwordvalue"
_ID: Final = "call00001"


@dataclass(frozen=True, slots=True)
class MessageForm:
    """`parts`: a content is a list of one text part, for templates that know pictures too and no bare text.
    `as_text`: arguments of a call are JSON text, for templates that write them as they are given. `null`: the
    content of a message that only calls is null, for templates that take it by that."""

    parts: bool = False
    as_text: bool = False
    null: bool = False

    def told(self, message: Mapping[str, Any]) -> dict[str, Any]:
        """A message (as `Message.as_template` gives it) in this form."""
        told = dict(message)
        calls = cast("list[dict[str, Any]] | None", message.get("tool_calls"))
        if calls and self.as_text:
            told["tool_calls"] = [self._call(call) for call in calls]
        if calls and self.null and message.get("content") == "":
            told["content"] = None
        elif self.parts and isinstance(message.get("content"), str):
            told["content"] = [{"type": "text", "text": message["content"]}]
        return told

    def _call(self, call: dict[str, Any]) -> dict[str, Any]:
        function = call["function"]
        if isinstance(function["arguments"], str):
            return call
        text = json.dumps(function["arguments"], ensure_ascii=False)
        return {**call, "function": {**function, "arguments": text}}


def find_message_form(write: Write, *, calls: bool = True) -> MessageForm:
    """The first form in which the template writes contents, and calls whole and as JSON; the plain one for
    what it writes in none. `calls`: whether it may write calls at all."""
    plain, listed = MessageForm(), MessageForm(parts=True)
    parts = not _writes_content(write, plain) and _writes_content(write, listed)
    if not calls:
        return listed if parts else plain
    function = {"name": _NAME, "arguments": {_KEY: _VALUE}}
    call = {"id": _ID, "type": "function", "function": function}
    messages: list[dict[str, Any]] = [
        {"role": "user", "content": "?"},
        {"role": "assistant", "content": "", "tool_calls": [call]},
        {"role": "tool", "content": "!", "tool_call_id": _ID, "name": _NAME},
    ]
    about: dict[str, Any] = {"name": _NAME, "description": "", "parameters": {}}
    tools = [{"type": "function", "function": about}]
    for null in (False, True):
        for as_text in (False, True):
            form = MessageForm(parts, as_text, null)
            told = [form.told(message) for message in messages]
            if _writes_call(write, told[:2], tools) or _writes_call(write, told, tools):
                return form
    return listed if parts else plain


def _writes_content(write: Write, form: MessageForm) -> bool:
    messages = [{"role": "user", "content": _NAME}, {"role": "assistant", "content": _VALUE}]
    try:
        text = write([form.told(message) for message in messages], [])
    except TemplateError:
        return False
    return _NAME in text and _VALUE in text


def _writes_call(write: Write, messages: Objects, tools: Objects) -> bool:
    try:
        text = write(messages, tools)
    except TemplateError:
        return False
    # Quotes of Python, or of JSON within JSON, are what a template writes that wants the other form.
    wrong = (f"'{_KEY}'", f'\\"{_KEY}\\"')
    return _KEY in text and _VALUE in text and not any(one in text for one in wrong)
