"""The table of settings: every leaf of the configuration with its dotted name, and what it takes, in words.

Derived from the sections, so that it cannot disagree with them. It knows no values and no files.
"""

from __future__ import annotations

import difflib
import functools
import re
import types
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from typing import Any, Literal, get_args, get_origin

import annotated_types as bounds
from pydantic import BaseModel

from hone.config.base import Section
from hone.config.sections import Config
from hone.config.values import members

ENVIRONMENT_PREFIX = "HONE_"
SHORT_NAMES = {
    "batch": "train.batch_size",
    "loraplus_lr_ratio": "train.lora_plus_ratio",
    "lr": "train.learning_rate",
    "lr_scheduler_type": "train.schedule",
    "min_lr_ratio": "train.min_learning_rate_ratio",
    "neftune_noise_alpha": "train.neftune_alpha",
    "optim": "train.optimizer",
    "output": "output.dir",
    "rank": "tuning.lora.r",
    "steps": "train.max_steps",
}
"""What people write for a setting that has another name; used to guess, never accepted as a name."""
_PARALLEL = re.compile(
    r"(context|expert|pipeline|sequence|tensor)_?(model_)?parallel(ism)?(_size|_degree)?"
    r"|(cp|ep|pp|sp|tp|ulysses|autotp)(_size|_degree)?"
)


@dataclass(frozen=True)
class Setting:
    """One leaf of the configuration."""

    name: str
    """Dotted, e.g. `train.learning_rate`."""
    annotation: Any
    description: str
    bounds: tuple[object, ...]

    @property
    def environment(self) -> str:
        """The environment variable that sets it."""
        return ENVIRONMENT_PREFIX + self.name.replace(".", "_").upper()

    @property
    def is_mapping(self) -> bool:
        """Whether single entries can be set, as in `data.columns.user=question`."""
        return any(get_origin(kind) is dict for kind in members(self.annotation))

    @property
    def is_optional(self) -> bool:
        """Whether it can be unset by `null`."""
        return types.NoneType in members(self.annotation)

    @property
    def choices(self) -> tuple[str, ...]:
        """The words among which one must be chosen, if it is so."""
        kinds = members(self.annotation)
        return tuple(str(word) for k in kinds if get_origin(k) is Literal for word in get_args(k))

    @property
    def item_keys(self) -> Mapping[str, Setting]:
        """What may stand in one item, by key, where the setting is a list of mappings; else empty."""
        for kind in members(self.annotation):
            item = get_args(kind)[0] if get_origin(kind) is list else None
            if isinstance(item, type) and issubclass(item, Section):
                return {setting.name: setting for setting in walk(item)}
        return {}

    @property
    def wanted(self) -> str:
        """What may stand here, e.g. `a whole number, at least 1, or 'auto'`."""
        limits = "".join(f", {text}" for text in _limits(self.bounds))
        if self.item_keys:
            return f"a list of mappings, each with some of {', '.join(self.item_keys)}"
        kinds = [kind for kind in members(self.annotation) if kind is not types.NoneType]
        words = [_kind_in_words(kind, limits) for kind in kinds]
        if self.is_optional:
            words.append("null (unset)")
        return ", or ".join(words)


@functools.cache
def settings() -> Mapping[str, Setting]:
    """Every setting by its dotted name, in the order of the sections."""
    return {setting.name: setting for setting in walk(Config)}


@functools.cache
def sections() -> frozenset[str]:
    """The dotted name of every section, e.g. `tuning.lora`."""
    names = (name.split(".")[:-1] for name in settings())
    return frozenset(".".join(parts[: i + 1]) for parts in names for i in range(len(parts)))


def walk(section: type[BaseModel], prefix: str = "") -> Iterable[Setting]:
    """Every leaf of a model, sections within it included; names begin with `prefix`."""
    for key, field in section.model_fields.items():
        annotation: Any = field.annotation
        if isinstance(annotation, type) and issubclass(annotation, Section):
            yield from walk(annotation, f"{prefix}{key}.")
        else:
            limits = (*field.metadata, *_inner_bounds(annotation))
            yield Setting(prefix + key, annotation, field.description or "", limits)


def _inner_bounds(annotation: Any) -> Iterable[object]:
    """Bounds that stand inside a union or a tuple, as in `Count | Literal["auto"]`, however deep."""
    for part in get_args(annotation):
        for extra in getattr(part, "__metadata__", ()):
            yield from getattr(extra, "metadata", ())
        yield from _inner_bounds(part)


