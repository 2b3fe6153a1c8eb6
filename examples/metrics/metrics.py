"""metrics.k8s.io/v1beta1 for clusters whose pods are simulated: `kubectl top nodes` and `kubectl top pods` work.

    bowsprit extension run examples/metrics/metrics.py:app --dev
    kubectl top nodes

Nothing is stored: every answer is computed from the core's nodes and pods. A container uses what it requests, more or less,
in a slow wave of its own; the annotation `metrics.example.com/cpu: 250m` (or `/memory`) of a pod says it exactly.
"""

import math
from datetime import UTC, datetime
from typing import Any
from zlib import crc32

from bowsprit.extension import App, Kind, Model, Quantity, RequestContext
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.quantity import Quantity as Exact

app = App("metrics.k8s.io", name="metrics")

PODS = GroupVersionResource("", "v1", "pods")
NODES = GroupVersionResource("", "v1", "nodes")
WINDOW = "30s"
IDLE = {"cpu": "5m", "memory": "16Mi"}  # of a container that requests nothing
SYSTEM = {"cpu": "80m", "memory": "400Mi"}  # of a node beside its pods
WAVE_SECONDS = 600


class ContainerMetrics(Model):
    name: str
    usage: dict[str, Quantity] = {}
    """The amount of each resource that the container uses."""


def usage_of(pod: dict[str, Any], container: dict[str, Any], now: datetime) -> dict[str, Exact]:
    """What a container uses now."""
    meta = pod["metadata"]
    noted = meta.get("annotations") or {}
    requests = (container.get("resources") or {}).get("requests") or {}
    phase = crc32(f"{meta['namespace']}/{meta['name']}/{container['name']}".encode()) % WAVE_SECONDS
    factor = 0.75 + 0.25 * math.sin(2 * math.pi * (now.timestamp() + phase) / WAVE_SECONDS)
    found = {}
    for resource, idle in IDLE.items():
        fixed = noted.get(f"metrics.example.com/{resource}")
        amount = Exact.parse(fixed or requests.get(resource) or idle)
        milli = amount.milli_value() if fixed else round(amount.milli_value() * factor)
        found[resource] = Exact.parse(f"{milli}m") if resource == "cpu" else Exact.parse(milli // 1000)
    return found


def written(usage: dict[str, Exact]) -> dict[str, str]:
    """Memory in Ki, as metrics-server writes it."""
    return {"cpu": str(usage["cpu"]), "memory": f"{usage['memory'].value() // 1024}Ki"}


def total(parts: list[dict[str, Exact]]) -> dict[str, Exact]:
    """The sum of usages."""
    milli = sum(part["cpu"].milli_value() for part in parts)
    return {"cpu": Exact.parse(f"{milli}m"), "memory": Exact.parse(sum(part["memory"].value() for part in parts))}


def running(pod: dict[str, Any]) -> bool:
    """Whether the pod uses anything."""
    return (pod.get("status") or {}).get("phase") == "Running" and bool(pod["spec"].get("nodeName"))


def head(obj: dict[str, Any], now: datetime) -> dict[str, Any]:
    """The members that all metrics have; labels are the object's own, so that selectors work."""
    meta = obj["metadata"]
    kept = {key: meta[key] for key in ("name", "namespace", "labels") if meta.get(key)}
    stamp = now.strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"metadata": {**kept, "creationTimestamp": stamp}, "timestamp": stamp, "window": WINDOW}


class PodUsage:
    """list, for one namespace or all; the library makes get, selectors and tables of it."""

    async def list(self, ctx: RequestContext, namespace: str) -> list[dict[str, Any]]:
        pods = await app.core.list(PODS, namespace=namespace or None)
        now = datetime.now(UTC)
        return [self.metrics(pod, now) for pod in pods["items"] if running(pod)]

    async def get(self, ctx: RequestContext, namespace: str, name: str) -> dict[str, Any] | None:
        found = [each for each in await self.list(ctx, namespace) if each["metadata"]["name"] == name]
        return found[0] if found else None

    def metrics(self, pod: dict[str, Any], now: datetime) -> dict[str, Any]:
        containers = pod["spec"]["containers"]
        parts = [{"name": each["name"], "usage": written(usage_of(pod, each, now))} for each in containers]
        return {**head(pod, now), "containers": parts}


class NodeUsage:
    """A node uses what its pods use, and something for itself."""

    async def list(self, ctx: RequestContext, namespace: str) -> list[dict[str, Any]]:
        nodes, pods = await app.core.list(NODES), await app.core.list(PODS)
        now = datetime.now(UTC)
        used: dict[str, list[dict[str, Exact]]] = {}
        for pod in pods["items"]:
            if running(pod):
                parts = [usage_of(pod, each, now) for each in pod["spec"]["containers"]]
                used.setdefault(pod["spec"]["nodeName"], []).append(total(parts))
        own = {resource: Exact.parse(amount) for resource, amount in SYSTEM.items()}
        return [
            {**head(node, now), "usage": written(total([own, *used.get(node["metadata"]["name"], [])]))}
            for node in nodes["items"]
        ]

    async def get(self, ctx: RequestContext, namespace: str, name: str) -> dict[str, Any] | None:
        found = [each for each in await self.list(ctx, "") if each["metadata"]["name"] == name]
        return found[0] if found else None


class Metrics(Kind):
    timestamp: datetime
    window: str = WINDOW


@app.kind(version="v1beta1", plural="nodes", scope="Cluster", storage=NodeUsage(), columns={"Usage": ".usage"})
class NodeMetrics(Metrics):
    """The resource usage of a node."""

    usage: dict[str, Quantity] = {}
    """The amount of each resource that the node uses."""


@app.kind(version="v1beta1", plural="pods", storage=PodUsage(), columns={"Window": ".window"})
class PodMetrics(Metrics):
    """The resource usage of a pod."""

    containers: list[ContainerMetrics] = []
