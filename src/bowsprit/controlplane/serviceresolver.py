"""Where a Service is reached from the API server: by its ClusterIP, or by one of its ready endpoints.

Upstream: k8s.io/apiserver/pkg/util/proxy (ResolveCluster, ResolveEndpoint); `--enable-aggregator-routing` chooses.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence

from bowsprit.apiserver.lookup import Listers
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, labels, nested

SERVICES = GroupResource("", "services")
SLICES = GroupResource("discovery.k8s.io", "endpointslices")
_SERVICE_NAME = "kubernetes.io/service-name"
_ROUTED = frozenset({"ClusterIP", "NodePort", "LoadBalancer"})


class ServiceResolver:
    """See the module's docstring.

    Args:
        endpoints: go to endpoint addresses instead of ClusterIPs.
        choose: an index below the argument.
        own: the server's own address, for the Service default/kubernetes.
    """

    def __init__(
        self, listers: Listers, *, endpoints: bool, choose: Callable[[int], int], own: Callable[[], tuple[str, int]]
    ) -> None:
        self._listers = listers
        self._endpoints = endpoints
        self._choose = choose
        self._own = own

    async def resolve(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        """Host and port.

        Raises:
            LookupError: the Service cannot be reached; the text is upstream's.
        """
        if (namespace, name, port) == ("default", "kubernetes", 443):
            return self._own()
        service = self._listers(SERVICES).get(namespace, name)
        if service is None:
            raise LookupError(f"service {quote(name)} not found")
        spec = service.get("spec") or {}
        sort = spec.get("type") or "ClusterIP"
        if sort == "ExternalName" and not self._endpoints:
            return str(spec.get("externalName") or ""), port
        if sort not in _ROUTED:
            raise LookupError(f"unsupported service type {quote(sort)}")
        address = str(spec.get("clusterIP") or "")
        if not self._endpoints and sort == "ClusterIP" and address == "None":
            raise LookupError('cannot route to service with ClusterIP "None"')
        chosen = next((item for item in spec.get("ports") or () if item.get("port") == port), None)
        if chosen is None:
            raise LookupError(f"no service port {port} found for service {quote(name)}")
        return self._endpoint(namespace, name, spec, chosen) if self._endpoints else (address, port)

    def _endpoint(self, namespace: str, name: str, spec: Obj, port: Obj) -> tuple[str, int]:
        """A ready endpoint by chance: slices of the Service's first IP family come first, each in any order."""
        slices = list(self._slices(namespace, name))
        for position in range(len(slices) - 1, 0, -1):
            other = self._choose(position + 1)
            slices[position], slices[other] = slices[other], slices[position]
        families = spec.get("ipFamilies") or ()
        if families:
            slices.sort(key=lambda item: item.get("addressType") != families[0])
        for item in slices:
            for entry in item.get("ports") or ():
                if (entry.get("name") or "") != (port.get("name") or "") or not entry.get("port"):
                    continue
                endpoints = [
                    endpoint
                    for endpoint in item.get("endpoints") or ()
                    if endpoint.get("addresses") and nested(endpoint, "conditions", "ready", default=True)
                ]
                if endpoints:
                    return str(endpoints[self._choose(len(endpoints))]["addresses"][0]), int(entry["port"])
        raise LookupError(f"no endpoints available for service {quote(name)}")

    def _slices(self, namespace: str, name: str) -> Sequence[Obj]:
        return [item for item in self._listers(SLICES).list(namespace) if labels(item).get(_SERVICE_NAME) == name]
