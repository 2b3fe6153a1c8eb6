"""Warnings about pods that are valid but probably not what their author wants (upstream pkg/api/pod/warnings.go)."""

from __future__ import annotations

from collections.abc import Iterator

from bowsprit.machinery import objects
from bowsprit.machinery.fielderrors import Path, path
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.objects import Obj, nested
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import is_dns1123_label

# Where the kinds keep their pod template.
_TEMPLATES = {
    "Deployment": ("spec", "template"),
    "ReplicaSet": ("spec", "template"),
    "StatefulSet": ("spec", "template"),
    "DaemonSet": ("spec", "template"),
    "ReplicationController": ("spec", "template"),
    "Job": ("spec", "template"),
    "CronJob": ("spec", "jobTemplate", "spec", "template"),
    "PodTemplate": ("template",),
}
_NODE_LABELS = {
    "beta.kubernetes.io/arch": 'deprecated since v1.14; use "kubernetes.io/arch" instead',
    "beta.kubernetes.io/os": 'deprecated since v1.14; use "kubernetes.io/os" instead',
    "failure-domain.beta.kubernetes.io/region": 'deprecated since v1.17; use "topology.kubernetes.io/region" instead',
    "failure-domain.beta.kubernetes.io/zone": 'deprecated since v1.17; use "topology.kubernetes.io/zone" instead',
    "beta.kubernetes.io/instance-type": 'deprecated since v1.17; use "node.kubernetes.io/instance-type" instead',
}
_ANNOTATIONS = {
    "scheduler.alpha.kubernetes.io/critical-pod": 'non-functional in v1.16+; use the "priorityClassName" field instead',
    "security.alpha.kubernetes.io/sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "security.alpha.kubernetes.io/unsafe-sysctls": 'non-functional in v1.11+; use the "sysctls" field instead',
    "seccomp.security.alpha.kubernetes.io/pod": 'non-functional in v1.27+; use the "seccompProfile" field instead',
}
_APPARMOR, _SECCOMP = (
    "container.apparmor.security.beta.kubernetes.io/",
    "container.seccomp.security.alpha.kubernetes.io/",
)
_VOLUMES = {
    "photonPersistentDisk": "deprecated in v1.11, non-functional in v1.16+",
    "gitRepo": "deprecated in v1.11, and disabled by default in v1.33+",
    "scaleIO": "deprecated in v1.16, non-functional in v1.22+",
    "flocker": "deprecated in v1.22, non-functional in v1.25+",
    "storageos": "deprecated in v1.22, non-functional in v1.25+",
    "quobyte": "deprecated in v1.22, non-functional in v1.25+",
    "glusterfs": "deprecated in v1.25, non-functional in v1.26+",
    "cephfs": "deprecated in v1.28, non-functional in v1.31+",
    "rbd": "deprecated in v1.28, non-functional in v1.31+",
}
_NO_POD = "a null labelSelector results in matching no pod"


# The kinds whose names begin the names of pods; those of other kinds must be DNS labels, or are not looked at.
_NAMING_PODS = frozenset({"CronJob", "Deployment", "Job", "ReplicaSet", "ReplicationController"})


def template_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Warnings about a workload's template, at creation and when the spec changes."""
    where = _TEMPLATES.get(obj.get("kind", ""))
    if where is None or (old is not None and obj.get("spec") == old.get("spec")):
        return []
    template = nested(obj, *where)
    found = [] if template is None else list(_warnings(template, path(*where)))
    if old is None and obj.get("kind") in _NAMING_PODS:
        found[:0] = _name_warnings(obj, "Pod names and hostnames")
    return found


def pod_warnings(obj: Obj, old: Obj | None) -> list[str]:
    """Warnings about a new pod; changes of pods are made by machines."""
    return [*_name_warnings(obj, "the Pod's hostname"), *_warnings(obj, path())] if old is None else []


def _name_warnings(obj: Obj, what: str) -> list[str]:
    name = objects.name(obj)
    problems = is_dns1123_label(name) if name else []
    if not problems:
        return []
    text = f"this is used in {what}, which can result in surprising behavior; a DNS label is recommended"
    return [f"metadata.name: {text}: [{' '.join(problems)}]"]


