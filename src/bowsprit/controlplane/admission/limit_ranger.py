"""LimitRanger: a namespace's defaults and bounds for containers, pods and claims.

Upstream: plugin/pkg/admission/limitranger.
"""

from __future__ import annotations

from collections.abc import Callable, Iterator, Mapping

from bowsprit.apiserver.admission.chain import CREATE, UPDATE, Target
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.controlplane.admission.pod_resources import Amounts, aggregated, amounts, pod_total
from bowsprit.controlplane.admission.refusal import refused
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, metadata, nested
from bowsprit.machinery.quantity import Quantity

PODS = GroupResource("", "pods")
CLAIMS = GroupResource("", "persistentvolumeclaims")
LIMIT_RANGES = GroupResource("", "limitranges")
ANNOTATION = "kubernetes.io/limit-ranger"

Rule = Callable[[str, str, Quantity, Amounts, Amounts], str]


class LimitRanger:
    """See the module's docstring."""

    name = "LimitRanger"

    def __init__(self, listers: Listers) -> None:
        self._listers = listers

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin. A pod's containers do not change after creation, but for a resize."""
        if target.resource == PODS:
            return target.is_on(PODS, CREATE) or (target.operation is UPDATE and target.subresource == "resize")
        return target.is_on(CLAIMS, CREATE, UPDATE)

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Set the defaults of a pod's containers."""
        if attributes.gvr.gr != PODS or attributes.object is None:
            return
        for limit_range in self._ranges(attributes):
            _set_defaults(attributes.object, limit_range)

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Check the bounds."""
        for limit_range in self._ranges(attributes):
            check = _pod_problems if attributes.gvr.gr == PODS else _claim_problems
            problems = [text for text in check(limit_range, (attributes.object or {}).get("spec") or {}) if text]
            if problems:
                raise refused(attributes, aggregated(problems))

    def _ranges(self, attributes: AdmissionAttributes) -> list[Obj]:
        if attributes.old_object is not None and metadata(attributes.old_object).get("deletionTimestamp"):
            return []
        return list(self._listers(LIMIT_RANGES).list(attributes.namespace))


def _limits(limit_range: Obj, type_: str) -> list[Obj]:
    return [item for item in nested(limit_range, "spec", "limits", default=()) if item.get("type") == type_]


def _set_defaults(pod: Obj, limit_range: Obj) -> None:
    requests: Obj = {}
    limits: Obj = {}
    for limit in _limits(limit_range, "Container"):
        requests |= limit.get("defaultRequest") or {}
        limits |= limit.get("default") or {}
    if not requests and not limits:
        return
    spec = pod.setdefault("spec", {})
    notes: list[str] = []
    for kind, word in (("containers", "container"), ("initContainers", "init container")):
        for container in spec.get(kind) or ():
            resources = container.setdefault("resources", {})
            for which, defaults in (("requests", requests), ("limits", limits)):
                given = resources.get(which) or {}
                missing = sorted(set(defaults) - set(given))
                if missing:
                    resources[which] = {**given, **{name: defaults[name] for name in missing}}
                    notes.append(f"{', '.join(missing)} {which[:-1]} for {word} {container.get('name', '')}")
    if notes:
        held = metadata(pod).setdefault("annotations", {})
        held[ANNOTATION] = "LimitRanger plugin set: " + "; ".join(notes)


def _pod_problems(limit_range: Obj, spec: Obj) -> Iterator[str]:
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]
    for limit in nested(limit_range, "spec", "limits", default=()):
        if limit.get("type") == "Container":
            for container in containers:
                resources = container.get("resources") or {}
                yield from _bounds(limit, amounts(resources.get("requests")), amounts(resources.get("limits")))
        elif limit.get("type") == "Pod":
            yield from _bounds(limit, pod_total(spec, "requests"), pod_total(spec, "limits"))


def _claim_problems(limit_range: Obj, spec: Obj) -> Iterator[str]:
    requests = amounts(nested(spec, "resources", "requests"))
    for limit in _limits(limit_range, "PersistentVolumeClaim"):
        yield from _each(_minimum, limit.get("min"), "PersistentVolumeClaim", requests, {})
        yield from _each(_maximum_request, limit.get("max"), "PersistentVolumeClaim", requests, {})


def _bounds(limit: Obj, requests: Amounts, limits: Amounts) -> Iterator[str]:
    for rule, field in ((_minimum, "min"), (_maximum, "max"), (_ratio, "maxLimitRequestRatio")):
        yield from _each(rule, limit.get(field), limit["type"], requests, limits)


def _each(
    rule: Rule, bounds: Mapping[str, str] | None, type_: str, requests: Amounts, limits: Amounts
) -> Iterator[str]:
    for name, bound in amounts(bounds).items():
        yield rule(type_, name, bound, requests, limits)


def _minimum(type_: str, name: str, bound: Quantity, requests: Amounts, limits: Amounts) -> str:
    start = f"minimum {name} usage per {type_} is {bound}"
    if name not in requests:
        return f"{start}.  No request is specified"
    if requests[name] < bound:
        return f"{start}, but request is {requests[name]}"
    if name in limits and limits[name] < bound:
        return f"{start}, but limit is {limits[name]}"
    return ""


def _maximum(type_: str, name: str, bound: Quantity, requests: Amounts, limits: Amounts) -> str:
    start = f"maximum {name} usage per {type_} is {bound}"
    if name not in limits:
        return f"{start}.  No limit is specified"
    if bound < limits[name]:
        return f"{start}, but limit is {limits[name]}"
    return _maximum_request(type_, name, bound, requests, limits) if name in requests else ""


def _maximum_request(type_: str, name: str, bound: Quantity, requests: Amounts, _limits: Amounts) -> str:
    start = f"maximum {name} usage per {type_} is {bound}"
    if name not in requests:
        return f"{start}.  No request is specified"
    if bound < requests[name]:
        return f"{start}, but request is {requests[name]}"
    return ""


def _ratio(type_: str, name: str, bound: Quantity, requests: Amounts, limits: Amounts) -> str:
    start = f"{name} max limit to request ratio per {type_} is {bound}"
    if name not in requests or requests[name].is_zero():
        return f"{start}, but no request is specified or request is 0"
    if name not in limits or limits[name].is_zero():
        return f"{start}, but no limit is specified or limit is 0"
    observed = float(limits[name]) / float(requests[name])
    if observed > float(bound):
        return f"{start}, but provided ratio is {observed:f}"
    return ""
