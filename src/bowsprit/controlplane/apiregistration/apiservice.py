"""APIServices (upstream kube-aggregator): rules, the status of local ones, columns."""

from __future__ import annotations

from base64 import b64decode
from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.controlplane.statused import copy_field
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj, find_condition
from bowsprit.machinery.validation import is_dns1035_label, is_dns1123_subdomain, is_valid_path_segment_name

LOCAL_MESSAGE = "Local APIServices are always available"


class APIServiceStrategy(Strategy):
    """The main endpoint. Names must be ``<version>.<group>``."""

    allow_unconditional_update = False

    def validate_name(self, name: str) -> list[str]:
        return is_valid_path_segment_name(name)

    def default(self, obj: Obj) -> None:
        service = (obj.get("spec") or {}).get("service")
        if service is not None and service.get("port") is None:
            service["port"] = 443

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {}
        if not (obj.get("spec") or {}).get("service"):
            obj["status"]["conditions"] = [local_condition(ctx.timestamp)]

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        copy_field(new, old, "status")

    def validate(self, obj: Obj) -> list[FieldError]:
        return validate_api_service(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return validate_api_service(new)


def local_condition(timestamp: str) -> Obj:
    """Available=True of an APIService that this server serves itself."""
    return {
        "type": "Available",
        "status": "True",
        "lastTransitionTime": timestamp,
        "reason": "Local",
        "message": LOCAL_MESSAGE,
    }


def validate_api_service(obj: Obj) -> list[FieldError]:
    """Upstream ValidateAPIService, in its order."""
    spec, name, where = obj.get("spec") or {}, name_of(obj), path("spec")
    group, version = spec.get("group") or "", spec.get("version") or ""
    errors: list[FieldError] = []
    required_name = f"{version}.{group}"
    for field, given in (("generateName", obj["metadata"].get("generateName") or required_name), ("name", name)):
        if given != required_name:
            detail = f'must be `spec.version+"."+spec.group`: "{required_name}"'
            errors.append(fielderrors.invalid(path("metadata", field), given, detail))
    if not group:
        if version != "v1":
            errors.append(
                fielderrors.required(
                    where.child("group"), "only v1 may have an empty group and it better be legacy kube"
                )
            )
    else:
        errors += [fielderrors.invalid(where.child("group"), group, text) for text in is_dns1123_subdomain(group)]
    errors += [fielderrors.invalid(where.child("version"), version, text) for text in is_dns1035_label(version)]
    minimum, priority = spec.get("groupPriorityMinimum") or 0, spec.get("versionPriority") or 0
    if not 0 < minimum <= 20000:
        errors.append(
            fielderrors.invalid(where.child("groupPriorityMinimum"), minimum, "must be positive and less than 20000")
        )
    if not 0 < priority <= 1000:
        errors.append(
            fielderrors.invalid(where.child("versionPriority"), priority, "must be positive and less than 1000")
        )
    service = spec.get("service")
    if service is None:
        if spec.get("caBundle"):
            errors.append(
                fielderrors.invalid(
                    where.child("caBundle"),
                    f"{len(b64decode(spec['caBundle']))} bytes",
                    "local APIServices may not have a caBundle",
                )
            )
        if spec.get("insecureSkipTLSVerify"):
            errors.append(
                fielderrors.invalid(
                    where.child("insecureSkipTLSVerify"), True, "local APIServices may not have insecureSkipTLSVerify"
                )
            )
        return errors
    for field in ("namespace", "name"):
        if not service.get(field):
            errors.append(fielderrors.required(where.child("service", field)))
    port = service.get("port")
    if port is not None and not 1 <= port <= 65535:
        errors.append(
            fielderrors.invalid(
                where.child("service", "port"), port, "port is not valid: must be between 1 and 65535, inclusive"
            )
        )
    if spec.get("insecureSkipTLSVerify") and spec.get("caBundle"):
        errors.append(
            fielderrors.invalid(where.child("insecureSkipTLSVerify"), True, "may not be true if caBundle is present")
        )
    return errors


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Service, Available, Age."""
    service = (obj.get("spec") or {}).get("service")
    text = f"{service.get('namespace', '')}/{service.get('name', '')}" if service else "Local"
    condition = find_condition(obj, "Available") or {}
    available = condition.get("status") or "Unknown"
    if available != "True" and condition.get("reason"):
        available = f"{available} ({condition['reason']})"
    return [name_of(obj), text, available, age_of(obj, now)]
