"""The workshop: one file's rows read, checked, rendered and put into segments, in whatever process. It knows no order."""

from __future__ import annotations

import contextlib
from collections.abc import Generator, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from pathlib import Path
from typing import Any, BinaryIO, Final

from hone.config.sections import DataSection
from hone.data.example import Example, Origin
from hone.data.lines import Part, read_part, stamp_of
from hone.data.reader import Row
from hone.data.render import Renderer
from hone.data.road import Road, row_format
from hone.data.segment import Segment
from hone.data.strict import parse_row
from hone.data.template import ChatTemplate, load_template
from hone.data.tokenizer import TextTokenizer
from hone.errors import DataError

FAST_ENCODER_BYTES: Final = 8 * 2**20
"""Size of a file from which building the fast encoder pays."""
_READ_BYTES: Final = 1 << 20

Place = tuple[int, int, int, int]
"""A row: its number in the index, first byte, bytes, 1-based line."""


@dataclass(frozen=True)
class Order:
    """Everything that a workshop must know, as plain values that another process can be told."""

    file: str
    """The file that is read."""
    name: str
    """What messages call it."""
    stamp: tuple[int, int]
    """Its size in bytes and time of change in ns: what is read must be what was indexed."""
    section: dict[str, Any]
    shape: str
    tokenizer: str
    """Folder of the tokenizer."""
    max_length: int
    proofs: str | None
    byte_level: bool = False
    """Whether a token is a byte of text at least."""
    additions: tuple[tuple[str, bool], ...] = ()
    """What the tokenizer has beyond its folder's own."""

    @classmethod
    def for_file(
        cls,
        file: str,
        name: str,
        section: DataSection,
        shape: str,
        tokenizer: TextTokenizer,
        max_length: int,
        proofs: Path | None,
    ) -> Order:
        """The order for a file as it is now."""
        return cls(
            file,
            name,
            stamp_of(file),
            section.model_dump(mode="json"),
            shape,
            str(tokenizer.folder or ""),
            max_length,
            None if proofs is None else str(proofs),
            tokenizer.is_byte_level,
            tokenizer.additions,
        )


class Workshop:
    """Does the work on one file. `tools`: tokenizer and template, where the process has them already."""

    def __init__(
        self, order: Order, tools: tuple[TextTokenizer, ChatTemplate] | None = None
    ) -> None:
        self.order = order
        self._section = DataSection.model_validate(order.section)
        self._tools = tools
        self._format = row_format(self._section, order.shape)
        self._stream: BinaryIO | None = None

    def scan(self, begin: int, end: int, *, contents: bool) -> Part:
        """Index and check the rows that begin in bytes [begin, end); with `contents`, hash what they say."""
        keep = self._section.bad_rows == "drop"
        with self._reading():
            return read_part(
                self.order.file,
                begin,
                end,
                read=self._format.read,
                keep_faults=keep,
                contents=contents,
                skim=self._format.skim,
            )

    def prepare(self, places: Sequence[Place]) -> Segment:
        """The segment of these rows; its `about` holds their ledger. Raises DataError."""
        road = Road(
            self._section,
            self._renderer,
            max_length=self.order.max_length,
            file=self.order.name,
            shape=self.order.shape,
        )
        with self._reading():
            found = list(self._lines(sorted(places)))
        self.check_stamp()  # after reading and before parsing: a file cut short is told as what it is
        rows = [self._row(place, data) for place, data in found]
        prepared: list[tuple[int, Sequence[Example]]] = [
            (place[0], row.examples)
            for place, row in zip(sorted(places), road.lead(rows), strict=True)
        ]
        too_long = [[line, tokens] for line, tokens in road.too_long]
        return Segment.of(prepared, {"ledger": road.ledger.to_json(), "too_long": too_long})

    def close(self) -> None:
        """Let go of the file."""
        if self._stream is not None:
            self._stream.close()
            self._stream = None

    def _lines(self, places: Sequence[Place]) -> Iterator[tuple[Place, bytes]]:
        """The bytes of each row; neighbours in the file are read at once."""
        if self._stream is None:
            self._stream = Path(self.order.file).open("rb")  # noqa: SIM115 - closed by close()
        first = 0
        for after in range(1, len(places) + 1):
            begin, end = places[first][1], sum(places[after - 1][1:3])
            if after < len(places) and places[after][1] <= end + 2 and end - begin < _READ_BYTES:
                continue
            self._stream.seek(begin)
            block = self._stream.read(end - begin)
            for place in places[first:after]:
                at = place[1] - begin
                yield place, block[at : at + place[2]]
            first = after

    def _row(self, place: Place, data: bytes) -> Row:
        _, start, size, line = place
        origin = Origin(self.order.name, line)
        return Row(parse_row(data, origin), origin, size, start)

    def check_stamp(self) -> None:
        """Raise DataError where the file is not what it was."""
        with self._reading():
            stamp = stamp_of(self.order.file)
        if stamp != self.order.stamp:
            raise DataError(
                "the file changed while it was read",
                where=self.order.name,
                remedy="let the program that writes it finish, and start again",
            )

    @contextlib.contextmanager
    def _reading(self) -> Generator[None]:
        """Within, a file that is gone, or no file any more, is told as DataError."""
        try:
            yield
        except OSError as fault:
            raise DataError(
                f"the file cannot be read any more: {fault.strerror or fault}",
                where=self.order.name,
                remedy="put it back as it was, and start again: what is prepared is kept",
            ) from fault

    @cached_property
    def _renderer(self) -> Renderer:
        if self._tools is not None:
            tokenizer, template = self._tools
        else:
            added = [(text, special) for text, special in self.order.additions]
            tokenizer = TextTokenizer.load(Path(self.order.tokenizer), added)
            template = load_template(
                tokenizer, choice=self._section.template, variables=self._section.template_kwargs
            )
        proofs = None if self.order.proofs is None else Path(self.order.proofs)
        encoder = None
        if self.order.stamp[0] >= FAST_ENCODER_BYTES:
            encoder = tokenizer.fast_encoder(proofs)
        section = self._section
        return Renderer(
            tokenizer,
            template,
            section.train_on,
            encoder,
            separators=section.train_separators,
        )
