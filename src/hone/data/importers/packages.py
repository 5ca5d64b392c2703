"""The packages of the extra `tables`, loaded when rows ask for them. It knows no rows."""

from __future__ import annotations

import importlib.util
from dataclasses import dataclass
from typing import Any, Final

from hone.errors import EnvironmentFault

_REMEDY: Final = "pip install 'hone[tables]'"


@dataclass(frozen=True)
class Arrow:
    """The parts of pyarrow that are used here; pyarrow says little of its types."""

    ipc: Any
    parquet: Any
    types: Any
    memory_map: Any


def load_pyarrow(why: str) -> Arrow:
    """pyarrow, once it is needed. Raises EnvironmentFault where it is absent.

    `why` is what needs it, for the message.
    """
    try:
        from pyarrow import ipc, parquet, types  # pyright: ignore[reportMissingTypeStubs]
        from pyarrow import memory_map as map_file  # pyright: ignore
    except ImportError as fault:
        raise _absent("pyarrow", why, fault) from fault
    return Arrow(ipc, parquet, types, map_file)


def load_datasets(why: str) -> Any:
    """The module `datasets`. Raises EnvironmentFault where it is absent."""
    try:
        import datasets  # pyright: ignore[reportMissingTypeStubs]
    except ImportError as fault:
        raise _absent("datasets", why, fault) from fault
    return datasets


def _absent(package: str, why: str, fault: ImportError) -> EnvironmentFault:
    try:
        is_here = importlib.util.find_spec(package) is not None
    except (ImportError, ValueError):
        is_here = False
    state = f"does not load ({fault})" if is_here else "is not installed"
    return EnvironmentFault(f"{why} needs the package {package}, which {state}", remedy=_REMEDY)
