"""The keys of `_internal_config`, as ART's scripts spell them."""

from __future__ import annotations

from typing import Any, TypedDict


class InitArgs(TypedDict, total=False):
    """How the base is loaded."""

    max_seq_length: int
    load_in_4bit: bool
    dtype: str | None
    revision: str


class InternalModelConfig(TypedDict, total=False):
    """What a trainable model may say beyond its public settings; other keys are refused with what says the same."""

    init_args: InitArgs
    engine_args: dict[str, Any]
    chat_template: str
    chat_template_path: str
    chat_template_kwargs: dict[str, Any]
    chat_template_tool_schema_format: str
