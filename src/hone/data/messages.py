"""OpenAI's message objects to ours, checked key by key. It knows one message list, not a row."""

from __future__ import annotations

import math
from collections.abc import Mapping, Sequence
from typing import Any, Final, cast

from hone.data.conversation import ROLES, Message, ToolCall, split_thought
from hone.data.remarks import Remarks
from hone.data.tools import read_call, read_calls, read_tools
from hone.data.values import kind, refuse, text_of
from hone.errors import nearest

__all__ = [
    "MESSAGE_KEYS",
    "OTHER_ROLES",
    "Remarks",
    "check_calls",
    "kind",
    "plain_messages",
    "read_message",
    "read_messages",
    "read_tools",
    "read_weight",
    "text_of",
]

_REASONING: Final = ("reasoning_content", "thinking", "reasoning")
_KEYS: Final = frozenset(
    {
        "role",
        "content",
        "name",
        "tool_calls",
        "tool_call_id",
        "function_call",
        "weight",
        "train",
        *_REASONING,
    }
)
# Keys of OpenAI's own replies that mean nothing to training; other values than null are reported.
_IGNORED: Final = frozenset({"refusal", "annotations", "audio", "metadata", "id"})
OTHER_ROLES: Final = {
    "human": "user",
    "gpt": "assistant",
    "bot": "assistant",
    "model": "assistant",
    "ai": "assistant",
    "observation": "tool",
}
"""What other programs call a role of ours."""
MESSAGE_KEYS: Final = _KEYS | _IGNORED
"""Keys that a message may have."""


def read_messages(value: object, where: str, remarks: Remarks) -> list[Message]:
    """The messages of a list. `where` is the row and the JSON pointer of the list. Raises DataError."""
    if (plain := plain_messages(value)) is not None:
        return list(plain)
    if not isinstance(value, list):
        refuse(f"a list of messages is wanted; found {kind(value)}", where)
    listed = cast("list[Any]", value)
    if not listed:
        refuse(
            "the list of messages is empty",
            where,
            "write at least one assistant message, or remove the row",
        )
    messages = [read_message(one, f"{where}/{i}", remarks) for i, one in enumerate(listed)]
    check_calls(messages, remarks)
    return messages


def read_message(value: object, where: str, remarks: Remarks) -> Message:
    """One message; `where` is the row and its JSON pointer. Raises DataError."""
    if not isinstance(value, dict):
        refuse(f"a message is an object; found {kind(value)}", where)
    said = cast("dict[str, Any]", value)
    role = _role(said, where)
    _check_keys(said, role, where, remarks)
    calls = _calls(said, role, where, remarks)
    content = said.get("content")
    refusal = said.get("refusal")
    if content is None and isinstance(refusal, str) and role == "assistant":
        content = refusal
        remarks.add("refusal-as-content")
    if content is None:
        if not calls:
            refuse(
                f"the content is {'null' if 'content' in said else 'missing'} and there are no tool calls",
                f"{where}/content",
                'write text (it may be ""), or remove the message',
            )
        content = ""
    text = text_of(content, f"{where}/content")
    if role == "assistant" and not text and not calls:
        remarks.add("empty-assistant")
    return Message(
        role,
        text,
        _reasoning(said, role, text, where),
        calls,
        _text_or_none(said, "tool_call_id", where),
        _text_or_none(said, "name", where),
        read_weight(said, where),
    )


def read_weight(said: Mapping[str, Any], where: str) -> float | None:
    """How much a message is learned, from its `weight` (0 to 1) or `train`; None where it says nothing.

    Raises DataError when they are of another kind, or contradict each other.
    """
    train = said.get("train")
    if train is not None and not isinstance(train, bool):
        refuse(
            f"train is true or false; found {kind(train)}",
            f"{where}/train",
            "write true, false, or a weight from 0 to 1 under 'weight'",
        )
    weight = said.get("weight")
    if weight is None:
        return None if train is None else float(train)
    if isinstance(weight, bool) or not isinstance(weight, int | float) or not math.isfinite(weight):
        refuse(f"a weight is a number from 0 to 1; found {kind(weight)}", f"{where}/weight")
    if not 0 <= weight <= 1:
        refuse(
            f"a weight lies in 0 to 1; found {weight}", f"{where}/weight", "scale the weights down"
        )
    if train is not None and train != (weight > 0):
        refuse(
            f"train is {str(train).lower()} and the weight is {weight}: they contradict each other",
            f"{where}/train",
            "keep one of them",
        )
    return float(weight)


def check_calls(messages: Sequence[Message], remarks: Remarks, *, one_result: bool = False) -> None:
    """Remark calls and results that do not belong together: a template renders them all the same.

    A result without an id answers a call just before it; with `one_result` it answers all of them.
    """
    called: set[str] = set()
    waiting: set[str] = set()  # ids of the calls just before that have no result yet
    nameless = 0  # calls just before without an id that have no result yet
    calls: tuple[ToolCall, ...] = ()
    for message in messages:
        if message.role == "tool":
            answers = message.tool_call_id
            if answers is not None:
                is_known = answers in called
                waiting.discard(answers)
            else:
                is_known = bool(calls) if one_result else bool(waiting or nameless)
                waiting, nameless = set[str](), 0 if one_result else max(0, nameless - 1)
            if not is_known:
                remarks.add("result-without-call")
            continue
        if waiting or nameless:
            remarks.add("call-without-result")
        calls = message.tool_calls
        ids = [call.id for call in calls if call.id is not None]
        if len(set(ids)) < len(ids) or not called.isdisjoint(ids):
            remarks.add("duplicate-call-id")
        called.update(ids)
        waiting, nameless = set(ids), len(calls) - len(ids)
    if messages and messages[-1].role == "tool" and (waiting or nameless):
        remarks.add("call-without-result")


