"""Endpoints of services with a selector (upstream pkg/controller/endpoint); EndpointSlices succeed them."""

from __future__ import annotations

from collections.abc import Iterable

from bowsprit.client.cache import object_key
from bowsprit.client.informer import Handler
from bowsprit.client.resources import ENDPOINTS, PODS, SERVICES
from bowsprit.controllers import service_pods
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.pod_control import namespace_is_terminating
from bowsprit.controllers.pods import POD_INDEXERS, is_ready
from bowsprit.controllers.service_pods import HEADLESS_LABEL
from bowsprit.machinery.errors import AlreadyExistsError, ForbiddenError, NotFoundError
from bowsprit.machinery.objects import Obj, labels

MANAGED_BY = "endpoints.kubernetes.io/managed-by"
_MAX_ADDRESSES = 1000


def subsets(service: Obj, pods: Iterable[Obj]) -> list[Obj]:
    """The subsets in canonical order: addresses with equal ports together (upstream RepackSubsets)."""
    groups: dict[str, Obj] = {}
    family = service_pods.families(service)[0]
    count = 0
    for pod in sorted(service_pods.eligible(pods, terminating=_wants_terminating(service)), key=object_key):
        ip = service_pods.address_of_family(pod, family)
        if ip is None or count >= _MAX_ADDRESSES:
            continue
        ports = service_pods.endpoint_ports(service, pod)
        if not ports and not service_pods.is_headless(service):
            continue
        count += 1
        address: Obj = {"ip": ip, "targetRef": service_pods.target_reference(pod)}
        if pod["spec"].get("nodeName"):
            address["nodeName"] = pod["spec"]["nodeName"]
        if name := service_pods.hostname(service, pod):
            address["hostname"] = name
        key = str(sorted(sorted(port.items()) for port in ports))
        group = groups.setdefault(key, {"ports": _without_empty_names(ports)})
        ready = is_ready(pod) or service["spec"].get("publishNotReadyAddresses")
        group.setdefault("addresses" if ready else "notReadyAddresses", []).append(address)
    result = []
    for key in sorted(groups):
        group = groups[key]
        for name in ("addresses", "notReadyAddresses"):
            if name in group:
                group[name].sort(key=lambda address: (address["ip"], address["targetRef"]["uid"]))
        result.append({name: group[name] for name in ("addresses", "notReadyAddresses", "ports") if group.get(name)})
    return result


def _wants_terminating(service: Obj) -> bool:
    return bool(service["spec"].get("publishNotReadyAddresses"))


def _without_empty_names(ports: list[Obj]) -> list[Obj]:
    return [{key: value for key, value in port.items() if value != ""} for port in ports]


class EndpointsController(Controller):
    """Keys are services."""

    name = "endpoints-controller"
    account = "endpoint-controller"
    component = "endpoint-controller"
    workers = 4

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        namespace = {"namespace": POD_INDEXERS["namespace"]}
        self._services = context.informers.informer(SERVICES, indexers=namespace)
        self._pods = context.informers.informer(PODS, indexers=POD_INDEXERS)
        self._endpoints = context.informers.informer(ENDPOINTS)
        self.watch(self._services)
        self._pods.add_handler(Handler(lambda pod, _: self._pod(pod), self._pod_updated, self._pod))
        self._endpoints.add_handler(Handler(on_delete=self.enqueue))

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
        service = self._services.get(key)
        current = self._endpoints.get(key)
        if service is None:
            if current is not None and MANAGED_BY in labels(current):
                await self._delete(current)
            return
        if not service_pods.has_endpoints(service):
            return
        wanted = subsets(service, self._pods.by_index("namespace", service["metadata"]["namespace"]))
        wanted_labels = {**labels(service), MANAGED_BY: "endpoint-controller"}
        if service_pods.is_headless(service):
            wanted_labels[HEADLESS_LABEL] = ""
        body: Obj = {
            "apiVersion": "v1",
            "kind": "Endpoints",
            "metadata": {
                "name": service["metadata"]["name"],
                "namespace": service["metadata"]["namespace"],
                "labels": wanted_labels,
            },
            "subsets": wanted,
        }
        try:
            if current is None:
                await self.client.create(ENDPOINTS, body)
            elif (current.get("subsets") or []) != wanted or labels(current) != wanted_labels:
                body["metadata"] = {**current["metadata"], "labels": wanted_labels}
                await self.client.update(ENDPOINTS, body)
        except ForbiddenError as exc:
            if not namespace_is_terminating(exc):
                raise
        except (AlreadyExistsError, NotFoundError):
            self.queue.add_rate_limited(key)  # our view is behind

    async def _delete(self, current: Obj) -> None:
        meta = current["metadata"]
        try:
            await self.client.delete(ENDPOINTS, meta["name"], namespace=meta["namespace"], uid=meta["uid"])
        except NotFoundError:
            return


def pod_endpoint_changed(old: Obj, new: Obj) -> bool:
    """Whether a pod's change can matter to endpoints (upstream podEndpointsChanged)."""

    def relevant(pod: Obj) -> tuple[object, ...]:
        return (
            labels(pod),
            service_pods.addresses(pod),
            is_ready(pod),
            pod["metadata"].get("deletionTimestamp"),
            (pod.get("status") or {}).get("phase"),
            pod["spec"].get("nodeName"),
            pod["spec"].get("hostname"),
            pod["spec"].get("subdomain"),
        )

    return relevant(old) != relevant(new)
