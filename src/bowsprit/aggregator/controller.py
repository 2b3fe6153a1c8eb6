"""The aggregator: follows the APIServices, mounts the remote ones, and tells those who judge and publish them.

Upstream: kube-aggregator pkg/apiserver/apiserver.go and apiservice_controller.go.
"""

from __future__ import annotations

import logging
from collections.abc import Callable
from datetime import datetime
from functools import partial
from typing import TYPE_CHECKING

from bowsprit.aggregator.availability_controller import (
    API_SERVICES,
    SERVICE_LABEL,
    SERVICES,
    SLICES,
    AvailabilityController,
)
from bowsprit.aggregator.backend import Backend, Resolve, Way
from bowsprit.aggregator.discovery import DiscoveryManager
from bowsprit.aggregator.metrics import AggregatorMetrics
from bowsprit.aggregator.openapi import SecondVersion, ThirdVersion
from bowsprit.aggregator.proxy import forward
from bowsprit.aggregator.trust import ClientCertificate
from bowsprit.apiserver.lookup import Listers, LocalClient
from bowsprit.apiserver.server import Server
from bowsprit.machinery.objects import Obj, labels
from bowsprit.machinery.time import format_time
from bowsprit.net.dial import Dialer

if TYPE_CHECKING:
    from aiohttp import web

    from bowsprit.apiserver.answer import Answer, Sent
    from bowsprit.apiserver.request import RequestContext

logger = logging.getLogger(__name__)


class Aggregator:
    """See the module's docstring.

    Args:
        resolve: where Services are.
        dialer: the way to the cluster's network.
        client_certificate: what `--proxy-client-cert-file` and `--proxy-client-key-file` name.
        now: UTC.
    """

    def __init__(
        self,
        server: Server,
        client: LocalClient,
        listers: Listers,
        resolve: Resolve,
        dialer: Dialer,
        client_certificate: ClientCertificate | None,
        now: Callable[[], datetime],
    ) -> None:
        self._server = server
        self._listers = listers
        self._backends: dict[str, Backend] = {}
        self._ends: list[Callable[[], None]] = []
        self.metrics = AggregatorMetrics()
        self._way = Way(resolve, dialer, client_certificate, now, self.metrics.count_missing_names)
        self._availability = AvailabilityController(
            self._backends, client, listers, self.metrics, lambda: format_time(now())
        )
        self._discovery = DiscoveryManager(self._backends, server.discovery)
        self._second = SecondVersion(self._backends, server.openapi)
        self._third = ThirdVersion(self._backends, server.openapi, self._pass)

    async def start(self) -> None:
        """Take up every APIService there is and follow them; whether they answer is found out in the background."""
        lister = self._server.registry.lister
        self._server.metrics.extra.append(self.metrics.text)
        self._ends.append(lister(API_SERVICES).subscribe(self._api_service_changed))
        self._ends.append(
            lister(SERVICES).subscribe(lambda _, obj, __: self._service_changed(obj, obj["metadata"]["name"]))
        )
        self._ends.append(
            lister(SLICES).subscribe(lambda _, obj, __: self._service_changed(obj, labels(obj).get(SERVICE_LABEL, "")))
        )
        for part in (self._availability, self._discovery, self._second, self._third):
            part.start()
        for item in self._listers(API_SERVICES).list():
            self._follow(item)

    async def stop(self) -> None:
        """End, and close connections."""
        for end in self._ends:
            end()
        for part in (self._availability, self._discovery, self._second, self._third):
            await part.stop()
        for backend in self._backends.values():
            backend.close()

    def _api_service_changed(self, event: str, obj: Obj, _: Obj | None) -> None:
        if event == "DELETED":
            self._forget(obj["metadata"]["name"])
            self.metrics.forget(obj["metadata"]["name"])
        else:
            self._follow(obj)

    def _service_changed(self, obj: Obj, service: str) -> None:
        self._availability.service_changed(obj["metadata"].get("namespace", ""), service)

    def _follow(self, item: Obj) -> None:
        """An APIService has come or changed."""
        name, spec = item["metadata"]["name"], item["spec"]
        if not spec.get("service"):
            self._forget(name)
            self.metrics.set_available(name, True)  # local ones always are
            return
        backend = self._backends.get(name)
        if backend is None or backend.spec != spec:
            if backend is not None:
                backend.retire()
            backend = self._backends[name] = Backend(name, spec, self._way)
            if backend.failure:
                logger.warning("APIService %s cannot be used: %s", name, backend.failure)
            group_version = backend.group_version
            self._server.mount_group_version(group_version.group, group_version.version, partial(self._pass, backend))
        backend.follow(item)
        self._tell(name)

    def _forget(self, name: str) -> None:
        """An APIService has gone, or is served here now."""
        backend = self._backends.pop(name, None)
        if backend is not None:
            self._server.unmount_group_version(backend.group_version.group, backend.group_version.version)
            backend.retire()
            self._tell(name)

    def _tell(self, name: str) -> None:
        self._availability.api_service_changed(name)
        self._discovery.changed(name)
        self._second.changed(name)
        self._third.changed(name)

    async def _pass(self, backend: Backend, ctx: RequestContext, request: web.BaseRequest) -> Answer | Sent:
        server = self._server
        long_running = server.in_flight.sort_of(ctx.info, request.method) == "long"
        return await forward(backend, ctx, request, seconds=server.options.request_timeout, long_running=long_running)
