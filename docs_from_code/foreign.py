"""The page of other systems' keys: each with the setting it is here, or why it has no object, or why it is refused."""

from __future__ import annotations

import importlib
from collections.abc import Mapping
from types import ModuleType
from typing import Any

from docs_from_code.configuration import anchor
from docs_from_code.source import escaped, head
from hone.config.dialects import flat, hf_training
from hone.config.dialects.choice import DIALECTS, Dialect

_OPENING = """\
Which keys of other systems' configuration files are read, and what becomes of each. `hone train` takes files of LLaMA-Factory and of
SFT-Play as they are; `hone config convert FILE --from SYSTEM` writes any of these languages in Hone's. A key that is not here is an error with the
nearest one that is.

- **a setting**: the same under another name.
- **taken by its meaning**: several settings follow from it, or its values have other names; `hone config show FILE` says which.
- **no object here**: it changes nothing of the result, and a note says why.
- **refused**: it would change the result and cannot be honoured, unless its value asks for nothing.
"""


def foreign_page() -> str:
    """The page as Markdown."""
    parts = [head("Keys of other systems", _OPENING)]
    for dialect in DIALECTS:
        parts += [f"## {dialect.language}", ""]
        how = f"`hone config convert FILE --from {dialect.name}`"
        parts += [f"Read by `hone train`, and by {how}." if dialect.trains else f"Read by {how}.", ""]  # fmt: skip
        parts += ["| key | what becomes of it |", "|---|---|"]
        tables = _tables(dialect)
        parts += [f"| `{key}` | {_fate(key, tables)} |" for key in sorted(dialect.keys)]
        parts.append("")
    return "\n".join(parts)


def _tables(dialect: Dialect) -> list[ModuleType]:
    """The modules whose tables speak of a language's keys, its own first."""
    own = importlib.import_module(f"hone.config.dialects.{dialect.module}")
    shared = [hf_training] if dialect.keys >= hf_training.KEYS else []
    return [own, *shared] if hasattr(own, "SETTINGS") else [flat]


def _fate(key: str, tables: list[ModuleType]) -> str:
    for module in tables:
        for name in ("SETTINGS", "ADAPTER"):
            known: Mapping[str, str] = getattr(module, name, {})
            if key in known:
                return f"[`{known[key]}`](configuration.md#{anchor(known[key])})"
        idle: Mapping[str, str] = getattr(module, "IDLE", {})
        if key in idle:
            return f"no object here: {escaped(idle[key])}"
        refused: Mapping[str, Any] = getattr(module, "REFUSED", {})
        if key in refused:
            return f"refused: {escaped(refused[key].reason)}; {escaped(refused[key].remedy)}"
    return "taken by its meaning"
