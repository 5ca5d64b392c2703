"""The run folder: the one file that knows where things lie in it. It knows nothing of what they mean.

run.yaml            the resolved configuration
run.json            identity: fingerprints, versions, precision, threads, budgets
events.jsonl        what happened
ledger.json         what became of every row
lock                who is running it now
checkpoints/        step-00000050/ ...
logs/               rank-0.log ... of a run of several ranks
loss.png            the curve
tracking/           what trackers keep here, and how far each was told
nonfinite-step-*    rows of a step whose loss or gradient was not a number
(the artifact)      in the root, so that the folder is the model
"""

from __future__ import annotations

import json
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any, cast

from hone.errors import DiskError, EnvironmentFault
from hone.runs.checkpoint import CheckpointStore
from hone.runs.disk import Disk, disk_error, read_regular
from hone.runs.events import EventLog
from hone.runs.lock import Owner, RunLock, holder

CONFIG, IDENTITY, EVENTS, LEDGER = "run.yaml", "run.json", "events.jsonl", "ledger.json"
LOCK, CHECKPOINTS, CURVE = "lock", "checkpoints", "loss.png"
TRACKING, LOGS = "tracking", "logs"

_RECORDS = (CONFIG, EVENTS, LEDGER, CURVE, CHECKPOINTS, IDENTITY)
_ARTIFACT = re.compile(
    r"adapter_model\.safetensors|adapter_config\.json|model(-\d+-of-\d+)?\.safetensors"
    r"|model\.safetensors\.index\.json|config\.json|generation_config\.json|tokenizer\.json"
    r"|tokenizer_config\.json|special_tokens_map\.json|added_tokens\.json|vocab\.json|merges\.txt"
    r"|tokenizer\.model|chat_template\.jinja|README\.md|nonfinite-step-\d+\.json"
)


