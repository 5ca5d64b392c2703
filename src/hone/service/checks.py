"""The checks of files, each in a process of its own: a file may be large, and what is in it is a stranger's.

A few run at once, the smallest file first, so that nobody's small file waits for another's large one. It knows no HTTP.
"""

from __future__ import annotations

import logging
import os
import subprocess
import sys
import tempfile
import time
from dataclasses import dataclass
from typing import IO, Final

from hone.config.surroundings import child_environment
from hone.service.records import StoredFile
from hone.service.store import Store

logger = logging.getLogger("hone")

_AT_ONCE: Final = 2
_CHECK_S: Final = 3600.0
_KEPT: Final = ("LANG", "LC_ALL", "LD_LIBRARY_PATH", "PATH", "PYTHONPATH", "TMPDIR", "VIRTUAL_ENV")


@dataclass
class _Check:
    process: subprocess.Popen[bytes]
    said: IO[bytes]
    until: float


class Checks:
    """Those that run; `look` is called again and again."""

    def __init__(self, store: Store) -> None:
        self._store = store
        self._running: dict[str, _Check] = {}

    def look(self) -> None:
        """Hear of the checks that have ended, and begin others."""
        for file, check in list(self._running.items()):
            if check.process.poll() is None and time.monotonic() > check.until:
                check.process.kill()
                check.process.wait()
                self._failed(file, f"it took longer than {_CHECK_S:.0f} s")
            elif check.process.poll():
                check.said.seek(0)
                self._failed(file, check.said.read().decode("utf-8", "replace").strip()[-500:])
            if check.process.poll() is not None:
                del self._running[file]
                check.said.close()
        waiting = [one for one in self._store.unchecked_files() if one.id not in self._running]
        for one in sorted(waiting, key=lambda file: file.bytes):
            if len(self._running) >= _AT_ONCE:
                return
            self._begin(one)

    def end(self) -> None:
        """Leave no process behind; what was not checked is checked by the next server."""
        for check in self._running.values():
            check.process.kill()
            check.process.wait()
            check.said.close()
        self._running.clear()

    def _begin(self, file: StoredFile) -> None:
        words = [sys.executable, "-m", "hone.service.checking", str(self._store.root), file.id]
        known = child_environment(os.environ)
        said = tempfile.TemporaryFile()  # noqa: SIM115 - closed when the check has ended
        process = subprocess.Popen(  # noqa: S603 - words of ours
            words,
            env={name: known[name] for name in _KEPT if name in known},
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=said,
        )
        self._running[file.id] = _Check(process, said, time.monotonic() + _CHECK_S)

    def _failed(self, file: str, said: str) -> None:
        logger.error("checking %s failed: %s", file, said)
        self._store.judge_file(
            file, "error", None, "the file could not be checked; upload it again"
        )
