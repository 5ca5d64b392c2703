"""Where things are kept that can be made again: prepared rows, the base model of the quickstart."""

from __future__ import annotations

import os
from pathlib import Path


def cache_folder() -> Path:
    """`HONE_CACHE`, else `hone` in the user's cache folder."""
    said = os.environ.get("HONE_CACHE")
    if said:
        return Path(said).expanduser()
    return Path(os.environ.get("XDG_CACHE_HOME") or Path.home() / ".cache") / "hone"
