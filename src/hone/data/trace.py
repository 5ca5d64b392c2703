"""What a chat template writes, traced: texts of messages stay unknowns, so that one rendering tells of many rows.

A trace runs the template itself, in its own sandbox, with a `Text` in place of each text. A `Text` can be written,
joined, trimmed and split, and can be asked a question (is it empty, does it hold `</think>`): the answer is that
of the row at hand, and is kept. Rows whose texts give the same answers are written alike. Whatever else a
template does to a text ends the trace with `Untraceable`. It knows no tokens and no turns.
"""

from __future__ import annotations

import operator
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Final, NoReturn, cast

import jinja2
from jinja2 import nodes

from hone.data.sandbox import SandboxEnvironment

Source = tuple[int, str]
"""A text of the row: the place of its message, and the field."""

_OPEN: Final = "\ue000"
_CLOSE: Final = "\ue001"
_WORK: Final = 2**24  # bytes of input that the work of one rendering is bounded for
_CAPTURES: Final = (
    nodes.Macro,
    nodes.CallBlock,
    nodes.FilterBlock,
    nodes.AssignBlock,
    nodes.Block,
    nodes.Include,
    nodes.Import,
    nodes.FromImport,
    nodes.Extends,
)


class UntraceableError(Exception):
    """The template does something to a text that a trace cannot follow."""


@dataclass(frozen=True, slots=True)
class Derived:
    """A text of the row after some operations, each a method of `str` and its arguments; for `split`, which part."""

    source: Source
    steps: tuple[tuple[str, tuple[Any, ...], int | None], ...] = ()

    def of(self, texts: Mapping[Source, str]) -> str:
        """Its value in a row with these texts."""
        value: Any = texts[self.source]
        for name, arguments, part in self.steps:
            value = (
                value[slice(*arguments)] if name == "slice" else getattr(value, name)(*arguments)
            )
            if part is not None:
                value = value[part]
        return value


@dataclass(frozen=True, slots=True)
class Question:
    """What the template asked of a text, and the answer in the row at hand."""

    derived: Derived
    name: str
    arguments: tuple[Any, ...]
    answer: Any

    def holds(self, texts: Mapping[Source, str]) -> bool:
        """Whether a row with these texts gives the same answer."""
        return _ASK[self.name](self.derived.of(texts), *self.arguments) == self.answer


def _count_parts(text: str, name: str, arguments: tuple[Any, ...]) -> int:
    return len(getattr(text, name)(*arguments))


def _is_kept_by(text: str, name: str, letters: str | None) -> bool:
    return getattr(text, name)(letters) == text


_ASK: Final[dict[str, Callable[..., Any]]] = {
    "bool": bool,
    "len": len,
    "in": operator.contains,
    "eq": operator.eq,
    "startswith": str.startswith,
    "endswith": str.endswith,
    "parts": _count_parts,
    "kept by": _is_kept_by,
}

Atom = str | Derived


@dataclass(frozen=True, slots=True)
class Written:
    """What one rendering wrote: its own words, and texts of the row; neighbouring words are joined."""

    atoms: tuple[Atom, ...]

    def of(self, texts: Mapping[Source, str]) -> str:
        """The text for a row with these texts."""
        return "".join(atom if isinstance(atom, str) else atom.of(texts) for atom in self.atoms)


