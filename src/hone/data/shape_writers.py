"""A Conversation written as a row of any shape, and what a shape cannot say. It knows no files and no readers.

To add a shape: write `_as_<shape>(said, losses) -> row`, and add it to `WRITERS`.
"""

from __future__ import annotations

import json
from collections.abc import Callable, Mapping
from dataclasses import replace
from typing import Any, Final

from hone.data.conversation import Conversation, Message, ToolCall
from hone.errors import ConfigError, DataError, nearest

Json = dict[str, Any]

SHAPE_KEYS: Final = frozenset(
    {
        "assistant", "completion", "conversations", "history", "input", "input_ids", "instruction",
        "labels", "loss_mask", "messages", "output", "pair", "prompt", "system", "text", "tools", "user",
    }
)  # fmt: skip
"""Columns by which some shape is read: beside a conversation they would change what the row says."""

_SYSTEM: Final = ("system", "developer")


class Losses:
    """What a shape cannot say of one row: refused, or left out and remembered where `lossy`."""

    def __init__(self, shape: str, where: str, *, lossy: bool) -> None:
        self.shape = shape
        self.where = where
        self.lossy = lossy
        self.left_out: list[str] = []

    def leave_out(self, what: str) -> None:
        """Something goes. Raises DataError unless losses were allowed."""
        if not self.lossy:
            raise DataError(
                f"the shape {self.shape!r} cannot say {what}",
                where=self.where,
                remedy="choose another shape, or leave it out with --lossy",
            )
        self.note(f"left out: {what}")

    def note(self, what: str) -> None:
        """Something was written in another way that says the same."""
        if what not in self.left_out:
            self.left_out.append(what)

    def refuse(self, what: str) -> DataError:
        """What no leaving out can mend."""
        return DataError(
            f"the shape {self.shape!r} cannot say {what}",
            where=self.where,
            remedy="choose another shape, or remove the row",
        )


def write_row(said: object, shape: str, *, lossy: bool, where: str) -> tuple[Json, list[str]]:
    """The row, and what was left out of it or written otherwise, in words.

    `said` is what a row's reader gave: a Conversation, or a row of plain text, which has a `text`. Raises
    DataError for what the shape cannot say, ConfigError for a shape that is not written.
    """
    if shape not in WRITERS:
        raise ConfigError(f"no rows of shape {shape!r} are written", remedy=nearest(shape, WRITERS))
    losses = Losses(shape, where, lossy=lossy)
    if isinstance(said, Conversation):
        return WRITERS[shape](said, losses), losses.left_out
    text: object = getattr(said, "text", None)
    if not isinstance(text, str):
        raise losses.refuse("token ids")
    if shape != "text":
        raise losses.refuse("plain text, which has no turns")
    return {"text": text}, []


def _as_messages(said: Conversation, losses: Losses) -> Json:
    del losses
    return {
        "messages": [as_openai(one) for one in said.messages],
        **({"tools": list(said.tools)} if said.tools else {}),
    }


def as_openai(one: Message) -> Json:
    """OpenAI's message object; arguments are JSON text, as its API has them."""
    told: Json = {"role": one.role, "content": one.content}
    if one.reasoning is not None:
        told["reasoning_content"] = one.reasoning
    if one.tool_calls:
        told["tool_calls"] = [
            {
                **({"id": call.id} if call.id is not None else {}),
                "type": "function",
                "function": {"name": call.name, "arguments": _as_text(call.arguments)},
            }
            for call in one.tool_calls
        ]
    for key in ("tool_call_id", "name", "weight"):
        if getattr(one, key) is not None:
            told[key] = getattr(one, key)
    return told


def _as_text(arguments: Mapping[str, Any] | str) -> str:
    return (
        arguments if isinstance(arguments, str) else json.dumps(dict(arguments), ensure_ascii=False)
    )


