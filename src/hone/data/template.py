"""The chat template: messages to text, in a sandbox with a bound on work. It knows no tokens."""

from __future__ import annotations

import contextlib
import hashlib
import json
from collections.abc import Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final, Literal

from hone.data.sandbox import TemplateError, compile_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import ConfigError, ModelError

__all__ = ["ChatTemplate", "TemplateError", "load_template"]

_SOURCE_CHARACTERS: Final = 2**20

_CHATML: Final = """\
{%- for message in messages -%}
    {{- '<|im_start|>' + message.role + '\\n' -}}
    {%- if loop.first and message.role == 'system' and tools -%}
        {{- message.content + TOOLS -}}
    {%- elif message.role == 'assistant' -%}
        {%- if message.reasoning_content -%}
            {{- '<think>\\n' + message.reasoning_content + '\\n</think>\\n\\n' -}}
        {%- endif -%}
        {{- message.content -}}
        {%- for call in message.tool_calls or [] -%}
            {{- ('\\n' if message.content or not loop.first else '') + '<tool_call>\\n{"name": ' -}}
            {{- call.function.name | tojson }}, "arguments": {{ call.function.arguments | tojson -}}
            {{- '}\\n</tool_call>' -}}
        {%- endfor -%}
    {%- else -%}
        {{- message.content -}}
    {%- endif -%}
    {{- END -}}
    {{- '\\n' -}}
{%- endfor -%}
{%- if add_generation_prompt -%}
    {{- '<|im_start|>assistant\\n' -}}
{%- endif -%}
"""

Messages = Sequence[Mapping[str, Any]]
Tools = Sequence[Mapping[str, Any]]


class ChatTemplate:
    """A compiled chat template with the names that its model's tokenizer gives it.

    `origin` says whose it is: the `model`'s own, the built-in `chatml`, or a `file`.
    """

    def __init__(
        self,
        source: str,
        *,
        names: Mapping[str, str] | None = None,
        variables: Mapping[str, Any] | None = None,
        origin: Literal["model", "chatml", "file"] = "file",
        tool_source: str | None = None,
    ) -> None:
        for text in (source, tool_source or ""):
            if len(text) > _SOURCE_CHARACTERS:
                raise ModelError(
                    f"the chat template is {len(text):,} characters long; at most {_SOURCE_CHARACTERS:,}"
                )
        self.source = source
        self.origin = origin
        self._tool_source = tool_source
        self._variables = {**(names or {}), **(variables or {})}
        self._compiled = compile_template(source)
        self._compiled_for_tools = compile_template(tool_source) if tool_source else self._compiled

    @property
    def fingerprint(self) -> str:
        """SHA-256 (hex) of the source and of every variable it is given."""
        told = [self.source, self._tool_source, self._variables]
        return hashlib.sha256(json.dumps(told, sort_keys=True, default=str).encode()).hexdigest()

    @property
    def writes_today(self) -> bool:
        """Whether the template may write the current date, so that text depends on the day."""
        return "strftime_now" in self.source

    @property
    def literals(self) -> frozenset[str]:
        """The texts that the template writes of itself."""
        return self._compiled.literals | self._compiled_for_tools.literals

    def mentions(self, name: str) -> bool:
        """Whether the source holds this word anywhere."""
        return name in self.source or name in (self._tool_source or "")

    @contextlib.contextmanager
    def remembering(self) -> Generator[None]:
        """Within, a value is written as JSON once, however often it is rendered; nothing may change it."""
        with self._compiled.remembering(), self._compiled_for_tools.remembering():
            yield

    def render(
        self, messages: Messages, tools: Tools | None = None, add_generation_prompt: bool = False
    ) -> str:
        """The text of `messages`. Raises TemplateError when the template refuses them or exceeds its bounds."""
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
    """The template that `choice` names: None the model's own (ChatML where it has none), `chatml`, or a Jinja file.

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
    if choice is None or choice == "chatml":
        return ChatTemplate(chatml(tokenizer), names=names, variables=variables, origin="chatml")
    path = Path(choice)
    try:
        if not path.is_file():
            raise ConfigError(
                f"data.template: no such file and no built-in template {choice!r}",
                remedy="give the path of a Jinja file, or 'chatml'",
            )
        source = path.read_text(encoding="utf-8")
    except (OSError, UnicodeDecodeError) as fault:
        raise ConfigError(f"data.template: cannot read it: {fault}", where=choice) from fault
    template = ChatTemplate(source, names=names, variables=variables, origin="file")
    if tokenizer.adds_bos and not _writes_first(template, tokenizer.bos_token or ""):
        source = "{{- bos_token }}" + source
        template = ChatTemplate(source, names=names, variables=variables, origin="file")
    return template


def chatml(tokenizer: TextTokenizer) -> str:
    """ChatML's Jinja source for this tokenizer.

    Where the model wants a beginning-of-text token it is written once. Where `<|im_end|>` is not one
    token, an assistant turn ends with it and the end-of-text token, so that generation stops.
    """
    alone = tokenizer.id_of("<|im_end|>") in {token.id for token in tokenizer.added}
    end = "'<|im_end|>'"
    if not alone and tokenizer.eos_token is not None:
        end = "'<|im_end|>' + (eos_token if message.role == 'assistant' else '')"
    tools = (
        "'\\n\\n# Tools\\n\\nFunctions that may be called, one JSON object a line:\\n' + "
        "(tools | map('tojson') | join('\\n')) + "
        "'\\n\\nA call is written as a JSON object with name and arguments "
        "between <tool_call> and </tool_call>.'"
    )
    source = _CHATML.replace("END", end).replace("TOOLS", tools)
    alone_tools = (
        "{%- if tools and messages and messages[0].role != 'system' -%}{{- '<|im_start|>system\\n' + ("
        + tools
        + ")[2:] + '<|im_end|>\\n' -}}{%- endif -%}\n"
    )
    bos = "{{- bos_token -}}\n" if tokenizer.adds_bos else ""
    return bos + alone_tools + source


def _writes_first(template: ChatTemplate, token: str) -> bool:
    try:
        return template.render([{"role": "user", "content": "?"}]).startswith(token)
    except TemplateError:
        return False
