"""Whether a chat template takes reasoning in a field of its own, found by asking it. It knows no rows.

A template is asked by rendering a made-up conversation: what it writes is what counts, not what its
source mentions.
"""

from __future__ import annotations

import contextlib
from collections.abc import Iterator, Mapping, Sequence
from functools import cached_property
from typing import Any, Final

from hone.data.conversation import split_thought
from hone.data.template import ChatTemplate, TemplateError

_NAME: Final = "qnamed"
_SAID: Final = "qsaid"


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
        return message

    def _written(self, messages: Sequence[Mapping[str, Any]]) -> Iterator[str]:
        """What the template makes of it, without tools and with; nothing where it refuses."""
        function = {"name": _NAME, "description": "", "parameters": {"type": "object"}}
        for tools in ((), ({"type": "function", "function": function},)):
            with contextlib.suppress(TemplateError):
                yield self._template.render(messages, tools)
