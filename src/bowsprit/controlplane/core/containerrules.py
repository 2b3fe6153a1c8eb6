"""Rules for containers: names, images, ports, environment, mounts, probes, security (upstream validateContainers)."""

from __future__ import annotations

import re
from collections.abc import Mapping
from typing import Any

from bowsprit.controlplane.core.pathrules import local_path_errors, no_backsteps
from bowsprit.controlplane.core.resourcerules import NOT_NEGATIVE, requirements_errors
from bowsprit.controlplane.core.restartrules import resize_policy_errors, restart_errors, used_claim_errors
from bowsprit.controlplane.core.securityrules import container_security_errors
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import (
    is_config_map_key,
    is_dns1123_label,
    is_dns1123_subdomain,
    is_http_header_name,
    is_qualified_name,
    is_relaxed_env_var_name,
    is_valid_port_name,
    is_valid_port_num,
)

_PULL_POLICIES = ["Always", "IfNotPresent", "Never"]
_PROTOCOLS = ["SCTP", "TCP", "UDP"]
_FIELD_PATHS = {
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "metadata.labels",
    "metadata.annotations",
    "spec.nodeName",
    "spec.serviceAccountName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.hostIP",
    "status.hostIPs",
    "status.nominatedNodeName",
}
_ENV_FIELDS = [
    "metadata.name",
    "metadata.namespace",
    "metadata.uid",
    "spec.nodeName",
    "spec.serviceAccountName",
    "status.hostIP",
    "status.hostIPs",
    "status.podIP",
    "status.podIPs",
]
VOLUME_FIELDS = ["metadata.annotations", "metadata.labels", "metadata.name", "metadata.namespace", "metadata.uid"]
_ENV_SOURCES = ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
_RESOURCE_FIELDS = [
    f"{part}.{name}" for part in ("limits", "requests") for name in ("cpu", "ephemeral-storage", "memory")
]
_SUBSCRIPTED = re.compile(r"^(metadata\.(?:labels|annotations))\['(.+)'\]$")
_DIVISORS = {"cpu": {"1m", "1"}}
_SIZE_DIVISORS = {"1", "1k", "1M", "1G", "1T", "1P", "1E", "1Ki", "1Mi", "1Gi", "1Ti", "1Pi", "1Ei"}
_TERMINATION_POLICIES = ["File", "FallbackToLogsOnError"]


def container_errors(
    containers: list[Obj], where: Path, volumes: Mapping[str, Obj], spec: Obj, names: set[str], *, init: bool = False
) -> list[FieldError]:
    """A list of init or regular containers.

    Args:
        containers: the list.
        where: its path.
        volumes: the pod's volumes by name.
        spec: the PodSpec.
        names: container names seen before; added to.
        init: these are init containers.
    """
    errors: list[FieldError] = []
    host_ports: set[str] = set()
    for index, container in enumerate(containers):
        place = where.index(index)
        name = container.get("name", "")
        errors += common_errors(container, place, volumes, spec, names)
        sidecar = init and container.get("restartPolicy") == "Always"
        if init and not sidecar:
            errors += _only_for_running(container, place, "init containers without restartPolicy=Always")
        else:
            errors += _handlers(container, place, spec)
        errors += restart_errors(container, place, init=init)
        for number, port in enumerate(container.get("ports") or ()):
            if port.get("hostPort") and not init:
                key = f"{port.get('protocol')}/{port.get('hostIP', '')}/{port['hostPort']}"
                if key in host_ports:
                    spot = place.child("ports").index(number).child("hostPort")
                    errors.append(fielderrors.duplicate(spot, key))
                host_ports.add(key)
        names.add(name)
    return errors


def _only_for_running(container: Obj, where: Path, what: str) -> list[FieldError]:
    fields = ("lifecycle", "livenessProbe", "readinessProbe", "startupProbe")
    return [
        fielderrors.forbidden(where.child(field), f"may not be set for {what}")
        for field in fields
        if container.get(field) is not None
    ]


