"""What an object uses of a ResourceQuota, and which quotas look at it.

Upstream: k8s.io/apiserver/pkg/quota/v1/generic, pkg/quota/v1/evaluator/core.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from dataclasses import dataclass

from bowsprit.controlplane.admission.pod_resources import Amounts, pod_total
from bowsprit.controlplane.admission.tolerations import is_extended_resource
from bowsprit.controlplane.core.storagevalidation import CLASS_ANNOTATION
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, metadata, nested
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.selectors import LabelSelector

PODS = GroupResource("", "pods")
SERVICES = GroupResource("", "services")
CLAIMS = GroupResource("", "persistentvolumeclaims")
_ONE = Quantity.of(1)
_LEGACY_COUNTS = frozenset(
    {"configmaps", "secrets", "replicationcontrollers", "resourcequotas", "services", "persistentvolumeclaims", "pods"}
)
_COMPUTE = ("cpu", "memory", "ephemeral-storage")
_STORAGE_CLASS_SUFFIX = ".storageclass.storage.k8s.io/"


def count_name(resource: GroupResource) -> str:
    """`count/deployments.apps`, `count/pods`."""
    return f"count/{resource}"


@dataclass(frozen=True, slots=True)
class Evaluator:
    """How objects of one resource count.

    usage gives what an object uses; covers tells whether a resource name of a quota is about such objects; constraints
    gives "" or what an object must say because the quota's names ask for it.
    """

    usage: Callable[[Obj], Amounts]
    covers: Callable[[str], bool]
    constraints: Callable[[Iterable[str], Obj], str] = lambda names, obj: ""
    on_update: bool = False


def evaluator_for(resource: GroupResource) -> Evaluator:
    """The evaluator of a resource; all that have none of their own are counted."""
    if resource == PODS:
        return Evaluator(pod_usage, _covers_pods, _pod_constraints)
    if resource == SERVICES:
        return Evaluator(_service_usage, lambda name: name in _SERVICE_NAMES, on_update=True)
    if resource == CLAIMS:
        return Evaluator(_claim_usage, _covers_claims, on_update=True)
    names = {count_name(resource)}
    if not resource.group and resource.resource in _LEGACY_COUNTS:
        names.add(resource.resource)
    amounts = dict.fromkeys(names, _ONE)
    return Evaluator(lambda _: dict(amounts), lambda name: name in amounts)


# -- pods ----------------------------------------------------------------------------------------------------------------


def pod_usage(pod: Obj) -> Amounts:
    """Compute resources of a pod; a finished pod only counts as an object."""
    usage: Amounts = {count_name(PODS): _ONE}
    if nested(pod, "status", "phase") in ("Succeeded", "Failed"):
        return usage
    usage["pods"] = _ONE
    spec = pod.get("spec") or {}
    for name, value in pod_total(spec, "requests", overhead=True).items():
        if name in _COMPUTE or name.startswith("hugepages-"):
            usage[name] = value
            usage[f"requests.{name}"] = value
        elif is_extended_resource(name):
            usage[f"requests.{name}"] = value
    for name, value in pod_total(spec, "limits", overhead=True).items():
        if name in _COMPUTE:
            usage[f"limits.{name}"] = value
    return usage


def _covers_pods(name: str) -> bool:
    if name in ("pods", count_name(PODS), *_COMPUTE) or name.startswith("hugepages-"):
        return True
    kind, _, rest = name.partition(".")
    if kind == "requests":
        return rest in _COMPUTE or rest.startswith("hugepages-") or is_extended_resource(rest)
    return kind == "limits" and rest in _COMPUTE


def _pod_constraints(names: Iterable[str], pod: Obj) -> str:
    """Every container says how much it wants of what is limited (upstream enforcePodContainerConstraints)."""
    wanted = [name for name in names if name in _COMPUTE or name.partition(".")[0] in ("requests", "limits")]
    if not wanted:
        return ""
    spec = pod.get("spec") or {}
    missing: dict[str, list[str]] = {}
    whole = spec.get("resources") or {}
    for container in [*(spec.get("containers") or ()), *(spec.get("initContainers") or ())]:
        resources = container.get("resources") or {}
        for name in wanted:
            which, _, rest = name.partition(".") if name not in _COMPUTE else ("requests", "", name)
            if rest not in (resources.get(which) or {}) and rest not in (whole.get(which) or {}):
                missing.setdefault(name, []).append(container.get("name", ""))
    if not missing:
        return ""
    return "must specify " + "; ".join(
        f"{name} for: {','.join(sorted(set(missing[name])))}" for name in sorted(missing)
    )


# -- services and claims -------------------------------------------------------------------------------------------------

_SERVICE_NAMES = frozenset({"services", "services.nodeports", "services.loadbalancers", count_name(SERVICES)})


def _service_usage(service: Obj) -> Amounts:
    spec = service.get("spec") or {}
    ports = spec.get("ports") or []
    node_ports = balancers = 0
    if spec.get("type") == "NodePort":
        node_ports = len(ports)
    elif spec.get("type") == "LoadBalancer":
        balancers = 1
        allocated = spec.get("allocateLoadBalancerNodePorts") is not False
        node_ports = len(ports) if allocated else sum(1 for port in ports if port.get("nodePort"))
    return {
        "services": _ONE,
        count_name(SERVICES): _ONE,
        "services.nodeports": Quantity.of(node_ports),
        "services.loadbalancers": Quantity.of(balancers),
    }


def _claim_class(claim: Obj) -> str:
    held = metadata(claim).get("annotations") or {}
    return str(held.get(CLASS_ANNOTATION) or nested(claim, "spec", "storageClassName", default=""))


def _claim_usage(claim: Obj) -> Amounts:
    usage = {"persistentvolumeclaims": _ONE, count_name(CLAIMS): _ONE}
    storage_class = _claim_class(claim)
    storage = nested(claim, "spec", "resources", "requests", "storage")
    if storage_class:
        usage[f"{storage_class}{_STORAGE_CLASS_SUFFIX}persistentvolumeclaims"] = _ONE
    if storage is not None:
        usage["requests.storage"] = Quantity.parse(storage)
        if storage_class:
            usage[f"{storage_class}{_STORAGE_CLASS_SUFFIX}requests.storage"] = usage["requests.storage"]
    return usage


def _covers_claims(name: str) -> bool:
    if name in ("persistentvolumeclaims", "requests.storage", count_name(CLAIMS)):
        return True
    return name.endswith((_STORAGE_CLASS_SUFFIX + "persistentvolumeclaims", _STORAGE_CLASS_SUFFIX + "requests.storage"))


# -- scopes --------------------------------------------------------------------------------------------------------------


def quota_matches(quota: Obj, resource: GroupResource, obj: Obj) -> bool:
    """Whether a quota's scopes let it look at the object; scopes other than a claim's class are about pods."""
    spec = quota.get("spec") or {}
    scopes: list[Obj] = [{"scopeName": name, "operator": "Exists"} for name in spec.get("scopes") or ()]
    scopes += nested(spec, "scopeSelector", "matchExpressions", default=[])
    return all(_in_scope(scope, resource, obj) for scope in scopes)


def _in_scope(scope: Obj, resource: GroupResource, obj: Obj) -> bool:
    name, operator = scope.get("scopeName"), scope.get("operator")
    if name == "VolumeAttributesClass":
        if resource != CLAIMS:
            return False
        return _selects(scope, nested(obj, "spec", "volumeAttributesClassName"))
    if resource != PODS:
        return False
    spec = obj.get("spec") or {}
    terminating = (spec.get("activeDeadlineSeconds") or -1) >= 0
    match name:
        case "Terminating":
            found = terminating
        case "NotTerminating":
            found = not terminating
        case "BestEffort":
            found = is_best_effort(spec)
        case "NotBestEffort":
            found = not is_best_effort(spec)
        case "CrossNamespacePodAffinity":
            found = _crosses_namespaces(spec)
        case "PriorityClass":
            return _selects(scope, spec.get("priorityClassName"))
        case _:
            return False
    return found if operator != "DoesNotExist" else not found


def _selects(scope: Obj, value: str | None) -> bool:
    expression = {"key": "value", "operator": scope.get("operator"), "values": scope.get("values") or []}
    selector = LabelSelector.from_obj({"matchExpressions": [expression]})
    return selector.matches({"value": value} if value else {})


def is_best_effort(spec: Obj) -> bool:
    """Whether no container of the pod asks for processor or memory."""
    containers = [*(spec.get("containers") or ()), *(spec.get("initContainers") or ()), spec]
    for container in containers:
        for which in ("requests", "limits"):
            listed = nested(container, "resources", which, default={})
            if any(name in ("cpu", "memory") and Quantity.parse(value) for name, value in listed.items()):
                return False
    return True


def _crosses_namespaces(spec: Obj) -> bool:
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = nested(spec, "affinity", kind, default={})
        terms = list(rules.get("requiredDuringSchedulingIgnoredDuringExecution") or ())
        preferred = rules.get("preferredDuringSchedulingIgnoredDuringExecution") or ()
        terms += [item.get("podAffinityTerm") or {} for item in preferred]
        if any(term.get("namespaces") or term.get("namespaceSelector") is not None for term in terms):
            return True
    return False


def unknown_usage(quota: Obj, names: Iterable[str]) -> list[str]:
    """The limited resources whose use the quota controller has not told yet."""
    used = nested(quota, "status", "used", default={})
    return sorted(name for name in names if name not in used)
