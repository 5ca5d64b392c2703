"""A request's body, checked key by key: what is asked for, or what is wrong with it. It knows no model and no HTTP."""

from __future__ import annotations

import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, TypeVar, cast

from hone.data.messages import read_messages
from hone.data.remarks import Remarks
from hone.data.tools import read_tools
from hone.data.values import kind
from hone.errors import DataError, nearest
from hone.serving.refusal import Refusal

_T = TypeVar("_T")
_MOST_CHOICES: Final = 16
_MOST_STOPS: Final = 16
_UNTOUCHED: Final = frozenset(
    {"metadata", "user", "safety_identifier", "prompt_cache_key", "prompt_cache_retention"}
)
"""Told about the caller, or hints: nothing of a reply depends on them."""
_ONLY: Final[Mapping[str, tuple[Any, ...]]] = {
    "store": (False,),
    "service_tier": ("auto", "default"),
    "modalities": (["text"],),
}
"""What would change a reply, and may be said as long as it does not."""
_KNOWN: Final = frozenset(
    {
        "model", "messages", "max_tokens", "max_completion_tokens", "temperature", "top_p", "n", "stop", "stream",
        "stream_options", "seed", "logprobs", "top_logprobs", "frequency_penalty", "presence_penalty", "logit_bias",
        "tools", "tool_choice", "parallel_tool_calls", "response_format", "return_token_ids", *_UNTOUCHED, *_ONLY,
    }
)  # fmt: skip


@dataclass(frozen=True)
class Question:
    """One request for chat completions."""

    model: str
    messages: Sequence[Mapping[str, Any]]
    """As chat templates read them."""
    tools: Sequence[Mapping[str, Any]]
    forced: tuple[str, ...] | None
    """Functions of which one must be called; None where none must."""
    parallel_calls: bool
    choices: int
    max_tokens: int | None
    temperature: float
    top_p: float
    seed: int | None
    stop: tuple[str, ...]
    top_logprobs: int | None
    presence_penalty: float
    frequency_penalty: float
    logit_bias: Mapping[int, float]
    schema: Mapping[str, Any] | None
    stream: bool
    include_usage: bool
    return_token_ids: bool


def read_question(body: bytes) -> Question:
    """The question in a request's body. Raises Refusal with the name of the key that is wrong."""
    try:
        value: Any = json.loads(body, parse_constant=_no_constant)
    except (ValueError, RecursionError) as error:
        raise Refusal(400, f"the body is not JSON: {error}") from error
    if not isinstance(value, dict):
        raise Refusal(400, f"the body is an object; found {kind(value)}")
    said = {k: v for k, v in cast("dict[str, Any]", value).items() if v is not None}
    _refuse_unknown(said)
    fields = _Fields(said)
    tools = _tools(said)
    forced = _forced(said.get("tool_choice"), tools)
    schema = _schema(fields)
    if forced is not None and schema is not None:
        raise Refusal(
            400, "a call cannot be required together with a form of the answer", param="tool_choice"
        )
    seed = fields.integer("seed", -(2**63), 2**63 - 1)
    return Question(
        model=fields.text("model"),
        messages=_messages(said),
        tools=() if said.get("tool_choice") == "none" else tools,
        forced=forced,
        parallel_calls=fields.flag("parallel_tool_calls", default=True),
        choices=fields.integer("n", 1, _MOST_CHOICES) or 1,
        max_tokens=_max_tokens(fields),
        temperature=fields.number("temperature", 0, 2, 1.0),
        top_p=_top_p(fields),
        seed=seed,
        stop=_stop(said.get("stop")),
        top_logprobs=_top_logprobs(fields),
        presence_penalty=fields.number("presence_penalty", -2, 2, 0.0),
        frequency_penalty=fields.number("frequency_penalty", -2, 2, 0.0),
        logit_bias=_logit_bias(said.get("logit_bias", {})),
        schema=schema,
        stream=fields.flag("stream"),
        include_usage=_include_usage(said, stream=fields.flag("stream")),
        return_token_ids=fields.flag("return_token_ids"),
    )