def common_errors(
    container: Obj, where: Path, volumes: Mapping[str, Obj], spec: Obj, names: set[str]
) -> list[FieldError]:
    """What holds for every container."""
    errors: list[FieldError] = []
    name, image = container.get("name", ""), container.get("image", "")
    if not name:
        errors.append(fielderrors.required(where.child("name")))
    else:
        errors += name_errors(name, where.child("name"), is_dns1123_label)
    if name and name in names:
        errors.append(fielderrors.duplicate(where.child("name"), name))
    if not image:
        errors.append(fielderrors.required(where.child("image")))
    policy = container.get("terminationMessagePolicy", "")
    if not policy:
        errors.append(fielderrors.required(where.child("terminationMessagePolicy")))
    elif policy not in _TERMINATION_POLICIES:
        errors.append(fielderrors.not_supported(where.child("terminationMessagePolicy"), policy, _TERMINATION_POLICIES))
    errors += _ports(container.get("ports") or [], where.child("ports"), host_network=bool(spec.get("hostNetwork")))
    errors += _env(container.get("env") or [], where.child("env"))
    errors += _env_from(container.get("envFrom") or [], where.child("envFrom"))
    errors += _mounts(container, where.child("volumeMounts"), volumes)
    errors += _devices(container, where.child("volumeDevices"), volumes)
    pull = container.get("imagePullPolicy", "")
    if not pull:
        errors.append(fielderrors.required(where.child("imagePullPolicy")))
    elif pull not in _PULL_POLICIES:
        errors.append(fielderrors.not_supported(where.child("imagePullPolicy"), pull, _PULL_POLICIES))
    resources = container.get("resources") or {}
    errors += requirements_errors(resources, where.child("resources"))
    known = [claim["name"] for claim in spec.get("resourceClaims") or () if claim.get("name")]
    errors += used_claim_errors(resources.get("claims") or [], where.child("resources", "claims"), known)
    errors += resize_policy_errors(
        container.get("resizePolicy") or [], where.child("resizePolicy"), spec.get("restartPolicy", "")
    )
    context, place = container.get("securityContext"), where.child("securityContext")
    errors += container_security_errors(context, place, host_users=spec.get("hostUsers") is not False)
    return errors


