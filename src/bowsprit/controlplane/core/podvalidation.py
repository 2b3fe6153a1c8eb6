"""Rules for pods, their updates, and pod templates (upstream ValidatePod*, pkg/apis/core/validation)."""

from __future__ import annotations

from bowsprit.controlplane.core.affinityrules import affinity_errors, spreading_errors, toleration_errors
from bowsprit.controlplane.core.containerrules import common_errors, container_errors
from bowsprit.controlplane.core.resourcerules import requirements_errors, whole_name_errors
from bowsprit.controlplane.core.restartrules import pod_claim_errors, used_claim_errors
from bowsprit.controlplane.core.securityrules import host_errors, pod_security_errors, system_errors
from bowsprit.controlplane.core.volumerules import volume_errors
from bowsprit.controlplane.labelrules import label_errors, name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.validation import (
    is_dns1123_label,
    is_dns1123_subdomain,
    is_qualified_name,
    is_search_domain,
    is_valid_ip,
)

_RESTART_POLICIES = ["Always", "OnFailure", "Never"]
_DNS_POLICIES = ["ClusterFirstWithHostNet", "ClusterFirst", "Default", "None"]
_MOST_NAMESERVERS, _MOST_SEARCHES, _SEARCH_CHARACTERS = 3, 32, 2048
# Upstream SysctlContainSlashFmt.
_NOT_FOR_EPHEMERAL = ("livenessProbe", "readinessProbe", "startupProbe", "lifecycle", "restartPolicy")
_LARGEST_DEADLINE = 2147483647
_LONGEST_HOST = 64


