"""Names that the service makes: random ids of 128 bits, and the names of tuned models. It knows no store."""

from __future__ import annotations

import re
import secrets
from typing import Final

from hone.errors import ConfigError

FILE: Final = "file-"
JOB: Final = "ftjob-"
EVENT: Final = "ftevent-"
CHECKPOINT: Final = "ftckpt_"
UPLOAD: Final = "upload_"
PART: Final = "part_"
PERMISSION: Final = "perm_"
KEY: Final = "key_"

_ID: Final = re.compile(r"[a-z]+[-_][0-9a-f]{32}")
_OWNER: Final = re.compile(r"[a-z0-9][a-z0-9-]{0,39}")
_NOT_IN_SUFFIX: Final = re.compile(r"[^a-z0-9]+")
_LETTERS: Final = "abcdefghijklmnopqrstuvwxyz0123456789"


def new_id(kind: str) -> str:
    """A new id of a kind, such as `FILE`."""
    return kind + secrets.token_hex(16)


def is_id(text: str, kind: str) -> bool:
    """Whether `text` has the form of an id of that kind; nothing else may become a path."""
    return text.startswith(kind) and _ID.fullmatch(text) is not None


def check_owner(name: str) -> str:
    """`name`, where it can name an owner: it becomes a part of folders and of model names. Raises ConfigError."""
    if not _OWNER.fullmatch(name):
        raise ConfigError(
            f"{name[:60]!r} cannot name an owner of keys",
            remedy="use up to 40 of a-z, 0-9 and -, beginning with a letter or digit",
        )
    return name


def tuned_name(base: str, owner: str, suffix: str | None) -> str:
    """`ft:{base}:{owner}:{suffix}:{8 characters}`, different at every call."""
    root = base.removeprefix("ft:").split(":")[0]
    kept = _NOT_IN_SUFFIX.sub("-", (suffix or "").lower()).strip("-")
    return f"ft:{root}:{owner}:{kept}:" + "".join(secrets.choice(_LETTERS) for _ in range(8))


def checkpoint_name(tuned: str, step: int) -> str:
    """The name under which a checkpoint of a job answers."""
    return f"{tuned}:ckpt-step-{step}"


def calling(owner: str, project: str, name: str) -> str:
    """A trainable model as the servers of the service know it: its owner is part of its name."""
    return f"trainable:{owner}:{project}/{name}"


def split_calling(text: str) -> tuple[str, str, str] | None:
    """Owner, project and name of such a name, None for others."""
    found = re.fullmatch(r"trainable:([^:]*):([^/]*)/(.*)", text)
    return None if found is None else (found[1], found[2], found[3])
