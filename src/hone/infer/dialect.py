"""How a model family writes reasoning and tool calls, found by asking its chat template. It knows no model.

A made-up conversation with a call and with reasoning is rendered; the format is the one whose reader gets from
that text the very call back. So what is read from replies is what the model was trained to write.
"""

from __future__ import annotations

import contextlib
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final

from hone.data.template import ChatTemplate, TemplateError
from hone.infer import call_formats
from hone.infer.call_formats import Call, Schemas

_ASKED: Final = {"role": "user", "content": "qasked"}
_SPECIMEN: Final = Call("qcalled", {"qkey": "qvalue"})
_PARAMETERS: Final = {"type": "object", "properties": {"qkey": {"type": "string"}}}
_TOOL: Final = {
    "type": "function",
    "function": {"name": "qcalled", "description": "", "parameters": _PARAMETERS},
}
_THINKING: Final = (
    ("<think>", "</think>"),
    ("[THINK]", "[/THINK]"),
    ("<seed:think>", "</seed:think>"),
    ("<|START_THINKING|>", "<|END_THINKING|>"),
    ("<|channel>thought", "<channel|>"),
    ("<|channel|>analysis<|message|>", "<|end|>"),
)


@dataclass(frozen=True)
class CallFormat:
    """Calls stand between `opens` and `closes`; without `opens` they are all of the reply, without `closes` its end."""

    name: str
    opens: str
    closes: str
    read: Callable[[str, Schemas], list[Call] | None]
    argument_key: str | None = None
    """Where a call is one JSON object of a name and arguments: the key of these."""


FORMATS: Final = (
    CallFormat("json-tags", "<tool_call>", "</tool_call>", call_formats.read_json, "arguments"),
    CallFormat("function-tags", "<tool_call>", "</tool_call>", call_formats.read_function_tags),
    CallFormat("argument-tags", "<tool_call>", "</tool_call>", call_formats.read_argument_tags),
    CallFormat("json-bars", "<|tool_call|>", "<|/tool_call|>", call_formats.read_json),
    CallFormat("json-bar", "<|tool_call|>", "", call_formats.read_json),
    CallFormat("mistral", "[TOOL_CALLS]", "", call_formats.read_mistral),
    CallFormat(
        "deepseek",
        "<｜tool▁calls▁begin｜>",
        "<｜tool▁calls▁end｜>",
        call_formats.read_deepseek,
    ),
    CallFormat("python-tag", "<|python_tag|>", "", call_formats.read_json, "parameters"),
    CallFormat("bare-json", "", "", call_formats.read_json, "parameters"),
    CallFormat("bare-json-arguments", "", "", call_formats.read_json, "arguments"),
)


@dataclass(frozen=True)
class Dialect:
    """One family's way of writing: the texts around its reasoning, and its calls."""

    thinking: tuple[str, str] = _THINKING[0]
    calls: CallFormat | None = None
    """None where the template writes no calls, or in a format that is not known here."""


def find_dialect(template: ChatTemplate, ends: Sequence[str]) -> Dialect:
    """What `template` writes; `ends` are the texts of tokens that end a turn."""
    calls = _find_calls(template, ends) if template.mentions("tool_calls") else None
    return Dialect(_find_thinking(template), calls)


def _find_calls(template: ChatTemplate, ends: Sequence[str]) -> CallFormat | None:
    function = {"name": _SPECIMEN.name, "arguments": dict(_SPECIMEN.arguments)}
    call = {"id": "qcall0001", "type": "function", "function": function}
    reply = {"role": "assistant", "content": "", "tool_calls": [call]}
    written = _written(template, reply, tools=(_TOOL,))
    for end in ends:
        written = written.partition(end)[0] if end else written
    schemas = {_SPECIMEN.name: _PARAMETERS}
    for one in FORMATS:
        before, opens, body = written.rpartition(one.opens) if one.opens else ("", "", written)
        if one.opens and not opens:
            continue
        body, closes, _ = body.partition(one.closes) if one.closes else (body, "", "")
        if (one.closes and not closes) or before.strip().endswith(_SPECIMEN.name):
            continue
        if one.argument_key is not None and f'"{one.argument_key}"' not in body:
            continue
        with contextlib.suppress(ValueError):
            if one.read(body, schemas) == [_SPECIMEN]:
                return one
    return None


def _find_thinking(template: ChatTemplate) -> tuple[str, str]:
    """The texts around reasoning that is given in a field of its own; think tags where it writes none."""
    thought = {"reasoning_content": "qthought", "thinking": "qthought"}
    written = _written(template, {"role": "assistant", "content": "qanswer", **thought})
    before, found, after = written.partition("qthought")
    for opens, closes in _THINKING:
        if found and opens in before and closes in after:
            return opens, closes
    return _THINKING[0]


def _written(
    template: ChatTemplate, reply: Mapping[str, Any], *, tools: Sequence[Mapping[str, Any]] = ()
) -> str:
    """What the template makes of a reply, the generation prompt before it left out; '' where it refuses."""
    try:
        whole = template.render([_ASKED, reply], tools)
        prompt = template.render([_ASKED], tools, True)
    except TemplateError:
        return ""
    same = 0
    while same < min(len(whole), len(prompt)) and whole[same] == prompt[same]:
        same += 1
    return whole[same:]
