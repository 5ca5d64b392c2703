"""Publishing a folder to the hub: what would go up, told before anything does. It asks nobody and prints nothing."""

from __future__ import annotations

import re
from dataclasses import dataclass
from pathlib import Path
from typing import Any, Final

from hone.errors import ConfigError
from hone.infer.place import find_place
from hone.models.publishing import is_private, require_token, upload

_REPO: Final = re.compile(r"[\w.-]+/[\w.-]+")
_PUBLISHED: Final = re.compile(
    r"README\.md|Modelfile|[\w.-]+\.gguf|adapter_model\.safetensors|adapter_config\.json"
    r"|model(-\d+-of-\d+)?\.safetensors|model\.safetensors\.index\.json|config\.json|generation_config\.json"
    r"|tokenizer\.json|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt"
    r"|tokenizer\.model|chat_template\.jinja"
)
"""Nothing else of a folder ever goes up: no events, no rows, no settings file."""


@dataclass(frozen=True)
class Parcel:
    """What would go up, and where to."""

    folder: Path
    repo: str
    files: tuple[tuple[str, int], ...]
    """Names and bytes."""
    left_out: tuple[str, ...]
    """What lies in the folder and stays here."""
    private: bool
    """Whether the repository will be private."""
    is_new: bool
    replaces_visibility: bool = False
    """Whether what was asked of a repository that is there already differs from what it is."""

    @property
    def num_bytes(self) -> int:
        """Bytes of all files."""
        return sum(size for _, size in self.files)

    def to_json(self) -> dict[str, Any]:
        """As plain JSON."""
        return {
            "folder": str(self.folder),
            "repo": self.repo,
            "files": [{"name": name, "bytes": size} for name, size in self.files],
            "left_out": list(self.left_out),
            "bytes": self.num_bytes,
            "private": self.private,
            "new": self.is_new,
        }


def is_ready(folder: Path) -> bool:
    """Whether a folder is one that `hone export` or `hone merge` wrote, to go up as it stands."""
    named = [path.name for path in folder.iterdir()] if folder.is_dir() else []
    weights = any(name.endswith((".safetensors", ".gguf")) for name in named)
    return weights and "README.md" in named and "run.json" not in named and "run.yaml" not in named


def prepare(
    name: str, repo: str, *, public: bool = False, base_id: str | None = None, merged: bool = False
) -> Parcel:
    """Find out what would go up: the folder `name` as it stands where it was exported, else the run's `hub` form.

    A run's `hub` folder is made where it is absent. The hub is asked whether the repository is there. Raises
    ConfigError without a token, RemoteError, and what exporting raises.
    """
    require_token()
    if not _REPO.fullmatch(repo):
        raise ConfigError(f"not the name of a repository: {repo!r}", remedy="write it as USER/NAME")
    folder = Path(name).expanduser()
    if not is_ready(folder):
        folder = _hub_folder(name, base_id=base_id, merged=merged)
    elif base_id is not None or merged:
        raise ConfigError(
            "--base and --merged make a folder for the hub, and this one is made already",
            where=str(folder),
            remedy="name the run, or leave them out",
        )
    inside = sorted(path for path in folder.iterdir())
    files = tuple((p.name, p.stat().st_size) for p in inside if _goes_up(p))
    known = is_private(repo)
    return Parcel(
        folder,
        repo,
        files,
        tuple(p.name for p in inside if not _goes_up(p)),
        private=not public if known is None else known,
        is_new=known is None,
        replaces_visibility=known is not None and known == public,
    )


def push(parcel: Parcel) -> str:
    """Send it; returns the address. Raises ConfigError and RemoteError."""
    return upload(
        parcel.folder,
        parcel.repo,
        names=[name for name, _ in parcel.files],
        private=parcel.private,
        message="Upload by Hone",
    )


def _goes_up(path: Path) -> bool:
    return path.is_file() and not path.is_symlink() and bool(_PUBLISHED.fullmatch(path.name))


def _hub_folder(name: str, *, base_id: str | None, merged: bool) -> Path:
    """The run's folder for the hub, made now where it is not there."""
    place = find_place(name)
    folder = place.folder / "hub"
    if is_ready(folder):
        if base_id is not None or merged:
            raise ConfigError(
                "the folder for the hub is made already, perhaps otherwise",
                where=str(folder),
                remedy=f"push it as it is (hone push {folder}), or remove it first",
            )
        return folder
    from hone.recipes.export import Wanted, export  # torch, which a folder that is ready needs not

    return export(name, Wanted("hub", base_id=base_id, merged=merged)).folder
