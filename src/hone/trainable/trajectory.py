"""A trajectory: one conversation with what surrounds it, as a user's code builds it. It knows no files and no model."""

from __future__ import annotations

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from typing import Any, Literal, cast

from hone.data.conversation import Conversation
from hone.errors import ConfigError, DataError, nearest

ToolSchemaFormat = Literal["default", "vllm_openai"]
_FUNCTION_KEYS = ("name", "description", "parameters", "strict")


@dataclass(kw_only=True)
class Trajectory:
    """Messages as dictionaries, or OpenAI's `Choice` objects where a model said them, and the tools at hand.

    `reward`, `metrics`, `metadata` and `logs` are kept and not trained on.
    """

    messages_and_choices: list[Any] = field(default_factory=list[Any])
    tools: list[Any] | None = None
    additional_histories: list[Any] = field(default_factory=list[Any])
    reward: float = 0.0
    metrics: dict[str, Any] = field(default_factory=dict[str, Any])
    metadata: dict[str, Any] = field(default_factory=dict[str, Any])
    logs: list[str] = field(default_factory=list[str])

    def messages(self) -> list[dict[str, Any]]:
        """Every entry as a message; content that is None becomes `""`. Raises DataError for what is neither."""
        return [_message(one, place) for place, one in enumerate(self.messages_and_choices)]

    @classmethod
    def of(cls, conversation: Conversation) -> Trajectory:
        """The trajectory of a row that was read, the weights of its messages included."""
        messages: list[dict[str, Any]] = []
        for message in conversation.messages:
            told = message.as_template()
            told.pop("thinking", None)  # reasoning_content says the same
            if message.weight is not None:
                told["weight"] = message.weight
            messages.append(told)
        tools = [dict(tool) for tool in conversation.tools] or None
        return cls(messages_and_choices=messages, tools=tools)


def _message(entry: object, place: int) -> dict[str, Any]:
    if isinstance(entry, Mapping):
        said = dict(cast("Mapping[str, Any]", entry))
    else:
        inner = getattr(entry, "message", entry)
        dump = getattr(inner, "model_dump", None)
        if dump is None:
            raise DataError(
                f"an entry of a trajectory is a message or an OpenAI Choice; found {type(entry).__name__}",
                where=f"messages_and_choices[{place}]",
                remedy='write {"role": ..., "content": ...}',
            )
        said = cast("dict[str, Any]", dump(exclude_none=True))
        said.setdefault("role", "assistant")
    if said.get("content") is None:
        said["content"] = ""
    return said


def row_of(
    trajectory: object, name: str, *, last_only: bool, tool_schema: ToolSchemaFormat = "default"
) -> bytes:
    """The trajectory as one line of JSONL. `name` is what messages call it; `last_only`: its last message is trained.

    Raises DataError where it is no trajectory, has what training knows nothing of, or is no JSON.
    """
    if not isinstance(trajectory, Trajectory):
        raise DataError(
            f"a Trajectory is wanted; found {type(trajectory).__name__}",
            where=name,
            remedy="give a list of Trajectory(messages_and_choices=[...])",
        )
    if trajectory.additional_histories:
        raise DataError(
            "additional_histories are not trained on",
            where=name,
            remedy="give each of them as a Trajectory of its own",
        )
    row: dict[str, Any] = {"messages": trajectory.messages()}
    if last_only and (not row["messages"] or row["messages"][-1].get("role") != "assistant"):
        raise DataError(
            "assistant_turns='last' trains the last message, and it is not the assistant's",
            where=name,
            remedy="end the trajectory with the reply that is to be learned, or take assistant_turns='all'",
        )
    if trajectory.tools is not None:
        row["tools"] = _tools(trajectory.tools, name, tool_schema)
    try:
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"
    except (TypeError, ValueError) as error:
        raise DataError(
            f"the trajectory cannot be written as JSON: {error}",
            where=name,
            remedy="messages and tools hold texts, numbers, truth values, lists and objects",
        ) from error


def _tools(tools: Sequence[Any], name: str, form: ToolSchemaFormat) -> list[Any]:
    listed: list[Any] = []
    for place, tool in enumerate(tools):
        if callable(tool):
            raise DataError(
                f"tools[{place}] is a function, and a model reads schemas",
                where=name,
                remedy="give its JSON schema, e.g. transformers.utils.get_json_schema(function)",
            )
        listed.append(_openai_order(tool) if form == "vllm_openai" else tool)
    return listed


def _openai_order(tool: Any) -> Any:
    """A tool with the keys of its function in the order in which vLLM's server hands them to a template."""
    if not isinstance(tool, dict):
        return cast("object", tool)
    said = cast("dict[str, Any]", tool)
    function = said.get("function", said)
    if not isinstance(function, dict):
        return said
    own = cast("dict[str, Any]", function)
    ordered = {key: own[key] for key in _FUNCTION_KEYS if key in own}
    ordered.update({key: value for key, value in own.items() if key not in ordered})
    return {"type": "function", "function": ordered}


def check_tool_schema(form: object) -> ToolSchemaFormat:
    """The named form; ConfigError for another name."""
    if form not in ("default", "vllm_openai"):
        raise ConfigError(
            f"chat_template_tool_schema_format: unknown form {form!r}",
            remedy=nearest(str(form), ("default", "vllm_openai")),
        )
    return form
