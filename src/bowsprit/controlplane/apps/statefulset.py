"""StatefulSets."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.controlplane.apps.validation import stateful_set_errors
from bowsprit.controlplane.core.podspec import default_template
from bowsprit.controlplane.printing import age_of, containers_text, name_of
from bowsprit.controlplane.statused import StatusedStrategy
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj, nested
from bowsprit.machinery.validation import is_dns1123_label

_MUTABLE = (
    "replicas",
    "ordinals",
    "template",
    "updateStrategy",
    "revisionHistoryLimit",
    "persistentVolumeClaimRetentionPolicy",
    "minReadySeconds",
)


class StatefulSetStrategy(StatusedStrategy):
    """The main endpoint."""

    def validate_name(self, name: str) -> list[str]:
        return is_dns1123_label(name)  # it begins the names, and so the hostnames, of the pods

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        default_template(spec.get("template"))
        spec["podManagementPolicy"] = spec.get("podManagementPolicy") or "OrderedReady"
        strategy = spec.setdefault("updateStrategy", {})
        strategy["type"] = strategy.get("type") or "RollingUpdate"
        if strategy["type"] == "RollingUpdate":
            rolling = strategy.get("rollingUpdate")
            if rolling is None:
                rolling = strategy["rollingUpdate"] = {}
            if rolling.get("partition") is None:
                rolling["partition"] = 0
        policy = spec.setdefault("persistentVolumeClaimRetentionPolicy", {})
        for field in ("whenDeleted", "whenScaled"):
            policy[field] = policy.get(field) or "Retain"
        for field, value in (("replicas", 1), ("revisionHistoryLimit", 10)):
            if spec.get(field) is None:
                spec[field] = value
        for claim in spec.get("volumeClaimTemplates") or ():
            claim["kind"], claim["apiVersion"] = "PersistentVolumeClaim", "v1"
            claim.setdefault("spec", {}).setdefault("volumeMode", "Filesystem")
            claim["status"] = claim.get("status") or {}
            claim["status"].setdefault("phase", "Pending")

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {"replicas": 0, "availableReplicas": 0}
        _drop_gated(obj["spec"])

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        super().prepare_for_update(new, old, ctx)
        if nested(old, "spec", "updateStrategy", "rollingUpdate", "maxUnavailable") is None:
            _drop_gated(new["spec"])

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        def fixed(spec: Obj) -> Obj:
            return {key: value for key, value in spec.items() if key not in _MUTABLE}

        errors = stateful_set_errors(new, created=False)
        if fixed(new["spec"]) == fixed(old["spec"]):
            return errors
        names = ", ".join(f"'{name}'" for name in _MUTABLE[:-1])
        detail = f"updates to statefulset spec for fields other than {names} and '{_MUTABLE[-1]}' are forbidden"
        return [*errors, fielderrors.forbidden(path("spec"), detail)]

    def validate(self, obj: Obj) -> list[FieldError]:
        return stateful_set_errors(obj, created=True)


def _drop_gated(spec: Obj) -> None:
    """What upstream has behind a gate that is closed by default (MaxUnavailableStatefulSet)."""
    rolling = (spec.get("updateStrategy") or {}).get("rollingUpdate") or {}
    rolling.pop("maxUnavailable", None)


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Ready, Age, Containers, Images."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    names, images = containers_text(((spec.get("template") or {}).get("spec") or {}).get("containers"))
    ready = f"{status.get('readyReplicas', 0)}/{spec.get('replicas', 0)}"
    return [name_of(obj), ready, age_of(obj, now), names, images]
