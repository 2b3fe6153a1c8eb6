"""The supervisor: forks the components, restarts those that die, writes what it knows to the status file.

Theory. One single-threaded loop without asyncio, because it forks. It owns a table of `ComponentProcess`; a tick

* reaps children that exited: wait 0.25 s, doubled per restart up to 15 s, then spawn again,
* reads the ready pipes,
* spawns what is due (components after ``first`` only once that one has been ready),
* writes the status file when something changed.

SIGTERM and SIGINT stop the components in the reverse order of their start, each with `STOP_GRACE` seconds before SIGKILL.
The lock file is held through an open descriptor for as long as the supervisor lives, whatever kills it.
"""

from __future__ import annotations

import contextlib
import fcntl
import json
import logging
import os
import select
import signal
import time
from collections.abc import Callable, Iterable
from pathlib import Path
from typing import Any

from bowsprit.cluster.paths import ClusterPaths
from bowsprit.cluster.process import ComponentProcess

log = logging.getLogger(__name__)

STOP_GRACE = 10.0
_BACKOFF_FIRST, _BACKOFF_LAST = 0.25, 15.0
_STABLE_AFTER = 30.0


def lock_holder(paths: ClusterPaths) -> int:
    """The process id of the cluster's running supervisor, 0 when none runs."""
    try:
        descriptor = os.open(paths.lock, os.O_RDONLY)
    except FileNotFoundError:
        return 0
    try:
        fcntl.flock(descriptor, fcntl.LOCK_SH | fcntl.LOCK_NB)
    except BlockingIOError:
        text = os.read(descriptor, 32)
        return int(text) if text.strip().isdigit() else -1
    finally:
        os.close(descriptor)
    return 0


def read_status(paths: ClusterPaths) -> dict[str, Any]:
    """What the supervisor last wrote; empty when there is nothing readable."""
    try:
        value = json.loads(paths.status.read_bytes())
    except (OSError, ValueError):
        return {}
    return value if isinstance(value, dict) else {}


class Supervisor:
    """Runs components until a signal says stop."""

    def __init__(
        self, paths: ClusterPaths, processes: Iterable[ComponentProcess], *, preload: Callable[[], None]
    ) -> None:
        self._paths = paths
        self._processes = list(processes)
        self._preload = preload
        self._preloaded = False
        self._stopping = False
        self._wake_read, self._wake_write = os.pipe()
        os.set_blocking(self._wake_read, False)
        os.set_blocking(self._wake_write, False)
        self._written = b""

    def run(self) -> None:
        """Take the lock, run everything, return when all has stopped.

        Raises:
            BlockingIOError: another supervisor holds the cluster.
        """
        lock = os.open(self._paths.lock, os.O_RDWR | os.O_CREAT, 0o600)
        fcntl.flock(lock, fcntl.LOCK_EX | fcntl.LOCK_NB)
        os.ftruncate(lock, 0)
        os.write(lock, str(os.getpid()).encode())
        signal.set_wakeup_fd(self._wake_write)
        signal.signal(signal.SIGCHLD, lambda *_: None)
        for signum in (signal.SIGTERM, signal.SIGINT):
            signal.signal(signum, self._on_stop)
        signal.signal(signal.SIGHUP, signal.SIG_IGN)
        try:
            self._loop()
            self._stop_all()
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(self._paths.status)
            os.close(lock)

    def _on_stop(self, *_: object) -> None:
        self._stopping = True

    def _loop(self) -> None:
        while not self._stopping:
            now = time.monotonic()
            self._reap(now)
            self._spawn_due(now)
            self._write_status()
            pipes = {process.ready_fd: process for process in self._processes if process.ready_fd >= 0}
            readable, _, _ = select.select([self._wake_read, *pipes], [], [], self._sleep(now))
            for descriptor in readable:
                if descriptor == self._wake_read:
                    with contextlib.suppress(BlockingIOError):
                        os.read(self._wake_read, 4096)
                else:
                    self._read_ready(pipes[descriptor])

    def _read_ready(self, process: ComponentProcess) -> None:
        process.ready = os.read(process.ready_fd, 1) != b""
        process.close_pipe()
        log.info("%s %s", process.name, "is ready" if process.ready else "ended before it was ready")

    def _spawn_due(self, now: float) -> None:
        first = self._processes[0]
        for process in self._processes:
            if process.running or process.retry_at > now:
                continue
            if process is not first and not (first.ready or process.restarts):
                continue
            process.spawn(now)
            log.info("%s started as process %d", process.name, process.pid)
            if process is first and not self._preloaded:
                # While the first one boots, import what the others share: their pages are then shared, too.
                self._preloaded = True
                self._preload()

    def _reap(self, now: float) -> None:
        while True:
            try:
                pid, status = os.waitpid(-1, os.WNOHANG)
            except ChildProcessError:
                return
            if pid == 0:
                return
            for process in self._processes:
                if process.pid == pid:
                    self._exited(process, status, now)

    def _exited(self, process: ComponentProcess, status: int, now: float) -> None:
        code = os.waitstatus_to_exitcode(status)
        process.last_exit = f"exit code {code}" if code >= 0 else f"killed by {signal.Signals(-code).name}"
        process.close_pipe()
        process.pid, process.ready = 0, False
        if now - process.started_at > _STABLE_AFTER:
            process.restarts = 0
        process.retry_at = now + min(_BACKOFF_FIRST * 2**process.restarts, _BACKOFF_LAST)
        process.restarts = min(process.restarts + 1, 30)
        log.warning("%s ended: %s; next start in %.2g s", process.name, process.last_exit, process.retry_at - now)

    def _sleep(self, now: float) -> float | None:
        waiting = [process.retry_at for process in self._processes if not process.running and process.retry_at > now]
        return max(0.0, min(waiting) - now) if waiting else None

    def _stop_all(self) -> None:
        for process in reversed(self._processes):
            if not process.running:
                continue
            os.kill(process.pid, signal.SIGTERM)
            if not self._wait_exit(process, STOP_GRACE):
                log.warning("%s did not stop within %g s, killing it", process.name, STOP_GRACE)
                os.kill(process.pid, signal.SIGKILL)
                self._wait_exit(process, STOP_GRACE)

    def _wait_exit(self, process: ComponentProcess, seconds: float) -> bool:
        deadline = time.monotonic() + seconds
        while time.monotonic() < deadline:
            pid, _ = os.waitpid(process.pid, os.WNOHANG)
            if pid:
                process.pid = 0
                return True
            time.sleep(0.01)
        return False

    def _write_status(self) -> None:
        status = {
            "pid": os.getpid(),
            "components": [
                {
                    "name": process.name,
                    "pid": process.pid,
                    "ready": process.ready,
                    "restarts": process.restarts,
                    "lastExit": process.last_exit,
                }
                for process in self._processes
            ],
        }
        data = json.dumps(status).encode()
        if data != self._written:
            write_atomically(self._paths.status, data)
            self._written = data


def write_atomically(path: Path, data: bytes, mode: int = 0o600) -> None:
    """Replace a file's content so that a reader sees the old or the new, never a part."""
    temporary = path.with_name(f".{path.name}.{os.getpid()}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_TRUNC, mode)
    with os.fdopen(descriptor, "wb") as file:
        file.write(data)
    os.replace(temporary, path)
