"""The folder of checkpoints: each complete and verified, or not there. It knows no tensors.

What goes into a checkpoint is written by a callback. The store adds `manifest.json` (name, size and
SHA-256 of every file, the step, the score, the format), and a folder gets its name `step-00000050` only when
all of it lies on the disk. So whatever carries such a name was complete once, and the manifest says whether it
still is.

    .writing-step-00000050   being written                    removed at the next opening
    .replaced-step-00000050  stood there before, same step    put back, or removed
    .removing-step-00000010  on its way out                   removed at the next opening
"""

from __future__ import annotations

import errno
import hashlib
import json
import os
import re
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any, cast

from hone.errors import DiskError, EnvironmentFault
from hone.runs.disk import Disk, disk_error, read_regular, sha256_of
from hone.runs.events import Say

FORMAT = 1
MANIFEST = "manifest.json"
_NAME = re.compile(r"step-(\d{8,})")
_WRITING, _REPLACED, _REMOVING = ".writing-", ".replaced-", ".removing-"


@dataclass(frozen=True)
class Checkpoint:
    """A complete checkpoint: its folder, the number of finished steps, and its score (lower is better)."""

    path: Path
    step: int
    score: float | None


class _Unusable(Exception):
    """Why a folder cannot be used as a checkpoint; never leaves this file."""


