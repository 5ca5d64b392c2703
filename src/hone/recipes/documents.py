"""`documents`: a folder of texts to rows for continued pre-training: cut, without duplicates, every loss counted.

Equal texts are found by hash, texts that are almost equal by MinHash (Broder, 1997) with bands
(`data/validation/near.py`); the first of them stays. With a block size the rows are tokens: texts one after the
other, each with its end, cut every so many tokens.
"""

from __future__ import annotations

import hashlib
import json
import tempfile
from collections.abc import Iterable, Iterator
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final, cast

from hone.config.sections import DataSection, ModelSection
from hone.data.conversation import Document as DocumentRow
from hone.data.documents.chunks import Chunk, Sizes, cut
from hone.data.documents.folder import Document, documents_of, find_documents
from hone.data.documents.passage import Unreadable
from hone.data.example import Origin
from hone.data.outbox import Outbox, RowSink
from hone.data.render import Renderer
from hone.data.template import load_template
from hone.data.validation.near import NearTexts
from hone.errors import ConfigError, DataError
from hone.models.source import find_model
from hone.recipes.source import load_tokenizer

_SHORT: Final = "shorter than data.min_text_length"
_SAME: Final = "the same text as an earlier one"
_NEAR: Final = "almost the same text as an earlier one"
_EMPTY: Final = "no text in it"
_ENCODED_AT_ONCE: Final = 256


@dataclass
class Losses:
    """What was left out for one reason: where each stood, what is to be said of it, and what to do."""

    places: list[str] = field(default_factory=list[str])
    details: list[str] = field(default_factory=list[str])
    remedy: str = ""

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        told: dict[str, Any] = {"count": len(self.places), "places": self.places}
        told |= {"details": self.details} if any(self.details) else {}
        return told | ({"remedy": self.remedy} if self.remedy else {})


@dataclass
class DocumentReport:
    """What became of every document and every piece. Read = kept + left out, for both."""

    folder: str
    documents: int = 0
    documents_kept: int = 0
    characters: int = 0
    """Of the documents that were read."""
    pieces: int = 0
    kept: int = 0
    characters_kept: int = 0
    faults: dict[str, Losses] = field(default_factory=dict[str, Losses])
    dropped: dict[str, Losses] = field(default_factory=dict[str, Losses])
    passed_over: dict[str, int] = field(default_factory=dict[str, int])
    rows: int = 0
    tokens: int | None = None
    written: str = ""
    ledger_file: str = ""
    notices: list[str] = field(default_factory=list[str])

    def lose(
        self, table: dict[str, Losses], reason: str, place: str, detail: str = "", remedy: str = ""
    ) -> None:
        """One document or piece that is left out."""
        one = table.setdefault(reason, Losses(remedy=remedy))
        one.places.append(place)
        one.details.append(detail)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "command": "documents",
            "folder": self.folder,
            "documents": self.documents,
            "documents_kept": self.documents_kept,
            "characters": self.characters,
            "documents_left_out": {key: one.to_json() for key, one in self.faults.items()},
            "passed_over": self.passed_over,
            "pieces": self.pieces,
            "kept": self.kept,
            "characters_kept": self.characters_kept,
            "pieces_left_out": {key: one.to_json() for key, one in self.dropped.items()},
            "rows": self.rows,
            "tokens": self.tokens,
            "written": self.written,
            "notices": self.notices,
        }

    def check(self) -> None:
        """Raise DataError where nothing is left."""
        if self.kept:
            return
        reasons = [*self.faults.items(), *self.dropped.items()]
        told = "; ".join(f"{reason}: {len(one.places):,}" for reason, one in reasons)
        raise DataError(
            f"no text is left, so nothing was written: {told or 'the documents are empty'}",
            where="; ".join(one.places[0] for _, one in reasons[:3]) or self.folder,
            remedy=next(
                (one.remedy for _, one in reasons if one.remedy), "lower data.min_text_length"
            ),
        )


@dataclass(frozen=True)
class _Kept:
    """A piece on the disk, and what it is called."""

    document: str
    place: str


