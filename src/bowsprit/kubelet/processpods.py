"""Pods that really run: each container is a process of this host, as the user who runs the cluster. Only where switched on.

The simulated pods' lifecycle decides what happens to a container (start, restart with back-off, phase, conditions); here its
decisions are carried out, and what the processes do is what the lifecycle is told of a container's course. The status is in
the API as ever; processes do not outlive the kubelet, and containers whose process is gone count as killed.

A pod has no network of its own: its address is this host's, and what listens must have a port to itself.
"""

from __future__ import annotations

import asyncio
import contextlib
import json
import logging
import os
import shutil
import signal
from collections import deque
from collections.abc import Callable, Coroutine, Iterator
from dataclasses import dataclass, field
from datetime import datetime
from pathlib import Path
from typing import Any

from bowsprit.client.errors import ClientError
from bowsprit.client.rest import RestClient
from bowsprit.kubelet import logs, processprobe, processsandbox
from bowsprit.kubelet.behaviour import DOMAIN, FOREVER, Behaviour
from bowsprit.kubelet.containers import Event
from bowsprit.kubelet.logs import LogOptions
from bowsprit.kubelet.portforward import Pipe
from bowsprit.kubelet.processenvironment import ProcessProblem, environment, expanded, search_path
from bowsprit.kubelet.processsandbox import Mount
from bowsprit.kubelet.processvolumes import ProcessVolumes
from bowsprit.machinery import objects
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.objects import Obj

log = logging.getLogger(__name__)

_MOST_LINES = 20_000
_LONGEST_LINE = 64 * 1024
_REFRESH_SECONDS = 2.0
_NOT_YET = 3600.0  # a start delay: volumes are missing
_CONNECT_SECONDS = 10.0
_CHUNK = 64 * 1024
_SANDBOX = "bwrap"
_GONE = 137
RUN = f"{DOMAIN}/run"  # annotation: process | simulated
WORKDIR = f"{DOMAIN}/workdir"  # annotation: where containers without a workingDir run


@dataclass(slots=True)
class _Run:
    """One run of one container."""

    container_id: str
    lines: deque[tuple[datetime, str]]
    process: asyncio.subprocess.Process | None = None
    child: int = 0  # the command's own process id
    code: int | None = None
    ready: bool = False
    tasks: list[asyncio.Task[Any]] = field(default_factory=list)


@dataclass(slots=True)
class _Pod:
    """What is known of a pod beside its object."""

    key: str
    client: RestClient
    volumes: ProcessVolumes
    folder: Path
    prepared: bool = False
    runs: dict[str, _Run] = field(default_factory=dict)
    before: dict[str, _Run] = field(default_factory=dict)  # the run before the present one
    refresh: asyncio.Task[None] | None = None
    stopping: bool = False


