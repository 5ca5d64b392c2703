"""The chat template: messages to text, in a sandbox with a bound on work. It knows no tokens."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from functools import cached_property
from pathlib import Path
from typing import Any, Final

from hone.data.message_form import MessageForm, find_message_form
from hone.data.named_templates import NAMED, named_source
from hone.data.sandbox import TemplateError, compile_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError, ModelError, nearest

__all__ = ["ChatTemplate", "TemplateError", "load_template"]

_SOURCE_CHARACTERS: Final = 2**20

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]


class ChatTemplate:
    """A compiled chat template with the names that its model's tokenizer gives it.

    `origin` says whose it is: the `model`'s own, a `file`, or the name of one of ours.
    """

    def __init__(
        self,
        source: str,
        *,
        names: Mapping[str, str] | None = None,
        variables: Mapping[str, Any] | None = None,
        origin: str = "file",
        tool_source: str | None = None,
    ) -> None:
        for text in (source, tool_source or ""):
            if len(text) > _SOURCE_CHARACTERS:
                raise ModelError(
                    f"the chat template is {len(text):,} characters long; at most {_SOURCE_CHARACTERS:,}"
                )
        self.source = source
        self.origin = origin
        self.given = dict(variables or {})
        """The user's own variables, beside the names of tokens."""
        self.tool_source = tool_source
        """A second template for conversations with tools, or None."""
        self._variables = {**(names or {}), **(variables or {})}
        self._compiled = compile_template(source)
        self._compiled_for_tools = compile_template(tool_source) if tool_source else self._compiled

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the source and of every variable it is given."""
        told = [self.source, self.tool_source, self._variables]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def writes_today(self) -> bool:
        """Whether the template may write the current date, so that text depends on the day."""
        return "strftime_now" in self.source

    @property
    def literals(self) -> frozenset[str]:
        """The texts that the template writes of itself, those of its variables among them."""
        told = {value for value in self._variables.values() if isinstance(value, str)}
        return self._compiled.literals | self._compiled_for_tools.literals | told

    def mentions(self, name: str) -> bool:
        """Whether the source holds this word anywhere."""
        return name in self.source or name in (self.tool_source or "")

    @contextlib.contextmanager
    def remembering(self) -> Generator[None]:
        """Within, a value is written as JSON once, however often it is rendered; nothing may change it."""
        with self._compiled.remembering(), self._compiled_for_tools.remembering():
            yield

    def render(
        self, messages: Messages, tools: Tools | None = None, add_generation_prompt: bool = False
    ) -> str:
        """The text of `messages`, as `Message.as_template` gives them; the template is told of them in its form.

        Raises TemplateError when the template refuses them or exceeds its bounds.
        """
        if self.form != MessageForm():
            messages = [self.form.told(message) for message in messages]
        return self._write(messages, tools, add_generation_prompt)

    @cached_property
    def form(self) -> MessageForm:
        """How the template wants to be told contents and calls."""
        return find_message_form(self._write, calls=self.mentions("tool_calls"))

    def _write(
        self, messages: Messages, tools: Tools | None, add_generation_prompt: bool = False
    ) -> str:
        compiled = self._compiled_for_tools if tools else self._compiled
        return compiled.render(self.variables(messages, tools, add_generation_prompt))

    def variables(
        self, messages: Messages, tools: Tools | None, add_generation_prompt: bool
    ) -> dict[str, Any]:
        """All that a rendering sees."""
        return {
            **self._variables,
            "messages": messages,
            "tools": tools or None,
            "documents": None,
            "add_generation_prompt": add_generation_prompt,
        }


def load_template(
    tokenizer: TextTokenizer,
    *,
    choice: str | None = None,
    variables: Mapping[str, Any] | None = None,
) -> ChatTemplate:
    """The template that `choice` names: None the model's own (ChatML where it has none), one of ours, or a Jinja file.

    Raises ConfigError for a file that cannot be read, ModelError for a template that does not compile.
    """
    names = tokenizer.special_names
    if choice is None and tokenizer.chat_template is not None:
        return ChatTemplate(
            tokenizer.chat_template,
            names=names,
            variables=variables,
            origin="model",
            tool_source=tokenizer.tool_template,
        )
    name = choice or "chatml"
    if name in NAMED:
        source = named_source(name, tokenizer)
        return ChatTemplate(source, names=names, variables=variables, origin=name)
    path = Path(name)
    try:
        if not path.is_file():
            raise ConfigError(
                f"data.template: no such file and no named template {choice!r}",
                remedy=f"give the path of a Jinja file, or a name: {nearest(name, NAMED)}",
            )
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"data.template: cannot read it: {fault}", where=choice) from fault
    template = ChatTemplate(source, names=names, variables=variables, origin="file")
    if tokenizer.adds_bos and not _writes_first(template, tokenizer.bos_token or ""):
        source = "{{- bos_token }}" + source
        template = ChatTemplate(source, names=names, variables=variables, origin="file")
    return template


def _writes_first(template: ChatTemplate, token: str) -> bool:
    try:
        return template.render([{"role": "user", "content": "?"}]).startswith(token)
    except TemplateError:
        return False
