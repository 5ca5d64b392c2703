"""The environment that a process started by Hone gets: all of this one's but what is named like a secret."""

from __future__ import annotations

import re
from collections.abc import Mapping
from pathlib import Path
from typing import Final

import hone

_SECRET: Final = re.compile(r"TOKEN|KEY|SECRET|PASSWORD|PASSWD|CREDENTIAL", re.IGNORECASE)
_NO_SECRETS: Final = frozenset({"TOKENIZERS_PARALLELISM"})


def is_secret(name: str) -> bool:
    """Whether a variable of this name may hold a secret."""
    return name not in _NO_SECRETS and _SECRET.search(name) is not None


def child_environment(environment: Mapping[str, str]) -> dict[str, str]:
    """`environment` without secrets, with a PYTHONPATH under which a child finds this very package."""
    kept = {name: value for name, value in environment.items() if not is_secret(name)}
    package = str(Path(hone.__file__).resolve().parents[1])
    said = environment.get("PYTHONPATH")
    # As of the command itself (`hone.cli.main`): threads that wait for each other sleep instead of spinning.
    kept.setdefault("OMP_WAIT_POLICY", "PASSIVE")
    return {**kept, "PYTHONPATH": f"{package}:{said}" if said else package}
