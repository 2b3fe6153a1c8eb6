"""Whether an APIService can be served: the rules that need no network, in their order, and the condition they give.

Upstream: kube-aggregator pkg/controllers/status/remote/remote_available_controller.go.
"""

from __future__ import annotations

from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bowsprit.machinery.goformat import quote
from bowsprit.machinery.objects import Obj, find_condition, nested


@dataclass(frozen=True, slots=True)
class Condition:
    """The `Available` condition: "True", "False" or "Unknown", with reason and message."""

    status: str
    reason: str
    message: str


PASSED = Condition("True", "Passed", "all checks passed")


def unreachable(detail: str) -> Condition:
    """No probe was answered well."""
    return Condition("False", "FailedDiscoveryCheck", detail)


def judge(
    reference: Obj, service_of: Callable[[str, str], Obj | None], slices_of: Callable[[str, str], Sequence[Obj]]
) -> Condition | None:
    """The first rule that fails; None when the backend may be asked.

    Args:
        reference: `spec.service` of the APIService.
        service_of: the Service (namespace, name), None when it does not exist; may raise LookupError.
        slices_of: the EndpointSlices of a Service; may raise LookupError.
    """
    name, namespace = reference.get("name", ""), reference.get("namespace", "")
    port = int(reference.get("port") or 443)
    where = f"service/{name} in {quote(namespace)}"
    try:
        service = service_of(namespace, name)
    except LookupError as failure:
        return Condition("Unknown", "ServiceAccessError", f"{where} cannot be checked due to: {_told(failure)}")
    if service is None:
        return Condition("False", "ServiceNotFound", f"{where} is not present")
    spec = service.get("spec") or {}
    if spec.get("type") != "ClusterIP":
        return None  # other types are reached in ways that endpoints do not tell of
    chosen = next((item for item in spec.get("ports") or () if item.get("port") == port), None)
    if chosen is None:
        return Condition("False", "ServicePortError", f"{where} is not listening on port {port}")
    try:
        slices = slices_of(namespace, name)
    except LookupError as failure:
        return Condition("Unknown", "EndpointsAccessError", f"{where} cannot be checked due to: {_told(failure)}")
    if not slices:
        return Condition("False", "EndpointsNotFound", f"cannot find endpointslices for {where}")
    port_name = chosen.get("name") or ""
    if not any(_has_ready_address(item, port_name) for item in slices):
        text = f"endpointslices for {where} have no addresses with port name {quote(port_name)}"
        return Condition("False", "MissingEndpoints", text)
    return None


def _told(failure: LookupError) -> object:
    return failure.args[0] if failure.args else failure


def _has_ready_address(item: Obj, port_name: str) -> bool:
    if not any(nested(one, "conditions", "ready", default=True) for one in item.get("endpoints") or ()):
        return False
    return any((one.get("name") or "") == port_name and one.get("port") for one in item.get("ports") or ())


def with_condition(api_service: Obj, condition: Condition, now: str) -> Obj | None:
    """A copy of the APIService that says so; None when it does already. The time changes with the status only."""
    old = find_condition(api_service, "Available") or {}
    if (old.get("status"), old.get("reason"), old.get("message")) == (
        condition.status,
        condition.reason,
        condition.message,
    ):
        return None
    since = old.get("lastTransitionTime") if old.get("status") == condition.status else now
    entry = {
        "type": "Available",
        "status": condition.status,
        "lastTransitionTime": since or now,
        "reason": condition.reason,
        "message": condition.message,
    }
    status = dict(api_service.get("status") or {})
    others = [item for item in status.get("conditions") or () if item.get("type") != "Available"]
    return {**api_service, "status": {**status, "conditions": [*others, entry]}}
