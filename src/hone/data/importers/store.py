"""Imported rows in the cache: one JSONL file for each content, whole or not there. It knows no format.

A folder per import, named by its key, holds `rows.jsonl` (line n is row n) and `about.json`. It is written beside and
renamed, so a reader never sees half of it, and of two writers of the same key the second finds the first one's work.
"""

from __future__ import annotations

import contextlib
import errno
import hashlib
import json
import os
import secrets
import shutil
from collections.abc import Generator, Iterable
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

import orjson

from hone.data.example import Origin
from hone.data.importers.findings import Findings
from hone.data.reader import MAX_ROW_BYTES, too_large
from hone.data.strict import JsonObject
from hone.errors import DataError, DiskError

ROWS: Final = "rows.jsonl"
_ABOUT: Final = "about.json"
# Part of every key: raise it whenever the same source would be imported as other rows.
_VERSION: Final = 1


@dataclass(frozen=True)
class Imported:
    """A finished import: its file, its rows, and what was noticed when it was made."""

    path: Path
    rows: int
    findings: Findings


def key_of(*parts: object) -> str:
    """The name of an import: SHA-256 (hex) of what decides its rows, given as plain JSON values."""
    return hashlib.sha256(json.dumps([_VERSION, *parts], sort_keys=True).encode()).hexdigest()


class ImportStore:
    """The imports under one folder."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder

    def find(self, key: str) -> Imported | None:
        """A finished import; None where there is none, or one that is not whole."""
        folder = self._folder / key
        try:
            about = json.loads((folder / _ABOUT).read_bytes())
            if (folder / ROWS).stat().st_size != about["bytes"]:
                return None
            findings = Findings.from_json(about["findings"])
            return Imported(folder / ROWS, int(about["rows"]), findings)
        except (OSError, ValueError, LookupError, TypeError, AttributeError):
            return None

    def write(
        self, key: str, rows: Iterable[JsonObject], findings: Findings, *, name: str
    ) -> Imported:
        """Store rows under `key`. Raises DataError where there are none, DiskError, and what `rows` raises.

        `name` is what messages call the rows. What `rows` notices on its way stands in `findings`.
        """
        part = self._folder / f".{key}.{os.getpid()}.{secrets.token_hex(4)}.part"
        with _disk_errors(self._folder):
            self._folder.mkdir(parents=True, exist_ok=True)
            _sweep(self._folder, key)
            part.mkdir()
        try:
            with _disk_errors(part), (part / ROWS).open("wb") as file:
                count = 0
                for count, row in enumerate(_outside(rows), 1):
                    line = _line(row)
                    if len(line) > MAX_ROW_BYTES:
                        raise too_large(Origin(name, count))
                    file.write(line)
                size = file.tell()
                _sync(file)
            if not count:
                raise DataError("there are no rows", where=name, remedy="at least one is wanted")
            about: dict[str, Any] = {
                "rows": count,
                "bytes": size,
                "findings": findings.to_json(),
            }
            with _disk_errors(part):
                with (part / _ABOUT).open("wb") as file:
                    file.write(orjson.dumps(about))
                    _sync(file)
                self._take_name(part, key)
        finally:
            shutil.rmtree(part, ignore_errors=True)
        found = self.find(key)
        if found is None:
            raise DiskError(
                "imported rows are not as they were written",
                where=str(self._folder / key),
                remedy="check the disk, or point HONE_CACHE elsewhere",
            )
        return found

    def _take_name(self, part: Path, key: str) -> None:
        final = self._folder / key
        for _ in range(3):
            try:
                part.rename(final)
                return
            except OSError as fault:
                if fault.errno not in (errno.ENOTEMPTY, errno.EEXIST):
                    raise
            if self.find(key) is not None:
                return  # another process finished the same content first
            broken = part.with_name(f"{part.name.removesuffix('.part')}.broken.part")
            with contextlib.suppress(FileNotFoundError):  # another process tidies the same damage
                final.rename(broken)
            shutil.rmtree(broken, ignore_errors=True)


def replace_file(path: Path, data: bytes) -> None:
    """Give a small file a new content, at once or not at all. Raises DiskError."""
    beside = path.with_name(f".{path.name}.{os.getpid()}.{secrets.token_hex(4)}")
    with _disk_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        try:
            beside.write_bytes(data)
            beside.replace(path)
        finally:
            beside.unlink(missing_ok=True)


class _FromRowsError(Exception):
    """Carries what reading raised through the guard that translates faults of writing."""

    def __init__(self, fault: OSError) -> None:
        self.fault = fault


def _outside(rows: Iterable[JsonObject]) -> Generator[JsonObject]:
    """The rows; a fault of the system while reading them is not taken for one of writing."""
    try:
        yield from rows
    except OSError as fault:
        raise _FromRowsError(fault) from fault


def _line(row: JsonObject) -> bytes:
    try:
        return orjson.dumps(row, option=orjson.OPT_APPEND_NEWLINE)
    except TypeError:  # an integer of more than 64 bits, which only the slow writer keeps
        return json.dumps(row, ensure_ascii=False, allow_nan=False).encode() + b"\n"


def _sync(file: Any) -> None:
    file.flush()
    os.fsync(file.fileno())


def _sweep(folder: Path, key: str) -> None:
    """Remove what a killed process left of the same import; one that lives is left alone."""
    for left in folder.glob(f".{key}.*.part"):
        owner = left.name.removeprefix(f".{key}.").partition(".")[0]
        if not (owner.isdigit() and Path(f"/proc/{owner}").exists()):
            shutil.rmtree(left, ignore_errors=True)


@contextlib.contextmanager
def _disk_errors(path: Path) -> Generator[None]:
    try:
        yield
    except _FromRowsError as carried:
        raise carried.fault from None
    except OSError as fault:
        raise DiskError(
            f"cannot write imported rows: {fault.strerror or fault}",
            where=str(path),
            remedy="free some space, or point HONE_CACHE elsewhere",
        ) from fault
