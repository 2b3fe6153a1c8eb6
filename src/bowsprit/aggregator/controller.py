"""The aggregator: follows the APIServices, judges and mounts the remote ones, publishes what they serve.

Upstream: kube-aggregator pkg/apiserver/apiserver.go and its controllers. One task does everything in passes: an APIService is due
when it, its Service or its EndpointSlices change, and all are due every half minute.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

from bowsprit.aggregator.availability import Condition, judge, unreachable, with_condition
from bowsprit.aggregator.backend import Backend, Resolve
from bowsprit.aggregator.proxy import forward
from bowsprit.apiserver.lookup import Listers, LocalClient
from bowsprit.apiserver.server import Server
from bowsprit.machinery.errors import ConflictError, NotFoundError
from bowsprit.machinery.names import GroupResource, GroupVersion
from bowsprit.machinery.objects import Obj, labels
from bowsprit.net.dial import Dialer

logger = logging.getLogger(__name__)

API_SERVICES = GroupResource("apiregistration.k8s.io", "apiservices")
SERVICES = GroupResource("", "services")
SLICES = GroupResource("discovery.k8s.io", "endpointslices")
_SERVICE = "kubernetes.io/service-name"
RESYNC_SECONDS = 30.0
_PAUSE = 0.05  # changes come in bunches
_AT_A_TIME = 5


class Aggregator:
    """See the module's docstring.

    Args:
        dialer: the way to the cluster's network.
        client_certificate: `--proxy-client-cert-file` and `--proxy-client-key-file`.
        now: the time as metav1.Time.
    """

    def __init__(
        self,
        server: Server,
        client: LocalClient,
        listers: Listers,
        resolve: Resolve,
        dialer: Dialer,
        client_certificate: tuple[Path, Path] | None,
        now: Callable[[], str],
    ) -> None:
        self._server = server
        self._client = client
        self._listers = listers
        self._make = partial(Backend, resolve=resolve, dialer=dialer, client_certificate=client_certificate)
        self._now = now
        self._backends: dict[str, Backend] = {}
        self._due: set[str] = set()
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._ends: list[Callable[[], None]] = []

    async def start(self) -> None:
        """Do the first pass and go on in the background."""
        lister = self._server.registry.lister
        self._ends.append(lister(API_SERVICES).subscribe(self._api_service_changed))
        self._ends.append(
            lister(SERVICES).subscribe(lambda _, obj, __: self._service_changed(obj, obj["metadata"]["name"]))
        )
        self._ends.append(
            lister(SLICES).subscribe(lambda _, obj, __: self._service_changed(obj, labels(obj).get(_SERVICE, "")))
        )
        await self._pass(None)
        self._task = asyncio.create_task(self._run(), name="aggregator")

    async def stop(self) -> None:
        """End the task and close connections."""
        for end in self._ends:
            end()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task
        for backend in self._backends.values():
            await backend.close()

    def _api_service_changed(self, event: str, obj: Obj, old: Obj | None) -> None:
        if event == "DELETED" or old is None or old.get("spec") != obj.get("spec"):
            self._mark(obj["metadata"]["name"])

    def _service_changed(self, obj: Obj, service: str) -> None:
        where = (obj["metadata"].get("namespace", ""), service)
        for name, backend in self._backends.items():
            reference = backend.spec["service"]
            if (reference.get("namespace", ""), reference.get("name", "")) == where:
                self._mark(name)

    def _mark(self, name: str) -> None:
        self._due.add(name)
        self._wake.set()

    async def _run(self) -> None:
        while True:
            due: set[str] | None = None  # all
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(RESYNC_SECONDS):
                    await self._wake.wait()
                    await asyncio.sleep(_PAUSE)
                    due = set(self._due)
            self._wake.clear()
            self._due.clear()
            try:
                await self._pass(due)
            except Exception:
                logger.exception("a pass over the APIServices failed")

    async def _pass(self, due: set[str] | None) -> None:
        """Look at the APIServices that are due, at all of them if None."""
        remote = {
            item["metadata"]["name"]: item
            for item in self._listers(API_SERVICES).list()
            if (item.get("spec") or {}).get("service") and (item["spec"].get("group"))
        }
        for name in set(self._backends) - set(remote):
            await self._forget(name)
        limit = asyncio.Semaphore(_AT_A_TIME)

        async def one(item: Obj) -> None:
            async with limit:
                await self._sync(item)

        await asyncio.gather(*(one(item) for name, item in remote.items() if due is None or name in due))

    async def _forget(self, name: str) -> None:
        backend = self._backends.pop(name)
        group_version = backend.group_version
        self._server.unmount_group_version(group_version.group, group_version.version)
        self._server.discovery.drop_foreign(group_version)
        self._server.openapi.drop(backend.path[1:])
        await backend.close()

    async def _sync(self, item: Obj) -> None:
        name, spec = item["metadata"]["name"], item["spec"]
        backend = self._backends.get(name)
        if backend is None or backend.spec != spec:
            if backend is not None:
                await backend.close()
            try:
                backend = self._make(spec)
            except ValueError as exc:
                await self._tell(item, unreachable(str(exc)))
                return
            self._backends[name] = backend
            group_version = backend.group_version
            self._server.mount_group_version(group_version.group, group_version.version, partial(forward, backend))
        reference = spec["service"]
        namespace, service = reference.get("namespace", ""), reference.get("name", "")
        condition = judge(reference, self._listers(SERVICES).get(namespace, service), self._slices(namespace, service))
        if condition is None:
            condition = await backend.probe()
        came = condition.status == "True" and not backend.available
        backend.available = condition.status == "True"
        await self._publish(backend, came=came)
        await self._tell(item, condition)

    def _slices(self, namespace: str, service: str) -> list[Obj]:
        return [item for item in self._listers(SLICES).list(namespace) if labels(item).get(_SERVICE) == service]

    async def _publish(self, backend: Backend, *, came: bool) -> None:
        """Discovery and OpenAPI of one group-version; what cannot be asked is published as stale."""
        group_version: GroupVersion = backend.group_version
        resources: list[Obj] = []
        stale = not backend.available
        if backend.available:
            try:
                resources = await backend.resources()
            except LookupError as exc:
                logger.warning("discovery of %s failed: %s", group_version, exc)
                stale = True
        self._server.discovery.put_foreign(group_version, resources, stale=stale)
        if came:
            document: Any = await backend.openapi()
            if document is not None:
                self._server.openapi.put(backend.path[1:], lambda: document)

    async def _tell(self, item: Obj, condition: Condition) -> None:
        changed = with_condition(item, condition, self._now())
        if changed is None:
            return
        try:
            await self._client.update(API_SERVICES, changed, subresource="status")
        except (ConflictError, NotFoundError):
            self._mark(item["metadata"]["name"])  # it has changed meanwhile: look again
