"""Kinds of values that several settings have: numbers that may be written in several ways, with their bounds."""

from __future__ import annotations

from typing import Annotated

from pydantic import BeforeValidator, Field


def number_from_text(value: object) -> object:
    """YAML 1.1 reads `1e-4` (no dot) as text; here it is a number everywhere."""
    if isinstance(value, str):
        try:
            return float(value)
        except ValueError:
            return value
    if isinstance(value, bool):
        raise ValueError("a number is wanted, not a truth value")
    return value


def whole_from_text(value: object) -> object:
    """A whole number that is written with a point or an exponent is one."""
    if isinstance(value, str):
        value = number_from_text(value)
    if isinstance(value, bool):
        raise ValueError("a whole number is wanted, not a truth value")
    if isinstance(value, float) and value.is_integer():
        return int(value)
    return value


def list_of_one(value: object) -> object:
    """`output.trackers=wandb` means the list that holds it."""
    return [value] if isinstance(value, str) else value


Number = Annotated[float, BeforeValidator(number_from_text)]
Whole = Annotated[int, BeforeValidator(whole_from_text)]
Share = Annotated[float, Field(ge=0, lt=1), BeforeValidator(number_from_text)]
Positive = Annotated[float, Field(gt=0), BeforeValidator(number_from_text)]
Count = Annotated[int, Field(ge=1), BeforeValidator(whole_from_text)]
Part = Annotated[float, Field(ge=0, le=1), BeforeValidator(number_from_text)]
NewText = Annotated[str, Field(min_length=1, pattern=r"\S")]
