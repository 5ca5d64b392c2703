"""A Jinja sandbox for chat templates that come from strangers: bounded work, no way out. It knows no chat.

The environment is the one of `transformers` (trim_blocks, lstrip_blocks, loop controls, `tojson`,
`raise_exception`, `strftime_now`, the `generation` tag), so templates write the same text. Added to it:
every loop, call, filter and operator that could multiply work or text is counted against a budget.
"""

from __future__ import annotations

import contextlib
import functools
import json
import re
from collections.abc import Callable, Generator, Iterable, Iterator, Mapping, Sized
from datetime import datetime
from functools import lru_cache
from typing import Any, Final, NoReturn, cast

import jinja2
import jinja2.ext
import orjson
from jinja2 import nodes
from jinja2.exceptions import SecurityError
from jinja2.runtime import LoopContext
from jinja2.sandbox import ImmutableSandboxedEnvironment
from jinja2.utils import Namespace

from hone.errors import DataError, ModelError

_FORMAT_FIELD: Final = re.compile(r"%[-+ #0-9.]*[a-z]|\{[^{}]*\}")
_WIDE: Final = re.compile(r"\d{6}")
_STEPS: Final = 400_000
_CHARACTERS: Final = 2 * 2**20
_CHARACTERS_PER_INPUT_BYTE: Final = 16
_STEPS_PER_INPUT_BYTE: Final = 10
_STEPS_PER_CALL: Final = 20
_LONGEST_ARGUMENT: Final = 10**6
_INTEGER_BITS: Final = 4096
_DICT_NAMES: Final = frozenset(dir(dict))
_FORMATS: Final = frozenset({"format", "format_map"})
_ABSENT: Final = object()
_REMEMBERED: Final = 1024
_CONTAINERS: Final[tuple[type, ...]] = (list, tuple, dict, Namespace)


class TemplateError(DataError):
    """The template refused these messages, or exceeded its bounds."""