class CheckpointStore:
    """The checkpoints of one run. Open it only while holding the run's lock.

    `keep` is how many stay: the newest ones, the best score always among them (so with `keep=1` two may
    stay: the newest and the best).
    """

    def __init__(self, folder: Path, *, keep: int, disk: Disk | None = None) -> None:
        if keep < 1:
            raise ValueError("keep: at least one checkpoint")
        self.folder = folder
        self._keep = keep
        self._disk = disk or Disk()
        self._unusable: set[Path] = set()
        try:
            self._open()
        except OSError as error:
            raise self._error("cannot open the folder of checkpoints", error) from error

    def save(
        self,
        step: int,
        write: Callable[[Path], None],
        *,
        score: float | None = None,
        needed_bytes: int = 0,
    ) -> Checkpoint:
        """Write, verify and name a checkpoint, then let old ones go.

        `write(folder)` puts flat files into an empty folder. Where anything fails, what was there before
        stays and the part that was written is removed.

        Raises DiskError, and whatever `write` raises that is no OSError.
        """
        self.check_space(needed_bytes)
        final = self.folder / f"step-{step:08d}"
        beside = self.folder / f"{_WRITING}{final.name}"
        try:
            self._disk.remove(beside)
            self._disk.make_folder(beside)
            write(beside)
            self._seal(beside, step=step, score=score)
            self._take_name(beside, final)
            self._verify_saved(final)
            self._rotate(newest=step)
        except OSError as error:
            # Asked before the part is removed: this is the room that was not enough.
            failure = self._error("the checkpoint was not saved", error, needed_bytes=needed_bytes)
            self._tidy(beside)
            raise failure from error
        except BaseException:
            self._tidy(beside)
            raise
        return Checkpoint(path=final, step=step, score=score)

    def latest(self, say: Say) -> Checkpoint | None:
        """The newest checkpoint that verifies completely; each one skipped is told as a `notice`."""
        for step, path in sorted(self._named(), reverse=True):
            try:
                return _verify(path)
            except _Unusable as reason:
                self._unusable.add(path)
                say(
                    "notice",
                    code="checkpoint-skipped",
                    message=f"checkpoint of step {step} cannot be used: {reason}; trying an older one",
                )
        return None

    def best(self) -> Checkpoint | None:
        """The complete checkpoint with the lowest score; None where none has one."""
        usable: list[Checkpoint] = []
        for _, path in self._named():
            try:
                usable.append(_verify(path))
            except _Unusable:
                continue
        return _best(usable)

    def check_space(self, each_bytes: int, *, saves: int = 1) -> None:
        """Raise DiskError where there is no room for as many new checkpoints as will lie there at once.

        `saves` are still to come; while the next one is verified, one more than are kept lies there.
        """
        most = max(self._keep, 2) + 1 - len(self)
        needed = each_bytes * max(1, min(saves, most))
        try:
            free = self._disk.free_bytes(self.folder)
        except OSError as error:
            raise self._error("cannot ask for the free space", error) from error
        if free < needed:
            raise DiskError(
                f"not enough space for checkpoints: {needed:,} bytes needed, {free:,} bytes free",
                where=str(self.folder),
                remedy="free some space, lower train.save_total_limit, or choose another output folder; "
                "then run the same command again",
            )

    def __len__(self) -> int:
        return len(self._named())

    def _open(self) -> None:
        """Make the folder, and undo what a killed process left half done."""
        if self.folder.is_symlink():
            raise NotADirectoryError(errno.ENOTDIR, "a symbolic link stands in place of the folder")
        self.folder.mkdir(parents=True, exist_ok=True)
        for path in sorted(self.folder.iterdir()):
            if path.name.startswith(_REPLACED):
                self._settle_replaced(path)
            elif path.name.startswith((_WRITING, _REMOVING)):
                self._disk.remove(path)

    def _settle_replaced(self, aside: Path) -> None:
        """Keep the successor of a checkpoint that stepped aside if it is whole, else put that one back."""
        named = self.folder / aside.name.removeprefix(_REPLACED)
        try:
            _verify(named)
        except _Unusable:
            self._disk.remove(named)
            self._disk.rename(aside, named)
        else:
            self._disk.remove(aside)

    def _seal(self, beside: Path, *, step: int, score: float | None) -> None:
        """Push every file to the disk and write the manifest last."""
        files: list[dict[str, object]] = []
        for path in sorted(beside.iterdir()):
            self._disk.fsync(path)
            files.append(
                {"name": path.name, "size": path.stat().st_size, "sha256": sha256_of(path)}
            )
        manifest = {"format": FORMAT, "step": step, "score": score, "files": files}
        self._disk.write(beside / MANIFEST, _encode(manifest))
        self._disk.fsync(beside / MANIFEST)
        self._disk.fsync_folder(beside)

    def _take_name(self, beside: Path, final: Path) -> None:
        """Rename into place. What stood there (the same step, saved again) steps aside first."""
        aside = self.folder / f"{_REPLACED}{final.name}"
        if os.path.lexists(final):
            self._disk.remove(aside)
            self._disk.rename(final, aside)
        self._disk.rename(beside, final)
        self._disk.fsync_folder(self.folder)
        self._unusable.discard(final)

    def _verify_saved(self, final: Path) -> None:
        aside = self.folder / f"{_REPLACED}{final.name}"
        try:
            _verify(final, from_disk=True)
        except _Unusable as reason:
            self._disk.remove(final)
            if aside.exists():
                self._disk.rename(aside, final)
            raise OSError(
                errno.EIO, f"what was read back is not what was written: {reason}"
            ) from reason
        self._disk.remove(aside)

    def _rotate(self, *, newest: int) -> None:
        """Let go of all but the checkpoints to keep, of broken ones, and of an abandoned future.

        Steps after `newest` belong to a run that was resumed from before them: a later resume must not
        find them.
        """
        usable: list[Checkpoint] = []
        for step, path in self._named():
            if step > newest or path in self._unusable:
                self._let_go(path)
                continue
            try:
                manifest = _read_manifest(path)
            except _Unusable:
                self._let_go(path)
                continue
            if manifest["format"] == FORMAT:  # another version's is neither counted nor removed
                usable.append(Checkpoint(path=path, step=step, score=manifest["score"]))
        usable.sort(key=lambda item: item.step, reverse=True)
        best = _best(usable)
        kept = usable[:1] + ([best] if best and best != usable[0] else [])
        kept += [item for item in usable if item not in kept][: max(0, self._keep - len(kept))]
        for item in usable:
            if item not in kept:
                self._let_go(item.path)

    def _let_go(self, path: Path) -> None:
        """Remove a checkpoint; it loses its name first, so that half of it is never looked at."""
        doomed = self.folder / f"{_REMOVING}{path.name}"
        self._disk.remove(doomed)
        self._disk.rename(path, doomed)
        self._disk.fsync_folder(self.folder)
        self._disk.remove(doomed)
        self._unusable.discard(path)

    def _named(self) -> list[tuple[int, Path]]:
        """(step, path) of everything that carries a checkpoint's name, complete or not."""
        matches = ((_NAME.fullmatch(path.name), path) for path in self.folder.iterdir())
        return sorted((int(match[1]), path) for match, path in matches if match)

    def _tidy(self, beside: Path) -> None:
        try:
            self._disk.remove(beside)
        except OSError:
            return  # the failure that led here is being reported; the next opening removes the rest

    def _error(self, doing: str, error: OSError, *, needed_bytes: int = 0) -> DiskError:
        try:
            free = self._disk.free_bytes(self.folder)
        except OSError:
            free = 0
        return disk_error(doing, error, self.folder, free_bytes=free, needed_bytes=needed_bytes)


