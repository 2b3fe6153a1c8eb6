"""A component as an operating-system process: forked from the supervisor, logging to its own file.

The child runs one asyncio loop, tells the parent through a pipe when it is ready, stops on SIGTERM, and dies with the
parent (PR_SET_PDEATHSIG), so that a killed supervisor leaves nothing behind.
"""

from __future__ import annotations

import asyncio
import contextlib
import ctypes
import gc
import logging
import logging.handlers
import os
import signal
import sys
import traceback
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import NoReturn, Protocol

LOG_BYTES = 8 << 20
_PR_SET_NAME = 15
_PR_SET_PDEATHSIG = 1
READY = b"R"


class Component(Protocol):
    """Something that runs inside an event loop."""

    async def start(self) -> None:
        """Return when it serves; raise when it cannot."""

    async def stop(self) -> None:
        """Finish what is under way and release everything; bounded in time by the component."""


@dataclass(slots=True)
class ComponentProcess:
    """One supervised child.

    ``build`` runs in the child. ``ready_fd`` is the read end of the pipe that carries one byte once it is ready.
    """

    name: str
    build: Callable[[], Component]
    log: Path
    pid: int = 0
    ready_fd: int = -1
    ready: bool = False
    restarts: int = 0
    started_at: float = 0.0
    last_exit: str = ""
    retry_at: float = field(default=0.0)

    @property
    def running(self) -> bool:
        return self.pid != 0

    def spawn(self, now: float) -> None:
        """Fork the child. The caller must be single-threaded."""
        read_end, write_end = os.pipe()
        parent = os.getpid()
        sys.stdout.flush()
        sys.stderr.flush()
        pid = os.fork()
        if pid == 0:
            os.close(read_end)
            _child(self, parent, write_end)
        os.close(write_end)
        self.pid, self.ready_fd, self.ready, self.started_at = pid, read_end, False, now

    def close_pipe(self) -> None:
        if self.ready_fd >= 0:
            os.close(self.ready_fd)
            self.ready_fd = -1


def _child(process: ComponentProcess, parent: int, ready_fd: int) -> NoReturn:
    code = 1
    try:
        for signum in (signal.SIGTERM, signal.SIGINT, signal.SIGHUP, signal.SIGCHLD):
            signal.signal(signum, signal.SIG_DFL)
        signal.signal(signal.SIGINT, signal.SIG_IGN)
        signal.set_wakeup_fd(-1)
        _die_with(parent, process.name)
        _log_to(process.log)
        code = _serve(process.build, ready_fd)
    except BaseException:
        traceback.print_exc()
    finally:
        with contextlib.suppress(Exception):
            sys.stderr.flush()
        os._exit(code)


def _die_with(parent: int, name: str) -> None:
    libc = ctypes.CDLL(None, use_errno=True)
    libc.prctl(_PR_SET_PDEATHSIG, signal.SIGKILL, 0, 0, 0)
    libc.prctl(_PR_SET_NAME, f"bs-{name}"[:15].encode(), 0, 0, 0)
    if os.getppid() != parent:
        os._exit(1)


def _log_to(path: Path) -> None:
    handler = logging.handlers.RotatingFileHandler(path, maxBytes=LOG_BYTES, backupCount=1)
    os.chmod(path, 0o600)
    handler.setFormatter(logging.Formatter("%(levelname).1s %(asctime)s %(name)s] %(message)s"))
    root = logging.getLogger()
    root.handlers[:] = [handler]
    root.setLevel(logging.INFO)
    logging.getLogger("aiohttp.access").setLevel(logging.WARNING)
    stray = os.open(path, os.O_WRONLY | os.O_APPEND | os.O_CREAT, 0o600)
    os.dup2(stray, 1)
    os.dup2(stray, 2)
    os.close(stray)


def _serve(build: Callable[[], Component], ready_fd: int) -> int:
    import uvloop

    async def run() -> int:
        stop = asyncio.Event()
        loop = asyncio.get_running_loop()
        loop.add_signal_handler(signal.SIGTERM, stop.set)
        component = build()
        stopping = asyncio.ensure_future(stop.wait())
        starting = asyncio.ensure_future(component.start())
        await asyncio.wait({starting, stopping}, return_when=asyncio.FIRST_COMPLETED)
        if starting.done():
            starting.result()
            gc.collect()
            gc.freeze()
            os.write(ready_fd, READY)
            os.close(ready_fd)
            await stopping
        else:
            starting.cancel()
            await asyncio.wait({starting})
        await component.stop()
        return 0

    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        return runner.run(run())
