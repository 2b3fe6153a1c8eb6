"""Defaults of pod specs and the volumes in them (upstream pkg/apis/core/v1/defaults.go)."""

from __future__ import annotations

import re
from collections.abc import Iterator
from typing import Any

from bowsprit.machinery.objects import Obj

_LEGACY_MODE = 420

# An image reference (github.com/distribution/reference): a host, a path in small letters, a tag, a digest.
_HOST = (
    r"(?:(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9])(?:\.(?:[a-zA-Z0-9]|[a-zA-Z0-9][a-zA-Z0-9-]*[a-zA-Z0-9]))*"
)
_HOST += r"|\[[a-fA-F0-9:]+\])(?::[0-9]+)?"
_PART = "[a-z0-9]+(?:(?:[._]|__|-+)[a-z0-9]+)*"
_DIGEST = "[A-Za-z][A-Za-z0-9]*(?:[-_+.][A-Za-z][A-Za-z0-9]*)*:[0-9a-fA-F]{32,}"
_REFERENCE = re.compile(
    rf"(?:{_HOST}/)?{_PART}(?:/{_PART})*(?::(?P<tag>[\w][\w.-]{{0,127}}))?(?:@(?P<digest>{_DIGEST}))?", re.A
)
_IDENTIFIER = re.compile("[a-f0-9]{64}")  # an image's id looks like a path, but is none


def containers_of(spec: Obj) -> Iterator[Obj]:
    """Init and normal containers."""
    yield from spec.get("initContainers") or ()
    yield from spec.get("containers") or ()


def default_pod_spec(spec: Obj, *, template: bool = False) -> None:
    """Set defaults in place.

    Args:
        spec: a PodSpec.
        template: it stands in a pod template, where enableServiceLinks and host ports are left to the pod itself.
    """
    _drop_disabled(spec)
    # The deprecated serviceAccount mirrors serviceAccountName (upstream's conversion).
    if name := spec.get("serviceAccountName") or spec.get("serviceAccount"):
        spec["serviceAccountName"] = spec["serviceAccount"] = name
    _missing(spec, "dnsPolicy", "ClusterFirst")
    _missing(spec, "restartPolicy", "Always")
    if spec.get("hostNetwork") and not template:
        for container in containers_of(spec):
            for port in container.get("ports") or ():
                _missing(port, "hostPort", port.get("containerPort", 0))
    if spec.get("securityContext") is None:
        spec["securityContext"] = {}
    _missing(spec, "terminationGracePeriodSeconds", 30, absent_only=True)
    _missing(spec, "schedulerName", "default-scheduler")
    if not template and spec.get("enableServiceLinks") is None:
        spec["enableServiceLinks"] = True
    for container in containers_of(spec):
        default_container(container)
    for container in spec.get("ephemeralContainers") or ():
        default_container(container)
    for volume in spec.get("volumes") or ():
        default_volume(volume)


def _drop_disabled(spec: Obj) -> None:
    """Fields of features that are off unless they are asked for (upstream pkg/api/pod dropDisabledFields)."""
    spec.pop("schedulingGroup", None)
    for container in [*containers_of(spec), *(spec.get("ephemeralContainers") or ())]:
        lifecycle = container.get("lifecycle")
        if lifecycle is not None and lifecycle.pop("stopSignal", None) is not None and not lifecycle:
            del container["lifecycle"]
    for volume in spec.get("volumes") or ():
        for projection in (volume.get("projected") or {}).get("sources") or ():
            for field in ("clusterTrustBundle", "podCertificate"):
                projection.pop(field, None)


def default_container(container: Obj) -> None:
    """Image pull policy, termination messages, ports, probes, hooks, resources."""
    _missing(container, "imagePullPolicy", pull_policy(container.get("image", "")))
    _missing(container, "terminationMessagePath", "/dev/termination-log")
    _missing(container, "terminationMessagePolicy", "File")
    for port in container.get("ports") or ():
        _missing(port, "protocol", "TCP")
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if (probe := container.get(name)) is not None:
            _default_probe(probe)
    for hook in (container.get("lifecycle") or {}).values():
        if isinstance(hook, dict):
            _default_http(hook.get("httpGet"))
    for entry in container.get("env") or ():
        source = entry.get("valueFrom") or {}
        _default_field_ref(source.get("fieldRef"))
        if (reference := source.get("resourceFieldRef")) is not None:
            reference.setdefault("divisor", "0")
        if (reference := source.get("fileKeyRef")) is not None and reference.get("optional") is None:
            reference["optional"] = False


