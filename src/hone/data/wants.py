"""In which form a chat template wants what a row may say in two, found by asking it. It knows no rows.

A template is asked by rendering a made-up conversation: what it writes is what counts, not what its
source mentions.
"""

from __future__ import annotations

import contextlib
import json
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final, Literal, cast

from hone.data.conversation import split_thought
from hone.data.template import ChatTemplate, TemplateError

_NAME: Final = "qnamed"
_KEY: Final = "qkeyed"
_SAID: Final = "qsaid"
_CALL_ID: Final = "callnr001"  # some templates take ids of nine letters and digits only


class Wants:
    """What one template wants; asked when it is first needed."""

    def __init__(self, template: ChatTemplate) -> None:
        self._template = template

    @cached_property
    def reasoning(self) -> bool:
        """Whether the template writes reasoning that is given in a field of its own."""
        reply = {"role": "assistant", "content": "qanswer"}
        field = {"reasoning_content": _SAID, "thinking": _SAID}
        asked = {"role": "user", "content": "qasked"}
        return any(_SAID in text for text in self._written([asked, {**reply, **field}]))

    @cached_property
    def arguments(self) -> Literal["object", "text"]:
        """Whether the arguments of a tool call are wanted as an object, or as JSON text.

        An object, unless the template writes one badly (not at all, or as Python would) and text well.
        """
        given = {_KEY: _SAID}
        if self._writes(given) or not self._writes(json.dumps(given)):
            return "object"
        return "text"

    def told(self, message: dict[str, Any]) -> dict[str, Any]:
        """An assistant's message, as `Message.as_template` gives it, in the form that the template wants."""
        content = message.get("content")
        if isinstance(content, str) and message.get("reasoning_content") is None:
            thought = split_thought(content)
            if thought is not None and self.reasoning:
                reasoning, rest = thought
                message = {
                    **message,
                    "content": rest,
                    "reasoning_content": reasoning,
                    "thinking": reasoning,
                }
        calls = message.get("tool_calls")
        if calls and self.arguments == "text":
            message = {**message, "tool_calls": [_with_text(call) for call in calls]}
        return message

    def _writes(self, arguments: object) -> bool:
        """Whether a call's arguments, given so, come out as they are meant."""
        function = {"name": _NAME, "arguments": arguments}
        call = {"id": _CALL_ID, "type": "function", "function": function}
        said = [
            {"role": "user", "content": "qasked"},
            {"role": "assistant", "content": "", "tool_calls": [call]},
        ]
        answered = [
            *said,
            {"role": "tool", "content": "qresult", "tool_call_id": _CALL_ID, "name": _NAME},
            {"role": "assistant", "content": "qanswer"},
        ]
        for text in (*self._written(said), *self._written(answered)):
            if _KEY in text and _SAID in text:
                # A text that is written as JSON once more has its quotes escaped; an object that is
                # written as it is, has Python's quotes.
                return not any(f"{quote}{_KEY}" in text for quote in ('\\"', "'"))
        return False

    def _written(self, messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """What the template makes of it, without tools and with; nothing where it refuses."""
        function = {"name": _NAME, "description": "", "parameters": {"type": "object"}}
        for tools in ((), ({"type": "function", "function": function},)):
            with contextlib.suppress(TemplateError):
                yield self._template.render(messages, tools)


def _with_text(call: Mapping[str, Any]) -> dict[str, Any]:
    function = cast("dict[str, Any]", call["function"])
    if isinstance(function["arguments"], str):
        return dict(call)
    text = json.dumps(function["arguments"], ensure_ascii=False)
    return {**call, "function": {**function, "arguments": text}}
