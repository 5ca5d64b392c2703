"""One SQLite file: a connection per thread, short transactions, its schema brought up to date. It knows no record."""

from __future__ import annotations

import contextlib
import json
import sqlite3
import threading
import time
from collections.abc import Callable, Generator, Mapping, Sequence
from pathlib import Path
from typing import Any, Final

from hone.errors import DiskError, EnvironmentFault
from hone.service.tables.schema import VERSIONS

_BUSY_MS: Final = 10_000
_ADVICE: Final = (
    "put back a copy of service.db with its -wal and -shm files, or begin with an empty folder"
)


class StoreBusy(EnvironmentFault):
    """Another process holds the store for longer than one may wait; asking again later helps."""


def now() -> int:
    """The time of the wire, in Unix seconds. Order never hangs on it: clocks jump."""
    return int(time.time())


def to_json(value: object) -> str:
    """A column's JSON; a number that is none is a mistake of ours."""
    return json.dumps(value, ensure_ascii=False, allow_nan=False, separators=(",", ":"))


class Database:
    """`service.db` in `root`, made where it is absent. Raises EnvironmentFault where it cannot be used."""

    def __init__(self, root: Path, *, clock: Callable[[], int] = now) -> None:
        self.root = root
        self.now = clock
        self._here = threading.local()
        self._path = root / "service.db"
        root.mkdir(mode=0o700, parents=True, exist_ok=True)
        with _told(self._path):
            self._migrate()

    @contextlib.contextmanager
    def reading(self) -> Generator[sqlite3.Connection]:
        """A connection that sees one state of the store."""
        with _told(self._path):
            connection = self._connection()
            connection.execute("BEGIN")
            try:
                yield connection
            finally:
                connection.execute("ROLLBACK")

    @contextlib.contextmanager
    def writing(self) -> Generator[sqlite3.Connection]:
        """A connection that alone may write: all of it happens, on disk, or nothing."""
        with _told(self._path):
            connection = self._connection()
            connection.execute("BEGIN IMMEDIATE")
            try:
                yield connection
                connection.execute("COMMIT")
            except BaseException:
                if connection.in_transaction:
                    connection.execute("ROLLBACK")
                raise

    def close(self) -> None:
        """Close this thread's connection; other threads' close with them."""
        connection: sqlite3.Connection | None = getattr(self._here, "connection", None)
        if connection is not None:
            connection.close()
            self._here.connection = None

    def fold(self) -> None:
        """Bring all that stands in the -wal file into service.db itself, as far as nobody else reads now."""
        with _told(self._path):
            self._connection().execute("PRAGMA wal_checkpoint(TRUNCATE)")

    def check(self) -> None:
        """Read the whole file for damage. Raises EnvironmentFault."""
        with self.reading() as connection:
            found = connection.execute("PRAGMA quick_check(1)").fetchone()[0]
        if found != "ok":
            raise EnvironmentFault(
                f"the store is damaged: {found}", where=str(self._path), remedy=_ADVICE
            )

    def _connection(self) -> sqlite3.Connection:
        connection: sqlite3.Connection | None = getattr(self._here, "connection", None)
        if connection is None:
            connection = sqlite3.connect(
                self._path, timeout=_BUSY_MS / 1000, isolation_level=None, check_same_thread=False
            )
            connection.row_factory = sqlite3.Row
            for pragma in ("journal_mode=WAL", "synchronous=FULL", "foreign_keys=ON"):
                connection.execute(f"PRAGMA {pragma}")
            self._here.connection = connection
        return connection

    def _migrate(self) -> None:
        self._path.touch(mode=0o600)
        connection = self._connection()
        if _version(connection) == len(VERSIONS):
            return
        connection.execute("BEGIN IMMEDIATE")
        try:
            found = _version(connection)  # another process may have been quicker
            if found > len(VERSIONS):
                raise EnvironmentFault(
                    f"the store is of version {found}, newer than this Hone knows ({len(VERSIONS)})",
                    where=str(self._path),
                    remedy="use the Hone that wrote it, or a newer one",
                )
            for script in VERSIONS[found:]:
                for statement in script.split(";\n"):
                    connection.execute(statement)
            connection.execute(f"PRAGMA user_version={len(VERSIONS)}")
            connection.execute("COMMIT")
        except BaseException:
            if connection.in_transaction:
                connection.execute("ROLLBACK")
            raise


def insert(connection: sqlite3.Connection, table: str, values: Mapping[str, object]) -> int:
    """Put one row in; the number that it was given. Names are ours, never a client's."""
    marks = ", ".join("?" * len(values))
    words = f"INSERT INTO {table} ({', '.join(values)}) VALUES ({marks})"  # noqa: S608
    row: int | None = connection.execute(words, list(values.values())).lastrowid
    assert row is not None
    return row


def update(
    connection: sqlite3.Connection,
    table: str,
    values: Mapping[str, object],
    where: str,
    *of: object,
) -> int:
    """Change rows; how many. Names are ours, never a client's."""
    sets = ", ".join(f"{name}=?" for name in values)
    words = f"UPDATE {table} SET {sets} WHERE {where}"  # noqa: S608
    return connection.execute(words, [*values.values(), *of]).rowcount


def rows(connection: sqlite3.Connection, words: str, of: Sequence[object] = ()) -> list[Any]:
    """Every row that a question finds."""
    return connection.execute(words, of).fetchall()


def _version(connection: sqlite3.Connection) -> int:
    return int(connection.execute("PRAGMA user_version").fetchone()[0])


@contextlib.contextmanager
def _told(path: Path) -> Generator[None]:
    """SQLite's faults in our words."""
    try:
        yield
    except sqlite3.IntegrityError:
        raise
    except sqlite3.OperationalError as error:
        said = str(error)
        if "locked" in said or "busy" in said:
            raise StoreBusy(
                "the store is in use by another process for too long",
                where=str(path),
                remedy="ask again; if it lasts, see which process holds service.db",
            ) from error
        full = "full" in said
        raise DiskError(
            "the disk of the store is full" if full else f"the store cannot be used: {said}",
            where=str(path),
            remedy="free some space" if full else "check the folder's permissions and its disk",
        ) from error
    except sqlite3.DatabaseError as error:
        raise EnvironmentFault(
            f"the store is damaged: {error}", where=str(path), remedy=_ADVICE
        ) from error
