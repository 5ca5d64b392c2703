"""A Jinja sandbox for chat templates that come from strangers: bounded work, no way out. It knows no chat."""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NoReturn

import jinja2
import jinja2.ext
from jinja2.sandbox import ImmutableSandboxedEnvironment

from hone.errors import DataError, ModelError

_FORMAT_FIELD: Final = re.compile(r"%[-+ #0-9.]*[a-z]|\{[^{}]*\}")


class TemplateFault(DataError):
    """The template refused these messages, or exceeded its bounds."""


class CompiledTemplate:
    """A template ready to render."""

    def __init__(self, template: jinja2.Template, literals: frozenset[str]) -> None:
        self._template = template
        self.literals = literals
        """Texts in the source, split where a format string takes a value."""

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text. Raises TemplateFault."""
        try:
            return self._template.render(variables)
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            ArithmeticError,
        ) as fault:
            raise TemplateFault(f"the chat template refused it: {fault}") from fault
        except RecursionError as fault:
            raise TemplateFault("the chat template recursed without end") from fault


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, which marks trained text for others: here it is its content."""

    tags = {"generation"}  # noqa: RUF012  the name and shape that Jinja asks for

    def parse(self, parser: Any) -> Any:
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return jinja2.nodes.Scope(body).set_lineno(line)


@lru_cache(maxsize=16)
def compile_template(source: str) -> CompiledTemplate:
    """Compile `source`. Raises ModelError naming the line that is not Jinja."""
    environment = ImmutableSandboxedEnvironment(
        trim_blocks=True, lstrip_blocks=True, extensions=[_Generation, jinja2.ext.loopcontrols]
    )
    environment.filters["tojson"] = _tojson
    environment.globals["raise_exception"] = _raise_exception
    environment.globals["strftime_now"] = _strftime_now
    try:
        return CompiledTemplate(environment.from_string(source), _literals(environment, source))
    except jinja2.TemplateSyntaxError as fault:
        raise ModelError(
            f"the chat template does not compile: {fault.message}",
            where=f"chat template line {fault.lineno}",
            remedy="repair it, or set data.template to 'chatml' or to a Jinja file",
        ) from fault


def _literals(environment: jinja2.Environment, source: str) -> frozenset[str]:
    tree = environment.parse(source)
    texts = [node.data for node in tree.find_all(jinja2.nodes.TemplateData)]
    texts += [
        node.value for node in tree.find_all(jinja2.nodes.Const) if isinstance(node.value, str)
    ]
    return frozenset(part for text in texts for part in _FORMAT_FIELD.split(text) if part)


def _tojson(
    value: Any,
    ensure_ascii: bool = False,
    indent: int | None = None,
    separators: tuple[str, str] | None = None,
    sort_keys: bool = False,
) -> str:
    return json.dumps(
        value, ensure_ascii=ensure_ascii, indent=indent, separators=separators, sort_keys=sort_keys
    )


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)


def _strftime_now(form: str) -> str:
    return datetime.now().strftime(form)
