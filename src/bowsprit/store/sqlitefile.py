"""The SQLite file: its schema, opening and checking it, and the statements on it. Used by one thread.

    log(revision, key, previous, deleted, sum, value)   one row per write; `previous` is the revision it replaced (0: none)
    meta(name, value)                                   'compacted': the oldest revision that can be read

`sum` is the CRC-32 of key and value: SQLite's own checks see a torn page, not a flipped bit.
"""

from __future__ import annotations

import contextlib
import os
import sqlite3
from collections.abc import Iterable, Sequence
from dataclasses import dataclass
from pathlib import Path
from sys import intern
from zlib import crc32

from bowsprit.store.protocol import FIRST_REVISION, Entry, Event, StoreDamagedError, StoreError

APPLICATION_ID = 0x626F7773  # "bows"
# user_version -> statements that bring the version before it there.
MIGRATIONS: dict[int, Sequence[str]] = {
    1: (
        """CREATE TABLE log (
            revision INTEGER PRIMARY KEY,
            key TEXT NOT NULL,
            previous INTEGER NOT NULL,
            deleted INTEGER NOT NULL,
            sum INTEGER NOT NULL,
            value BLOB NOT NULL
        )""",
        "CREATE INDEX log_key ON log (key, revision)",
        "CREATE TABLE meta (name TEXT PRIMARY KEY, value INTEGER NOT NULL) WITHOUT ROWID",
        f"INSERT INTO meta VALUES ('compacted', {FIRST_REVISION})",
    ),
}
VERSION = max(MIGRATIONS)
_HINT = "restore a copy, or remove the file and start empty"


@dataclass(slots=True)
class State:
    """What a fresh store begins with."""

    connection: sqlite3.Connection
    index: dict[str, int]  # key -> its newest revision, without the deleted ones
    revision: int
    compacted: int


def open_file(path: Path) -> State:
    """Opens, checks and migrates; the file stays locked to this connection. Raises StoreDamagedError, StoreError."""
    try:
        path = path.expanduser()
        path.parent.mkdir(parents=True, exist_ok=True)
        with contextlib.suppress(FileExistsError):
            os.close(os.open(path, os.O_CREAT | os.O_EXCL | os.O_RDWR, 0o600))  # secrets live in it
    except OSError as failure:
        raise StoreError(f"{path}: cannot create the store: {failure.strerror}") from failure
    connection = None
    try:
        connection = sqlite3.connect(path, isolation_level=None, check_same_thread=False, timeout=1.0)
        connection.execute("PRAGMA locking_mode = EXCLUSIVE")
        _check(path, connection)
        connection.execute("PRAGMA journal_mode = WAL")
        connection.execute("PRAGMA synchronous = FULL")
        connection.execute("PRAGMA cache_size = -8192")
        _migrate(connection)
        return _load(connection)
    except BaseException as failure:
        if connection is not None:
            connection.close()
        if isinstance(failure, sqlite3.OperationalError) and "locked" in str(failure):
            raise StoreError(f"{path}: another process has the store open; stop it, or name another file") from failure
        if isinstance(failure, sqlite3.DatabaseError):
            raise StoreDamagedError(f"{path}: the store is damaged: {failure}; {_HINT}") from failure
        raise


def _check(path: Path, connection: sqlite3.Connection) -> None:
    application_id = connection.execute("PRAGMA application_id").fetchone()[0]
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    tables = connection.execute("SELECT count(*) FROM sqlite_master").fetchone()[0]
    if application_id != APPLICATION_ID and (tables or application_id or version):
        raise StoreDamagedError(f"{path}: this SQLite file belongs to another program; name another file")
    if version > VERSION:
        raise StoreDamagedError(
            f"{path}: the store has format {version}, this version knows up to {VERSION}; use a newer version"
        )
    faults = [row[0] for row in connection.execute("PRAGMA quick_check(3)")]
    if faults != ["ok"]:
        raise StoreDamagedError(f"{path}: the store is damaged: {'; '.join(faults)}; {_HINT}")