def _as_prompt_completion(said: Conversation, losses: Losses) -> Json:
    """The prompt ends where the first answer begins that may be trained, since a prompt never is."""
    messages = list(said.messages)
    last = _last_answer(messages, losses)
    start = next((i for i, one in enumerate(messages) if _may_be_trained(one)), last)
    tools = {"tools": list(said.tools)} if said.tools else {}
    if start == 0:
        raise losses.refuse("a conversation that the assistant begins")
    if len(messages) == start + 1 and _is_plain(messages):
        roles = [one.role for one in messages]
        if roles == ["user", "assistant"]:
            return {"prompt": messages[0].content, "completion": messages[1].content} | tools
        if roles == ["system", "user", "assistant"]:
            system, user, assistant = (one.content for one in messages)
            return {"system": system, "prompt": user, "completion": assistant} | tools
    prompt = [_prompt_message(one) for one in messages[:start]]
    return {"prompt": prompt, "completion": [as_openai(one) for one in messages[start:]]} | tools


def _may_be_trained(one: Message) -> bool:
    return one.weight != 0 if one.role == "assistant" else bool(one.weight)


def _prompt_message(one: Message) -> Json:
    """An answer in a prompt has the weight 0 without saying so."""
    return as_openai(replace(one, weight=None) if one.role == "assistant" else one)


def _is_plain(messages: list[Message]) -> bool:
    """Whether the messages are roles and texts and nothing else."""
    return all(one == Message(one.role, one.content) for one in messages)


def _as_turns(said: Conversation, losses: Losses) -> Json:
    system, pairs = _exchanges(said, losses)
    if len(pairs) > 1:
        # The first exchange stands on its own; a later one would lose what it answers.
        losses.leave_out("more than one exchange")
    user, assistant = pairs[0]
    tools = {"tools": list(said.tools)} if said.tools else {}
    return {**_system(system), "user": user, "assistant": assistant} | tools


def _as_alpaca(said: Conversation, losses: Losses) -> Json:
    if said.tools:
        losses.leave_out("tools")
    system, pairs = _exchanges(said, losses)
    if system == "":
        losses.leave_out("an empty system text")
    instruction, output = pairs[-1]
    history = {"history": [list(pair) for pair in pairs[:-1]]} if len(pairs) > 1 else {}
    return ({"instruction": instruction, "input": "", "output": output} | _system(system)) | history


def _as_conversations(said: Conversation, losses: Losses) -> Json:
    if said.tools:
        losses.leave_out("tools")
    system, messages = _without_system(said, losses)
    for one in messages:
        _refuse_calls(one, losses)
    turns = [{"role": one.role, "content": one.content} for one in _plain(messages, losses)]
    if (
        system == ""
    ):  # an empty column says that there is no system text; a turn says that it is empty
        return {"conversations": [{"role": "system", "content": ""}, *turns]}
    return _system(system) | {"conversations": turns}


def _as_text_row(said: Conversation, losses: Losses) -> Json:
    for one in said.messages:
        _refuse_calls(one, losses)
    losses.leave_out("who speaks: the texts stand one after the other")
    if said.tools:
        losses.leave_out("tools")
    return {"text": "\n\n".join(one.content for one in _plain(list(said.messages), losses))}


def _as_sharegpt(said: Conversation, losses: Losses) -> Json:
    """Turns of from/value; calls and results are told apart by their turns' names, and answer in order."""
    system, messages = _without_system(said, losses)
    _check_results(messages, losses)
    turns: list[Json] = []
    for one in _ended(messages, losses):
        if one.tool_calls:
            if one.content:
                losses.leave_out("text beside a tool call")
            one = replace(one, content=_calls_text(one.tool_calls))
        turns.append({"from": _tag(one), "value": one.content})
        _plain([replace(one, tool_calls=(), tool_call_id=None, name=_own_name(one))], losses)
    _check_order([turn["from"] for turn in turns], losses)
    tools = {"tools": json.dumps(list(said.tools), ensure_ascii=False)} if said.tools else {}
    if system == "":
        return {"conversations": [{"from": "system", "value": ""}, *turns]} | tools
    return {"conversations": turns} | _system(system) | tools


def _tag(one: Message) -> str:
    if one.tool_calls:
        return "function_call"
    return {"user": "human", "assistant": "gpt", "tool": "observation"}[one.role]


def _own_name(one: Message) -> str | None:
    """A name that is not that of the function whose result the message is."""
    return None if one.role == "tool" else one.name


