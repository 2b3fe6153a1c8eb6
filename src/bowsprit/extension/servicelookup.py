"""Where the core's webhooks are when they are Services.

In a cluster, Services have names (upstream's default resolver does no more). A server that runs beside the cluster, as with
``--dev``, has no cluster DNS: it asks the core API server for a ready endpoint.
"""

from __future__ import annotations

import asyncio
import random

from bowsprit.client.errors import ClientError
from bowsprit.client.resources import ENDPOINT_SLICES, SERVICES
from bowsprit.client.rest import RestClient
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.objects import Obj

_CALL_SECONDS = 5.0


class ServiceLookup:
    """Finds Services; `in_cluster`: by name."""

    def __init__(self, client: RestClient, *, in_cluster: bool) -> None:
        self._client = client
        self._in_cluster = in_cluster

    async def find(self, namespace: str, name: str, port: int) -> tuple[str, int]:
        """Host and port of a Service's port. Raises LookupError with the text to tell."""
        if self._in_cluster:
            return f"{name}.{namespace}.svc", port
        try:
            async with asyncio.timeout(_CALL_SECONDS):
                service = await self._client.get(SERVICES, name, namespace=namespace)
                slices = await self._client.list(
                    ENDPOINT_SLICES, namespace=namespace, label_selector=f"kubernetes.io/service-name={name}"
                )
        except (StatusError, ClientError, TimeoutError) as failure:
            raise LookupError(getattr(failure, "message", "") or str(failure) or "timed out") from failure
        spec = service.get("spec") or {}
        if spec.get("type") == "ExternalName":
            return str(spec["externalName"]), port
        wanted = next((each for each in spec.get("ports") or () if each.get("port") == port), None)
        if wanted is None:
            raise LookupError(f'service "{name}" has no port {port}')
        found = [
            (address, int(target["port"]))
            for each in slices["items"]
            for target in each.get("ports") or ()
            if (target.get("name") or "") == (wanted.get("name") or "") and target.get("port")
            for address in _ready(each)
        ]
        if not found:
            raise LookupError(f'no endpoints available for service "{name}"')
        return random.choice(found)


def _ready(slice_object: Obj) -> list[str]:
    """Addresses of endpoints that are not known to be unready."""
    return [
        address
        for endpoint in slice_object.get("endpoints") or ()
        if (endpoint.get("conditions") or {}).get("ready") is not False
        for address in endpoint.get("addresses") or ()
    ]