class Text:
    """An unknown text, or several joined with words of the template. Deliberately no `str`."""

    __slots__ = ("_atoms", "_trace")

    def __init__(self, trace: Trace, atoms: tuple[Atom, ...]) -> None:
        self._trace = trace
        self._atoms = atoms

    def __add__(self, other: Any) -> Text:
        return Text(self._trace, (*self._atoms, *self._trace.atoms(other)))

    def __radd__(self, other: Any) -> Text:
        return Text(self._trace, (*self._trace.atoms(other), *self._atoms))

    def __bool__(self) -> bool:
        if any(isinstance(atom, str) and atom for atom in self._atoms):
            return True
        return any(self._trace.ask(one, "bool") for one in self._atoms if isinstance(one, Derived))

    def __len__(self) -> int:
        return self._trace.ask(self._alone(), "len")

    def __contains__(self, other: Any) -> bool:
        return self._trace.ask(self._alone(), "in", _plain(other))

    def __eq__(self, other: object) -> bool:
        if isinstance(other, Text):
            raise UntraceableError("it compares two texts")
        if not isinstance(other, str):
            return False
        return self._trace.ask(self._alone(), "eq", other)

    def __ne__(self, other: object) -> bool:
        return not self == other

    def __getitem__(self, place: Any) -> Text:
        if not isinstance(place, slice):
            raise UntraceableError("it takes a letter of a text")
        cut = cast("slice[Any, Any, Any]", place)
        return self._derive("slice", (cut.start, cut.stop, cut.step))

    def __iter__(self) -> NoReturn:
        raise UntraceableError("it goes through the letters of a text")

    def __hash__(self) -> NoReturn:
        raise UntraceableError("it looks a text up")

    def __str__(self) -> str:
        raise UntraceableError("it turns a text into another kind")

    def __getattr__(self, name: str) -> NoReturn:
        raise UntraceableError(f"it asks a text for {name!r}")

    def strip(self, letters: str | None = None) -> Text:
        """As of `str`, and so are the others. That nothing is taken away is an answer, and the text stays itself."""
        return self._trim("strip", letters)

    def lstrip(self, letters: str | None = None) -> Text:
        """As of `str`."""
        return self._trim("lstrip", letters)

    def rstrip(self, letters: str | None = None) -> Text:
        """As of `str`."""
        return self._trim("rstrip", letters)

    def split(self, between: str | None = None, most: int = -1) -> list[Text]:
        """As of `str`; how many parts there are is a question."""
        return self._split("split", (_plain_or_none(between), most))

    def rsplit(self, between: str | None = None, most: int = -1) -> list[Text]:
        """As of `str`."""
        return self._split("rsplit", (_plain_or_none(between), most))

    def startswith(self, other: Any) -> bool:
        """As of `str`."""
        return self._trace.ask(self._alone(), "startswith", _plain(other))

    def endswith(self, other: Any) -> bool:
        """As of `str`."""
        return self._trace.ask(self._alone(), "endswith", _plain(other))

    def _split(self, name: str, arguments: tuple[Any, ...]) -> list[Text]:
        alone = self._alone()
        count = self._trace.ask(alone, "parts", name, arguments)
        return [
            Text(self._trace, (Derived(alone.source, (*alone.steps, (name, arguments, part))),))
            for part in range(count)
        ]

    def _trim(self, name: str, letters: str | None) -> Text:
        if self._trace.ask(self._alone(), "kept by", name, letters):
            return self
        return self._derive(name, (letters,))

    def _derive(self, name: str, arguments: tuple[Any, ...]) -> Text:
        alone = self._alone()
        return Text(self._trace, (Derived(alone.source, (*alone.steps, (name, arguments, None))),))

    def _alone(self) -> Derived:
        """This as one text of the row; joined ones cannot be asked."""
        if len(self._atoms) == 1 and isinstance(self._atoms[0], Derived):
            return self._atoms[0]
        raise UntraceableError("it asks something of joined texts")

    @property
    def hone_atoms(self) -> tuple[Atom, ...]:
        """What it is made of."""
        return self._atoms


def _plain(value: Any) -> str:
    if not isinstance(value, str):
        raise UntraceableError("it compares a text with what is none")
    return value


def _plain_or_none(value: Any) -> str | None:
    return None if value is None else _plain(value)


class TracedTemplate:
    """A template's source compiled for tracing. Raises UntraceableError where no trace can be sound."""

    def __init__(self, source: str) -> None:
        if _OPEN in source or _CLOSE in source:
            raise UntraceableError("it uses the letters that a trace needs")
        self._environment = _TraceEnvironment()
        tree = self._environment.parse(source)
        if any(tree.find(kind) is not None for kind in _CAPTURES):
            raise UntraceableError("it captures what it writes")
        self._template = self._environment.from_string(source)

    def chunks(self, variables: Mapping[str, Any], trace: Trace) -> str:
        """What the template writes, texts under the names that `trace` gives them."""
        self._environment.writing_for(trace)
        return "".join(self._template.root_render_func(self._template.new_context(dict(variables))))


