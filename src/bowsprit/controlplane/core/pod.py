"""Pods: defaults, status at creation, graceful deletion, columns (upstream pkg/registry/core/pod)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.core.apparmor import sync_profiles
from bowsprit.controlplane.core.podspec import default_pod_spec, default_requests
from bowsprit.controlplane.core.podupdates import validate_pod_status_update, validate_pod_update
from bowsprit.controlplane.core.podvalidation import validate_pod
from bowsprit.controlplane.core.podwarnings import pod_warnings
from bowsprit.controlplane.core.qos import qos_class
from bowsprit.controlplane.printing import NONE, age_of, name_of
from bowsprit.controlplane.statused import PartStrategy, StatusStrategy, copy_field
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.humanduration import age
from bowsprit.machinery.objects import Obj, find_condition

SELECTABLE = (
    "spec.nodeName",
    "spec.restartPolicy",
    "spec.schedulerName",
    "spec.serviceAccountName",
    "spec.hostNetwork",
    "status.phase",
    "status.podIP",
    "status.podIPs",
    "status.nominatedNodeName",
)


class PodStrategy(Strategy):
    """The main endpoint."""

    has_generation = True
    deletes_to_object = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        default_requests(spec)
        default_pod_spec(spec)

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        spec = obj["spec"]
        obj["status"] = {"phase": "Pending", "qosClass": qos_class(spec)}
        sync_profiles(obj, ctx)
        if spec.get("schedulingGates"):
            condition = {
                "type": "PodScheduled",
                "status": "False",
                "lastProbeTime": None,
                "lastTransitionTime": ctx.timestamp,
                "reason": "SchedulingGated",
                "message": "Scheduling is blocked due to non-empty scheduling gates",
            }
            obj["status"]["conditions"] = [condition]

    def warnings(self, obj: Obj, old: Obj | None) -> list[str]:
        return pod_warnings(obj, old)

    def canonicalize(self, obj: Obj) -> None:
        # Admission may have set the account's name after the defaults.
        if name := obj["spec"].get("serviceAccountName"):
            obj["spec"]["serviceAccount"] = name

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        copy_field(new, old, "status")

    def validate(self, obj: Obj) -> list[FieldError]:
        return validate_pod(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return validate_pod_update(new, old)

    def selectable_field_names(self) -> frozenset[str]:
        return frozenset(SELECTABLE)

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        return {
            "spec.nodeName": spec.get("nodeName") or "",
            "spec.restartPolicy": spec.get("restartPolicy") or "",
            "spec.schedulerName": spec.get("schedulerName") or "",
            "spec.serviceAccountName": spec.get("serviceAccountName") or "",
            "spec.hostNetwork": "true" if spec.get("hostNetwork") else "false",
            "status.phase": status.get("phase") or "",
            "status.podIP": status.get("podIP") or "",
            "status.podIPs": ",".join(ip.get("ip", "") for ip in status.get("podIPs") or ()),
            "status.nominatedNodeName": status.get("nominatedNodeName") or "",
        }

    def grace_period(self, obj: Obj, requested: int | None, ctx: RequestContext) -> int | None:
        """Upstream podStrategy.CheckGracefulDelete."""
        spec, status = obj.get("spec") or {}, obj.get("status") or {}
        period = requested
        if period is None:
            period = spec.get("terminationGracePeriodSeconds")
            period = 30 if period is None else period
        if not spec.get("nodeName") or status.get("phase") in ("Failed", "Succeeded"):
            period = 0
        return max(period, 1) if period < 0 else int(period)


class PodStatusStrategy(StatusStrategy):
    """``/status``: the kubelet's and scheduler's endpoint."""

    def __init__(self, main: Strategy) -> None:
        super().__init__(main, ("ownerReferences", "deletionTimestamp"))

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        super().prepare_for_update(new, old, ctx)
        status = new.setdefault("status", {})
        _sync_addresses(status)
        if not status.get("qosClass"):
            status["qosClass"] = (old.get("status") or {}).get("qosClass") or qos_class(new["spec"])

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return validate_pod_status_update(new, old)


def _sync_addresses(status: Obj) -> None:
    """The one address and the first of many are the same; who says only the one means no others."""
    first = (status.get("podIPs") or [{}])[0].get("ip", "")
    if status.get("podIP") and status["podIP"] != first:
        status["podIPs"] = [{"ip": status["podIP"]}]
    elif first:
        status["podIP"] = first


_KEPT = ("labels", "annotations", "finalizers", "ownerReferences")


class PodEphemeralContainersStrategy(PartStrategy):
    """``/ephemeralcontainers``: only the ephemeral containers of the spec change."""

    spec_bumps_generation = True

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        for field in _KEPT:
            copy_field(new["metadata"], old["metadata"], field)
        wanted = (new.get("spec") or {}).get("ephemeralContainers")
        for field in ("spec", "status"):
            copy_field(new, old, field)
        new["spec"] = dict(old["spec"])
        if wanted:
            new["spec"]["ephemeralContainers"] = wanted
        else:
            new["spec"].pop("ephemeralContainers", None)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return validate_pod_update(new, old, "ephemeralcontainers")


class PodResizeStrategy(PartStrategy):
    """``/resize``: only the resources of containers change."""

    spec_bumps_generation = True

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        wanted = new.get("spec") or {}
        for field in _KEPT:
            copy_field(new["metadata"], old["metadata"], field)
        new["spec"] = dict(old["spec"])
        copy_field(new, old, "status")
        names = [item.get("name") for item in wanted.get("containers") or ()]
        if names != [item.get("name") for item in old["spec"].get("containers") or ()]:
            new["spec"]["containers"] = wanted.get("containers")  # for the validation to see
            return
        for field in ("containers", "initContainers"):
            resized = {item.get("name"): item for item in wanted.get(field) or ()}
            if field in old["spec"]:
                new["spec"][field] = [
                    {
                        **item,
                        **{
                            key: resized[item["name"]][key]
                            for key in ("resources", "resizePolicy")
                            if item["name"] in resized and key in resized[item["name"]]
                        },
                    }
                    for item in old["spec"][field]
                ]

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return validate_pod_update(new, old, "resize")


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Ready, Status, Restarts, Age, IP, Node, Nominated Node, Readiness Gates (upstream printPod)."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    reason, ready, restarts = _summary(obj, spec, status, now)
    total = len(spec.get("containers") or ()) + sum(1 for item in spec.get("initContainers") or () if _is_sidecar(item))
    gates = spec.get("readinessGates") or []
    passed = sum(1 for gate in gates if (find_condition(obj, gate["conditionType"]) or {}).get("status") == "True")
    addresses = status.get("podIPs") or ([{"ip": status["podIP"]}] if status.get("podIP") else [])
    return [
        name_of(obj),
        f"{ready}/{total}",
        reason,
        restarts,
        age_of(obj, now),
        addresses[0].get("ip") or NONE if addresses else NONE,
        spec.get("nodeName") or NONE,
        status.get("nominatedNodeName") or NONE,
        f"{passed}/{len(gates)}" if gates else NONE,
    ]


def conditions(obj: Obj) -> list[Obj]:
    """The row's conditions: kubectl does not count finished pods as running."""
    phase = (obj.get("status") or {}).get("phase")
    reasons = {"Succeeded": "The pod has completed successfully.", "Failed": "The pod failed."}
    if phase not in reasons:
        return []
    return [{"type": "Completed", "status": "True", "reason": phase, "message": reasons[phase]}]


