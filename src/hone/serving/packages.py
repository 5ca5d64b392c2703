"""The packages that a server needs beside Hone's own. It loads none of them."""

from __future__ import annotations

import importlib.util
from collections.abc import Sequence
from typing import Final

from hone.errors import EnvironmentFault

SERVING: Final = ("starlette", "uvicorn")


def require_packages(what: str, names: Sequence[str] = SERVING) -> None:
    """Raises EnvironmentFault where one is not installed, with what to install."""
    absent = [name for name in names if importlib.util.find_spec(name) is None]
    if absent:
        raise EnvironmentFault(
            f"{what} needs {' and '.join(absent)}, not installed here",
            remedy="pip install 'hone[service]'",
        )