def _warnings(pod: Obj, where: Path) -> Iterator[str]:
    spec = pod.get("spec") or {}
    yield from _annotation_warnings(pod, spec, where)
    place = where.child("spec")
    yield from _label_warnings(spec, place)
    for index, constraint in enumerate(spec.get("topologySpreadConstraints") or ()):
        spot = place.child("topologySpreadConstraints").index(index)
        key = constraint.get("topologyKey", "")
        if key in _NODE_LABELS:
            yield f"{spot.child('topologyKey')}: {key} is {_NODE_LABELS[key]}"
        if constraint.get("labelSelector") is None:
            yield f"{spot.child('labelSelector')}: {_NO_POD}"
    for index, volume in enumerate(spec.get("volumes") or ()):
        spot = place.child("volumes").index(index)
        yield from (f"{spot.child(kind)}: {text}" for kind, text in _VOLUMES.items() if volume.get(kind) is not None)
    yield from _repeated(spec.get("hostAliases") or [], "ip", "duplicate ip", place.child("hostAliases"))
    yield from _pull_secret_warnings(spec.get("imagePullSecrets") or [], place.child("imagePullSecrets"))
    for field in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(field) or ()):
            yield from _container_warnings(container, place.child(field).index(index))
    yield from _port_warnings(spec, place)
    seconds = spec.get("terminationGracePeriodSeconds")
    if seconds is not None and seconds < 0:
        yield f"{place.child('terminationGracePeriodSeconds')}: must be >= 0; negative values are invalid and will be treated as 1"
    yield from _affinity_warnings(spec.get("affinity") or {}, place.child("affinity"))


def _annotation_warnings(pod: Obj, spec: Obj, where: Path) -> Iterator[str]:
    """Annotations that fields have replaced."""
    annotations, place = objects.annotations(pod), where.child("metadata", "annotations")
    for key, text in _ANNOTATIONS.items():
        if key in annotations:
            yield f"{place.key(key)}: {text}"
    for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
        name, context = container.get("name", ""), container.get("securityContext") or {}
        # For pods themselves apparmor.sync_profiles warns, as it turns the annotation into the field.
        template = bool(str(where))
        if template and _APPARMOR + name in annotations and context.get("appArmorProfile") is None:
            yield f'{place.key(_APPARMOR + name)}: deprecated since v1.30; use the "appArmorProfile" field instead'
        if _SECCOMP + name in annotations and context.get("seccompProfile") is None:
            yield f'{place.key(_SECCOMP + name)}: non-functional in v1.27+; use the "seccompProfile" field instead'


def _label_warnings(spec: Obj, where: Path) -> Iterator[str]:
    for key in spec.get("nodeSelector") or {}:
        if key in _NODE_LABELS:
            yield f"{where.child('nodeSelector').key(key)}: {_NODE_LABELS[key]}"
    affinity, place = nested(spec, "affinity", "nodeAffinity", default={}), where.child("affinity", "nodeAffinity")
    required, preferred = (
        "requiredDuringSchedulingIgnoredDuringExecution",
        "preferredDuringSchedulingIgnoredDuringExecution",
    )
    terms = [
        (term, place.child(required, "nodeSelectorTerms").index(index))
        for index, term in enumerate((affinity.get(required) or {}).get("nodeSelectorTerms") or ())
    ]
    terms += [
        (entry.get("preference") or {}, place.child(preferred).index(index).child("preference"))
        for index, entry in enumerate(affinity.get(preferred) or ())
    ]
    for term, spot in terms:
        for index, expression in enumerate(term.get("matchExpressions") or ()):
            key = expression.get("key", "")
            if key in _NODE_LABELS:
                yield f"{spot.child('matchExpressions').index(index).child('key')}: {key} is {_NODE_LABELS[key]}"


def _repeated(items: list[Obj], field: str, text: str, where: Path) -> Iterator[str]:
    seen: set[str] = set()
    for index, item in enumerate(items):
        value = item.get(field, "")
        if value in seen:
            yield f"{where.index(index).child(field)}: {text} {quote(value)}"
        seen.add(value)


