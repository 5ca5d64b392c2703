"""The steps that need no file: arguments, Hermes form, think tags, turns. Each takes a row and gives a row, or raises DataError.

They know no specification of tools and no prompts; see `check.py` and `pipeline.py`.
"""

from __future__ import annotations

import re
from typing import Final, Protocol

from hone.data.agent.calls import (
    OPEN,
    arguments_from,
    as_json,
    first_name,
    function_calls,
    hermes,
    looks_like_call,
    split_think,
)
from hone.data.agent.row import ANSWERS, AgentRow, Turn
from hone.data.messages import kind
from hone.data.strict import JsonObject
from hone.errors import DataError

_BLOCK: Final = re.compile(r"<think>(.*?)</think>\s*", re.DOTALL)
_TAG: Final = re.compile(r"</?think>")


class Tell(Protocol):
    """Hears what a step does to a row."""

    def repair(self, reason: str, example: str = "") -> None:
        """The row was changed."""
        ...

    def note(self, reason: str, example: str = "") -> None:
        """The row was not changed, and a user should hear of it."""
        ...


def fix_arguments(row: AgentRow, tell: Tell) -> AgentRow:
    """Arguments of function calls as objects. A call that is not JSON stays: the next step refuses it.

    Raises DataError where a turn spells a tool tag or a list of objects on a line: its calls stand in texts.
    """
    for turn in row.turns:
        if "<tool_" in turn.value:
            raise DataError("a turn spells a tool tag")
        if "\n[{" in turn.value:
            raise DataError("a turn holds a list of objects on a line of its own")
    return row.with_turns([_with_arguments(turn, tell) for turn in row.turns])


def _with_arguments(turn: Turn, tell: Tell) -> Turn:
    if turn.role != "function_call":
        return turn
    try:
        found = function_calls(turn.value)
    except DataError:
        return turn
    calls = tuple(_fixed(call, tell) for call in found.calls)
    return turn if calls == found.calls else turn.saying(found.write(calls))


def _fixed(call: JsonObject, tell: Tell) -> JsonObject:
    if "arguments" not in call:
        tell.repair("missing arguments became {}", as_json(call))
        return call | {"arguments": {}}
    arguments = call["arguments"]
    if isinstance(arguments, dict):
        return call
    if isinstance(arguments, str):
        fixed, how = arguments_from(arguments)
    else:
        fixed, how = {}, "arguments that are no JSON object became {}"
    tell.repair(how, as_json(arguments)[:80])
    return call | {"arguments": fixed}


def to_hermes(row: AgentRow, tell: Tell) -> AgentRow:
    """Function calls as `<tool_call>` text of the assistant, results as text of the user.

    Raises DataError for a call that is not JSON.
    """
    turns: list[Turn] = []
    for turn in row.turns:
        if turn.role == "function_call":
            think, _ = split_think(turn.value)
            text = hermes(function_calls(turn.value).calls)
            turns.append(Turn("gpt", f"{think}\n{text}" if think else text, turn.beside))
            tell.repair("function calls became tool_call text")
        elif turn.role == "observation":
            turns.append(Turn("human", turn.value, turn.beside))
            tell.repair("results became turns of the user")
        else:
            turns.append(turn)
    return row.with_turns(turns)


def remove_think(row: AgentRow, tell: Tell) -> AgentRow:
    """The row without think tags, and with a text before every call.

    An assistant's turn that thinks and calls nothing goes; where it calls, its thoughts stay as text; elsewhere
    thoughts go and the text stays. No tag is left, whether it was closed or not. Raises DataError where no
    turn is left.
    """
    turns: list[Turn] = []
    for turn in row.turns:
        thinks = _TAG.search(turn.value) is not None
        text = turn.value
        if turn.role == "function_call":
            # Its value is JSON, beside which no text can stand.
            if thinks:
                text = _untagged(_BLOCK.sub("", text))
                tell.repair("thoughts before a function call were removed")
        elif thinks and looks_like_call(text):
            text = _untagged(_BLOCK.sub(_as_text, text))
            tell.repair("thoughts before a call became text")
        elif thinks and turn.role == "gpt":
            tell.repair("a turn of the assistant that only thinks was removed", turn.value[:80])
            continue
        elif thinks:
            text = _untagged(_BLOCK.sub("", text)).strip()
            tell.repair("thoughts in a turn that is not the assistant's were removed")
            if not text:
                continue
        turns.append(turn.saying(_introduced(text, tell) if turn.role == "gpt" else text))
    return row.with_turns(turns)


def _as_text(found: re.Match[str]) -> str:
    return f"{thought}\n\n" if (thought := found[1].strip()) else ""


def _untagged(text: str) -> str:
    while _TAG.search(text):  # taking one out can bring another together
        text = _TAG.sub("", text)
    return text.lstrip("\n")


def _introduced(text: str, tell: Tell) -> str:
    """A call with some text before it."""
    start = text.find(OPEN)
    if start < 0 or text[:start].strip():
        return text
    tell.repair("a text was put before a call that had none")
    return f"{text[:start]}I will call the function {first_name(text)}.\n\n{text[start:]}"


def merge_turns(row: AgentRow, tell: Tell) -> AgentRow:
    """Neighbours of one role as one turn, joined with a line feed; function calls as one list of calls."""
    turns: list[Turn] = []
    for turn in row.turns:
        if turns and turns[-1].role == turn.role:
            turns[-1] = turns[-1].saying(_joined(turns[-1], turn))
            tell.repair("neighbouring turns of one role were joined")
        else:
            turns.append(turn)
    return row.with_turns(turns)


def _joined(first: Turn, second: Turn) -> str:
    if first.role != "function_call":
        return f"{first.value}\n{second.value}"
    calls = function_calls(first.value).calls + function_calls(second.value).calls
    thoughts = [think for one in (first, second) if (think := split_think(one.value)[0])]
    return "\n".join([*thoughts[:1], as_json(list(calls))])


def drop_trailing_user(row: AgentRow, tell: Tell) -> AgentRow:
    """The row up to its last answer. Raises DataError where no turn is left."""
    turns = list(row.turns)
    while turns and turns[-1].role not in ANSWERS:
        turns.pop()
        tell.repair("a turn after the last answer was removed")
    return row.with_turns(turns)


def check_turns(row: AgentRow, tell: Tell) -> AgentRow:
    """The row, if it can be learned from. Raises DataError where the user does not begin or a turn is blank."""
    del tell
    if row.turns[0].role != "human":
        raise DataError(f"the user does not begin; found {row.turns[0].role!r}")
    for turn in row.turns:
        if not turn.value.strip():
            raise DataError(f"a turn is blank; found {kind(turn.value)} from {turn.role!r}")
    if not any(turn.role in ANSWERS for turn in row.turns):
        raise DataError("nobody answers")
    return row