class RunFolder:
    """Paths, and whole-file reads and writes, of one run folder.

    Writes are atomic: a reader finds the old content or the new one. Reads never follow a symbolic link
    out of the folder.
    """

    def __init__(self, path: Path, *, disk: Disk | None = None) -> None:
        self.path = path
        self._disk = disk or Disk()

    @classmethod
    def create(cls, path: Path, *, disk: Disk | None = None) -> RunFolder:
        """The folder of a new run, or of one that goes on. Made where it is absent.

        Raises EnvironmentFault where something else than a run lies there and would be overwritten (a
        model, say), and DiskError where it cannot be made.
        """
        folder = cls(path, disk=disk)
        try:
            path.mkdir(parents=True, exist_ok=True)
            names = {item.name for item in path.iterdir()}
        except OSError as error:
            raise DiskError(
                f"cannot make the output folder: {error.strerror or error}",
                where=str(path),
                remedy="choose another output folder",
            ) from error
        taken = sorted(name for name in names if name in _RECORDS or _ARTIFACT.fullmatch(name))
        if taken and not folder.is_run:
            raise EnvironmentFault(
                f"the output folder holds {taken[0]}, which is not of a run and would be overwritten",
                where=str(path),
                remedy="choose another output folder, or move what is there",
            )
        return folder

    @classmethod
    def open(cls, path: Path) -> RunFolder:
        """The folder of a run that exists; EnvironmentFault where it is none."""
        folder = cls(path)
        if not folder.is_run:
            raise EnvironmentFault(
                "no run lies there",
                where=str(path),
                remedy="see `hone runs list` for what there is",
            )
        return folder

    @property
    def is_run(self) -> bool:
        """Whether a run has begun here."""
        has = {name for name in (CONFIG, IDENTITY, EVENTS, LOCK) if (self.path / name).is_file()}
        return bool(has & {CONFIG, IDENTITY}) or {EVENTS, LOCK} <= has

    @property
    def name(self) -> str:
        """What a user calls the run."""
        return self.path.resolve().name

    @property
    def events_file(self) -> Path:
        """Where `read_events` reads."""
        return self.path / EVENTS

    @property
    def curve_file(self) -> Path:
        """Where the curve is drawn."""
        return self.path / CURVE

    @property
    def checkpoints_folder(self) -> Path:
        """Where the checkpoints lie."""
        return self.path / CHECKPOINTS

    def log_file(self, rank: int) -> Path:
        """Where a rank's own words lie: what it or a library printed."""
        return self.path / LOGS / f"rank-{rank}.log"

    @property
    def tracking_folder(self) -> Path:
        """Where trackers keep local files; made by the first of them."""
        return self.path / TRACKING

    def artifact_files(self) -> list[Path]:
        """The files of the model or adapter in the folder's root, by name."""
        found = (path for path in self.path.iterdir() if path.is_file())
        kept = [path for path in found if _ARTIFACT.fullmatch(path.name)]
        return sorted(path for path in kept if not path.name.startswith("nonfinite-"))

    def lock(self) -> RunLock:
        """The lock to hold while writing anything here."""
        return RunLock(self.path / LOCK)

    def owner(self) -> Owner | None:
        """The live process that runs here now, if any."""
        return holder(self.path / LOCK)

    def events(self) -> EventLog:
        """The log, opened for writing."""
        return EventLog(self.events_file)

    def checkpoints(self, *, keep: int) -> CheckpointStore:
        """The store of checkpoints, opened for writing."""
        return CheckpointStore(self.checkpoints_folder, keep=keep, disk=self._disk)

    def write_config(self, text: str) -> None:
        """Keep the resolved configuration."""
        self._write(CONFIG, text)

    def read_config(self) -> str | None:
        """The configuration's text; None where there is none."""
        data = self._read(CONFIG)
        return None if data is None else data.decode()

    def write_identity(self, identity: Mapping[str, object]) -> None:
        """Keep what a resume must find unchanged."""
        self._write_json(IDENTITY, identity)

    def read_identity(self) -> dict[str, Any] | None:
        """What was kept; None where there is none."""
        return self._read_json(IDENTITY)

    def update_identity(self, **changes: object) -> None:
        """Change some keys of the identity, durably before it returns."""
        self.write_identity({**(self.read_identity() or {}), **changes})

    def write_ledger(self, ledger: Mapping[str, object]) -> None:
        """Keep what became of every row."""
        self._write_json(LEDGER, ledger)

    def read_ledger(self) -> dict[str, Any] | None:
        """What was kept; None where there is none."""
        return self._read_json(LEDGER)

    def write_report(self, name: str, report: Mapping[str, object]) -> Path:
        """Keep a report beside the run, as `<name>.json`, and say where."""
        self._write_json(f"{name}.json", report)
        return self.path / f"{name}.json"

    def _write(self, name: str, text: str) -> None:
        try:
            self._disk.replace_file(self.path / name, text.encode())
        except OSError as error:
            raise self._error(f"cannot write {name}", error) from error

    def _write_json(self, name: str, content: Mapping[str, object]) -> None:
        self._write(name, json.dumps(content, indent=1, ensure_ascii=False, allow_nan=False) + "\n")

    def _read(self, name: str) -> bytes | None:
        path = self.path / name
        if not path.exists() and not path.is_symlink():
            return None
        try:
            return read_regular(path)
        except OSError as error:
            raise self._error(f"cannot read {name}", error) from error

    def _read_json(self, name: str) -> dict[str, Any] | None:
        data = self._read(name)
        if data is None:
            return None
        try:
            parsed: object = json.loads(data)
        except ValueError as error:
            raise EnvironmentFault(
                f"{name} is damaged: {error}",
                where=str(self.path / name),
                remedy="start over with --fresh",
            ) from error
        return cast("dict[str, Any]", parsed)

    def _error(self, doing: str, error: OSError) -> DiskError:
        try:
            free = self._disk.free_bytes(self.path)
        except OSError:
            free = 0
        return disk_error(doing, error, self.path, free_bytes=free)


def find_runs(root: Path) -> list[RunFolder]:
    """The runs that lie directly in `root`, by name."""
    if not root.is_dir():
        return []
    folders = (RunFolder(path) for path in sorted(root.iterdir()) if path.is_dir())
    return [folder for folder in folders if folder.is_run]