def default_requests(spec: Obj) -> None:
    """Requests of pods default to their limits (upstream SetDefaults_Pod)."""
    for container in containers_of(spec):
        resources = container.get("resources") or {}
        limits = resources.get("limits")
        if limits:
            requests = resources.setdefault("requests", {})
            for name, value in limits.items():
                requests.setdefault(name, value)
    if (resources := spec.get("resources")) and (limits := resources.get("limits")):
        requests = resources.setdefault("requests", {})
        for name, value in limits.items():
            requests.setdefault(name, value)


def pull_policy(image: str) -> str:
    """Always for images without a tag or with ``latest``; IfNotPresent for others, digests and what is no reference."""
    found = _REFERENCE.fullmatch(image)
    if found is None or _IDENTIFIER.fullmatch(image):
        return "IfNotPresent"
    return "Always" if found["tag"] == "latest" or found["tag"] == found["digest"] is None else "IfNotPresent"


def _default_probe(probe: Obj) -> None:
    _missing(probe, "timeoutSeconds", 1)
    _missing(probe, "periodSeconds", 10)
    _missing(probe, "successThreshold", 1)
    _missing(probe, "failureThreshold", 3)
    _default_http(probe.get("httpGet"))
    if (grpc := probe.get("grpc")) is not None and grpc.get("service") is None:
        grpc["service"] = ""


def _default_http(action: Obj | None) -> None:
    if action is not None:
        _missing(action, "path", "/")
        _missing(action, "scheme", "HTTP")


def _default_field_ref(reference: Obj | None) -> None:
    if reference is not None:
        _missing(reference, "apiVersion", "v1")


def default_volume(volume: Obj) -> None:
    """A volume of a pod; one without a source becomes an emptyDir."""
    sources = [name for name in volume if name != "name"]
    if not sources:
        volume["emptyDir"] = {}
        return
    for name in sources:
        if volume[name] is not None:
            default_volume_source(name, volume[name])


def default_volume_source(kind: str, source: Obj) -> None:
    """One volume source of a pod or a PersistentVolume."""
    match kind:
        case "secret" | "configMap" | "downwardAPI" | "projected":
            _missing(source, "defaultMode", _LEGACY_MODE, absent_only=True)
            for item in source.get("items") or ():
                _default_field_ref(item.get("fieldRef"))
                if (reference := item.get("resourceFieldRef")) is not None:
                    reference.setdefault("divisor", "0")
            for projection in source.get("sources") or ():
                _default_projection(projection)
        case "hostPath":
            if source.get("type") is None:
                source["type"] = ""
        case "iscsi":
            _missing(source, "iscsiInterface", "default")
        case "rbd":
            _missing(source, "pool", "rbd")
            _missing(source, "user", "admin")
            _missing(source, "keyring", "/etc/ceph/keyring")
        case "azureDisk":
            for field, value in (
                ("cachingMode", "ReadWrite"),
                ("kind", "Shared"),
                ("fsType", "ext4"),
                ("readOnly", False),
            ):
                if source.get(field) is None:
                    source[field] = value
        case "scaleIO":
            _missing(source, "storageMode", "ThinProvisioned")
            _missing(source, "fsType", "xfs")
        case "ephemeral":
            template = source.get("volumeClaimTemplate")
            if template is not None:
                spec = template.setdefault("spec", {})
                if spec.get("volumeMode") is None:
                    spec["volumeMode"] = "Filesystem"
        case "image":
            _missing(source, "pullPolicy", pull_policy(source.get("reference", "")))


def _default_projection(projection: Obj) -> None:
    if (token := projection.get("serviceAccountToken")) is not None:
        _missing(token, "expirationSeconds", 3600)
    for item in (projection.get("downwardAPI") or {}).get("items") or ():
        _default_field_ref(item.get("fieldRef"))
        if (reference := item.get("resourceFieldRef")) is not None:
            reference.setdefault("divisor", "0")


def _missing(obj: Obj, field: str, value: Any, *, absent_only: bool = False) -> None:
    """Set a field that is absent or, unless told otherwise, has Go's zero value."""
    current = obj.get(field)
    if current is None or (not absent_only and current in ("", 0) and current is not False):
        obj[field] = value


def default_template(template: Obj | None) -> None:
    """A PodTemplateSpec."""
    if template is None:
        return
    template.setdefault("metadata", {})
    spec = template.setdefault("spec", {})
    default_pod_spec(spec, template=True)