def _ports(ports: list[Obj], where: Path, *, host_network: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, port in enumerate(ports):
        place, name = where.index(index), port.get("name", "")
        if name:
            problems = is_valid_port_name(name)
            if problems:
                errors += [fielderrors.invalid(place.child("name"), name, text) for text in problems]
            elif name in seen:
                errors.append(fielderrors.duplicate(place.child("name"), name))
            else:
                seen.add(name)
        number, host = port.get("containerPort", 0), port.get("hostPort", 0)
        if number == 0:
            errors.append(fielderrors.required(place.child("containerPort")))
        else:
            errors += [
                fielderrors.invalid(place.child("containerPort"), number, text) for text in is_valid_port_num(number)
            ]
        if host:
            errors += [fielderrors.invalid(place.child("hostPort"), host, text) for text in is_valid_port_num(host)]
            if host_network and host != number:
                detail = "must match `containerPort` when `hostNetwork` is true"
                errors.append(fielderrors.invalid(place.child("hostPort"), host, detail))
        protocol = port.get("protocol", "")
        if not protocol:
            errors.append(fielderrors.required(place.child("protocol")))
        elif protocol not in _PROTOCOLS:
            errors.append(fielderrors.not_supported(place.child("protocol"), protocol, _PROTOCOLS))
    return errors


def _env(entries: list[Obj], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, entry in enumerate(entries):
        place, name = where.index(index), entry.get("name", "")
        if not name:
            errors.append(fielderrors.required(place.child("name")))
        else:
            errors += name_errors(name, place.child("name"), is_relaxed_env_var_name)
        if (source := entry.get("valueFrom")) is not None:
            errors += _env_source(source, entry.get("value") or "", place.child("valueFrom"))
    return errors


def _env_source(source: Obj, value: str, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    kinds = [
        name
        for name in ("fieldRef", "resourceFieldRef", "configMapKeyRef", "secretKeyRef", "fileKeyRef")
        if source.get(name) is not None
    ]
    if (reference := source.get("fieldRef")) is not None:
        errors += field_ref_errors(reference, _ENV_FIELDS, where.child("fieldRef"))
    if (reference := source.get("resourceFieldRef")) is not None:
        errors += resource_ref_errors(reference, where.child("resourceFieldRef"), volume=False)
    if (reference := source.get("fileKeyRef")) is not None:
        errors += _file_key(reference, where.child("fileKeyRef"))
    for kind in ("configMapKeyRef", "secretKeyRef"):
        if (reference := source.get(kind)) is not None:
            errors += name_errors(reference.get("name", ""), where.child(kind, "name"), is_dns1123_subdomain)
            errors += _key(reference.get("key", ""), where.child(kind, "key"))
    if not kinds:
        detail = (
            "must specify one of: `fieldRef`, `resourceFieldRef`, `configMapKeyRef`, `secretKeyRef` or `fileKeyRef`"
        )
        return [*errors, fielderrors.invalid(where, "", detail)]
    if value:
        errors.append(fielderrors.invalid(where, "", "may not be specified when `value` is not empty"))
    elif len(kinds) > 1:
        errors.append(fielderrors.invalid(where, "", "may not have more than one field specified at a time"))
    return errors


def _file_key(reference: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for field, rule in (("key", is_relaxed_env_var_name), ("volumeName", is_dns1123_label)):
        value, place = reference.get(field, ""), where.child(field)
        errors += name_errors(value, place, rule) if value else [fielderrors.required(place)]
    target = reference.get("path", "")
    if not target:
        return [*errors, fielderrors.required(where.child("path"))]
    return errors + no_backsteps(target, where.child("path"))


def _key(key: str, where: Path) -> list[FieldError]:
    return name_errors(key, where, is_config_map_key) if key else [fielderrors.required(where)]


def field_ref_errors(reference: Obj, supported: list[str], where: Path) -> list[FieldError]:
    """An ObjectFieldSelector."""
    version, field = reference.get("apiVersion", ""), reference.get("fieldPath", "")
    if not version:
        return [fielderrors.required(where.child("apiVersion"))]
    if not field:
        return [fielderrors.required(where.child("fieldPath"))]
    place = where.child("fieldPath")
    if match := _SUBSCRIPTED.match(field):
        if match[1] == "metadata.annotations":
            return [fielderrors.invalid(place, match[2], text) for text in is_qualified_name(match[2].lower())]
        return [fielderrors.invalid(place, match[2], text) for text in is_qualified_name(match[2])]
    if version != "v1":
        return [fielderrors.invalid(place, field, f"error converting fieldPath: unsupported pod version: {version}")]
    if field not in _FIELD_PATHS:
        detail = f"error converting fieldPath: field label not supported: {field}"
        return [fielderrors.invalid(place, field, detail)]
    return [] if field in supported else [fielderrors.not_supported(place, field, sorted(supported))]


def resource_ref_errors(reference: Obj, where: Path, *, volume: bool) -> list[FieldError]:
    """A ResourceFieldSelector."""
    errors: list[FieldError] = []
    resource, container = reference.get("resource", ""), reference.get("containerName", "")
    known_resource = resource in _RESOURCE_FIELDS or resource.startswith(("limits.hugepages-", "requests.hugepages-"))
    if volume and not container:
        errors.append(fielderrors.required(where.child("containerName")))
    elif not resource:
        errors.append(fielderrors.required(where.child("resource")))
    elif not known_resource:
        errors.append(fielderrors.not_supported(where.child("resource"), resource, _RESOURCE_FIELDS))
    if not known_resource:
        return errors
    divisor = str(Quantity.parse(reference.get("divisor") or "0"))
    known = _DIVISORS.get(resource.partition(".")[2], _SIZE_DIVISORS)
    if divisor != "0" and divisor not in known:
        unit = "cpu" if resource.endswith(".cpu") else "memory"
        detail = f"only divisor's values {', '.join(sorted(known))} are supported with the {unit} resource"
        errors.append(fielderrors.invalid(where.child("divisor"), resource, detail))
    return errors


def _env_from(entries: list[Obj], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, entry in enumerate(entries):
        place = where.index(index)
        if prefix := entry.get("prefix"):
            errors += name_errors(prefix, place.child("prefix"), is_relaxed_env_var_name)
        kinds = [kind for kind in ("configMapRef", "secretRef") if entry.get(kind) is not None]
        for kind in kinds:
            name = entry[kind].get("name", "")
            if not name:
                errors.append(fielderrors.required(place.child(kind, "name")))
            else:
                errors += name_errors(name, place.child(kind, "name"), is_dns1123_subdomain)
        if not kinds:
            errors.append(fielderrors.invalid(where, "", "must specify one of: `configMapRef` or `secretRef`"))
        elif len(kinds) > 1:
            errors.append(fielderrors.invalid(where, "", "may not have more than one field specified at a time"))
    return errors


def _mounts(container: Obj, where: Path, volumes: Mapping[str, Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    devices = {item.get("name"): item.get("devicePath") for item in container.get("volumeDevices") or ()}
    for index, mount in enumerate(container.get("volumeMounts") or ()):
        place, name, target = where.index(index), mount.get("name", ""), mount.get("mountPath", "")
        if not name:
            errors.append(fielderrors.required(place.child("name")))
        if name not in volumes:
            errors.append(fielderrors.not_found(place.child("name"), name))
        if not target:
            errors.append(fielderrors.required(place.child("mountPath")))
        if target in seen:
            errors.append(fielderrors.invalid(place.child("mountPath"), target, "must be unique"))
        seen.add(target)
        if name in devices:
            errors.append(fielderrors.invalid(place.child("name"), name, "must not already exist in volumeDevices"))
        if target and target in devices.values():
            detail = "must not already exist as a path in volumeDevices"
            errors.append(fielderrors.invalid(place.child("mountPath"), target, detail))
        for field in ("subPath", "subPathExpr"):
            if mount.get(field):
                errors += local_path_errors(mount[field], where.child(field))
        if mount.get("subPath") and mount.get("subPathExpr"):
            errors.append(
                fielderrors.invalid(
                    place.child("subPathExpr"), mount["subPathExpr"], "subPathExpr and subPath are mutually exclusive"
                )
            )
        propagation = mount.get("mountPropagation")
        if propagation not in (None, "Bidirectional", "HostToContainer", "None"):
            supported = ["Bidirectional", "HostToContainer", "None"]
            errors.append(fielderrors.not_supported(where.child("mountPropagation"), propagation, supported))
        elif propagation == "Bidirectional" and not (container.get("securityContext") or {}).get("privileged"):
            detail = "Bidirectional mount propagation is available only to privileged containers"
            errors.append(fielderrors.forbidden(where.child("mountPropagation"), detail))
        errors += _recursive_errors(mount, where.child("recursiveReadOnly"))
    return errors


def _recursive_errors(mount: Obj, where: Path) -> list[FieldError]:
    value, supported = mount.get("recursiveReadOnly"), ["Disabled", "Enabled", "IfPossible"]
    if value in (None, "Disabled"):
        return []
    if value not in supported:
        return [fielderrors.not_supported(where, value, supported)]
    errors: list[FieldError] = []
    if not mount.get("readOnly"):
        errors.append(fielderrors.forbidden(where, "may only be specified when readOnly is true"))
    if mount.get("mountPropagation") not in (None, "None"):
        detail = "may only be specified when mountPropagation is None or not specified"
        errors.append(fielderrors.forbidden(where, detail))
    return errors


def _devices(container: Obj, where: Path, volumes: Mapping[str, Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    names: set[str] = set()
    paths: set[str] = set()
    for index, device in enumerate(container.get("volumeDevices") or ()):
        place, name, target = where.index(index), device.get("name", ""), device.get("devicePath", "")
        if not name:
            errors.append(fielderrors.required(place.child("name")))
        if name in names:
            errors.append(fielderrors.invalid(place.child("name"), name, "must be unique"))
        if name and name not in volumes:
            errors.append(fielderrors.not_found(place.child("name"), name))
        elif name and not ({"persistentVolumeClaim", "ephemeral"} & set(volumes[name])):
            detail = "can only use volume source type of PersistentVolumeClaim or Ephemeral for block mode"
            errors.append(fielderrors.invalid(place.child("name"), name, detail))
        if not target:
            errors.append(fielderrors.required(place.child("devicePath")))
        elif target in paths:
            errors.append(fielderrors.invalid(place.child("devicePath"), target, "must be unique"))
        if ".." in target.split("/"):
            errors.append(fielderrors.invalid(place.child("devicePath"), target, "can not contain backsteps ('..')"))
        names.add(name)
        paths.add(target)
    return errors


def _handlers(container: Obj, where: Path, spec: Obj) -> list[FieldError]:
    errors: list[FieldError] = []
    lifecycle = container.get("lifecycle") or {}
    for name in ("postStart", "preStop"):
        if (hook := lifecycle.get(name)) is not None:
            kinds, grace = ("exec", "httpGet", "tcpSocket", "sleep"), spec.get("terminationGracePeriodSeconds")
            errors += _handler(hook, where.child("lifecycle", name), kinds, grace)
    for name in ("livenessProbe", "readinessProbe", "startupProbe"):
        if (probe := container.get(name)) is not None:
            place = where.child(name)
            errors += _probe(probe, place)
            if name == "readinessProbe" and probe.get("terminationGracePeriodSeconds") is not None:
                grace, spot = probe["terminationGracePeriodSeconds"], place.child("terminationGracePeriodSeconds")
                errors.append(fielderrors.invalid(spot, grace, "must not be set for readinessProbes"))
            if name != "readinessProbe" and probe.get("successThreshold", 1) not in (0, 1):
                errors.append(
                    fielderrors.invalid(place.child("successThreshold"), probe["successThreshold"], "must be 1")
                )
    return errors


def _probe(probe: Obj, where: Path) -> list[FieldError]:
    errors = _handler(probe, where, ("exec", "httpGet", "tcpSocket", "grpc"))
    for field in ("initialDelaySeconds", "timeoutSeconds", "periodSeconds", "successThreshold", "failureThreshold"):
        value = probe.get(field) or 0
        if value < 0:
            errors.append(fielderrors.invalid(where.child(field), value, NOT_NEGATIVE))
    grace = probe.get("terminationGracePeriodSeconds")
    if grace is not None and grace <= 0:
        errors.append(
            fielderrors.invalid(where.child("terminationGracePeriodSeconds"), grace, "must be greater than 0")
        )
    return errors


def _handler(handler: Obj, where: Path, kinds: tuple[str, ...], grace: int | None = None) -> list[FieldError]:
    errors: list[FieldError] = []
    given = [kind for kind in kinds if handler.get(kind) is not None]
    for position, kind in enumerate(given):
        place, action = where.child(kind), handler[kind]
        if position:
            errors.append(fielderrors.forbidden(place, "may not specify more than 1 handler type"))
            continue
        if kind == "exec" and not action.get("command"):
            errors.append(fielderrors.required(place.child("command")))
        elif kind == "httpGet":
            if not action.get("path"):
                errors.append(fielderrors.required(place.child("path")))
            errors += _port_reference(action.get("port", 0), place.child("port"))
            for header in action.get("httpHeaders") or ():
                errors += [
                    fielderrors.invalid(place.child("httpHeaders"), header.get("name", ""), text)
                    for text in is_http_header_name(header.get("name", ""))
                ]
            if action.get("scheme") not in ("HTTP", "HTTPS"):
                errors.append(
                    fielderrors.not_supported(place.child("scheme"), action.get("scheme", ""), ["HTTP", "HTTPS"])
                )
        elif kind == "tcpSocket":
            errors += _port_reference(action.get("port", 0), place.child("port"))
        elif kind == "grpc":
            number = action.get("port", 0)
            errors += [fielderrors.invalid(place.child("port"), number, text) for text in is_valid_port_num(number)]
        elif kind == "sleep" and grace is not None and not 0 <= action.get("seconds", 0) <= grace:
            detail = f"must be non-negative and less than terminationGracePeriodSeconds ({grace})"
            errors.append(fielderrors.invalid(place, action.get("seconds", 0), detail))
    if not given:
        errors.append(fielderrors.required(where, "must specify a handler type"))
    return errors


def _port_reference(port: Any, where: Path) -> list[FieldError]:
    rule: Any = is_valid_port_name if isinstance(port, str) else is_valid_port_num
    return [fielderrors.invalid(where, port, text) for text in rule(port)]
