"""A line index kept in a file, found again only if every byte is as written. It knows no rows."""

from __future__ import annotations

import hashlib
import json
import os
from pathlib import Path
from typing import Final

from safetensors import SafetensorError
from safetensors.numpy import load, save

from hone.data.lines import Fault, LineIndex
from hone.data.segment import disk_errors

_INDEX: Final = ".index"
_NAME_DIGITS: Final = 32


def write_index(folder: Path, index: LineIndex) -> None:
    """Keep an index for the next start. Raises DiskError."""
    about = {
        "blank_lines": index.blank_lines,
        "had_bom": index.had_bom,
        "faults": [[f.line, f.what, f.within, f.remedy] for f in index.faults],
    }
    arrays = {
        "start": index.start,
        "size": index.size,
        "line": index.line,
        "content": index.content,
    }
    data = save(arrays, {"about": json.dumps(about)})
    name = hashlib.sha256(data).hexdigest()[:_NAME_DIGITS]
    with disk_errors(folder):
        folder.mkdir(parents=True, exist_ok=True)
        beside = folder / f".{_INDEX}.{os.getpid()}.part"
        beside.write_bytes(data)
        beside.replace(folder / f"{name}{_INDEX}")


def open_index(folder: Path, *, contents: bool) -> LineIndex | None:
    """The kept index; None where there is none that is whole, or none with the contents that are wanted."""
    for path in sorted(folder.glob(f"*{_INDEX}")):
        index = _opened(path)
        if index is not None and not (contents and index.content.shape != index.start.shape):
            return index
    return None


def _opened(path: Path) -> LineIndex | None:
    try:
        data = path.read_bytes()
        if hashlib.sha256(data).hexdigest()[:_NAME_DIGITS] != path.name.removesuffix(_INDEX):
            return None
        size = int.from_bytes(data[:8], "little")
        about = json.loads(json.loads(data[8 : 8 + size])["__metadata__"]["about"])
        arrays = load(data)
        faults = tuple(Fault(*fault) for fault in about["faults"])
        return LineIndex(
            arrays["start"],
            arrays["size"],
            arrays["line"],
            arrays["content"],
            about["blank_lines"],
            about["had_bom"],
            faults,
        )
    except (OSError, ValueError, LookupError, TypeError, SafetensorError):
        return None
