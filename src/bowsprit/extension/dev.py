"""``extension run --dev``: the server in a process of its own, registered in a cluster, started again when its source changes.

The app is imported in the child only, so that every start sees the source as it is. The child says on a pipe what it serves;
the parent registers that, and takes the registration back whenever nothing is served: a registered server that does not
answer holds up a whole cluster.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import os
import signal
import sys
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any, cast

from bowsprit.client.config import RestConfig
from bowsprit.client.rest import RestClient
from bowsprit.extension.app import App
from bowsprit.extension.errors import ExtensionError
from bowsprit.extension.loading import INSTALLED
from bowsprit.extension.registration import Registration
from bowsprit.machinery.names import GroupVersion

READY_FD = "BOWSPRIT_READY_FD"  # environment variable: where a server says that it serves
PARENT = "BOWSPRIT_PARENT"  # environment variable: the process that it must not outlive
_LOOK_EVERY = 0.5
_MOST_FILES = 2000
_STOP_SECONDS = 35.0
_PR_SET_PDEATHSIG = 1


@dataclass(frozen=True, slots=True)
class Served:
    """What a child says when it serves; all that a registration needs of an app."""

    name: str
    group_versions: list[GroupVersion]
    port: int
    ca_bundle: bytes
    files: frozenset[str] = field(default=frozenset(), compare=False)  # that it has imported


def announce(app: App, port: int, ca_bundle: bytes) -> None:
    """Says that the server serves, to whoever has started this process and wants to know."""
    number = os.environ.pop(READY_FD, "")
    if number:
        gvs = [gv.api_version for gv in app.group_versions]
        line = json.dumps(
            {"name": app.name, "groupVersions": gvs, "port": port, "ca": ca_bundle.decode(), "files": imported_files()}
        )
        with os.fdopen(int(number), "w") as pipe:
            pipe.write(line + "\n")


def end_with_parent() -> None:
    """Makes the kernel end this process when the one that started it is gone, however that ends."""
    import ctypes

    with contextlib.suppress(OSError, AttributeError):
        ctypes.CDLL(None).prctl(_PR_SET_PDEATHSIG, signal.SIGTERM)
    if str(os.getppid()) != os.environ.get(PARENT):
        os.kill(os.getpid(), signal.SIGTERM)  # it went before we could ask


def source_state(file: Path, imported: frozenset[str] = frozenset()) -> dict[str, tuple[int, int]]:
    """Modification times and sizes of the Python files in and below a file's folder; of those imported, if that is known."""
    if imported:
        return {path: found for path in imported if (found := _state(path)) is not None}
    state: dict[str, tuple[int, int]] = {}
    for folder, folders, names in os.walk(file.parent):
        folders[:] = [each for each in folders if not each.startswith((".", "__pycache__")) and each not in _NO_SOURCE]
        for name in names:
            if name.endswith(".py"):
                path = os.path.join(folder, name)
                if (found := _state(path)) is not None:
                    state[path] = found
        if len(state) > _MOST_FILES:
            break
    return state


def _state(path: str) -> tuple[int, int] | None:
    try:
        info = os.stat(path)
    except OSError:
        return None
    return info.st_mtime_ns, info.st_size


def imported_files() -> list[str]:
    """The source files of this process that an author may change: not those of installed packages."""
    files = (getattr(module, "__file__", None) for module in list(sys.modules.values()))
    return sorted(file for file in files if file and file.endswith(".py") and not file.startswith(INSTALLED))


_NO_SOURCE = frozenset({"node_modules", "venv", "site-packages"})


