"""Made-up conversations, on which templates are shown and tried. It knows no template."""

from __future__ import annotations

from typing import Any, Final

from hone.data.conversation import Conversation, Message, ToolCall
from hone.data.example import Origin

_ORIGIN: Final = Origin("made up", 1)
_TOOL: Final[dict[str, Any]] = {
    "type": "function",
    "function": {
        "name": "weather",
        "description": "The weather of a city.",
        "parameters": {
            "type": "object",
            "properties": {"city": {"type": "string"}},
            "required": ["city"],
        },
    },
}
# Nine letters and digits: what the strictest template wants of an id.
_CALL: Final = ToolCall("weather", {"city": "Paris"}, "call00001")

_ASKED: Final = Message("user", "What is the capital of France?")
_SAID: Final = Message("assistant", "Paris.")
_ASKED_AGAIN: Final = Message("user", "And of Italy?")
_SAID_AGAIN: Final = Message("assistant", "Rome.")
_SYSTEM: Final = Message("system", "Answer briefly.")

PLAIN: Final = Conversation((_ASKED, _SAID, _ASKED_AGAIN, _SAID_AGAIN), _ORIGIN)
SYSTEM: Final = Conversation((_SYSTEM, *PLAIN.messages), _ORIGIN)
SYSTEM_INSIDE: Final = Conversation(
    (*PLAIN.messages[:2], Message("system", "Answer at length."), *PLAIN.messages[2:]), _ORIGIN
)
TOOLS: Final = Conversation(
    (
        Message("user", "Is it raining in Paris?"),
        Message("assistant", "", tool_calls=(_CALL,)),
        Message("tool", "light rain", tool_call_id="call00001", name="weather"),
        Message("assistant", "Yes, a little."),
        Message("user", "Thanks."),
        Message("assistant", "You are welcome."),
    ),
    _ORIGIN,
    (_TOOL,),
)
REASONING: Final = Conversation(
    (
        Message("user", "What is 2 + 3?"),
        Message("assistant", "5", reasoning="Two and three make five."),
        Message("user", "And twice that?"),
        Message("assistant", "10", reasoning="Five and five make ten."),
    ),
    _ORIGIN,
)

SPECIMENS: Final[dict[str, Conversation]] = {
    "plain": PLAIN,
    "with a system message": SYSTEM,
    "with tools": TOOLS,
    "with reasoning": REASONING,
    "with a system message inside": SYSTEM_INSIDE,
}
"""By what they have in them; none says anything that another says in its place."""
