"""Rows that list their messages as role and content: `messages`, `conversations` and `log`. It knows no columns."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any, Final, cast

from hone.data.conversation import Content, Json, Message
from hone.data.messages import check_calls, read_message, read_messages, read_tools
from hone.data.remarks import Remarks
from hone.data.shapes.given import Given, without_weight
from hone.data.shapes.tags import Tags
from hone.data.values import kind, refuse, text_of

# What a logged request says beside its messages and tools, and what changes nothing here.
_SILENT: Final = frozenset({"parallel_tool_calls"})
_TOOLS: Final = ("tools", "functions")


def messages_row(given: Given) -> Content:
    """OpenAI's training row: `messages`, with tools, weights and a mask."""
    return _listed(given, "messages")


def conversations_row(given: Given) -> Content:
    """`conversations` of role and content, with a system column."""
    listed = given.value["conversations"]
    first = cast("list[Any]", listed)[0] if isinstance(listed, list) and listed else None
    if isinstance(first, dict) and "role" not in first:
        found = ", ".join(map(repr, cast("dict[str, Any]", first))) or "no keys"
        refuse(
            f"a turn of shape 'conversations' has a 'role'; found {found}",
            given.at("/conversations/0"),
            "write role and content, or from and value in every row (shape 'sharegpt'); "
            "data.tags names other keys, e.g. data.tags='{role: speaker, content: text}'",
        )
    return _listed(given, "conversations")


def is_log(value: Mapping[str, Any], tags: Tags) -> bool:
    """Whether `input` is a request with messages."""
    del tags
    request = value["input"]
    return isinstance(request, dict) and "messages" in request


def log_row(given: Given) -> Content:
    """A logged request and its reply: the reply is learned, the request is context.

    A row without `output` is one whose messages end with the reply, and is read as `messages` are.
    """
    request = given.value["input"]
    if not is_log(given.value, given.tags):
        refuse(
            f'the input is a request: {{"messages": […]}}; found {kind(request)}',
            given.at("/input"),
            "write the request's messages under input/messages",
        )
    asked = cast("dict[str, Any]", request)
    messages = read_messages(asked["messages"], given.at("/input/messages"), given.remarks)
    for key in asked:
        if key not in ("messages", *_TOOLS) and key not in _SILENT:
            given.remarks.add("unknown-key", f"input/{key}")
    output = given.value.get("output")
    if output is not None:
        reply = _reply(output, given.at("/output"), given.remarks)
        if given.value.get("loss_mask") is None:
            messages = without_weight(messages)
        messages.append(reply)
        check_calls(messages, given.remarks)
    elif messages[-1].role != "assistant":
        refuse(
            f"the row has no 'output', and its last message is the {messages[-1].role}'s: "
            "there is no reply to learn",
            given.where,
            "add the reply under 'output', or as the last of input/messages",
        )
    return given.conversation(messages, tools=_log_tools(given, asked), own=len(messages))


def _listed(given: Given, key: str) -> Content:
    messages = read_messages(given.value[key], given.at(f"/{key}"), given.remarks)
    return given.conversation(given.with_system(messages), own=len(messages))


def _log_tools(given: Given, asked: Mapping[str, Any]) -> list[Json]:
    """The tools of the request, or of the row around it."""
    outer = given.tools()
    key = next((key for key in _TOOLS if asked.get(key) is not None), "tools")
    inner = read_tools(asked.get(key), given.where, given.remarks, f"input/{key}")
    if outer and inner and outer != inner:
        refuse(
            "the row and its input give different tools",
            given.at(f"/input/{key}"),
            "keep those of the input",
        )
    return inner or outer


def _reply(value: object, where: str, remarks: Remarks) -> Message:
    """The reply that was logged: text, a message, OpenAI's choice, or a whole response with one choice."""
    if isinstance(value, str | list):
        text = text_of(cast("object", value), where)
        if not text:
            remarks.add("empty-assistant")
        return Message("assistant", text)
    if not isinstance(value, dict):
        refuse(
            f"an output is text, a message or a choice; found {kind(value)}",
            where,
            'write "text", {"role": "assistant", "content": …} or {"message": {…}}',
        )
    said = cast("dict[str, Any]", value)
    if "choices" in said:
        choices = said["choices"]
        if not isinstance(choices, list) or len(cast("list[Any]", choices)) != 1:
            found = len(cast("list[Any]", choices)) if isinstance(choices, list) else kind(choices)
            refuse(
                f"a list of one choice is wanted; found {found}",
                f"{where}/choices",
                "keep the choice that is to be learned",
            )
        return _reply(cast("list[Any]", choices)[0], f"{where}/choices/0", remarks)
    if "message" in said:
        reason = said.get("finish_reason")
        if isinstance(reason, str) and reason not in ("stop", "tool_calls", "function_call"):
            remarks.add("finish-reason", reason)
        return _reply(said["message"], f"{where}/message", remarks)
    if "role" not in said and ("content" in said or "tool_calls" in said):
        said = {"role": "assistant", **said}
    reply = read_message(said, where, remarks)
    if reply.role != "assistant":
        refuse(
            f"an output is the assistant's; this one is {reply.role!r}",
            f"{where}/role",
            "move it to the end of input/messages",
        )
    return reply