def find_latest(folder: Path, say: Say) -> Checkpoint | None:
    """The newest complete checkpoint, for one who reads and does not hold the run's lock.

    Nothing is tidied; each one skipped is told as a `notice`.
    """
    names = (
        [path for path in folder.iterdir() if _NAME.fullmatch(path.name)] if folder.is_dir() else []
    )
    for path in sorted(names, key=lambda path: int(path.name.removeprefix("step-")), reverse=True):
        try:
            return _verify(path)
        except _Unusable as reason:
            message = f"{path.name} cannot be used: {reason}; trying an older one"
            say("notice", code="checkpoint-skipped", message=message)
    return None


def read_checkpoint(path: Path) -> Checkpoint:
    """The checkpoint at `path`, verified. Raises EnvironmentFault where it is not whole."""
    try:
        return _verify(path)
    except _Unusable as reason:
        raise EnvironmentFault(
            f"this checkpoint cannot be used: {reason}",
            where=str(path),
            remedy="name another checkpoint, or the run",
        ) from reason


def _verify(path: Path, *, from_disk: bool = False) -> Checkpoint:
    """Read a whole checkpoint against its manifest; `_Unusable` says what is wrong with it."""
    if path.is_symlink() or not path.is_dir():
        raise _Unusable("it is not a folder")
    manifest = _read_manifest(path)
    if manifest["format"] != FORMAT:
        raise _Unusable(f"its format {manifest['format']!r} is of another version of Hone")
    if f"step-{manifest['step']:08d}" != path.name:
        raise _Unusable(f"its manifest speaks of step {manifest['step']}")
    listed = {str(file["name"]): file for file in manifest["files"]}
    present = {item.name for item in path.iterdir()} - {MANIFEST}
    if missing := sorted(listed.keys() - present):
        raise _Unusable(f"{missing[0]} is missing")
    if extra := sorted(present - listed.keys()):
        raise _Unusable(f"{extra[0]} is not in its manifest")
    for name, file in listed.items():
        _verify_file(path / name, file, from_disk=from_disk)
    return Checkpoint(path=path, step=manifest["step"], score=manifest["score"])


def _verify_file(path: Path, listed: Mapping[str, Any], *, from_disk: bool) -> None:
    if path.is_symlink() or not path.is_file():
        raise _Unusable(f"{path.name} is not a regular file")
    try:
        size, digest = path.stat().st_size, sha256_of(path, from_disk=from_disk)
    except OSError as error:
        raise _Unusable(f"{path.name} cannot be read: {error.strerror}") from error
    if size != listed["size"]:
        raise _Unusable(f"{path.name} has {size:,} bytes instead of {listed['size']:,}")
    if digest != listed["sha256"]:
        raise _Unusable(f"the content of {path.name} has changed")


def _encode(manifest: Mapping[str, object]) -> bytes:
    """The one way to write a manifest, with a hash of itself: so any changed byte shows."""
    body = json.dumps(manifest, sort_keys=True, allow_nan=False)
    sealed = {**manifest, "sha256": hashlib.sha256(body.encode()).hexdigest()}
    return (json.dumps(sealed, sort_keys=True, indent=1, allow_nan=False) + "\n").encode()


def _read_manifest(path: Path) -> dict[str, Any]:
    try:
        data = read_regular(path / MANIFEST)
        parsed: object = json.loads(data)
    except OSError as error:
        raise _Unusable("its manifest is missing or cannot be read") from error
    except ValueError as error:
        raise _Unusable("its manifest is damaged") from error
    if not isinstance(parsed, dict):
        raise _Unusable("its manifest is damaged")
    manifest = cast("dict[str, Any]", parsed)
    manifest.pop("sha256", None)
    if _encode(manifest) != data or not {"format", "step", "score", "files"} <= manifest.keys():
        raise _Unusable("its manifest is damaged")
    return manifest


def _best(checkpoints: list[Checkpoint]) -> Checkpoint | None:
    scored = [(item.score, item.step, item) for item in checkpoints if item.score is not None]
    return min(scored, key=lambda entry: entry[:2])[2] if scored else None