# Setting the slots one by one makes a Message in half the time of its frozen `__init__`; a million
# rows hold several million of them.
_new_message = Message.__new__
_SETTERS: Final = tuple(vars(Message)[name].__set__ for name in Message.__slots__)


def plain_messages(value: Any) -> tuple[Message, ...] | None:
    """The messages of a list in which nothing needs a second look, or None.

    Nothing does where each is an object of a role (system, user or assistant) and a text, where no
    reply is empty, and where there is a reply. Everything else is for `read_messages`.
    """
    if value.__class__ is not list:
        return None
    role_, content_, reasoning_, calls_, call_id_, name_, weight_ = _SETTERS
    messages: list[Message] = []
    replies = 0
    for said in value:
        if said.__class__ is not dict or len(said) != 2:
            return None
        role, content = said.get("role"), said.get("content")
        if content.__class__ is not str:
            return None
        if role == "assistant":
            if not content:
                return None
            replies += 1
        elif role != "user" and role != "system":
            return None
        message = _new_message(Message)
        role_(message, role)
        content_(message, content)
        reasoning_(message, None)
        calls_(message, ())
        call_id_(message, None)
        name_(message, None)
        weight_(message, None)
        messages.append(message)
    return tuple(messages) if replies else None


def count_plain_keys(value: Any) -> int:
    """How many keys the messages of a list have in all, where `plain_messages` takes it; else 0."""
    if value.__class__ is not list:
        return 0
    replies = 0
    for said in value:
        if said.__class__ is not dict or len(said) != 2:
            return 0
        role, content = said.get("role"), said.get("content")
        if content.__class__ is not str:
            return 0
        if role == "assistant":
            if not content:
                return 0
            replies += 1
        elif role != "user" and role != "system":
            return 0
    return 2 * len(value) if replies else 0


def _role(said: Mapping[str, Any], where: str) -> str:
    if "role" not in said:
        keys = ", ".join(map(repr, said)) or "no keys"
        refuse(
            f"the message has no 'role'; found {keys}",
            where,
            nearest("role", said) if said else None,
        )
    role = said["role"]
    if not isinstance(role, str):
        refuse(
            f"the role is text; found {kind(role)}", f"{where}/role", f"allowed: {', '.join(ROLES)}"
        )
    if role == "function":  # OpenAI's older name
        return "tool"
    if role not in ROLES:
        meant = OTHER_ROLES.get(role.lower())
        hint = (
            f"did you mean {meant!r}? allowed: {', '.join(ROLES)}"
            if meant
            else nearest(role, ROLES)
        )
        refuse(f"unknown role {role!r}", f"{where}/role", hint)
    return role


def _check_keys(said: Mapping[str, Any], role: str, where: str, remarks: Remarks) -> None:
    for key in said:
        if key in _KEYS:
            continue
        if key == "audio" and said[key] is not None:
            refuse("audio cannot be trained on", f"{where}/audio", "remove it, or the row")
        if key not in _IGNORED:
            refuse(f"unknown key {key!r} in a message", where, nearest(key, _KEYS))
        if said[key] is not None and not (key == "refusal" and role == "assistant"):
            remarks.add("unknown-key", f"messages/{key}")


def _reasoning(said: Mapping[str, Any], role: str, text: str, where: str) -> str | None:
    found: str | None = None
    for key in _REASONING:
        value = said.get(key)
        if value is None:
            continue
        if not isinstance(value, str):
            refuse(f"reasoning is text; found {kind(value)}", f"{where}/{key}")
        if role != "assistant":
            refuse(
                f"only an assistant message has reasoning; this one is {role!r}", f"{where}/{key}"
            )
        if found is not None and value != found:
            refuse(
                "two keys give different reasoning",
                f"{where}/{key}",
                "keep one of " + ", ".join(_REASONING),
            )
        found = value
        thought = split_thought(text)
        if thought is not None and value.strip() and thought[0].strip() != value.strip():
            refuse(
                "the reasoning here is not that of the think block in the content",
                f"{where}/{key}",
                "keep one of the two",
            )
    # The content says it already, and is given to the template as it is written.
    return None if split_thought(text) is not None else found


def _calls(
    said: Mapping[str, Any], role: str, where: str, remarks: Remarks
) -> tuple[ToolCall, ...]:
    key = "tool_calls"
    calls = read_calls(said.get(key), f"{where}/{key}", remarks)
    older = said.get("function_call")
    if older is not None:
        if calls:
            refuse(
                "the message has both tool_calls and function_call",
                f"{where}/function_call",
                "keep tool_calls; function_call is its older form",
            )
        key = "function_call"
        calls = (read_call(older, f"{where}/{key}", remarks),)
    if calls and role != "assistant":
        refuse(
            f"only an assistant message calls tools; this one is {role!r}",
            f"{where}/{key}",
            "give the message the role 'assistant', or remove the calls",
        )
    return calls


def _text_or_none(said: Mapping[str, Any], key: str, where: str) -> str | None:
    value = said.get(key)
    if value is not None and not isinstance(value, str):
        refuse(f"{key} is text; found {kind(value)}", f"{where}/{key}")
    return value