class _Fields:
    """Plain values by name and bounds."""

    def __init__(self, said: Mapping[str, Any]) -> None:
        self.said = said

    def text(self, name: str) -> str:
        """A text that must be there."""
        value = self.said.get(name)
        if not isinstance(value, str) or not value:
            found = "it is missing" if value is None else f"found {kind(value)}"
            raise Refusal(400, f"{name} is a text; {found}", param=name)
        return value

    def flag(self, name: str, *, default: bool = False) -> bool:
        """True or false."""
        value = self.said.get(name, default)
        if not isinstance(value, bool):
            raise Refusal(400, f"{name} is true or false; found {kind(value)}", param=name)
        return value

    def integer(self, name: str, low: int, high: int) -> int | None:
        """A whole number within bounds."""
        value = self.said.get(name)
        if value is None:
            return None
        if isinstance(value, bool) or not isinstance(value, int) or not low <= value <= high:
            raise Refusal(400, f"{name} is a whole number from {low} to {high}", param=name)
        return value

    def number(self, name: str, low: float, high: float, default: float) -> float:
        """A number within bounds."""
        value = self.said.get(name, default)
        is_number = isinstance(value, int | float) and not isinstance(value, bool)
        if not is_number or not math.isfinite(value) or not low <= value <= high:
            raise Refusal(400, f"{name} is a number from {low} to {high}", param=name)
        return float(value)


def _no_constant(name: str) -> object:
    raise ValueError(f"{name} is no JSON")


def _refuse_unknown(said: Mapping[str, Any]) -> None:
    for name, value in said.items():
        if name not in _KNOWN:
            raise Refusal(
                400, f"{name} is not offered here ({nearest(name, _KNOWN)})", param=name,
                code="unsupported_parameter",
            )  # fmt: skip
        if name in _ONLY and value not in _ONLY[name]:
            only = " or ".join(json.dumps(one) for one in _ONLY[name])
            raise Refusal(400, f"{name} can only be {only} here", param=name)


def _messages(said: Mapping[str, Any]) -> list[Mapping[str, Any]]:
    if "messages" not in said:
        raise Refusal(400, "messages is missing", param="messages")
    remarks = Remarks()
    found = _read(lambda: read_messages(said["messages"], "body /messages", remarks), "messages")
    return [message.as_template() for message in found]


def _tools(said: Mapping[str, Any]) -> Sequence[Mapping[str, Any]]:
    value = said.get("tools", [])
    if isinstance(value, str):
        raise Refusal(400, f"tools is a list; found {kind(value)}", param="tools")
    return _read(lambda: read_tools(value, "body", Remarks()), "tools")


def _read(read: Callable[[], _T], key: str) -> _T:
    """What a reader of rows makes of a part of the body; its complaint names the place as the OpenAI API does."""
    try:
        return read()
    except DataError as error:
        pointer = (error.where or "").partition(" /")[2]
        names = [f"[{part}]" if part.isdecimal() else f".{part}" for part in pointer.split("/")]
        param = "".join(names).removeprefix(".") or key
        said = error.what if error.remedy is None else f"{error.what} ({error.remedy})"
        raise Refusal(400, said, param=param) from error


def _forced(value: object, tools: Sequence[Mapping[str, Any]]) -> tuple[str, ...] | None:
    names = tuple(str(tool["function"]["name"]) for tool in tools)
    if value in (None, "none", "auto"):
        return None
    if value == "required" and names:
        return names
    if isinstance(value, dict):
        function: Any = cast("dict[str, Any]", value).get("function")
        name: Any = (
            cast("dict[str, Any]", function).get("name") if isinstance(function, dict) else None
        )
        if name in names:
            return (str(name),)
        raise Refusal(
            400, f"tool_choice names no tool of this request: {name!r}", param="tool_choice"
        )
    wrong = "there are no tools" if value == "required" else "found something else"
    raise Refusal(
        400,
        f'tool_choice is "none", "auto", "required" or a function; {wrong}',
        param="tool_choice",
    )