def _limits(metadata: Iterable[object]) -> list[str]:
    found: list[str] = []
    for bound in metadata:
        match bound:
            case bounds.Ge():
                found.append(f"at least {bound.ge}")
            case bounds.Gt():
                found.append(f"above {bound.gt}")
            case bounds.Le():
                found.append(f"at most {bound.le}")
            case bounds.Lt():
                found.append(f"below {bound.lt}")
            case _:
                pass
    return list(dict.fromkeys(found))


def _kind_in_words(kind: Any, limits: str) -> str:
    origin = get_origin(kind)
    if origin is Literal:
        return " or ".join(repr(choice) for choice in get_args(kind))
    if origin is tuple:
        return f"a list of {len(get_args(kind))} numbers, each{limits.replace(', ', ' ', 1)}"
    if origin is list:
        words = [word for item in _items(kind) if _is_choice(item) for word in get_args(item)]
        if words:
            return f"a list of {', '.join(words)}"
        return "a list of whole numbers" if int in _items(kind) else "a list of texts"
    if origin is dict:
        return "a mapping such as {name: value}"
    plain = {int: f"a whole number{limits}", float: f"a number{limits}", bool: "true or false"}
    return plain.get(kind, "text")


def _is_choice(kind: object) -> bool:
    return get_origin(kind) is Literal


def _items(kind: Any) -> tuple[object, ...]:
    """The alternatives of a list's items."""
    return tuple(part for each in get_args(kind) for part in members(each))


def nearest_name(name: str) -> str | None:
    """The setting or section that an unknown dotted name most likely means; None when nothing is near.

    A name without its section (`learning_rate`) finds the setting that ends so, and so does a short
    name (`lr`).
    """
    parent, _, last = name.rpartition(".")
    if last in SHORT_NAMES:
        return SHORT_NAMES[last]
    same_end = [full for full in settings() if full.endswith(f".{last}")]
    if same_end:
        return same_end[0]
    if parent in sections() or not parent:
        beside = difflib.get_close_matches(last, _children(parent), n=1)
        if beside:
            return f"{parent}.{beside[0]}".lstrip(".")
    by_end = {full.rpartition(".")[2]: full for full in settings()}
    close = difflib.get_close_matches(last, by_end, n=1, cutoff=0.7)
    return by_end[close[0]] if close else None


def nearest_variable(variable: str) -> str | None:
    """The environment variable that an unknown one most likely means."""
    variables = {setting.environment: name for name, setting in settings().items()}
    for section in sorted(sections(), key=len, reverse=True):
        start = f"{ENVIRONMENT_PREFIX}{section.replace('.', '_').upper()}_"
        if variable.startswith(start):
            near = nearest_name(f"{section}.{variable.removeprefix(start).lower()}")
            if near is not None and near in settings():
                return settings()[near].environment
    close = difflib.get_close_matches(variable, variables, n=1, cutoff=0.7)
    return close[0] if close else None


def declined(name: str) -> str | None:
    """What to use instead of a setting that many systems have and that this one will not: None for any other."""
    last = name.rpartition(".")[2].replace("-", "_").lower()
    if not _PARALLEL.fullmatch(last):
        return None
    return (
        "Hone shares a step among ranks by rows, and splits no row, layer or matrix: use "
        "compute.strategy=fsdp or compute.deepspeed=zero3 where the model is too large for one device, "
        "compute.gradient_checkpointing=true or compute.micro_batch_tokens where rows are too long"
    )


def nearest_setting(name: str) -> str:
    """A remedy for an unknown dotted name: the nearest one, and what is allowed in its section."""
    instead = declined(name)
    if instead is not None:
        return instead
    near = nearest_name(name)
    parent = name.rpartition(".")[0]
    if parent in settings():
        return f"{parent} has no keys; allowed: {settings()[parent].wanted}"
    if parent not in sections():
        parent = near.rpartition(".")[0] if near else ""
    hint = f"did you mean {near!r}? " if near else ""
    place = f"allowed in {parent}" if parent else "sections"
    return f"{hint}{place}: {', '.join(_children(parent))}"


def _children(parent: str) -> list[str]:
    prefix = f"{parent}." if parent else ""
    rest = (name.removeprefix(prefix) for name in settings() if name.startswith(prefix))
    return list(dict.fromkeys(part.partition(".")[0] for part in rest))