def _calls_text(calls: tuple[ToolCall, ...]) -> str:
    told = [{"name": call.name, "arguments": call.arguments} for call in calls]
    return json.dumps(told[0] if len(told) == 1 else told, ensure_ascii=False)


def _check_results(messages: list[Message], losses: Losses) -> None:
    """Ids say which call a result answers. Without them the order must say it."""
    waiting: list[ToolCall] = []
    for one in messages:
        if one.role == "assistant":
            waiting = list(one.tool_calls)
        elif one.role == "tool":
            call = waiting.pop(0) if waiting else None
            if call is None or one.tool_call_id not in (None, call.id):
                losses.leave_out("which call a tool result answers")
            elif one.name not in (None, call.name):
                losses.leave_out("the name of a tool result")
        names = one.tool_call_id or (one.role == "tool" and one.name)
        if names or any(call.id is not None for call in one.tool_calls):
            losses.note("ids of tool calls left out: the order says the same")


def _check_order(tags: list[str], losses: Losses) -> None:
    """The other side speaks first, then both in turn; several results may follow several calls."""
    before = "gpt"
    for tag in tags:
        asks = tag in ("human", "observation")
        follows = tag == before == "observation"
        if asks != (before in ("gpt", "function_call")) and not follows:
            raise losses.refuse("turns that do not alternate")
        before = tag


def _exchanges(said: Conversation, losses: Losses) -> tuple[str | None, list[tuple[str, str]]]:
    """The system text, and pairs of a user's and an assistant's text."""
    system, messages = _without_system(said, losses)
    pairs: list[tuple[str, str]] = []
    for one in messages:
        _refuse_calls(one, losses)
    plain = _plain(_ended(messages, losses), losses)
    for ask, answer in zip(plain[::2], plain[1::2], strict=False):
        if (ask.role, answer.role) != ("user", "assistant"):
            raise losses.refuse("turns that do not alternate")
        pairs.append((ask.content, answer.content))
    if len(plain) % 2 or not pairs:
        raise losses.refuse("turns that do not alternate")
    return system, pairs


def _without_system(said: Conversation, losses: Losses) -> tuple[str | None, list[Message]]:
    """The system text at the beginning, and the other messages."""
    messages = list(said.messages)
    system: str | None = None
    if messages and messages[0].role in _SYSTEM:
        if messages[0].role == "developer":
            losses.leave_out("the role 'developer', told from 'system'")
        system = _plain([messages.pop(0)], losses)[0].content
    if any(one.role in _SYSTEM for one in messages):
        raise losses.refuse("a system message that is not the first message")
    return system, messages


def _ended(messages: list[Message], losses: Losses) -> list[Message]:
    """The messages up to the last answer: what follows is never learned."""
    end = _last_answer(messages, losses) + 1
    if end < len(messages):
        losses.leave_out("messages after the last answer")
    return messages[:end]


def _last_answer(messages: list[Message], losses: Losses) -> int:
    """The index of the last message of the assistant."""
    for i in reversed(range(len(messages))):
        if messages[i].role == "assistant":
            return i
    raise losses.refuse("a conversation without an answer")


def _plain(messages: list[Message], losses: Losses) -> list[Message]:
    """The messages as roles and texts."""
    for one in messages:
        if one.weight is not None:
            losses.leave_out("weights")
        if one.reasoning is not None:
            losses.leave_out("reasoning")
        if one.name is not None:
            losses.leave_out("names of speakers")
    return [Message(one.role, one.content) for one in messages]


def _refuse_calls(one: Message, losses: Losses) -> None:
    """Without its calls and results a conversation would say something else: leaving them out is no loss but a lie."""
    if one.tool_calls or one.role == "tool":
        raise losses.refuse("tool calls and their results")


def _system(text: str | None) -> Json:
    return {} if text is None else {"system": text}


WRITERS: Final[dict[str, Callable[[Conversation, Losses], Json]]] = {
    "messages": _as_messages,
    "prompt-completion": _as_prompt_completion,
    "turns": _as_turns,
    "alpaca": _as_alpaca,
    "sharegpt": _as_sharegpt,
    "conversations": _as_conversations,
    "text": _as_text_row,
}