def validate_pod(obj: Obj) -> list[FieldError]:
    """A pod to be created."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = pod_spec_errors(spec, where, pod=obj["metadata"].get("name", ""), of_pod=True)
    for kind in ("containers", "initContainers"):
        for index, container in enumerate(spec.get(kind) or ()):
            image, place = container.get("image", ""), where.child(kind).index(index).child("image")
            if image != image.strip():
                errors.append(fielderrors.invalid(place, image, "must not have leading or trailing whitespace"))
    if spec.get("ephemeralContainers"):
        errors.append(fielderrors.forbidden(where.child("ephemeralContainers"), "cannot be set on create"))
    errors += token_errors(spec, where)
    if spec.get("nodeName") and spec.get("schedulingGates"):
        detail = "cannot be set until all schedulingGates have been cleared"
        errors.append(fielderrors.forbidden(where.child("nodeName"), detail))
    return errors


def token_errors(spec: Obj, where: Path) -> list[FieldError]:
    """Only pods with a ServiceAccount get its tokens."""
    if spec.get("serviceAccountName"):
        return []
    detail = "must not be specified when serviceAccountName is not set"
    errors: list[FieldError] = []
    for index, volume in enumerate(spec.get("volumes") or ()):
        place = where.child("volumes").index(index).child("projected", "sources")
        for number, source in enumerate((volume.get("projected") or {}).get("sources") or ()):
            if source.get("serviceAccountToken") is not None:
                errors.append(fielderrors.forbidden(place.index(number).child("serviceAccountToken"), detail))
    return errors


def pod_spec_errors(spec: Obj, where: Path, *, pod: str = "", of_pod: bool = False) -> list[FieldError]:
    """A PodSpec. `pod` is the name of the pod, `of_pod` tells it from a template."""
    errors, volumes = volume_errors(spec.get("volumes") or [], where.child("volumes"), pod=pod, of_pod=of_pod)
    errors += pod_claim_errors(spec.get("resourceClaims") or [], where.child("resourceClaims"))
    if not spec.get("containers"):
        errors.append(fielderrors.required(where.child("containers")))
    names: set[str] = set()
    # Regular containers first: upstream reports a clash at the init container.
    errors += container_errors(spec.get("containers") or [], where.child("containers"), volumes, spec, names)
    errors += container_errors(
        spec.get("initContainers") or [], where.child("initContainers"), volumes, spec, names, init=True
    )
    errors += _ephemeral(spec, where.child("ephemeralContainers"), volumes, names)
    errors += _whole_resources(spec, where.child("resources"))
    errors += _policies(spec, where)
    errors += label_errors(spec.get("nodeSelector"), where.child("nodeSelector"))
    errors += pod_security_errors(spec, where)
    errors += affinity_errors(spec.get("affinity"), where.child("affinity"))
    errors += _dns_config(spec, where.child("dnsConfig"))
    errors += _readiness_gates(spec, where)
    errors += _gates(spec, where)
    errors += spreading_errors(spec.get("topologySpreadConstraints") or [], where.child("topologySpreadConstraints"))
    errors += host_errors(spec, where)
    errors += _names(spec, where)
    errors += toleration_errors(spec.get("tolerations") or [], where.child("tolerations"))
    errors += _host_aliases(spec, where)
    errors += _classes(spec, where)
    errors += requirements_errors({"limits": spec.get("overhead")}, where.child("overhead"))
    errors += system_errors(spec, where)
    errors += _file_keys(spec, where)
    return errors


def _whole_resources(spec: Obj, where: Path) -> list[FieldError]:
    """Resources of the pod as a whole, which cannot claim devices."""
    resources = spec.get("resources")
    if resources is None:
        return []
    if (spec.get("os") or {}).get("name") == "windows":
        return [fielderrors.forbidden(where, "may not be set for a windows pod")]
    errors: list[FieldError] = []
    if resources.get("claims") is not None:
        detail = "claims may not be set for Resources at pod-level"
        errors.append(fielderrors.forbidden(where.child("claims"), detail))
    errors += requirements_errors(resources, where, names=whole_name_errors)
    known = [claim["name"] for claim in spec.get("resourceClaims") or () if claim.get("name")]
    errors += used_claim_errors(resources.get("claims") or [], where.child("claims"), known)
    limits = resources.get("limits") or {}
    for index, container in enumerate(spec.get("containers") or ()):
        for name, text in ((container.get("resources") or {}).get("limits") or {}).items():
            if name in limits and Quantity.parse(text) > (most := Quantity.parse(limits[name])):
                place = where.child("containers").index(index).key(name).child("limits")
                detail = f"must be less than or equal to pod limits of {most}"
                errors.append(fielderrors.invalid(place, str(Quantity.parse(text)), detail))
    return errors


def _file_keys(spec: Obj, where: Path) -> list[FieldError]:
    """Files that variables come from lie in volumes of the pod."""
    names = {volume.get("name") for volume in spec.get("volumes") or ()}
    errors: list[FieldError] = []
    for kind in ("initContainers", "containers"):
        for index, container in enumerate(spec.get(kind) or ()):
            for number, entry in enumerate(container.get("env") or ()):
                name = ((entry.get("valueFrom") or {}).get("fileKeyRef") or {}).get("volumeName", "")
                if name and name not in names:
                    place = where.child(kind).index(index).child("env").index(number)
                    errors.append(fielderrors.not_found(place.child("valueFrom", "fileKeyRef", "volumeName"), name))
    return errors


def _ephemeral(spec: Obj, where: Path, volumes: dict[str, Obj], names: set[str]) -> list[FieldError]:
    errors: list[FieldError] = []
    targets = {item.get("name") for kind in ("containers", "initContainers") for item in spec.get(kind) or ()}
    for index, container in enumerate(spec.get("ephemeralContainers") or ()):
        place = where.index(index)
        errors += common_errors(container, place, volumes, spec, names)
        target = container.get("targetContainerName")
        if target and target not in targets:
            errors.append(fielderrors.not_found(place.child("targetContainerName"), target))
        forbidden = [field for field in ("ports", "resizePolicy", "restartPolicyRules") if container.get(field)]
        forbidden += [field for field in _NOT_FOR_EPHEMERAL if container.get(field) is not None]
        detail = "cannot be set for an Ephemeral Container"
        errors += [fielderrors.forbidden(place.child(field), detail) for field in forbidden]
        if any((container.get("resources") or {}).get(kind) for kind in ("limits", "requests", "claims")):
            errors.append(fielderrors.forbidden(place.child("resources"), "cannot be set for an Ephemeral Container"))
        for number, mount in enumerate(container.get("volumeMounts") or ()):
            for field in ("subPath", "subPathExpr"):
                if mount.get(field):
                    errors.append(fielderrors.forbidden(place.child("volumeMounts").index(number).child(field), detail))
        names.add(container.get("name", ""))
    return errors


def _policies(spec: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for field, supported in (("restartPolicy", _RESTART_POLICIES), ("dnsPolicy", _DNS_POLICIES)):
        value = spec.get(field, "")
        if not value:
            errors.append(fielderrors.required(where.child(field)))
        elif value not in supported:
            errors.append(fielderrors.not_supported(where.child(field), value, supported))
    return errors


def _classes(spec: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("priorityClassName", "runtimeClassName"):
        if spec.get(field):
            errors += name_errors(spec[field], where.child(field), is_dns1123_subdomain)
    preemption = spec.get("preemptionPolicy")
    if preemption not in (None, "Never", "PreemptLowerPriority"):
        supported = ["Never", "PreemptLowerPriority"]
        errors.append(fielderrors.not_supported(where.child("preemptionPolicy"), preemption, supported))
    return errors


def _names(spec: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("serviceAccountName", "nodeName"):
        if spec.get(field):
            errors += name_errors(spec[field], where.child(field), is_dns1123_subdomain)
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and not 1 <= deadline <= _LARGEST_DEADLINE:
        detail = f"must be between 1 and {_LARGEST_DEADLINE}, inclusive"
        errors.append(fielderrors.invalid(where.child("activeDeadlineSeconds"), deadline, detail))
    for field in ("hostname", "subdomain"):
        if spec.get(field):
            errors += name_errors(spec[field], where.child(field), is_dns1123_label)
    if (override := spec.get("hostnameOverride")) is not None:
        place = where.child("hostnameOverride")
        for field in ("setHostnameAsFQDN", "hostNetwork"):
            if spec.get(field):
                errors.append(fielderrors.forbidden(place, f"may not be specified when {field} is true"))
        if len(override) > _LONGEST_HOST:
            errors.append(fielderrors.too_long(place, _LONGEST_HOST))
        errors += name_errors(override, place, is_dns1123_subdomain)
    return errors


def _host_aliases(spec: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, alias in enumerate(spec.get("hostAliases") or ()):
        place, ip = where.child("hostAliases").index(index), alias.get("ip", "")
        errors += [fielderrors.invalid(place.child("ip"), ip, text) for text in is_valid_ip(ip)]
        for position, hostname in enumerate(alias.get("hostnames") or ()):
            errors += name_errors(hostname, place.child("hostnames").index(position), is_dns1123_subdomain)
    return errors


def _readiness_gates(spec: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, gate in enumerate(spec.get("readinessGates") or ()):
        kind = gate.get("conditionType", "")
        place = where.child("readinessGates").index(index).child("conditionType")
        errors += [fielderrors.invalid(place, kind, text) for text in is_qualified_name(kind)]
    return errors


def _dns_config(spec: Obj, where: Path) -> list[FieldError]:
    config = spec.get("dnsConfig") or {}
    errors: list[FieldError] = []
    servers = config.get("nameservers") or []
    if spec.get("dnsPolicy") == "None" and not servers:
        detail = "must provide at least one DNS nameserver when `dnsPolicy` is None"
        errors.append(fielderrors.required(where.child("nameservers") if config else where, detail))
    if len(servers) > _MOST_NAMESERVERS:
        detail = f"must not have more than {_MOST_NAMESERVERS} nameservers"
        errors.append(fielderrors.invalid(where.child("nameservers"), servers, detail))
    for index, server in enumerate(servers):
        errors += [
            fielderrors.invalid(where.child("nameservers").index(index), server, text) for text in is_valid_ip(server)
        ]
    searches = config.get("searches") or []
    if len(searches) > _MOST_SEARCHES:
        detail = f"must not have more than {_MOST_SEARCHES} search paths"
        errors.append(fielderrors.invalid(where.child("searches"), searches, detail))
    if len(" ".join(searches)) > _SEARCH_CHARACTERS:
        detail = f"must not have more than {_SEARCH_CHARACTERS} characters (including spaces) in the search list"
        errors.append(fielderrors.invalid(where.child("searches"), searches, detail))
    for index, search in enumerate(searches):
        if search != ".":
            errors += name_errors(search.removesuffix("."), where.child("searches").index(index), is_search_domain)
    for index, option in enumerate(config.get("options") or ()):
        if not option.get("name"):
            errors.append(fielderrors.required(where.child("options").index(index), "must not be empty"))
    return errors


def _gates(spec: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, gate in enumerate(spec.get("schedulingGates") or ()):
        name, place = gate.get("name", ""), where.child("schedulingGates").index(index)
        errors += [fielderrors.invalid(place, name, text) for text in is_qualified_name(name)]
        if name in seen:
            errors.append(fielderrors.duplicate(place, name))
        seen.add(name)
    return errors


def template_errors(template: Obj | None, where: Path) -> list[FieldError]:
    """A PodTemplateSpec."""
    template = template or {}
    meta = template.get("metadata") or {}
    errors = label_errors(meta.get("labels"), where.child("labels"))
    for key in meta.get("annotations") or {}:
        errors += [
            fielderrors.invalid(where.child("annotations"), key, text) for text in is_qualified_name(key.lower())
        ]
    spec = template.get("spec") or {}
    errors += pod_spec_errors(spec, where.child("spec"))
    if spec.get("ephemeralContainers"):
        detail = "ephemeral containers not allowed in pod template"
        errors.append(fielderrors.forbidden(where.child("spec", "ephemeralContainers"), detail))
    return errors
