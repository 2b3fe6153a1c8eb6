"""Serving extension apps in the cluster of the tests, as ``extension run --dev`` does, inside the test's process."""

from __future__ import annotations

import asyncio
import threading
from collections.abc import Coroutine
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

if TYPE_CHECKING:
    from bowsprit.extension.app import App
    from bowsprit.extension.options import ExtensionOptions

T = TypeVar("T")
_START_SECONDS = 60.0


class ServedApps:
    """Apps served to clusters, each until the end; they run in an event loop of their own, in a thread."""

    def __init__(self) -> None:
        self._loop: asyncio.AbstractEventLoop | None = None
        self._thread: threading.Thread | None = None
        self._served: dict[tuple[App, Path], _Served] = {}

    def serve(self, app: App, kubeconfig: Path, options: ExtensionOptions | None = None) -> Any:
        """Serves an app in the cluster of a kubeconfig; returns the ExtensionServer when the cluster reaches it.

        An app that is served there already goes on being served, with its objects.
        """
        known = self._served.get((app, kubeconfig))
        if known is None:
            known = _Served(app, kubeconfig, options)
            self._run(known.start())
            self._served[app, kubeconfig] = known
        return known.server

    def withdraw(self, app: App, kubeconfig: Path) -> None:
        """Stops serving an app."""
        known = self._served.pop((app, kubeconfig), None)
        if known is not None:
            self._run(known.stop())

    def run(self, work: Coroutine[Any, Any, T]) -> T:
        """Runs a coroutine where the apps run, for instance one that asks a server something."""
        return self._run(work)

    def close(self) -> None:
        """Stops everything."""
        for app, kubeconfig in list(self._served):
            self.withdraw(app, kubeconfig)
        if self._loop is not None and self._thread is not None:
            self._loop.call_soon_threadsafe(self._loop.stop)
            self._thread.join(10)
            self._loop.close()
            self._loop = None

    def _run(self, work: Coroutine[Any, Any, T]) -> T:
        if self._loop is None:
            import uvloop

            self._loop = uvloop.new_event_loop()
            self._thread = threading.Thread(target=self._loop.run_forever, name="bowsprit-extensions", daemon=True)
            self._thread.start()
        return asyncio.run_coroutine_threadsafe(work, self._loop).result(_START_SECONDS)


class _Served:
    def __init__(self, app: App, kubeconfig: Path, options: ExtensionOptions | None) -> None:
        import dataclasses

        from bowsprit.extension.options import ExtensionOptions
        from bowsprit.extension.registration import service_of
        from bowsprit.extension.server import ExtensionServer

        given = options or ExtensionOptions()
        self.server = ExtensionServer(
            app,
            dataclasses.replace(
                given,
                kubeconfig=given.kubeconfig or kubeconfig,
                secure_port=0,
                service=service_of(app),
                namespace="default",
                shutdown_timeout=1.0,
            ),
        )
        self._app = app
        self._kubeconfig = kubeconfig
        self._client: Any = None
        self._registration: Any = None

    async def start(self) -> None:
        from bowsprit.client.kubeconfig import Kubeconfig
        from bowsprit.client.rest import RestClient
        from bowsprit.extension.registration import Registration

        host, port = await self.server.start()
        try:
            self._client = RestClient(Kubeconfig.load(self._kubeconfig).rest_config())
            self._registration = Registration(self._client, self._app, host, port, self.server.ca_bundle)
            await self._registration.register()
        except BaseException:
            await self.stop()
            raise

    async def stop(self) -> None:
        if self._registration is not None:
            await self._registration.unregister()
        if self._client is not None:
            await self._client.close()
        await self.server.stop()
