"""Judges every remote APIService and writes its `Available` condition.

Upstream: kube-aggregator pkg/controllers/status/remote/remote_available_controller.go. An APIService is looked at when it, its
Service or its EndpointSlices change, every half minute, and, after a failed probe, with growing pauses.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Mapping

from bowsprit.aggregator.availability import PASSED, Condition, judge, unreachable, with_condition
from bowsprit.aggregator.backend import Backend
from bowsprit.aggregator.connection import BackendError
from bowsprit.aggregator.metrics import AggregatorMetrics
from bowsprit.aggregator.workers import Workers
from bowsprit.apiserver.lookup import Listers, LocalClient
from bowsprit.client.workqueue import WorkQueue
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, find_condition, labels
from bowsprit.net.dial import join_host_port

logger = logging.getLogger(__name__)

API_SERVICES = GroupResource("apiregistration.k8s.io", "apiservices")
SERVICES = GroupResource("", "services")
SLICES = GroupResource("discovery.k8s.io", "endpointslices")
SERVICE_LABEL = "kubernetes.io/service-name"
RESYNC_SECONDS = 30.0
PROBES = 5
PROBE_SECONDS = 5.0
_WORKERS = 5
_FIRST_PAUSE, _LONGEST_PAUSE = 0.005, 30.0
_PROBE_FIELDS = (
    ("User-Agent", "Go-http-client/1.1"),
    ("X-Remote-User", "system:kube-aggregator"),
    ("X-Remote-Group", "system:masters"),
)


class AvailabilityController:
    """See the module's docstring.

    Args:
        backends: by APIService name.
        now: the time as metav1.Time.
    """

    def __init__(
        self,
        backends: Mapping[str, Backend],
        client: LocalClient,
        listers: Listers,
        metrics: AggregatorMetrics,
        now: Callable[[], str],
    ) -> None:
        self._backends = backends
        self._client = client
        self._listers = listers
        self._metrics = metrics
        self._now = now
        self._queue: WorkQueue[str] = WorkQueue(
            "RemoteAvailabilityController", base_delay=_FIRST_PAUSE, max_delay=_LONGEST_PAUSE
        )
        self._workers = Workers(self._queue, self._sync, _WORKERS)

    def start(self) -> None:
        """Begin."""
        self._workers.start()

    async def stop(self) -> None:
        """End."""
        await self._workers.stop()

    def api_service_changed(self, name: str) -> None:
        """An APIService came, changed or went."""
        self._queue.add(name)

    def service_changed(self, namespace: str, service: str) -> None:
        """A Service or one of its EndpointSlices came, changed or went."""
        for name, backend in self._backends.items():
            if backend.service[:2] == (namespace, service):
                self._queue.add(name)

    async def _sync(self, name: str) -> None:
        item = self._listers(API_SERVICES).get("", name)
        backend = self._backends.get(name)
        if item is None or backend is None:
            self._queue.forget(name)
            self._metrics.forget(name)
            return
        self._queue.add_after(name, RESYNC_SECONDS)
        if backend.pool is not None:
            backend.pool.trim()
        condition = judge(backend.spec["service"], self._service, self._slices)
        if condition is None and backend.pool is None:
            # Upstream writes no condition when it cannot even build a transport.
            self._queue.add_rate_limited(name)
            return
        probed = condition is None
        condition = condition or await self._probe(backend)
        if self._backends.get(name) is not backend:
            return  # replaced meanwhile, and queued again
        await self._tell(item, condition)
        if probed and condition.status != "True":
            self._queue.add_rate_limited(name)
        else:
            self._queue.forget(name)

    def _service(self, namespace: str, name: str) -> Obj | None:
        return self._listers(SERVICES).get(namespace, name)

    def _slices(self, namespace: str, name: str) -> list[Obj]:
        return [item for item in self._listers(SLICES).list(namespace) if labels(item).get(SERVICE_LABEL) == name]

    async def _probe(self, backend: Backend) -> Condition:
        """Ask five times at once; one good answer is enough."""
        tasks = [asyncio.ensure_future(self._probe_once(backend)) for _ in range(PROBES)]
        problem = ""
        try:
            for finished in asyncio.as_completed(tasks):
                problem = await finished
                if not problem:
                    return PASSED
        finally:
            for task in tasks:
                task.cancel()
            await asyncio.gather(*tasks, return_exceptions=True)
            if problem and backend.pool is not None:
                backend.pool.close_idle()
        return unreachable(problem)

    @staticmethod
    async def _probe_once(backend: Backend) -> str:
        """What is wrong, "" if nothing is. Redirects are not followed."""
        try:
            address = await backend.address()
        except LookupError as failure:
            return str(failure.args[0] if failure.args else failure)
        url = f"https://{join_host_port(*address)}{backend.path}"
        missing = f"failing or missing response from {url}"
        try:
            async with asyncio.timeout(PROBE_SECONDS):
                answer = await backend.fetch(address, backend.path, _PROBE_FIELDS)
        except TimeoutError:
            why = "context deadline exceeded (Client.Timeout exceeded while awaiting headers)"
            return f"{missing}: Get {quote(url)}: {why}"
        except BackendError as failure:
            return f"{missing}: Get {quote(url)}: {failure}"
        if 200 <= answer.status < 300:
            return ""
        return f"{missing}: bad status from {url}: {answer.status}"

    async def _tell(self, item: Obj, condition: Condition) -> None:
        name = item["metadata"]["name"]
        available = condition.status == "True"
        self._metrics.set_available(name, available)
        changed = with_condition(item, condition, self._now())
        if changed is None:
            return
        try:
            await self._client.update(API_SERVICES, changed, subresource="status")
        except StatusError as failure:
            logger.debug("the status of APIService %s was not written: %s", name, failure)
            self._queue.add_rate_limited(name)  # it has changed meanwhile: look again
            return
        was_available = (find_condition(item, "Available") or {}).get("status") == "True"
        if was_available and not available:
            self._metrics.count_unavailable(name, condition.reason)
