"""The endpoint slice controllers: for services with a selector, and mirrors of hand-made Endpoints."""

from __future__ import annotations

from bowsprit.client.informer import Handler
from bowsprit.client.resources import ENDPOINT_SLICES, ENDPOINTS, NODES, PODS, SERVICES
from bowsprit.controllers import endpoint_slices, service_pods
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.endpoint_slices import CONTROLLER, MANAGED_BY, MIRRORING, SERVICE_NAME, Changes, SliceMaker
from bowsprit.controllers.endpoints import pod_endpoint_changed
from bowsprit.controllers.expectations import Expectations
from bowsprit.controllers.pod_control import namespace_is_terminating
from bowsprit.controllers.pods import POD_INDEXERS, is_deleting
from bowsprit.machinery import objects
from bowsprit.machinery.errors import NotFoundError, StatusError
from bowsprit.machinery.objects import Obj, labels, owner_references

_SERVICE = SERVICES.gv.with_kind("Service")
_ENDPOINTS = ENDPOINTS.gv.with_kind("Endpoints")
_ZONE = "topology.kubernetes.io/zone"


def _by_service(item: Obj) -> list[str]:
    name = labels(item).get(SERVICE_NAME)
    return [f"{item['metadata']['namespace']}/{name}"] if name else []


class _SliceWriter(Controller):
    """What both controllers share: finding and writing slices, and waiting until their own writes show up."""

    manager: str

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._slices = context.informers.informer(ENDPOINT_SLICES, indexers={"service": _by_service})
        self._expectations = Expectations(lambda: context.now().timestamp())
        self._slices.add_handler(
            Handler(self._slice_added, lambda _, new: self._slice_touched(new), self._slice_deleted)
        )

    def _key(self, item: Obj) -> str | None:
        if labels(item).get(MANAGED_BY) != self.manager:
            return None
        return next(iter(_by_service(item)), None)

    def _slice_added(self, item: Obj, initial: bool) -> None:
        if key := self._key(item):
            self._expectations.creation_observed(key)
            self.queue.add(key)

    def _slice_touched(self, item: Obj) -> None:
        if key := self._key(item):
            self.queue.add(key)

    def _slice_deleted(self, item: Obj) -> None:
        if key := self._key(item):
            self._expectations.deletion_observed(key, item["metadata"]["uid"])
            self.queue.add(key)

    def existing(self, key: str) -> list[Obj]:
        """Our slices of a service."""
        mine = self._slices.by_index("service", key)
        return [item for item in mine if labels(item).get(MANAGED_BY) == self.manager and not is_deleting(item)]

    async def write(self, key: str, changes: Changes) -> None:
        """Carry out changes; the next sync waits until they are visible."""
        self._expectations.expect(key, len(changes.create), [item["metadata"]["uid"] for item in changes.delete])
        for item in changes.create:
            try:
                await self.client.create(ENDPOINT_SLICES, item)
            except StatusError as exc:
                self._expectations.forget(key)
                if not namespace_is_terminating(exc):
                    raise
                return
        for item in changes.update:
            await self.client.update(ENDPOINT_SLICES, item)
        for item in changes.delete:
            meta = item["metadata"]
            try:
                await self.client.delete(ENDPOINT_SLICES, meta["name"], namespace=meta["namespace"], uid=meta["uid"])
            except NotFoundError:
                self._expectations.deletion_observed(key, meta["uid"])

    async def drop(self, key: str) -> None:
        """The owner is gone or no longer wants slices."""
        await self.write(key, Changes(delete=self.existing(key)))


class EndpointSliceController(_SliceWriter):
    """Keys are services."""

    name = "endpointslice-controller"
    account = "endpointslice-controller"
    workers = 4
    manager = CONTROLLER

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._services = context.informers.informer(SERVICES, indexers={"namespace": POD_INDEXERS["namespace"]})
        self._pods = context.informers.informer(PODS, indexers=POD_INDEXERS)
        self._nodes = context.informers.informer(NODES)
        self.watch(self._services)
        self._pods.add_handler(Handler(lambda pod, _: self._pod(pod), self._pod_updated, self._pod))

    def _pod(self, pod: Obj) -> None:
        for service in self._services.by_index("namespace", pod["metadata"]["namespace"]):
            if service_pods.selects(service, pod):
                self.enqueue(service)

    def _pod_updated(self, old: Obj, pod: Obj) -> None:
        if pod_endpoint_changed(old, pod):
            self._pod(pod)
            if labels(old) != labels(pod):
                self._pod(old)

    async def sync(self, key: str) -> None:
        """See Controller."""
        if not self._expectations.satisfied(key):
            return  # the events still to come queue the key again
        service = self._services.get(key)
        if service is None or is_deleting(service):
            self._expectations.forget(key)
            return  # the garbage collector removes the slices
        if not service_pods.has_endpoints(service):
            await self.drop(key)
            return
        zones = {node["metadata"]["name"]: labels(node).get(_ZONE, "") for node in self._nodes.list()}
        pods = [
            pod
            for pod in self._pods.by_index("namespace", service["metadata"]["namespace"])
            if service_pods.selects(service, pod)
        ]
        groups = endpoint_slices.pod_groups(service, pods, zones)
        name = service["metadata"]["name"]
        wanted_labels = endpoint_slices.slice_labels(service, name, self.manager, service_pods.is_headless(service))
        await self.write(
            key, endpoint_slices.reconcile(SliceMaker(service, _SERVICE, wanted_labels), groups, self.existing(key))
        )


class EndpointSliceMirroringController(_SliceWriter):
    """Mirrors Endpoints that somebody wrote for a service without selector. Keys are Endpoints, named as the service."""

    name = "endpointslice-mirroring-controller"
    account = "endpointslicemirroring-controller"
    workers = 2
    manager = MIRRORING

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._services = context.informers.informer(SERVICES)
        self._endpoints = context.informers.informer(ENDPOINTS)
        self.watch(self._endpoints)
        self.watch(self._services)

    async def sync(self, key: str) -> None:
        """See Controller."""
        if not self._expectations.satisfied(key):
            return
        endpoints, service = self._endpoints.get(key), self._services.get(key)
        if endpoints is None or service is None or not should_mirror(endpoints, service):
            if self.existing(key):
                await self.drop(key)
            return
        wanted_labels = endpoint_slices.slice_labels(endpoints, endpoints["metadata"]["name"], self.manager, False)
        groups = endpoint_slices.mirrored_groups(endpoints)
        await self.write(
            key, endpoint_slices.reconcile(SliceMaker(endpoints, _ENDPOINTS, wanted_labels), groups, self.existing(key))
        )


def should_mirror(endpoints: Obj, service: Obj) -> bool:
    """Whether Endpoints are hand-made and wanted as slices (upstream shouldMirror, svc without selector)."""
    if labels(endpoints).get("endpointslice.kubernetes.io/skip-mirror") == "true":
        return False
    if "control-plane.alpha.kubernetes.io/leader" in objects.annotations(endpoints) or owner_references(endpoints):
        return False
    return not service["spec"].get("selector")
