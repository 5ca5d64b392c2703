"""The loss curve of a run as this terminal can show it. It knows no run but by its folder."""

from __future__ import annotations

import shutil
import sys

from hone.runs.curve import draw_text, read_curve
from hone.runs.folder import RunFolder

_WIDEST = 100  # columns


def curve_text(folder: RunFolder) -> str:
    """The curve in lines no wider than the terminal, in characters that its encoding has."""
    curve = read_curve(folder.events_file, title=folder.name)
    is_utf8 = "utf" in (sys.stdout.encoding or "").lower()
    width = min(_WIDEST, shutil.get_terminal_size().columns)
    return draw_text(curve, width=width, ascii_only=not is_utf8)