class _Budget:
    """What one rendering may still do."""

    def __init__(self, input_bytes: int) -> None:
        self.steps = _STEPS + _STEPS_PER_INPUT_BYTE * input_bytes
        self.characters = _CHARACTERS + _CHARACTERS_PER_INPUT_BYTE * input_bytes

    def spend(self, steps: int) -> None:
        """Count steps of work."""
        self.steps -= steps
        if self.steps < 0:
            raise SecurityError("it takes more steps than any chat needs")

    def fits(self, length: int) -> None:
        """Refuse a text or list of this length."""
        if length > self.characters:
            raise SecurityError("it makes a text longer than any chat needs")

    def checked(self, value: Any) -> Any:
        """`value`, unless it is too large to be handled further."""
        if isinstance(value, str):
            self.fits(len(value))
        elif _is_container(value):
            self.measure(value)
        return value

    def measure(self, value: object) -> None:
        """Walk a value as writing it would; refuse one that is small in memory and endless on paper."""
        open_values: list[Any] = [value]
        while open_values:
            inner = open_values.pop()
            if isinstance(inner, str):
                self.fits(len(inner))
                self.spend(1 + len(inner) // 64)
                continue
            self.spend(1)
            if isinstance(inner, Namespace):
                inner = cast("Any", inner)._Namespace__attrs
            if isinstance(inner, dict):
                open_values.extend(cast("dict[Any, Any]", inner).values())
            elif isinstance(inner, list | tuple):
                open_values.extend(cast("list[Any]", inner))


class CompiledTemplate:
    """A template ready to render."""

    def __init__(self, environment: SandboxEnvironment, source: str) -> None:
        self._environment = environment
        self._template = environment.from_string(source)
        self.literals = _literals(environment, source)
        """Texts in the source, split where a format string takes a value."""

    @contextlib.contextmanager
    def remembering(self) -> Generator[None]:
        """Within, one object is written as JSON once, and nothing may change it meanwhile; the clock stands."""
        self._environment.remembered = {}
        self._environment.moment = datetime.now()
        try:
            yield
        finally:
            self._environment.remembered = self._environment.moment = None

    def render(self, variables: Mapping[str, Any]) -> str:
        """The text. Raises TemplateError."""
        budget = self._environment.budget = _Budget(_size(variables))
        try:
            context = self._template.new_context(dict(variables))
            chunks: list[str] = []
            for chunk in self._template.root_render_func(context):
                budget.characters -= len(chunk)
                if budget.characters < 0:
                    raise SecurityError("it writes more than any chat needs")
                chunks.append(chunk)
            return "".join(chunks)
        except RecursionError as fault:
            raise TemplateError("the chat template refused it: it recurses without end") from fault
        except (
            jinja2.TemplateError,
            TypeError,
            ValueError,
            LookupError,
            AttributeError,
            ArithmeticError,
        ) as fault:
            raise TemplateError(f"the chat template refused it: {fault}") from fault


class SandboxEnvironment(ImmutableSandboxedEnvironment):
    """The environment of `transformers`, with a budget."""

    intercepted_binops = frozenset({"+", "*", "**", "%"})
    budget: _Budget
    remembered: dict[Any, tuple[Any, str]] | None = None
    moment: datetime | None = None

    def __init__(self) -> None:
        super().__init__(
            trim_blocks=True,
            lstrip_blocks=True,
            extensions=[_Generation, jinja2.ext.loopcontrols],
        )
        self.budget = _Budget(0)
        filters = cast("dict[str, Callable[..., Any]]", self.filters)
        for name, function in list(filters.items()):
            filters[name] = self._bounded_filter(name, function)
        filters["tojson"] = self._tojson
        filters["hone counted"] = self._counted
        filters["hone checked"] = self._checked
        names = cast("dict[str, Any]", self.globals)
        names.pop("lipsum", None)
        names["range"] = self._range
        names["raise_exception"] = _raise_exception
        names["strftime_now"] = self._strftime_now
        names["dict"] = _PlainDict()
        names["namespace"] = _PlainNamespace

    def allow(self, input_bytes: int) -> None:
        """Bound the work of the next rendering by the size of what it gets."""
        self.budget = _Budget(input_bytes)

    def getattr(self, obj: Any, attribute: str) -> Any:
        """As inherited, by a shorter way for what templates ask most: keys of a row's objects, methods of
        text, the loop and namespaces. None of these has a public name that the sandbox would refuse."""
        kind = type(cast("object", obj))
        if kind is dict:
            if attribute not in _DICT_NAMES:
                found = cast("dict[str, Any]", obj)
                if attribute in found:
                    return found[attribute]
                return self.undefined(obj=obj, name=attribute)
        elif kind in _PLAIN_KINDS and attribute[:1] != "_" and attribute not in _FORMATS:
            value = getattr(obj, attribute, _ABSENT)
            if value is not _ABSENT:
                return value
        return super().getattr(obj, attribute)

    def call_binop(self, context: Any, operator: str, left: Any, right: Any) -> Any:
        """An operator whose result may be far larger than its operands: refused before it is made."""
        if operator == "+" and type(left) is str and type(right) is str:  # nearly all of them
            self.budget.fits(len(left) + len(right))
            return left + right
        match left, operator, right:
            case (str() | list() | tuple(), "+", str() | list() | tuple()):
                self.budget.fits(len(cast("Sized", left)) + len(cast("Sized", right)))
            case (str() | list() | tuple(), "*", int()):
                self.budget.fits(len(cast("Sized", left)) * max(0, right))
            case (int(), "*", str() | list() | tuple()):
                self.budget.fits(max(0, left) * len(cast("Sized", right)))
            case (int(), "*", int()) if left.bit_length() + right.bit_length() > _INTEGER_BITS:
                raise SecurityError("it multiplies numbers beyond any chat's need")
            case (_, "**", int()) if abs(right) > 64 or _bits(left) > 64:
                raise SecurityError("it raises to a power beyond any chat's need")
            case (str(), "%", _):
                self._check_format(left, right)
            case _:
                pass
        result = super().call_binop(context, operator, left, right)
        return result if isinstance(result, int | float) else self.budget.checked(result)

    def call(__self, __context: Any, __obj: Any, *args: Any, **kwargs: Any) -> Any:  # noqa: N805  as inherited: `self` may be a keyword of the callee
        """A call, counted; with arguments that no chat needs refused."""
        __self.budget.spend(_STEPS_PER_CALL)
        if __obj is not __self._range:
            _check_integers((*args, *kwargs.values()), _LONGEST_ARGUMENT)
        inner = getattr(__obj, "__wrapped__", __obj)
        owner = getattr(inner, "__self__", None)
        if isinstance(owner, str):
            __self._check_text_method(owner, getattr(inner, "__name__", ""), args, kwargs)
        return __self.budget.checked(super().call(__context, __obj, *args, **kwargs))

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        """As inherited, with the budget woven into loops, concatenations, captures and literals."""
        return _weave(super()._parse(source, name, filename))

    def _check_text_method(
        self, owner: str, name: str, args: tuple[Any, ...], kwargs: dict[str, Any]
    ) -> None:
        if name in ("format", "format_map"):
            self._check_format(owner, (*args, *kwargs.values()))
        elif name == "replace" and len(args) >= 2:
            self._check_replace(owner, args[0], args[1])
        elif name == "join" and args and isinstance(args[0], list | tuple):
            self._check_join(owner, cast("list[Any]", args[0]))
        elif name in ("expandtabs", "translate"):
            raise SecurityError(f"it calls {name}, which no chat needs")

    def _check_format(self, form: str, values: object) -> None:
        if _WIDE.search(form) or "*" in form:
            raise SecurityError("it formats to a width beyond any chat's need")
        listed = cast("tuple[Any, ...]", values) if isinstance(values, tuple) else (values,)
        _check_integers(listed, _LONGEST_ARGUMENT)
        longest = max((len(one) for one in listed if isinstance(one, str)), default=0)
        self.budget.fits(len(form) + (form.count("%") + form.count("{")) * longest)
        for one in listed:
            self.budget.checked(one)

    def _check_replace(self, text: object, old: object, new: object) -> None:
        if isinstance(text, str) and isinstance(old, str) and isinstance(new, str):
            self.budget.fits(len(text) + text.count(old) * len(new))

    def _check_join(self, between: str, values: list[Any]) -> None:
        self.budget.fits(
            len(between) * len(values) + sum(len(v) for v in values if isinstance(v, str))
        )

    def _bounded_filter(self, name: str, function: Callable[..., Any]) -> Callable[..., Any]:
        """A filter with its input and its result held to the budget."""
        skipped = 1 if getattr(function, "jinja_pass_arg", None) is not None else 0

        @functools.wraps(function)
        def bounded(*args: Any, **kwargs: Any) -> Any:
            told = list(args[skipped:])
            self.budget.spend(1)
            _check_integers((*told[1:], *kwargs.values()), 10**4)
            value = told[0] if told else None
            if name == "join":
                told[0] = value = list(cast("Iterable[Any]", value))
                self._check_join(str((*told[1:], kwargs.get("d", ""))[0]), value)
            elif name == "replace" and len(told) >= 3:
                self._check_replace(value, told[1], told[2])
            elif name == "indent":
                lines = str(value).count("\n") + 1
                self.budget.fits(lines * len(str((*told[1:], kwargs.get("width", ""))[0])))
            elif name == "format":
                self._check_format(str(value), (*told[1:], *kwargs.values()))
            elif name == "sum" and not all(
                isinstance(one, int | float | str | None) for one in (*told[1:], *kwargs.values())
            ):
                raise SecurityError("it sums what are not numbers")
            elif isinstance(value, str | list | tuple | dict):
                self.budget.spend(len(cast("Sized", value)) // 64)
            if name in (
                "string",
                "pprint",
                "urlencode",
                "xmlattr",
                "escape",
                "e",
                "upper",
                "lower",
            ):
                self.budget.checked(value)
            return self.budget.checked(function(*args[:skipped], *told, **kwargs))

        return bounded

    def _counted(self, values: Any) -> Any:
        """What a loop goes over, each turn counted."""
        if isinstance(values, Sized):
            self.budget.spend(len(values))
            return values
        return self._count_each(values)

    def _checked(self, value: Any) -> Any:
        return self.budget.checked(value)

    def _count_each(self, values: Iterable[Any]) -> Iterator[Any]:
        for value in values:
            self.budget.spend(1)
            yield value

    def _range(self, *args: int) -> range:
        numbers = range(*args)
        _check_integers(args, 2**62)
        if len(numbers) > 10**5:
            raise SecurityError("it asks for a range longer than any chat needs")
        self.budget.spend(len(numbers) // 16)
        return numbers

    def _strftime_now(self, form: str) -> str:
        return (self.moment or datetime.now()).strftime(form)

    def _tojson(
        self,
        value: Any,
        ensure_ascii: bool = False,
        indent: int | None = None,
        separators: tuple[str, str] | None = None,
        sort_keys: bool = False,
    ) -> str:
        form = (ensure_ascii, indent, separators, sort_keys)
        key = (id(value), *form)
        remembered = self.remembered
        if remembered is not None and key in remembered:
            return remembered[key][1]
        _check_integers((indent,), 64)
        self.budget.measure(value)
        text = json.dumps(
            value,
            ensure_ascii=ensure_ascii,
            indent=indent,
            separators=separators,
            sort_keys=sort_keys,
        )
        if remembered is not None and isinstance(value, list | dict):
            if len(remembered) >= _REMEMBERED:
                remembered.clear()
            remembered[key] = (value, text)  # holding the value keeps its id from being reused
        return text


class _Generation(jinja2.ext.Extension):
    """`{% generation %}…{% endgeneration %}`, which marks trained text for others: here it is its content."""

    tags = {"generation"}  # noqa: RUF012  the name and shape that Jinja asks for

    def parse(self, parser: Any) -> Any:
        """The body, in a scope of its own."""
        line = next(parser.stream).lineno
        body = parser.parse_statements(("name:endgeneration",), drop_needle=True)
        return nodes.Scope(body).set_lineno(line)


class _PlainDict:
    """`dict` without the rest of the class."""

    def __call__(self, *args: Any, **kwargs: Any) -> dict[Any, Any]:
        return dict(*args, **kwargs)

    def fromkeys(self, *args: Any) -> dict[Any, Any]:
        """As of dict."""
        return dict.fromkeys(*args)


class _PlainNamespace(Namespace):
    """`namespace` without names that begin with an underscore."""

    def __init__(*args: Any, **kwargs: Any) -> None:
        attributes = dict(*args[1:], **kwargs)
        for name in attributes:
            _check_name(name)
        Namespace.__init__(args[0], attributes)

    def __setitem__(self, name: str, value: Any) -> None:
        _check_name(name)
        super().__setitem__(name, value)


@lru_cache(maxsize=16)
def compile_template(source: str) -> CompiledTemplate:
    """Compile `source`. Raises ModelError naming the line that is not Jinja."""
    try:
        return CompiledTemplate(SandboxEnvironment(), source)
    except jinja2.TemplateSyntaxError as fault:
        raise ModelError(
            f"the chat template does not compile: {fault.message}",
            where=f"chat template line {fault.lineno}",
            remedy="repair it, or set data.template to a named template or to a Jinja file",
        ) from fault
    except (jinja2.TemplateError, RecursionError) as fault:
        raise ModelError(f"the chat template does not compile: {fault}") from fault


_PLAIN_KINDS: Final = frozenset({str, LoopContext, _PlainNamespace})


def _weave(tree: nodes.Template) -> nodes.Template:
    def filtered(node: Any, name: str) -> Any:
        return nodes.Filter(node, name, [], [], None, None, lineno=tree.lineno)

    def walk(node: nodes.Node) -> None:
        for field, value in node.iter_fields():
            if isinstance(value, list):
                setattr(node, field, [replace(one) for one in cast("list[Any]", value)])
            elif isinstance(value, nodes.Node):
                setattr(node, field, replace(value))
        if isinstance(node, nodes.For):
            node.iter = filtered(node.iter, "hone counted")
        elif isinstance(node, nodes.AssignBlock):
            node.filter = filtered(node.filter, "hone checked")

    def replace(node: Any) -> Any:
        if not isinstance(node, nodes.Node):
            return node
        walk(node)
        is_literal = isinstance(node, nodes.List | nodes.Dict) and getattr(node, "items", None)
        return (
            filtered(node, "hone checked") if is_literal or isinstance(node, nodes.Concat) else node
        )

    walk(tree)
    return tree


def _literals(environment: jinja2.Environment, source: str) -> frozenset[str]:
    tree = environment.parse(source)
    texts = [node.data for node in tree.find_all(nodes.TemplateData)]
    texts += [node.value for node in tree.find_all(nodes.Const) if isinstance(node.value, str)]
    return frozenset(part for text in texts for part in _FORMAT_FIELD.split(text) if part)


def _size(variables: Mapping[str, Any]) -> int:
    """Bytes of the variables as JSON, to a good approximation."""
    try:
        return len(orjson.dumps(dict(variables)))
    except TypeError:  # a number or a text that the fast writer does not know
        return len(json.dumps(dict(variables), default=str))


def _is_container(value: object) -> bool:
    return isinstance(value, _CONTAINERS)


def _check_integers(values: Iterable[Any], most: int) -> None:
    for value in values:
        if isinstance(value, int) and abs(value) > most:
            raise SecurityError(f"it passes {value!r:.20}, beyond any chat's need")


def _bits(value: object) -> int:
    return value.bit_length() if isinstance(value, int) else 0


def _check_name(name: object) -> None:
    if isinstance(name, str) and name.startswith("_"):
        raise SecurityError(f"a namespace has no names like {name!r}")


def _raise_exception(message: str) -> NoReturn:
    raise jinja2.TemplateError(message)
