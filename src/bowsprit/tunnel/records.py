"""Detached tunnels, remembered in ``$XDG_STATE_HOME/bowsprit/tunnels`` (``BOWSPRIT_HOME`` overrides).

A tunnel's process holds a lock on its record for as long as it lives and rewrites the record's status once a second
while something changes; a record without a lock belongs to a process that died: whoever sees it undoes what that process
had changed in the kubeconfig and removes it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import os
import signal
import time
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bowsprit.tunnel.contexts import ContextChange
from bowsprit.tunnel.errors import TunnelError


def records_folder(environ: dict[str, str] | None = None) -> Path:
    """Where the records are."""
    env = os.environ if environ is None else environ
    if home := env.get("BOWSPRIT_HOME"):
        return Path(home).expanduser() / "tunnels"
    return Path(env.get("XDG_STATE_HOME") or "~/.local/state").expanduser() / "bowsprit" / "tunnels"


@dataclass(frozen=True, slots=True)
class TunnelRecord:
    """What is known of a tunnel from outside its process. ``facts`` holds the last status as written."""

    name: str
    pid: int
    alive: bool
    facts: dict[str, Any]


class RecordFile:
    """The record of this process's own tunnel."""

    def __init__(self, name: str) -> None:
        folder = records_folder()
        folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        self._path = folder / f"{check_tunnel_name(name)}.json"
        self._lock = _take_lock(folder / f"{name}.lock", name)
        if self._path.exists():  # of a process that was killed
            undo_facts(_read_facts(self._path))
        os.ftruncate(self._lock, 0)
        os.write(self._lock, str(os.getpid()).encode())

    def write(self, facts: dict[str, Any]) -> None:
        """Replace the record."""
        temporary = self._path.with_suffix(".tmp")
        descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
        with os.fdopen(descriptor, "w") as file:
            json.dump(facts, file)
        os.replace(temporary, self._path)

    def remove(self) -> None:
        """Forget the tunnel."""
        with contextlib.suppress(FileNotFoundError):
            self._path.unlink()
        with contextlib.suppress(FileNotFoundError):
            self._path.with_suffix(".lock").unlink()
        self.release()

    def release(self) -> None:
        """Leave the record to whoever comes next, as a killed process would."""
        os.close(self._lock)


def _take_lock(path: Path, name: str) -> int:
    while True:
        descriptor = os.open(path, os.O_RDWR | os.O_CREAT, 0o600)
        try:
            fcntl.flock(descriptor, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError as exc:
            os.close(descriptor)
            raise TunnelError(
                f"a tunnel called {name!r} is already open",
                reason="AlreadyOpen",
                hint=f"bowsprit tunnel close {name}, or choose another name with --name",
            ) from exc
        with contextlib.suppress(FileNotFoundError):
            if os.stat(path).st_ino == os.fstat(descriptor).st_ino:
                return descriptor
        os.close(descriptor)  # its last owner removed the file while we waited for it


def check_tunnel_name(name: str) -> str:
    """Return a name that may become a file name.

    Raises:
        TunnelError: it may not.
    """
    if (
        not name
        or len(name) > 60
        or not all(c.isascii() and (c.isalnum() or c in "-._") for c in name)
        or name[0] in "-."
    ):
        raise TunnelError(
            f"{name!r} is not a tunnel name", reason="InvalidName", hint="use letters, digits, '-', '.' and '_'"
        )
    return name


def list_records() -> list[TunnelRecord]:
    """All tunnels with a record, by name; records of dead processes are still listed, with ``alive`` false."""
    folder = records_folder()
    if not folder.is_dir():
        return []
    return [record for path in sorted(folder.glob("*.json")) if (record := read_record(path.stem))]


def read_record(name: str) -> TunnelRecord | None:
    """One tunnel's record, None when there is none."""
    path = records_folder() / f"{check_tunnel_name(name)}.json"
    facts = _read_facts(path)
    if facts is None:
        return None
    pid = _lock_holder(path.with_suffix(".lock"))
    return TunnelRecord(name, pid, pid > 0, facts)


def close_record(name: str, *, seconds: float = 10.0) -> bool:
    """End a tunnel's process and forget it; False when it had died before.

    Raises:
        TunnelError: there is no such tunnel, or it does not end.
    """
    record = read_record(name)
    if record is None:
        known = ", ".join(other.name for other in list_records())
        raise TunnelError(
            f"there is no tunnel {name!r}", reason="TunnelNotFound", hint=f"open tunnels: {known or 'none'}"
        )
    if record.alive:
        os.kill(record.pid, signal.SIGTERM)
        deadline = time.monotonic() + seconds
        while _lock_holder(records_folder() / f"{name}.lock") > 0:
            if time.monotonic() > deadline:
                raise TunnelError(f"the tunnel's process {record.pid} does not end", reason="CloseTimeout")
            time.sleep(0.02)
    if not record.alive:
        repair_record(record)
    return record.alive


def repair_record(record: TunnelRecord) -> None:
    """Undo what the process of a dead record changed, and forget it."""
    undo_facts(record.facts)
    for suffix in (".json", ".lock"):
        with contextlib.suppress(FileNotFoundError):
            (records_folder() / f"{record.name}{suffix}").unlink()


def undo_facts(facts: dict[str, Any] | None) -> None:
    """Undo the kubeconfig change that a record tells of."""
    if facts and facts.get("undo"):
        ContextChange.from_facts(facts["undo"]).undo()


def _read_facts(path: Path) -> dict[str, Any] | None:
    try:
        facts = json.loads(path.read_bytes())
    except (OSError, ValueError):
        return None
    return facts if isinstance(facts, dict) else None


def _lock_holder(path: Path) -> int:
    try:
        descriptor = os.open(path, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 32)
        return int(text) if text.isdigit() else 0
    finally:
        os.close(descriptor)
    return 0
