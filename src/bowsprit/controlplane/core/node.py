"""Nodes: defaults, columns (upstream pkg/registry/core/node)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.core.addresswarnings import range_warnings
from bowsprit.controlplane.core.nodevalidation import node_errors, node_update_errors
from bowsprit.controlplane.printing import NONE, age_of, name_of
from bowsprit.controlplane.statused import StatusStrategy, copy_field
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj

_ROLE_PREFIX = "node-role.kubernetes.io/"
_ROLE = "kubernetes.io/role"


class NodeStrategy(Strategy):
    """The main endpoint. A kubelet creates its node with a status, so that is kept."""

    def default(self, obj: Obj) -> None:
        status = obj.get("status") or {}
        if status.get("capacity") and status.get("allocatable") is None:
            status["allocatable"] = dict(status["capacity"])
        spec = obj.setdefault("spec", {})
        if spec.get("podCIDR"):  # where both are there, this is the first of the others
            spec["podCIDRs"] = [spec["podCIDR"], *(spec.get("podCIDRs") or ())[1:]]
        elif spec.get("podCIDRs") and spec["podCIDRs"][0]:
            spec["podCIDR"] = spec["podCIDRs"][0]

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["spec"].pop("configSource", None)
        (obj.get("status") or {}).pop("config", None)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        copy_field(new, old, "status")
        if not (old.get("spec") or {}).get("configSource"):
            new.get("spec", {}).pop("configSource", None)

    def warnings(self, obj: Obj, old: Obj | None) -> list[str]:
        found: list[str] = []
        spec = obj.get("spec") or {}
        if spec.get("configSource"):
            found.append("spec.configSource: the feature is no longer supported")
        if spec.get("externalID"):
            found.append("spec.externalID: this field is deprecated, and is unused by Kubernetes")
        for index, text in enumerate(spec.get("podCIDRs") or ()):
            found += range_warnings(text, path("spec", "podCIDRs").index(index))
        return found

    def validate(self, obj: Obj) -> list[FieldError]:
        return node_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return node_errors(new) + node_update_errors(new, old)

    def selectable_field_names(self) -> frozenset[str]:
        return frozenset({"spec.unschedulable"})

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"spec.unschedulable": "true" if (obj.get("spec") or {}).get("unschedulable") else "false"}


class NodeStatusStrategy(StatusStrategy):
    """``/status``: what is reported must make sense."""

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return node_update_errors(new, old)


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Status, Roles, Age, Version, Internal-IP, External-IP, OS-Image, Kernel-Version, Container-Runtime."""
    status = obj.get("status") or {}
    info = status.get("nodeInfo") or {}
    return [
        name_of(obj),
        _status(obj, status),
        ",".join(_roles(obj)) or NONE,
        age_of(obj, now),
        info.get("kubeletVersion", ""),
        _address(status, "InternalIP"),
        _address(status, "ExternalIP"),
        info.get("osImage") or "<unknown>",
        _kernel(info),
        info.get("containerRuntimeVersion") or "<unknown>",
    ]


def _kernel(info: Obj) -> str:
    version, architecture = info.get("kernelVersion") or "<unknown>", info.get("architecture")
    return f"{version} ({architecture})" if architecture else version


def _status(obj: Obj, status: Obj) -> str:
    ready = next((item for item in status.get("conditions") or () if item.get("type") == "Ready"), None)
    text = "Unknown" if ready is None else "Ready" if ready.get("status") == "True" else "NotReady"
    return f"{text},SchedulingDisabled" if (obj.get("spec") or {}).get("unschedulable") else text


def _roles(obj: Obj) -> list[str]:
    roles = set()
    for key, value in (obj["metadata"].get("labels") or {}).items():
        if key.startswith(_ROLE_PREFIX) and len(key) > len(_ROLE_PREFIX):
            roles.add(key.removeprefix(_ROLE_PREFIX))
        elif key == _ROLE and value:
            roles.add(value)
    return sorted(roles)


def _address(status: Obj, kind: str) -> str:
    found = (item.get("address") for item in status.get("addresses") or () if item.get("type") == kind)
    return next((address for address in found if address), NONE)