class ProcessPods:
    """The processes of a kubelet's pods.

    Args:
        folder: for volumes.
        address: this host's, that pods get.
        wake: called with a pod's key when its processes have changed.
    """

    def __init__(self, folder: Path, address: str, now: Callable[[], datetime], wake: Callable[[str], None]) -> None:
        self._folder = folder
        self.address = address
        self._now = now
        self._wake = wake
        self._pods: dict[str, _Pod] = {}

    @staticmethod
    def runs(pod: Obj) -> bool:
        """Whether a pod runs as processes: all its commands are on this host, or its annotation says so."""
        wanted = objects.annotations(pod).get(RUN)
        if wanted:
            return wanted == "process"
        spec = pod["spec"]
        every = [*(spec.get("initContainers") or ()), *spec["containers"]]
        return all(each.get("command") and shutil.which(each["command"][0], path=search_path()) for each in every)

    def has(self, uid: str) -> bool:
        """Whether a pod runs here."""
        return uid in self._pods

    async def keep(self, key: str, uid: str) -> None:
        """Forgets pods of that name that are others than the one that is there now ("": none)."""
        for each in [each for each, known in self._pods.items() if known.key == key and each != uid]:
            await self.forget(each)

    # -- what the lifecycle asks -----------------------------------------------------------------------------------------

    def course(
        self, pod: Obj, container: str, *, init: bool = False, sidecar: bool = False
    ) -> tuple[Behaviour, list[str]]:
        """How it goes for a container, as `behaviour.behaviour` tells it for simulated ones."""
        known = self._pods.get(pod["metadata"]["uid"])
        if known is None or not known.prepared:
            return Behaviour(start_delay=_NOT_YET, ready_delay=FOREVER), []
        status = _status(pod, container)
        if "running" not in (status.get("state") or {}):
            return Behaviour(start_delay=0.0, ready_delay=FOREVER), []
        run = known.runs.get(container)
        if run is None or run.container_id != status.get("containerID"):
            return Behaviour(run_duration=0.0, exit_code=_GONE), []
        if run.code is not None:
            return Behaviour(run_duration=0.0, exit_code=run.code), []
        return Behaviour(ready_delay=0.0 if run.ready else FOREVER, termination_delay=FOREVER), []

    # -- what the kubelet calls ------------------------------------------------------------------------------------------

    async def prepare(self, client: RestClient, pod: Obj) -> Event | None:
        """Makes the volumes before the first look; an event when that is not possible (yet)."""
        meta = pod["metadata"]
        known = self._pods.get(meta["uid"])
        if known is None:
            if meta.get("deletionTimestamp"):
                return None
            folder = self._folder / meta["uid"]
            volumes = ProcessVolumes(client, pod, folder, self.address)
            known = self._pods[meta["uid"]] = _Pod(f"{meta['namespace']}/{meta['name']}", client, volumes, folder)
        if known.prepared:
            return None
        try:
            if shutil.which(_SANDBOX) is None:
                raise ProcessProblem("bubblewrap (bwrap) is not installed: volumes cannot be mounted")
            await known.volumes.write()
        except (ProcessProblem, StatusError, ClientError) as problem:
            return Event("Warning", "FailedMount", f"MountVolume.SetUp failed: {problem}")
        known.prepared = True
        known.refresh = self._task(self._refresh(known), f"volumes of {known.key}")
        return None

    async def carry_out(self, pod: Obj, status: Obj) -> list[Event]:
        """Starts what the status says is running, stops what a deleted pod has."""
        known = self._pods.get(pod["metadata"]["uid"])
        if known is None:
            return []
        if pod["metadata"].get("deletionTimestamp"):
            self._stop(known, float(pod["metadata"].get("deletionGracePeriodSeconds") or 0))
            return []
        events = []
        for kind in ("initContainers", "containers"):
            for spec in pod["spec"].get(kind) or ():
                state = _status({"status": status}, spec["name"])
                run = known.runs.get(spec["name"])
                if "running" in (state.get("state") or {}) and (
                    run is None or run.container_id != state["containerID"]
                ):
                    if run is not None:
                        known.before[spec["name"]] = run
                    events += await self._start(known, pod, spec, str(state["containerID"]))
        return events

    def rest(self, uid: str) -> None:
        """The pod is finished: what still runs (its deadline is over) is ended; logs stay until it is gone."""
        known = self._pods.get(uid)
        if known is not None:
            self._stop(known, 0.0)
            if known.refresh is not None:
                known.refresh.cancel()

    async def forget(self, uid: str) -> None:
        """The pod is gone: whatever is left of it goes too."""
        known = self._pods.pop(uid, None)
        if known is None:
            return
        tasks = [task for run in known.runs.values() for task in run.tasks]
        if known.refresh is not None:
            tasks.append(known.refresh)
        for run in known.runs.values():
            _signal(run, signal.SIGKILL)
        for task in tasks:
            task.cancel()
        await asyncio.gather(*tasks, return_exceptions=True)
        for run in known.runs.values():
            if run.process is not None and run.process.returncode is None:
                with contextlib.suppress(ProcessLookupError):
                    run.process.kill()
                await run.process.wait()
        await asyncio.to_thread(shutil.rmtree, known.folder, True)

    async def stop(self) -> None:
        """Ends all processes."""
        for uid in list(self._pods):
            await self.forget(uid)

    def lines(self, pod: Obj, container: str, options: LogOptions, now: datetime) -> Iterator[tuple[datetime, str]]:
        """What a container has written; the simulated log for pods that are not ours. See logs.lines."""
        known = self._pods.get(pod["metadata"]["uid"])
        runs = (known.before if options.previous else known.runs) if known is not None else {}
        run = runs.get(container)
        return logs.lines(pod, container, options, now) if run is None else iter(list(run.lines))

    async def connect(self, port: int, pipe: Pipe) -> bool:
        """A forwarded connection to a pod's port; see portforward.Connect."""
        try:
            async with asyncio.timeout(_CONNECT_SECONDS):
                reader, writer = await asyncio.open_connection(self.address, port)
        except (OSError, TimeoutError):
            return False

        async def forth() -> None:
            while data := await pipe.read():
                writer.write(data)
                await writer.drain()
            writer.write_eof()

        sending = asyncio.ensure_future(forth())
        try:
            while data := await reader.read(_CHUNK):
                await pipe.write(data)
        except OSError:
            pass
        finally:
            sending.cancel()
            await asyncio.gather(sending, return_exceptions=True)
            writer.close()
        return True

    # -- processes -------------------------------------------------------------------------------------------------------

    async def _start(self, known: _Pod, pod: Obj, spec: Obj, container_id: str) -> list[Event]:
        run = known.runs[spec["name"]] = _Run(container_id, deque(maxlen=_MOST_LINES))
        try:
            variables = await environment(known.client, pod, spec, self.address)
            command = [expanded(each, variables) for each in (*(spec.get("command") or ()), *(spec.get("args") or ()))]
            if not command or (found := shutil.which(command[0], path=variables["PATH"])) is None:
                raise ProcessProblem(f"exec: {command[0] if command else 'no command'!r}: executable file not found")
            workdir = spec.get("workingDir") or objects.annotations(pod).get(WORKDIR) or os.getcwd()
            sandbox = processsandbox.arguments(self._mounts(known, spec), workdir, variables)
            await self._spawn(run, [*sandbox, "--", found, *command[1:]])
        except (ProcessProblem, StatusError, ClientError, OSError) as problem:
            run.code = 128
            run.lines.append((self._now(), f"cannot be started: {problem}"))
            self._wake(known.key)
            return [Event("Warning", "Failed", f"Error: {problem}", spec["name"])]
        run.tasks = [
            self._task(self._read(run), f"log of {known.key}"),
            self._task(self._wait(known, run), f"process of {known.key}"),
            self._task(
                processprobe.follow(
                    spec,
                    self.address,
                    lambda ready: self._set_ready(known, run, ready),
                    lambda which: self._unhealthy(run, which),
                ),
                f"probes of {known.key}",
            ),
        ]
        return []

    async def _spawn(self, run: _Run, arguments: list[str]) -> None:
        reader, writer = os.pipe()
        try:
            run.process = await asyncio.create_subprocess_exec(
                _SANDBOX,
                "--info-fd",
                str(writer),
                *arguments,
                stdin=asyncio.subprocess.DEVNULL,
                stdout=asyncio.subprocess.PIPE,
                stderr=asyncio.subprocess.STDOUT,
                pass_fds=(writer,),
                limit=_LONGEST_LINE,
            )
        finally:
            os.close(writer)
        with os.fdopen(reader) as told:
            text = await asyncio.to_thread(told.read)
        with contextlib.suppress(ValueError):
            run.child = int(json.loads(text)["child-pid"])

    def _mounts(self, known: _Pod, spec: Obj) -> list[Mount]:
        made = []
        for mount in spec.get("volumeMounts") or ():
            source = known.volumes.path(mount["name"])
            if sub := mount.get("subPath"):
                source = source / sub
                if not source.resolve().is_relative_to(known.volumes.path(mount["name"]).resolve()):
                    raise ProcessProblem(f"subPath {sub!r} leads out of its volume")
                source.mkdir(parents=True, exist_ok=True) if not source.exists() else None
            made.append(Mount(source, mount["mountPath"], bool(mount.get("readOnly"))))
        return made

    async def _read(self, run: _Run) -> None:
        assert run.process is not None
        assert run.process.stdout is not None
        while True:
            try:
                data = await run.process.stdout.readline()
            except ValueError:  # a line beyond the limit: the stream has dropped it
                run.lines.append((self._now(), "(a line that is too long)"))
                continue
            if not data:
                return
            run.lines.append((self._now(), data.decode("utf-8", "replace").rstrip("\n")))

    async def _wait(self, known: _Pod, run: _Run) -> None:
        assert run.process is not None
        code = await run.process.wait()
        await asyncio.wait(run.tasks[:1], timeout=1.0)  # the last words
        run.code = 128 - code if code < 0 else code
        run.ready = False
        for task in run.tasks[2:]:
            task.cancel()
        self._wake(known.key)

    def _set_ready(self, known: _Pod, run: _Run, ready: bool) -> None:
        if run.ready != ready:
            run.ready = ready
            self._wake(known.key)

    def _unhealthy(self, run: _Run, which: str) -> None:
        run.lines.append((self._now(), f"the {which} probe failed: the container is stopped"))
        self._task(_terminate(run, 30.0), "unhealthy")

    def _stop(self, known: _Pod, grace: float) -> None:
        if known.stopping:
            return
        known.stopping = True
        for run in known.runs.values():
            if run.code is None:
                run.tasks.append(self._task(_terminate(run, grace), f"end of {known.key}"))

    async def _refresh(self, known: _Pod) -> None:
        while True:
            await asyncio.sleep(_REFRESH_SECONDS)
            try:
                await known.volumes.write()
            except (ProcessProblem, StatusError, ClientError, OSError) as problem:
                log.info("volumes of %s: %s", known.key, problem)

    @staticmethod
    def _task(work: Coroutine[Any, Any, None], name: str) -> asyncio.Task[None]:
        task = asyncio.get_running_loop().create_task(work, name=name)
        _TASKS.add(task)
        task.add_done_callback(_TASKS.discard)
        return task


_TASKS: set[asyncio.Task[None]] = set()  # a loop keeps only weak references


async def _terminate(run: _Run, grace: float) -> None:
    """SIGTERM, and SIGKILL when the grace period is over."""
    _signal(run, signal.SIGTERM)
    assert run.process is not None
    try:
        async with asyncio.timeout(grace):
            await run.process.wait()
    except TimeoutError:
        _signal(run, signal.SIGKILL)


def _signal(run: _Run, number: signal.Signals) -> None:
    if run.child and run.code is None:
        with contextlib.suppress(ProcessLookupError):
            os.kill(run.child, number)


def _status(pod: Obj, container: str) -> Obj:
    status = pod.get("status") or {}
    for kind in ("initContainerStatuses", "containerStatuses"):
        for item in status.get(kind) or ():
            if item["name"] == container:
                return dict(item)
    return {}
