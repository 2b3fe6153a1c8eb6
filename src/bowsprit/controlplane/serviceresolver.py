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
        if (namespace, name) == ("default", "kubernetes"):
            return self._own()
        service = self._listers(SERVICES).get(namespace, name)
        if service is None:
            raise LookupError(f"service {quote(name)} not found")
        spec = service.get("spec") or {}
        if spec.get("type") == "ExternalName":
            if self._endpoints:
                raise LookupError('unsupported service type "ExternalName"')
            return str(spec.get("externalName") or ""), port
        chosen = next((item for item in spec.get("ports") or () if item.get("port") == port), None)
        if chosen is None:
            raise LookupError(f"no service port {port} found for service {quote(name)}")
        if not self._endpoints:
            address = spec.get("clusterIP") or ""
            if address in ("", "None"):
                raise LookupError(f"service {quote(name)} has no cluster IP")
            return str(address), port
        return self._endpoint(namespace, name, chosen)

    def _endpoint(self, namespace: str, name: str, port: Obj) -> tuple[str, int]:
        candidates: list[tuple[str, int]] = []
        for item in self._slices(namespace, name):
            number = next(
                (
                    entry["port"]
                    for entry in item.get("ports") or ()
                    if (entry.get("name") or "") == (port.get("name") or "") and entry.get("port")
                ),
                None,
            )
            if number is not None:
                candidates += [
                    (address, number)
                    for endpoint in item.get("endpoints") or ()
                    if nested(endpoint, "conditions", "ready", default=True)
                    for address in (endpoint.get("addresses") or ())[:1]
                ]
        if not candidates:
            raise LookupError(f"no endpoints available for service {quote(name)}")
        return candidates[self._choose(len(candidates))]

    def _slices(self, namespace: str, name: str) -> Sequence[Obj]:
        return [item for item in self._listers(SLICES).list(namespace) if labels(item).get(_SERVICE_NAME) == name]