def _migrate(connection: sqlite3.Connection) -> None:
    version = connection.execute("PRAGMA user_version").fetchone()[0]
    for target in range(version + 1, VERSION + 1):
        connection.execute("BEGIN IMMEDIATE")
        for statement in MIGRATIONS[target]:
            connection.execute(statement)
        connection.execute(f"PRAGMA application_id = {APPLICATION_ID}")
        connection.execute(f"PRAGMA user_version = {target}")
        connection.execute("COMMIT")


def _load(connection: sqlite3.Connection) -> State:
    index = {}
    newest = connection.execute("SELECT key, max(revision), deleted FROM log GROUP BY key")
    for key, revision, deleted in newest:
        if not deleted:
            index[intern(key)] = revision
    compacted = connection.execute("SELECT value FROM meta WHERE name = 'compacted'").fetchone()[0]
    last = connection.execute("SELECT max(revision) FROM log").fetchone()[0] or 0
    return State(connection, index, max(last, compacted), compacted)


def append(connection: sqlite3.Connection, events: Iterable[tuple[Event, int]]) -> None:
    """Writes the events as one durable transaction."""
    rows = [
        (entry.revision, entry.key, previous, int(deleted), _sum(entry.key, entry.value), entry.value)
        for (entry, deleted), previous in events
    ]
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.executemany("INSERT INTO log VALUES (?, ?, ?, ?, ?, ?)", rows)
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def get(connection: sqlite3.Connection, key: str) -> Entry | None:
    row = connection.execute(
        "SELECT revision, deleted, sum, value FROM log WHERE key = ? ORDER BY revision DESC LIMIT 1", (key,)
    ).fetchone()
    if row is None or row[1]:
        return None
    return _entry(key, row[0], row[2], row[3])


def list_at(
    connection: sqlite3.Connection, prefix: str, revision: int, limit: int, after: str | None
) -> tuple[list[Entry], int]:
    """Entries below the prefix as of `revision`, and how many follow the last one."""
    rows = connection.execute(
        """SELECT key, revision, sum, value FROM log AS l
           WHERE key > ? AND key < ? AND deleted = 0
             AND revision = (SELECT max(revision) FROM log WHERE key = l.key AND revision <= ?)
           ORDER BY key""",
        (prefix if after is None else max(after, prefix), prefix + "\U0010ffff", revision),
    )
    entries: list[Entry] = []
    remaining = 0
    for key, at, checksum, value in rows:
        if limit and len(entries) >= limit:
            remaining += 1
            continue
        entries.append(_entry(intern(key), at, checksum, value))
    return entries, remaining


def history(connection: sqlite3.Connection, prefix: str, since: int) -> list[Event]:
    """Every event below the prefix behind `since`, in order."""
    rows = connection.execute(
        "SELECT key, revision, sum, value, deleted FROM log WHERE revision > ? ORDER BY revision", (since,)
    )
    return [
        Event(_entry(intern(key), revision, checksum, value), bool(deleted))
        for key, revision, checksum, value, deleted in rows
        if key.startswith(prefix)
    ]


def compact(connection: sqlite3.Connection, begin: int, end: int) -> None:
    """Deletes what writes in (begin, end] replaced, and those of them that are deletions."""
    connection.execute("BEGIN IMMEDIATE")
    try:
        connection.execute(
            "DELETE FROM log WHERE revision IN (SELECT previous FROM log WHERE revision > ? AND revision <= ?)",
            (begin, end),
        )
        connection.execute("DELETE FROM log WHERE revision > ? AND revision <= ? AND deleted = 1", (begin, end))
        connection.execute("UPDATE meta SET value = ? WHERE name = 'compacted'", (end,))
        connection.execute("COMMIT")
    except BaseException:
        if connection.in_transaction:
            connection.execute("ROLLBACK")
        raise


def close_file(connection: sqlite3.Connection) -> None:
    """Folds the write-ahead log into the file and lets go of it."""
    connection.execute("PRAGMA wal_checkpoint(TRUNCATE)")
    connection.close()


def _sum(key: str, value: bytes) -> int:
    return crc32(value, crc32(key.encode()))


def _entry(key: str, revision: int, checksum: int, value: bytes) -> Entry:
    if _sum(key, value) != checksum:
        raise StoreDamagedError(f"the store is damaged: revision {revision} of {key} fails its checksum; {_HINT}")
    return Entry(key, value, revision)
