"""What whoever runs the service decides: base models, limits, targets. It knows no requests."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, Final

from hone.errors import ConfigError

_NOT_IN_A_NAME: Final = frozenset(":@= \t\n")


@dataclass(frozen=True)
class Operator:
    """The service as it is set up."""

    models: Mapping[str, str] = field(default_factory=dict[str, str])
    """Base models: the name that clients use, and the folder or hub id behind it."""
    allowed: Sequence[str] | None = None
    """Settings of Hone that a job may say, as patterns; None: those that are harmless to others."""
    settings: Mapping[str, Any] = field(default_factory=dict[str, Any])
    """Settings of Hone for every job, by their dotted names, which a job's own go before."""
    webhooks: Sequence[str] = ()
    """Addresses that hear of the end of every job."""
    most_body_bytes: int = 16 * 2**20
    """Largest body of a request that is no upload."""
    checking_bytes: int = 256 * 2**10
    """Files up to this size are checked while their upload is answered, larger ones afterwards."""


def named_models(words: Sequence[str]) -> dict[str, str]:
    """`NAME=FOLDER_OR_HUB_ID` or either alone, as a table; a folder alone is named by its last part. Raises ConfigError."""
    found: dict[str, str] = {}
    for word in words:
        name, equals, target = word.partition("=")
        if not equals or Path(word).expanduser().exists():
            target = word
            folder = Path(word).expanduser()
            name = folder.resolve().name if folder.is_dir() else word
        if not name or not target or _NOT_IN_A_NAME & set(name) or name.startswith("ft:"):
            raise ConfigError(
                f"--model {word!r} does not name a model",
                remedy="write NAME=FOLDER or NAME=HUB_ID; a name holds no ':', '@' or blank",
            )
        if name in found and found[name] != target:
            raise ConfigError(f"two base models are called {name!r}", remedy="write NAME=FOLDER")
        folder = Path(target).expanduser()
        found[name] = str(folder.resolve()) if folder.is_dir() else target
    return found
