"""Arrow columns to JSON values: text stays text, and a type that JSON has not is refused by name. It knows no files."""

from __future__ import annotations

import math
from collections.abc import Callable, Iterator, Mapping, Sequence
from typing import Any, Final, NoReturn

from hone.data.example import Origin
from hone.data.importers.findings import Findings
from hone.data.importers.packages import Arrow
from hone.data.strict import JsonObject, parse_value
from hone.errors import DataError

Convert = Callable[[Any], Any]

_DATES: Final = "write it as text, in the form in which it is to be read, where the file is made"
_ADVICE: Final = (
    ("timestamp", _DATES),
    ("date", _DATES),
    ("time", _DATES),
    ("duration", _DATES),
    ("interval", _DATES),
    ("decimal", "write it as text or as a double where the file is made"),
    (
        "binary",
        "rows are text here: no images, no audio; leave the column out, or decode it to text",
    ),
    ("map", "write it as a list of structs or as JSON text where the file is made"),
)


class ArrowRows:
    """Turns record batches of one schema into rows.

    Kept as they are: strings, whole numbers, doubles, truth values, lists, structs, nulls; strings of a
    dictionary are decoded, and values of the JSON extension type are parsed strictly. Null fields of
    structs inside lists are left out and counted, because Arrow writes a null wherever one row has a
    field (of a tool's arguments, say) and another has not. Refused with DataError and the column's JSON
    pointer: times, decimals, binary, maps, equal names, and numbers that are not finite.
    """

    def __init__(self, arrow: Arrow, schema: Any, name: str, findings: Findings) -> None:
        self._types = arrow.types
        self._name = name
        self._findings = findings
        self._nulls = 0  # left out of the row at hand
        self._fault = ""  # why the row at hand cannot be used
        self._names: list[str] = list(schema.names)
        self._check_names(self._names, "")
        if not self._names:
            raise DataError("the table has no columns", where=name, remedy="write it again")
        self._converts = [self._convert(field.type, f"/{field.name}", False) for field in schema]

    def rows(self, batch: Any, before: int) -> Iterator[JsonObject]:
        """The rows of a batch that follows `before` rows of the same file. Raises DataError."""
        try:
            batch.validate(full=True)  # offsets and UTF-8, before anything trusts them; cheap
            columns: list[list[Any]] = [column.to_pylist() for column in batch.columns]
        except (ValueError, OSError) as fault:
            raise damaged(fault, f"{self._name}, after row {before:,}") from fault
        if not any(self._converts):
            for values in zip(*columns, strict=True):
                yield dict(zip(self._names, values, strict=True))
            return
        for number, values in enumerate(zip(*columns, strict=True), before + 1):
            self._nulls = 0
            row: JsonObject = {}
            for column, convert, value in zip(self._names, self._converts, values, strict=True):
                try:
                    row[column] = value if convert is None else convert(value)
                except ValueError as fault:
                    self._refuse_value(fault, number)
            self._findings.add("null-fields", self._nulls, row=number)
            yield row

    def _refuse_value(self, fault: ValueError, number: int) -> NoReturn:
        what = fault.what if isinstance(fault, DataError) else str(fault)
        raise DataError(
            what,
            where=str(Origin(self._name, number)),
            remedy="mend the row where the file is made, or leave it out",
        ) from fault

    def _check_names(self, names: Sequence[str], pointer: str) -> None:
        twice = {name for name in names if names.count(name) > 1}
        if twice:
            raise DataError(
                f"two columns are named {min(twice)!r}",
                where=f"{self._name} {pointer}".rstrip(),
                remedy="rename one of them where the file is made",
            )

    def _convert(self, kind: Any, pointer: str, in_list: bool) -> Convert | None:
        """How to turn a value of this type into JSON's; None where it is JSON's already."""
        types = self._types
        if getattr(kind, "extension_name", "") == "arrow.json":
            return _json_at(pointer)
        if types.is_dictionary(kind):
            return self._convert(kind.value_type, pointer, in_list)
        if any(
            is_plain(kind)
            for is_plain in (
                types.is_string,
                types.is_large_string,
                types.is_string_view,
                types.is_integer,
                types.is_boolean,
                types.is_null,
            )
        ):
            return None
        if types.is_floating(kind):
            return _finite_at(pointer)
        if any(
            is_list(kind)
            for is_list in (
                types.is_list,
                types.is_large_list,
                types.is_fixed_size_list,
                types.is_list_view,
                types.is_large_list_view,
            )
        ):
            return _list_of(self._convert(kind.value_type, f"{pointer}/0", True))
        if types.is_struct(kind):
            inner = [kind.field(place) for place in range(kind.num_fields)]
            self._check_names([field.name for field in inner], pointer)
            converts = {
                field.name: self._convert(field.type, f"{pointer}/{field.name}", in_list)
                for field in inner
            }
            return self._struct_of(converts, in_list)
        raise self._unknown(kind, pointer)

    def _struct_of(self, converts: Mapping[str, Convert | None], in_list: bool) -> Convert | None:
        if not in_list and not any(converts.values()):
            return None
        fields = list(converts.items())

        def convert(value: dict[str, Any] | None) -> JsonObject | None:
            if value is None:
                return None
            found: JsonObject = {}
            for key, inner in fields:
                one = value[key]
                if one is None and in_list:
                    self._nulls += 1
                else:
                    found[key] = one if inner is None else inner(one)
            return found

        return convert

    def _unknown(self, kind: Any, pointer: str) -> DataError:
        said = str(kind)
        advice = (text for word, text in _ADVICE if word in said)
        return DataError(
            f"a column of type {said} cannot be read as rows of text",
            where=f"{self._name} {pointer}",
            remedy=next(advice, "leave the column out where the file is made, or write it as text"),
        )


def damaged(fault: Exception, where: str) -> DataError:
    """The error for a file whose content is not what its format wants."""
    said = str(fault).strip().splitlines()
    return DataError(
        f"the file is damaged or cannot be read: {said[0] if said else type(fault).__name__}",
        where=where,
        remedy="write or fetch it again",
    )


def _list_of(inner: Convert | None) -> Convert | None:
    if inner is None:
        return None

    def convert(value: list[Any] | None) -> list[Any] | None:
        return None if value is None else [inner(one) for one in value]

    return convert


def _finite_at(pointer: str) -> Convert:
    def convert(value: float | None) -> float | None:
        if value is not None and not math.isfinite(value):
            raise ValueError(f"the column {pointer} holds {value}, which is not a JSON number")
        return value

    return convert


def _json_at(pointer: str) -> Convert:
    def convert(value: str | None) -> Any:
        if value is None:
            return None
        try:
            return parse_value(value.encode(), Origin(pointer, 0))
        except DataError as fault:
            raise ValueError(f"the column {pointer} holds no JSON: {fault.what}") from fault

    return convert
