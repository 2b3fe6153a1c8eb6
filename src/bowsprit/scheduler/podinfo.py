"""A pod as the scheduler sees it, and the compiled shape that identical pods share.

Compiling a pod (requests, tolerations, affinity terms, selectors) costs far more than placing it, so everything that
depends on the specification and the labels alone lives in a PodShape, found again by a signature of those fields.
What differs between pods of one ReplicaSet (name, uid, volumes' claims, start time) stays in PodInfo.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import Any

import orjson

from bowsprit.machinery.objects import Obj
from bowsprit.machinery.selectors import LabelSelector
from bowsprit.machinery.time import parse_time
from bowsprit.scheduler.nodeselector import PreferredTerms, RequiredNodeAffinity
from bowsprit.scheduler.requests import Amounts, non_zero_requests, pod_requests, scored_requests
from bowsprit.scheduler.tolerations import Toleration

_FAR_FUTURE = float("inf")


@dataclass(frozen=True, slots=True)
class AffinityTerm:
    """A required or preferred term of inter-pod (anti-)affinity, bound to the namespace of its owner."""

    topology_key: str
    namespaces: frozenset[str]
    namespace_selector: LabelSelector
    selector: LabelSelector
    text: str  # identity: terms with the same text are the same term

    @classmethod
    def from_obj(cls, term: Obj, namespace: str) -> AffinityTerm:
        names, ns_selector = term.get("namespaces") or [], term.get("namespaceSelector")
        namespaces = frozenset(names) if names or ns_selector is not None else frozenset({namespace})
        selector, key = term.get("labelSelector"), term.get("topologyKey", "")
        identity = orjson.dumps([key, sorted(namespaces), ns_selector, selector], option=orjson.OPT_SORT_KEYS)
        return cls(
            key, namespaces, LabelSelector.from_obj(ns_selector), LabelSelector.from_obj(selector), identity.decode()
        )

    def selects_namespace(self, namespace: str, labels: Mapping[str, str]) -> bool:
        return namespace in self.namespaces or self.namespace_selector.matches(labels)

    def matches(self, namespace: str, labels: Mapping[str, str], namespace_labels: Mapping[str, str]) -> bool:
        return self.selects_namespace(namespace, namespace_labels) and self.selector.matches(labels)


def _terms(affinity: Obj, kind: str, namespace: str) -> tuple[AffinityTerm, ...]:
    items = (affinity.get(kind) or {}).get("requiredDuringSchedulingIgnoredDuringExecution") or ()
    return tuple(AffinityTerm.from_obj(term, namespace) for term in items)


def _weighted(affinity: Obj, kind: str, namespace: str) -> tuple[tuple[int, AffinityTerm], ...]:
    items = (affinity.get(kind) or {}).get("preferredDuringSchedulingIgnoredDuringExecution") or ()
    return tuple(
        (int(i.get("weight") or 0), AffinityTerm.from_obj(i.get("podAffinityTerm") or {}, namespace)) for i in items
    )


@dataclass(frozen=True, slots=True)
class SpreadConstraint:
    """One topology spread constraint with its selector built (matchLabelKeys merged in)."""

    topology_key: str
    max_skew: int
    min_domains: int
    selector: LabelSelector
    honor_affinity: bool
    honor_taints: bool
    text: str


def spread_constraint(obj: Obj, labels: Mapping[str, str], selector: LabelSelector | None = None) -> SpreadConstraint:
    """Build a constraint; `selector` replaces its labelSelector (default constraints have none)."""
    text = ""
    if selector is None:
        selector = LabelSelector.from_obj(obj.get("labelSelector"))
        wanted = {key: labels[key] for key in obj.get("matchLabelKeys") or () if key in labels}
        if wanted and not selector.nothing:
            merged = LabelSelector.from_labels(wanted)
            selector = LabelSelector(merged.requirements + selector.requirements)
    text = "nothing" if selector.nothing else str(selector)
    return SpreadConstraint(
        topology_key=obj.get("topologyKey", ""),
        max_skew=int(obj.get("maxSkew") or 1),
        min_domains=int(obj.get("minDomains") or 1),
        selector=selector,
        honor_affinity=(obj.get("nodeAffinityPolicy") or "Honor") == "Honor",
        honor_taints=(obj.get("nodeTaintsPolicy") or "Ignore") == "Honor",
        text=text,
    )


HostPort = tuple[str, int, str]


def _host_ports(spec: Obj) -> tuple[HostPort, ...]:
    containers = list(spec.get("containers") or ())
    containers += [c for c in spec.get("initContainers") or () if c.get("restartPolicy") == "Always"]
    ports: list[HostPort] = []
    for container in containers:
        for port in container.get("ports") or ():
            if port.get("hostPort"):
                ports.append((port.get("protocol") or "TCP", int(port["hostPort"]), port.get("hostIP") or "0.0.0.0"))
    return tuple(ports)


def ports_conflict(one: HostPort, other: HostPort) -> bool:
    if one[:2] != other[:2]:
        return False
    return one[2] == other[2] or "0.0.0.0" in (one[2], other[2])


def normalized_image(name: str) -> str:
    """imagelocality.normalizedImageName: ":latest" where the last path segment has no tag or digest."""
    return name if name.rfind(":") > name.rfind("/") else name + ":latest"


def _required_features(spec: Obj) -> frozenset[str]:
    """Node features that the specification needs (component-helpers/nodedeclaredfeatures)."""
    features = set()
    containers = list(spec.get("containers") or ()) + list(spec.get("initContainers") or ())
    if any(
        rule.get("action") == "RestartAllContainers"
        for container in containers
        for rule in container.get("restartPolicyRules") or ()
    ):
        features.add("RestartAllContainersOnContainerExits")
    if spec.get("hostNetwork") and spec.get("hostUsers") is False:
        features.add("UserNamespacesHostNetworkSupport")
    return frozenset(features)


@dataclass(slots=True, eq=False)
class PodShape:
    """What identical pods have in common, compiled once. Compare by identity."""

    namespace: str
    labels: dict[str, str]
    scheduler_name: str
    priority: int
    preemption_policy: str
    requests: Amounts
    non_zero: tuple[int, int]
    scored: tuple[int, int]
    ports: tuple[HostPort, ...]
    tolerations: tuple[Toleration, ...]
    node_affinity: RequiredNodeAffinity
    preferred_nodes: PreferredTerms
    required_affinity: tuple[AffinityTerm, ...]
    required_anti: tuple[AffinityTerm, ...]
    preferred_affinity: tuple[tuple[int, AffinityTerm], ...]
    preferred_anti: tuple[tuple[int, AffinityTerm], ...]
    spread: list[Obj]
    images: tuple[str, ...]
    image_slots: int
    features: frozenset[str]
    local: bytes  # shapes with the same value ask the same of a single node: see FilterColumnsPlugin.local
    cache: dict[Any, Any] = field(default_factory=dict)  # what plugins derive from the shape, by their key

    @property
    def has_affinity(self) -> bool:
        return bool(self.required_affinity or self.required_anti or self.preferred_affinity or self.preferred_anti)


def _compile(obj: Obj) -> PodShape:
    meta, spec = obj.get("metadata") or {}, obj.get("spec") or {}
    status = (obj.get("status") or {}) if spec.get("nodeName") else {}
    namespace = meta.get("namespace") or "default"
    affinity = spec.get("affinity") or {}
    containers, inits = spec.get("containers") or [], spec.get("initContainers") or []
    images = [normalized_image(c.get("image") or "") for c in [*inits, *containers]]
    volumes = [v["image"].get("reference") or "" for v in spec.get("volumes") or () if v.get("image")]
    preferred = (affinity.get("nodeAffinity") or {}).get("preferredDuringSchedulingIgnoredDuringExecution")
    requests = pod_requests(spec, status)
    local = [
        sorted(requests.items()), [_container_key(c) for c in (*inits, *containers)], volumes,
        spec.get("nodeSelector"), affinity.get("nodeAffinity"), spec.get("tolerations"), spec.get("resources"),
        spec.get("hostNetwork"), spec.get("hostUsers"),
    ]  # fmt: skip
    return PodShape(
        namespace=namespace,
        labels=dict(meta.get("labels") or {}),
        scheduler_name=spec.get("schedulerName") or "default-scheduler",
        priority=int(spec.get("priority") or 0),
        preemption_policy=spec.get("preemptionPolicy") or "PreemptLowerPriority",
        requests=requests,
        non_zero=non_zero_requests(spec, status),
        scored=scored_requests(spec, status),
        ports=_host_ports(spec),
        tolerations=tuple(Toleration.from_obj(t) for t in spec.get("tolerations") or ()),
        node_affinity=RequiredNodeAffinity.from_spec(spec),
        preferred_nodes=PreferredTerms.from_obj(preferred),
        required_affinity=_terms(affinity, "podAffinity", namespace),
        required_anti=_terms(affinity, "podAntiAffinity", namespace),
        preferred_affinity=_weighted(affinity, "podAffinity", namespace),
        preferred_anti=_weighted(affinity, "podAntiAffinity", namespace),
        spread=list(spec.get("topologySpreadConstraints") or ()),
        images=tuple(images + [normalized_image(v) for v in volumes]),
        image_slots=len(containers) + len(inits),
        features=_required_features(spec),
        local=orjson.dumps(local),
    )


_SPEC_FIELDS = (
    "nodeSelector", "affinity", "tolerations", "topologySpreadConstraints", "overhead", "resources", "priority",
    "preemptionPolicy", "schedulerName", "hostNetwork", "hostUsers",
)  # fmt: skip


def _container_key(container: Obj) -> tuple[Any, ...]:
    get = container.get
    return (get("image"), get("resources"), get("ports"), get("restartPolicy"), get("restartPolicyRules"))


def _signature(obj: Obj) -> bytes:
    meta, spec = obj["metadata"], obj["spec"]
    get = spec.get
    parts: list[Any] = [meta.get("namespace"), meta.get("labels"), [get(name) for name in _SPEC_FIELDS]]
    parts.append([_container_key(c) for c in get("containers") or ()])
    if get("initContainers"):
        parts.append([_container_key(c) for c in spec["initContainers"]])
    if get("schedulingGates"):
        parts.append("gated")
    if get("volumes"):
        parts.append([v["image"] for v in spec["volumes"] if v.get("image")])
    status = obj.get("status")
    if status and get("nodeName"):
        for kind in ("containerStatuses", "initContainerStatuses"):
            for item in status.get(kind) or ():
                if item.get("resources") is not None or item.get("allocatedResources"):
                    parts.append((item.get("name"), item.get("resources"), item.get("allocatedResources")))
        if len(parts) > 4:
            parts.append([c.get("name") for c in get("containers") or ()])
            parts.append(status.get("conditions"))
    return orjson.dumps(parts)


class ShapeTable:
    """Shapes by signature; the least recently used ones are forgotten beyond `limit`."""

    def __init__(self, limit: int = 20_000):
        self._limit = limit
        self._shapes: OrderedDict[bytes, PodShape] = OrderedDict()

    def __len__(self) -> int:
        return len(self._shapes)

    def shape_of(self, obj: Obj) -> PodShape:
        key = _signature(obj)
        shape = self._shapes.get(key)
        if shape is None:
            shape = self._shapes[key] = _compile(obj)
            if len(self._shapes) > self._limit:
                self._shapes.popitem(last=False)
        else:
            self._shapes.move_to_end(key)
        return shape


def epoch(text: str | None, default: float = 0.0) -> float:
    """Seconds since 1970 of an API time; `default` when absent or unreadable."""
    if not text:
        return default
    try:
        moment: datetime = parse_time(text)
    except ValueError:
        return default
    return moment.timestamp()


@dataclass(slots=True, eq=False)
class PodInfo:
    """One pod. `obj` is kept for pods that are being scheduled; for those that run only what is needed stays."""

    namespace: str
    name: str
    uid: str
    shape: PodShape
    node_name: str
    nominated: str
    terminating: bool
    start_time: float | None
    created: float
    volumes: list[Obj]
    owner: Obj | None
    obj: Obj

    @property
    def key(self) -> str:
        return f"{self.namespace}/{self.name}"

    @property
    def priority(self) -> int:
        return self.shape.priority

    @property
    def scheduler_name(self) -> str:
        return self.shape.scheduler_name

    @classmethod
    def from_obj(cls, obj: Obj, shapes: ShapeTable) -> PodInfo:
        meta, spec, status = obj["metadata"], obj["spec"], obj.get("status") or {}
        owners = meta.get("ownerReferences") or ()
        start = status.get("startTime")
        return cls(
            namespace=meta.get("namespace") or "default",
            name=meta.get("name", ""),
            uid=meta.get("uid") or f"{meta.get('namespace')}/{meta.get('name')}",
            shape=shapes.shape_of(obj),
            node_name=spec.get("nodeName") or "",
            nominated=status.get("nominatedNodeName") or "",
            terminating=bool(meta.get("deletionTimestamp")),
            start_time=epoch(start) if start else None,
            created=epoch(meta.get("creationTimestamp")),
            volumes=[v for v in spec.get("volumes") or () if _scheduling_volume(v)],
            owner=next((o for o in owners if o.get("controller")), None) if owners else None,
            obj=obj,
        )

    def start_order(self) -> float:
        """GetPodStartTime for comparing: pods that have not started come last."""
        return self.start_time if self.start_time is not None else _FAR_FUTURE

    def claim_names(self) -> list[str]:
        """Names of the claims that the pod's volumes refer to, generic ephemeral ones by their generated name."""
        names = []
        for volume in self.volumes:
            if volume.get("persistentVolumeClaim"):
                names.append(volume["persistentVolumeClaim"].get("claimName", ""))
            elif volume.get("ephemeral") is not None:
                names.append(f"{self.name}-{volume.get('name', '')}")
        return names

    def has_resource_claims(self) -> bool:
        return bool(self.obj.get("spec", {}).get("resourceClaims"))


_PLAIN_VOLUMES = frozenset(
    {"configMap", "secret", "emptyDir", "hostPath", "projected", "downwardAPI", "image", "nfs", "gitRepo"}
)


def _scheduling_volume(volume: Obj) -> bool:
    """Whether any plugin looks at this volume (claims, disks, in-tree and CSI drivers)."""
    return not any(kind in volume for kind in _PLAIN_VOLUMES)


def by_importance(pods: Iterable[PodInfo]) -> list[PodInfo]:
    """Most important first: higher priority, then earlier start (util.MoreImportantPod).

    Pods that have not started yet come last, in reverse: upstream compares two of them by the times at which it looks,
    which makes each more important than all before it.
    """

    def key(item: tuple[int, PodInfo]) -> tuple[int, float, int]:
        place, pod = item
        return (-pod.priority, pod.start_order(), place if pod.start_time is not None else -place)

    return [pod for _, pod in sorted(enumerate(pods), key=key)]