def write_documents(
    place: Path,
    out: Path,
    section: DataSection,
    *,
    model: ModelSection | None = None,
    ledger: Path | None = None,
    force: bool = False,
) -> DocumentReport:
    """Write the rows of the documents under `place` to `out`, and what became of everything beside it.

    `section` says how texts are cut; `model` whose tokens blocks are made of, needed with `data.block_size`.
    Raises DataError where there is nothing, ConfigError, DiskError, EnvironmentFault, ModelError.
    """
    if section.block_size is not None and (model is None or not model.name):
        raise ConfigError(
            "data.block_size counts tokens, and no model says which",
            remedy="add --model FOLDER_OR_HUB_ID, the model that will be trained",
        )
    sizes = Sizes(section.chunk_size, section.overlap, section.min_text_length)
    found = find_documents(place)
    report = DocumentReport(str(place), passed_over=dict(found.others), written=str(out))
    root = place if place.is_dir() else place.parent
    report.ledger_file = str(ledger or out.with_name(f"{out.name}.ledger.json"))
    with Outbox(inputs=found.files, force=force) as outbox, tempfile.TemporaryFile() as held:
        sink = outbox.rows(out)
        names = [str(path.relative_to(root)) for path in found.files]
        documents = (
            one
            for path, name in zip(found.files, names, strict=True)
            for one in documents_of(path, name)
        )
        kept, near = _collect(documents, sizes, report, held)
        held.seek(0)
        texts = (cast(str, json.loads(line)) for line in held)
        pieces = _without_near(zip(kept, texts, strict=True), near, kept, report)
        if section.block_size is None:
            _write_texts(pieces, sink)
        else:
            assert model is not None
            report.tokens = _write_blocks(pieces, sink, section.block_size, model)
        report.rows = sink.count
        report.check()
        outbox.put_json(Path(report.ledger_file), report.to_json())
    return report


def _collect(
    documents: Iterable[Document], sizes: Sizes, report: DocumentReport, held: Any
) -> tuple[list[_Kept], NearTexts]:
    """Cut every document; pieces that are long enough and new go to `held`, a line of JSON each."""
    kept: list[_Kept] = []
    seen: dict[bytes, str] = {}
    near = NearTexts()
    for document in documents:
        report.documents += 1
        fault = document.fault
        if fault is not None or not document.passages:
            fault = fault or Unreadable(_EMPTY, "")
            report.lose(report.faults, fault.reason, document.name, fault.detail, fault.remedy)
            continue
        report.documents_kept += 1
        report.characters += sum(len(one.text) for one in document.passages)
        for chunk in cut(document.passages, sizes):
            report.pieces += 1
            where = f"{document.name}, {chunk.place}"
            if len(chunk.text) < sizes.min_text_length:
                report.lose(report.dropped, _SHORT, where, _shown(chunk))
                continue
            name = hashlib.sha256(
                " ".join(chunk.text.split()).encode("utf-8", "surrogatepass")
            ).digest()
            if name in seen:
                report.lose(report.dropped, _SAME, where, f"as {seen[name]}")
                continue
            seen[name] = where
            near.add(len(kept), chunk.text)
            kept.append(_Kept(document.name, chunk.place))
            held.write(json.dumps(chunk.text).encode() + b"\n")
    if near.left_out:
        report.notices.append(
            f"{near.left_out:,} pieces were not looked at for near duplicates: too many"
        )
    return kept, near


def _without_near(
    pieces: Iterable[tuple[_Kept, str]], near: NearTexts, kept: list[_Kept], report: DocumentReport
) -> Iterator[tuple[_Kept, str]]:
    twins = dict(near.pairs())
    for number, (one, text) in enumerate(pieces):
        where = f"{one.document}, {one.place}"
        if number in twins:
            first = kept[twins[number]]
            report.lose(report.dropped, _NEAR, where, f"as {first.document}, {first.place}")
            continue
        report.kept += 1
        report.characters_kept += len(text)
        yield one, text


def _write_texts(pieces: Iterable[tuple[_Kept, str]], sink: RowSink) -> None:
    for one, text in pieces:
        sink.add_json({"text": text, "source": one.document, "place": one.place})


def _write_blocks(
    pieces: Iterable[tuple[_Kept, str]], sink: RowSink, size: int, model: ModelSection
) -> int:
    """Rows of `size` tokens, the last one shorter; returns how many tokens there are."""
    tokenizer = load_tokenizer(model, find_model(model))
    renderer = Renderer(tokenizer, load_template(tokenizer))
    ids: list[int] = []
    sources: list[str] = []
    total = 0

    def write(row: list[int]) -> None:
        sink.add_json({"input_ids": row, "source": ", ".join(dict.fromkeys(sources))})

    for batch in _batches(pieces, _ENCODED_AT_ONCE):
        rows = [DocumentRow(text, Origin(one.document, 1)) for one, text in batch]
        for (one, _), rendered in zip(batch, renderer.render_all(rows), strict=True):
            sources.append(one.document)
            for example in rendered.examples:
                total += example.num_tokens
                ids += example.input_ids.tolist()
            while len(ids) >= size:
                write(ids[:size])
                ids, sources = ids[size:], sources[-1:]
            if not ids:
                sources = []
    if ids:
        write(ids)
    return total


def _batches(pieces: Iterable[tuple[_Kept, str]], count: int) -> Iterator[list[tuple[_Kept, str]]]:
    batch: list[tuple[_Kept, str]] = []
    for one in pieces:
        batch.append(one)
        if len(batch) == count:
            yield batch
            batch = []
    if batch:
        yield batch


def _shown(chunk: Chunk) -> str:
    return " ".join(chunk.text.split())[:80]
