"""A cluster inside the calling process: the same components as `bowsprit up`, in one event loop.

`AsyncCluster` runs in the caller's loop, `Cluster` in a thread with a loop of its own. Both keep their files in a folder
that they remove at the end unless one is given; objects live in memory unless the configuration says otherwise.
"""

from __future__ import annotations

import asyncio
import json
import os
import shutil
import subprocess
import tempfile
import threading
from collections.abc import Coroutine
from pathlib import Path
from types import TracebackType
from typing import Any, Self, TypeVar

from bowsprit.client.rest import RestClient
from bowsprit.cluster.components import Plan
from bowsprit.cluster.config import ClusterConfig
from bowsprit.cluster.credentials import ADMIN
from bowsprit.cluster.errors import ClusterError
from bowsprit.cluster.paths import ClusterPaths
from bowsprit.cluster.process import Component
from bowsprit.net.ports import free_port

T = TypeVar("T")
START_SECONDS = 60.0


class AsyncCluster:
    """The components of a cluster in the running event loop.

    Args:
        config: as in a cluster file; its port 0 takes any free one, and its store is memory unless it names a file.
        folder: where certificates and state go; a temporary one when not given.
        components: run only these (``apiserver`` is always needed).
    """

    def __init__(
        self,
        config: ClusterConfig | None = None,
        *,
        folder: Path | None = None,
        components: tuple[str, ...] | None = None,
    ) -> None:
        wanted = config or ClusterConfig(name="test", store="memory")
        self._temporary = folder is None
        self.folder = folder or Path(tempfile.mkdtemp(prefix="bowsprit-"))
        self.config = wanted.with_ports(lambda port: port or free_port(), None)
        self._plan = Plan(self.config, ClusterPaths(self.folder))
        self._only = components
        self._running: list[Component] = []

    @property
    def server(self) -> str:
        """The API server's address."""
        return self._plan.server

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig file."""
        return self._plan.credentials.kubeconfig(ADMIN)

    def client(self) -> RestClient:
        """A new client with the admin's rights; the caller closes it."""
        return self._plan.client(ADMIN, "bowsprit")

    async def start(self) -> Self:
        """Return when every component is ready.

        Raises:
            ClusterError: one did not become ready in time; what had started is stopped.
        """
        self._plan.prepare()
        try:
            async with asyncio.timeout(START_SECONDS):
                for name, build in self._plan.components().items():
                    if self._only is None or name in self._only:
                        component = build()
                        self._running.append(component)
                        await component.start()
        except TimeoutError as exc:
            await self.stop()
            raise ClusterError(f"the cluster is not ready after {START_SECONDS:g} s", reason="NotReady") from exc
        except BaseException:
            await self.stop()
            raise
        return self

    async def stop(self) -> None:
        """Stop everything and remove the temporary folder."""
        while self._running:
            await self._running.pop().stop()
        if self._temporary:
            shutil.rmtree(self.folder, ignore_errors=True)

    async def __aenter__(self) -> Self:
        return await self.start()

    async def __aexit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        await self.stop()


class Cluster:
    """An `AsyncCluster` in a thread, for code that is not asynchronous.

    Use it as a context manager, or call `start` and `stop`.
    """

    def __init__(
        self,
        config: ClusterConfig | None = None,
        *,
        folder: Path | None = None,
        components: tuple[str, ...] | None = None,
    ) -> None:
        self._cluster = AsyncCluster(config, folder=folder, components=components)
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None

    @property
    def server(self) -> str:
        """The API server's address."""
        return self._cluster.server

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig file."""
        return self._cluster.kubeconfig

    @property
    def config(self) -> ClusterConfig:
        """What it runs with."""
        return self._cluster.config

    def start(self) -> Self:
        """Return when every component is ready."""
        import uvloop

        self._loop = uvloop.new_event_loop()
        self._thread = threading.Thread(target=self._loop.run_forever, name="bowsprit-cluster", daemon=True)
        self._thread.start()
        try:
            self.run(self._cluster.start(), timeout=START_SECONDS + 10)
        except BaseException:
            self._end_thread()
            raise
        return self

    def stop(self) -> None:
        """Stop everything."""
        if self._loop is not None:
            try:
                self.run(self._cluster.stop(), timeout=60.0)
            finally:
                self._end_thread()

    def run(self, coroutine: Coroutine[Any, Any, T], *, timeout: float = 30.0) -> T:
        """Run a coroutine in the cluster's loop and return its result."""
        if self._loop is None:
            coroutine.close()
            raise ClusterError("the cluster is not running", reason="NotRunning", hint="call start() first")
        return asyncio.run_coroutine_threadsafe(coroutine, self._loop).result(timeout)

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> Any:
        """Run the real kubectl as the admin.

        Returns:
            the parsed answer when ``-o json`` is among the arguments, else the text of stdout.

        Raises:
            subprocess.CalledProcessError: it failed; ``stderr`` has its words.
        """
        return run_kubectl(self.kubeconfig, *arguments, stdin=stdin, timeout=timeout)

    def _end_thread(self) -> None:
        assert self._loop is not None
        assert self._thread is not None
        self._loop.call_soon_threadsafe(self._loop.stop)
        self._thread.join(10)
        if not self._thread.is_alive():
            self._loop.close()
        self._loop = None

    def __enter__(self) -> Self:
        return self.start()

    def __exit__(
        self, kind: type[BaseException] | None, error: BaseException | None, trace: TracebackType | None
    ) -> None:
        self.stop()


def run_kubectl(kubeconfig: Path, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> Any:
    """Run kubectl with a kubeconfig and a cache of its own beside it; see `Cluster.kubectl`."""
    environment = {key: value for key, value in os.environ.items() if not key.lower().endswith("_proxy")}
    environment |= {"KUBECONFIG": str(kubeconfig), "KUBECACHEDIR": str(kubeconfig.parent / "cache")}
    result = subprocess.run(
        ["kubectl", *arguments],
        input=stdin,
        capture_output=True,
        text=True,
        check=False,
        timeout=timeout,
        env=environment,
    )
    if result.returncode:
        raise subprocess.CalledProcessError(result.returncode, ["kubectl", *arguments], result.stdout, result.stderr)
    as_json = ("json" in arguments and any(flag in arguments for flag in ("-o", "--output"))) or "-ojson" in arguments
    return json.loads(result.stdout) if as_json else result.stdout