def _schema(fields: _Fields) -> Mapping[str, Any] | None:
    value = fields.said.get("response_format", {"type": "text"})
    said = cast("dict[str, Any]", value) if isinstance(value, dict) else {}
    match said.get("type"):
        case "text":
            return None
        case "json_object":
            return {"type": "object"}
        case "json_schema":
            named: Any = said.get("json_schema")
            schema: Any = (
                cast("dict[str, Any]", named).get("schema") if isinstance(named, dict) else None
            )
            if isinstance(schema, dict):
                return cast("dict[str, Any]", schema)
            raise Refusal(
                400,
                "json_schema holds a schema: an object",
                param="response_format.json_schema.schema",
            )
        case _:
            raise Refusal(
                400,
                "response_format has a type: text, json_object or json_schema",
                param="response_format.type",
            )


def _max_tokens(fields: _Fields) -> int | None:
    high = 2**31
    newer = fields.integer("max_completion_tokens", 1, high)
    older = fields.integer("max_tokens", 1, high)
    if newer is not None and older is not None and newer != older:
        raise Refusal(
            400, "max_tokens and max_completion_tokens contradict each other", param="max_tokens"
        )
    return older if newer is None else newer


def _top_p(fields: _Fields) -> float:
    value = fields.number("top_p", 0, 1, 1.0)
    if value == 0:
        raise Refusal(400, "top_p lies above 0 (temperature 0 takes the likeliest)", param="top_p")
    return value


def _stop(value: object) -> tuple[str, ...]:
    listed = [value] if isinstance(value, str) else value
    if listed is None:
        return ()
    if not isinstance(listed, list) or not all(
        isinstance(one, str) and one for one in cast("list[Any]", listed)
    ):
        raise Refusal(400, "stop is a text or a list of texts, none of them empty", param="stop")
    found = cast("list[str]", listed)
    if len(found) > _MOST_STOPS:
        raise Refusal(400, f"stop holds at most {_MOST_STOPS} texts", param="stop")
    return tuple(found)


def _top_logprobs(fields: _Fields) -> int | None:
    top = fields.integer("top_logprobs", 0, 20)
    if fields.flag("logprobs"):
        return top or 0
    if top:
        raise Refusal(400, "top_logprobs goes with logprobs: true", param="top_logprobs")
    return None


def _logit_bias(value: object) -> dict[int, float]:
    if not isinstance(value, dict):
        raise Refusal(400, "logit_bias maps token ids to numbers", param="logit_bias")
    found: dict[int, float] = {}
    for key, bias in cast("dict[str, Any]", value).items():
        is_number = isinstance(bias, int | float) and not isinstance(bias, bool)
        if not key.isdecimal() or not is_number or not -100 <= bias <= 100:
            raise Refusal(
                400, "logit_bias maps token ids to numbers from -100 to 100", param="logit_bias"
            )
        found[int(key)] = float(bias)
    return found


def _include_usage(said: Mapping[str, Any], *, stream: bool) -> bool:
    value = said.get("stream_options", {})
    if not isinstance(value, dict):
        raise Refusal(400, "stream_options is an object", param="stream_options")
    options = cast("dict[str, Any]", value)
    if options and not stream:
        raise Refusal(400, "stream_options goes with stream: true", param="stream_options")
    strangers = options.keys() - {"include_usage", "include_obfuscation"}
    if strangers or options.get("include_obfuscation"):
        name = min(strangers or {"include_obfuscation"})
        raise Refusal(
            400, f"stream_options.{name} is not offered here", param=f"stream_options.{name}"
        )
    return _Fields(options).flag("include_usage")