class Development:
    """One run of ``--dev``.

    Args:
        arguments: of the child: a command that serves the app and calls `announce`.
        source: the app's file, whose folder is watched.
        config: the cluster to register in.
        host: where that cluster reaches this host; "": found out.
        port: of the server; 0: any free one, the same at every start.
        say: prints a line for people.
    """

    def __init__(
        self,
        arguments: Sequence[str],
        source: Path,
        config: RestConfig,
        host: str,
        port: int,
        say: Callable[[str], None],
    ) -> None:
        self._arguments = list(arguments)
        self._source = source
        self._config = config
        self._host = host
        self._say = say
        self._registration: Registration | None = None
        self._registered: Served | None = None
        self._port = port
        self._started = False

    async def run(self, stop: asyncio.Event) -> None:
        """Until `stop` is set. Raises ExtensionError when the first start or registration fails."""
        stopping: asyncio.Future[Any] = asyncio.ensure_future(stop.wait())
        with tempfile.TemporaryDirectory(prefix="bowsprit-dev-") as folder:
            async with RestClient(self._config) as client:
                try:
                    while not stop.is_set():
                        await self._one_start(client, Path(folder), stopping)
                finally:
                    stopping.cancel()
                    await self._withdraw()

    async def _one_start(self, client: RestClient, folder: Path, stopping: asyncio.Future[Any]) -> None:
        """A child from its start to a change of the source, its end, or ours."""
        before = source_state(self._source)
        child, served = await self._start(folder)
        ended: asyncio.Future[Any] = asyncio.ensure_future(child.wait())
        changed: asyncio.Future[Any] = asyncio.ensure_future(self._change(before, served))
        try:
            await asyncio.wait({served, ended, changed, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if served.done() and served.result() is not None:
                await self._publish(client, cast(Served, served.result()))
            if not changed.done():
                # A child that has closed its pipe without a word is about to end.
                await asyncio.wait({ended, changed, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if ended.done() and not stopping.done():
                if not self._started:
                    raise ExtensionError(
                        "the server has not started", reason="NotStarted", hint="its own words are above"
                    )
                await self._withdraw()
                self._say(
                    f"the server has ended (exit code {child.returncode}); waiting for a change of {self._source.name}"
                )
                await asyncio.wait({changed, stopping}, return_when=asyncio.FIRST_COMPLETED)
            if changed.done() and not stopping.done():
                self._say(f"{changed.result()} has changed: starting again")
        finally:
            await _end(child, ended)
            for task in (served, changed):
                task.cancel()
            await asyncio.gather(served, changed, return_exceptions=True)

    async def _start(self, folder: Path) -> tuple[asyncio.subprocess.Process, asyncio.Future[Any]]:
        reading, writing = os.pipe()
        port = ["--secure-port", str(self._port), "--cert-dir", str(folder)]
        try:
            child = await asyncio.create_subprocess_exec(
                sys.executable,
                "-m",
                "bowsprit",
                *self._arguments,
                *port,
                env={**os.environ, READY_FD: str(writing), PARENT: str(os.getpid())},
                pass_fds=(writing,),
                start_new_session=True,  # Ctrl-C is for us, who end the child in order
            )
        except BaseException:
            os.close(reading)
            raise
        finally:
            os.close(writing)
        return child, asyncio.ensure_future(_announced(reading))

    async def _change(self, before: dict[str, tuple[int, int]], served: asyncio.Future[Any]) -> str:
        """The name of the file that changed: one that is imported, or any of the folder while that is not known."""
        while True:
            await asyncio.sleep(_LOOK_EVERY)
            known: Served | None = served.result() if served.done() else None
            if known is not None and known.files:
                now = source_state(self._source, known.files)
                before = {path: before.get(path, now.get(path, (0, 0))) for path in known.files}
            else:
                now = source_state(self._source)
            if now != before:
                different = sorted({*now, *before} - {path for path in now if now[path] == before.get(path)})
                return Path(different[0]).name

    # -- registration --------------------------------------------------------------------------------------------------

    async def _publish(self, client: RestClient, served: Served) -> None:
        again = served == self._registered
        registration = self._registration if again else None
        if registration is None:
            registration = Registration(client, cast(App, served), self._host, served.port, served.ca_bundle)
        try:
            # Again too: the core may have noticed that nobody answered for a moment, and must notice that somebody does.
            await registration.register()
        except ExtensionError as failure:
            self._registration = self._registered = None
            if not self._started:
                raise
            self._say(f"{failure.message}; waiting for a change of {self._source.name}")
            return
        first = self._registered is None
        self._port, self._started = served.port, True
        self._registration, self._registered = registration, served
        names = ", ".join(gv.api_version for gv in served.group_versions)
        where = f"{registration.address}:{served.port}"
        self._say(
            "serving again" if again else f"{names} {'is' if first else 'is now'} served from this host ({where})"
        )

    async def _withdraw(self) -> None:
        registration, self._registration, self._registered = self._registration, None, None
        if registration is not None:
            await registration.unregister()
            self._say("the registration has been removed")


async def _announced(descriptor: int) -> Served | None:
    """What a child says; None if it ends without."""
    loop = asyncio.get_running_loop()
    reader = asyncio.StreamReader(limit=1 << 20)
    transport, _ = await loop.connect_read_pipe(
        lambda: asyncio.StreamReaderProtocol(reader), os.fdopen(descriptor, "rb", buffering=0)
    )
    try:
        line = await reader.readline()
    finally:
        transport.close()
    if not line:
        return None
    told = json.loads(line)
    gvs = [GroupVersion.parse(text) for text in told["groupVersions"]]
    return Served(told["name"], gvs, told["port"], told["ca"].encode(), frozenset(told["files"]))


async def _end(child: asyncio.subprocess.Process, ended: asyncio.Future[int]) -> None:
    for number in (signal.SIGTERM, signal.SIGKILL):
        if ended.done():
            return
        with contextlib.suppress(ProcessLookupError):
            child.send_signal(number)
        with contextlib.suppress(TimeoutError):
            async with asyncio.timeout(_STOP_SECONDS):
                await asyncio.shield(ended)
