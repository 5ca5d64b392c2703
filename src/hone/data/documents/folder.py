"""The documents of a folder and its sub-folders, and the passages of each by its kind."""

from __future__ import annotations

import importlib.util
import os
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Final

from hone.data.documents.passage import Passage, Unreadable
from hone.data.documents.pdf import pdf_passages
from hone.data.documents.plain import row_documents, text_passages
from hone.data.documents.word import word_passages
from hone.errors import DataError, EnvironmentFault

_WHOLE: Final[Mapping[str, Callable[[Path], Iterator[Passage]]]] = {
    ".txt": text_passages,
    ".md": text_passages,
    ".docx": word_passages,
    ".pdf": pdf_passages,
}
KINDS: Final = (*_WHOLE, ".jsonl")
_PACKAGES: Final = {".docx": ("docx", "python-docx"), ".pdf": ("pypdf", "pypdf")}


@dataclass(frozen=True)
class Found:
    """Documents in the order of their names, and how many files of which other kinds lie beside them."""

    files: tuple[Path, ...]
    others: Mapping[str, int]


def find_documents(place: Path) -> Found:
    """The documents under `place`, a folder or one file. Links are not followed, hidden names are passed over.

    Raises DataError where there is none, EnvironmentFault where a package that reads one is not installed.
    """
    if place.is_file():
        every = [place]
    elif place.is_dir():
        every = sorted(_files(place))
    else:
        raise DataError("no such folder", where=str(place), remedy="name a folder of documents")
    files = tuple(path for path in every if path.suffix.lower() in KINDS)
    others: dict[str, int] = {}
    for path in every:
        if path.suffix.lower() not in KINDS:
            kind = path.suffix.lower() or "no ending"
            others[kind] = others.get(kind, 0) + 1
    if not files:
        told = ", ".join(f"{kind} {count:,}" for kind, count in sorted(others.items())) or "nothing"
        raise DataError(
            f"no documents there; found {told}",
            where=str(place),
            remedy=f"kinds that are read: {', '.join(KINDS)}",
        )
    _require_packages(files)
    return Found(files, others)


@dataclass(frozen=True)
class Document:
    """A document's passages, or why there are none."""

    name: str
    """The file under the folder; for a row of a JSONL file with its line."""
    passages: list[Passage]
    fault: Unreadable | None = None


def documents_of(path: Path, name: str) -> Iterator[Document]:
    """The documents in one file: one, or one a line. `name` is what the file is called."""
    try:
        if path.suffix.lower() == ".jsonl":
            for line, found in row_documents(path):
                is_fault = isinstance(found, Unreadable)
                yield (
                    Document(f"{name}:{line}", [], found)
                    if is_fault
                    else Document(f"{name}:{line}", found)
                )
        else:
            yield Document(name, list(_WHOLE[path.suffix.lower()](path)))
    except Unreadable as fault:
        yield Document(name, [], fault)
    except OSError as error:
        yield Document(
            name,
            [],
            Unreadable("cannot be read", "check its permissions", error.strerror or str(error)),
        )


def _files(folder: Path) -> Iterator[Path]:
    for root, folders, names in os.walk(folder, followlinks=False):
        folders[:] = [name for name in folders if not name.startswith(".")]
        for name in names:
            path = Path(root) / name
            # `~$` is what Word leaves beside an open document.
            if not name.startswith((".", "~$")) and path.is_file() and not path.is_symlink():
                yield path


def _require_packages(files: tuple[Path, ...]) -> None:
    for suffix in sorted({path.suffix.lower() for path in files}):
        module, package = _PACKAGES.get(suffix, ("", ""))
        if module and importlib.util.find_spec(module) is None:
            raise EnvironmentFault(
                f"{suffix} files need the package {package}, which is not installed",
                remedy="pip install 'hone[documents]'",
            )