def _pull_secret_warnings(secrets: list[Obj], where: Path) -> Iterator[str]:
    seen: set[str] = set()
    for index, secret in enumerate(secrets):
        name, place = secret.get("name", ""), where.index(index).child("name")
        if not name:
            yield f"{place}: invalid empty name {quote(name)}"
        elif name in seen:
            yield f"{place}: duplicate name {quote(name)}"
        seen.add(name)


def _container_warnings(container: Obj, where: Path) -> Iterator[str]:
    resources = container.get("resources") or {}
    for name in ("memory", "ephemeral-storage"):
        for part in ("limits", "requests"):
            amount = (resources.get(part) or {}).get(name)
            if amount is not None and Quantity.parse(amount).milli_value() % 1000:
                spot = where.child("resources", part).key(name)
                yield f"{spot}: fractional byte value {quote(amount)} is invalid, must be an integer"
    seen: set[str] = set()
    for index, entry in enumerate(container.get("env") or ()):
        name = entry.get("name", "")
        hides = entry.get("valueFrom") is not None or f"$({name})" not in entry.get("value", "")
        if name in seen and hides:
            spot = where.child("env").index(index)
            yield f"{spot}: hides previous definition of {quote(name)}, which may be dropped when using apply"
        seen.add(name)


def _port_warnings(spec: Obj, where: Path) -> Iterator[str]:
    """Ports of all containers that get in each other's way."""
    seen: dict[tuple[int, str], list[tuple[Path, Obj]]] = {}
    names: dict[str, Path] = {}
    repeated: list[str] = []
    for kind in ("initContainers", "containers", "ephemeralContainers"):
        for number, container in enumerate(spec.get(kind) or ()):
            for index, port in enumerate(container.get("ports") or ()):
                place = where.child(kind).index(number).child("ports").index(index)
                if port.get("hostIP") and not port.get("hostPort"):
                    yield f"{place}: hostIP set without hostPort: {_go_port(port)}"
                others = seen.setdefault((port.get("containerPort") or 0, port.get("protocol") or ""), [])
                for spot, other in others:
                    if text := _conflict(port, other):
                        yield f"{place}: {text} port definition with {spot}"
                others.append((place, port))
                if (name := port.get("name", "")) and (first := names.setdefault(name, place)) is not place:
                    use = f"services and probes that select ports by name will use {first}"
                    repeated.append(f"{place}: duplicate port name {quote(name)} with {first}, {use}")
    yield from repeated


def _go_port(port: Obj) -> str:
    """A port as Go prints upstream's internal type."""
    shown = {"Name": "name", "HostPort": "hostPort", "ContainerPort": "containerPort", "Protocol": "protocol"}
    values = {go: port.get(name) or (0 if go.endswith("Port") else "") for go, name in shown.items()}
    return "{" + " ".join(f"{name}:{value}" for name, value in {**values, "HostIP": port["hostIP"]}.items()) + "}"


def _conflict(port: Obj, other: Obj) -> str:
    """How two ports of one number and protocol get in each other's way, "" if they do not."""
    mine, its = ((each.get("hostIP") or "", each.get("hostPort") or 0) for each in (port, other))
    if mine == its:
        return "duplicate"
    if not mine[1] or not its[1]:
        return "overlapping"
    return "dangerously ambiguous" if mine[1] == its[1] and (not mine[0]) != (not its[0]) else ""


def _affinity_warnings(affinity: Obj, where: Path) -> Iterator[str]:
    """Pod affinity that can match nothing."""
    for kind in ("podAffinity", "podAntiAffinity"):
        rules, place = affinity.get(kind) or {}, where.child(kind)
        for index, term in enumerate(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ()):
            if term.get("labelSelector") is None:
                spot = place.child("requiredDuringSchedulingIgnoredDuringExecution").index(index)
                yield f"{spot.child('labelSelector')}: {_NO_POD}"
        for index, entry in enumerate(rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
            if (entry.get("podAffinityTerm") or {}).get("labelSelector") is None:
                spot = place.child("preferredDuringSchedulingIgnoredDuringExecution").index(index)
                yield f"{spot.child('podAffinityTerm', 'labelSelector')}: {_NO_POD}"