def _is_sidecar(container: Obj) -> bool:
    return container.get("restartPolicy") == "Always"


def _summary(obj: Obj, spec: Obj, status: Obj, now: datetime) -> tuple[str, int, str]:
    """Status, number of ready containers, restarts with the time of the last one."""
    reason = status.get("reason") or status.get("phase") or ""
    for condition in status.get("conditions") or ():
        if condition.get("type") == "PodScheduled" and condition.get("reason") == "SchedulingGated":
            reason = "SchedulingGated"
    inits = {item["name"]: item for item in spec.get("initContainers") or ()}
    restarts = sidecar_restarts = ready = 0
    last = last_sidecar = ""
    initializing = False
    for index, found in enumerate(status.get("initContainerStatuses") or ()):
        restarts += found.get("restartCount", 0)
        last = max(last, _last_finished(found))
        sidecar = _is_sidecar(inits.get(found.get("name"), {}))
        if sidecar:
            sidecar_restarts += found.get("restartCount", 0)
            last_sidecar = max(last_sidecar, _last_finished(found))
        state = found.get("state") or {}
        terminated, waiting = state.get("terminated"), state.get("waiting")
        if terminated is not None and terminated.get("exitCode") == 0:
            continue
        if sidecar and found.get("started"):
            ready += 1 if found.get("ready") else 0
            continue
        if terminated is not None:
            reason = f"Init:{_ended(terminated)}"
        elif waiting is not None and waiting.get("reason") and waiting["reason"] != "PodInitializing":
            reason = f"Init:{waiting['reason']}"
        else:
            reason = f"Init:{index}/{len(spec.get('initContainers') or ())}"
        initializing = True
        break
    initialized = (find_condition(obj, "Initialized") or {}).get("status") == "True"
    if not initializing or initialized:
        restarts, last = sidecar_restarts, last_sidecar
        reason, ready, restarts, last = _main_containers(obj, status, reason, ready, restarts, last)
    if obj["metadata"].get("deletionTimestamp"):
        if status.get("reason") == "NodeLost":
            reason = "Unknown"
        elif status.get("phase") not in ("Succeeded", "Failed"):
            reason = "Terminating"
    shown = str(restarts)
    if restarts and last:
        shown = f"{restarts} ({age(last, now)} ago)"
    return reason, ready, shown


def _main_containers(
    obj: Obj, status: Obj, reason: str, ready: int, restarts: int, last: str
) -> tuple[str, int, int, str]:
    running = False
    for found in reversed(status.get("containerStatuses") or ()):
        restarts += found.get("restartCount", 0)
        last = max(last, _last_finished(found))
        state = found.get("state") or {}
        waiting, terminated = state.get("waiting"), state.get("terminated")
        if waiting is not None and waiting.get("reason"):
            reason = waiting["reason"]
        elif terminated is not None:
            reason = _ended(terminated)
        elif found.get("ready") and state.get("running") is not None:
            running = True
            ready += 1
    if reason == "Completed" and running:
        reason = "Running" if (find_condition(obj, "Ready") or {}).get("status") == "True" else "NotReady"
    return reason, ready, restarts, last


def _ended(terminated: Obj) -> str:
    if terminated.get("reason"):
        return str(terminated["reason"])
    if terminated.get("signal"):
        return f"Signal:{terminated['signal']}"
    return f"ExitCode:{terminated.get('exitCode', 0)}"


def _last_finished(found: Obj) -> str:
    return str(((found.get("lastState") or {}).get("terminated") or {}).get("finishedAt") or "")