class Trace:
    """One row on its way through a template: its texts, and every question asked of them."""

    def __init__(self, template: TracedTemplate, texts: Mapping[Source, str]) -> None:
        self._template = template
        self._texts = texts
        self._asked: dict[tuple[Derived, str, tuple[Any, ...]], Question] = {}
        self._shown: list[tuple[Atom, ...]] = []

    @property
    def questions(self) -> tuple[Question, ...]:
        """Every question so far, each once."""
        return tuple(self._asked.values())

    def text(self, source: Source) -> Text:
        """A text of the row, as the template gets it."""
        return Text(self, (Derived(source),))

    def render(self, variables: Mapping[str, Any]) -> Written:
        """What the template writes. Raises UntraceableError, and what code raises that gets a text it does not know."""
        written: list[Atom] = []
        self._shown = []
        try:
            chunks = self._template.chunks(variables, self)
        except jinja2.TemplateError as fault:
            raise UntraceableError("it refuses the row") from fault
        for part in chunks.split(_OPEN):
            name, closed, rest = part.partition(_CLOSE)
            if not closed:
                _append(written, part)
                continue
            for atom in self._shown[int(name)]:
                _append(written, atom)
            _append(written, rest)
        return Written(tuple(written))

    def show(self, text: Text) -> str:
        """A name for a text that is being written."""
        self._shown.append(text.hone_atoms)
        return f"{_OPEN}{len(self._shown) - 1}{_CLOSE}"

    def atoms(self, value: Any) -> tuple[Atom, ...]:
        """What a value adds to a text that it is joined with."""
        if isinstance(value, Text):
            return value.hone_atoms
        if isinstance(value, str):
            return (value,)
        raise UntraceableError("it joins a text with what is none")

    def ask(self, derived: Derived, name: str, *arguments: Any) -> Any:
        """The answer of the row at hand, kept."""
        key = (derived, name, arguments)
        found = self._asked.get(key)
        if found is None:
            answer = _ASK[name](derived.of(self._texts), *arguments)
            found = self._asked[key] = Question(derived, name, arguments, answer)
        return found.answer


def _append(atoms: list[Atom], atom: Atom) -> None:
    if isinstance(atom, str) and atoms and isinstance(atoms[-1], str):
        atoms[-1] += atom
    elif atom != "":
        atoms.append(atom)


class _TraceEnvironment(SandboxEnvironment):
    """The sandbox, with the few filters and tests that know a `Text`."""

    def __init__(self) -> None:
        super().__init__()
        self._trace: Trace | None = None
        self.finalize = self._shown
        filters: dict[str, Any] = self.filters
        trim, string = filters["trim"], filters["string"]
        filters["trim"] = _for_text(Text.strip, trim)
        filters["string"] = _for_text(_itself, string)
        filters["hone joined"] = self._joined
        tests: dict[str, Any] = self.tests
        for name, answer in (
            ("string", True),
            ("iterable", True),
            ("sequence", True),
            ("mapping", False),
        ):
            tests[name] = _known(tests[name], answer)
        tests["sameas"] = _unknown(tests["sameas"])

    def writing_for(self, trace: Trace) -> None:
        """From now on texts that are written get their names from `trace`."""
        self._trace = trace
        self.allow(_WORK)

    def _shown(self, value: Any) -> Any:
        return self._trace.show(value) if isinstance(value, Text) and self._trace else value

    def _parse(self, source: str, name: str | None, filename: str | None) -> nodes.Template:
        return _join_by_filter(super()._parse(source, name, filename))

    @staticmethod
    def _joined(values: Sequence[Any]) -> Any:
        """`a ~ b`: as text, whatever they are."""
        total: Any = ""
        for value in values:
            total = total + (value if isinstance(value, Text) else str(value))
        return total


def _join_by_filter(tree: nodes.Template) -> nodes.Template:
    for parent in [tree, *tree.find_all(nodes.Node)]:
        for field, value in parent.iter_fields():
            if isinstance(value, list):
                nodes_in = cast("list[Any]", value)
                setattr(parent, field, [_joined_node(one) for one in nodes_in])
            else:
                setattr(parent, field, _joined_node(value))
    return tree


def _joined_node(node: Any) -> Any:
    if not isinstance(node, nodes.Concat):
        return node
    parts = nodes.List(node.nodes, lineno=node.lineno)
    return nodes.Filter(parts, "hone joined", [], [], None, None, lineno=node.lineno)


def _for_text(ours: Callable[..., Any], theirs: Callable[..., Any]) -> Callable[..., Any]:
    def chosen(value: Any, *rest: Any) -> Any:
        return ours(value, *rest) if isinstance(value, Text) else theirs(value, *rest)

    return chosen


def _itself(text: Text) -> Text:
    return text


def _known(test: Callable[..., Any], answer: bool) -> Callable[..., Any]:
    def asked(value: Any, *rest: Any) -> Any:
        return answer if isinstance(value, Text) else test(value, *rest)

    return asked


def _unknown(test: Callable[..., Any]) -> Callable[..., Any]:
    def asked(value: Any, other: Any) -> Any:
        if isinstance(value, Text) or isinstance(other, Text):
            raise UntraceableError("it asks whether a text is one and the same object")
        return test(value, other)

    return asked
