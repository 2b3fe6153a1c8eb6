"""How much a pod asks for: k8s.io/component-helpers/resource.PodRequests and the scheduler's Resource.

Amounts are integers: cpu in thousandths, everything else in whole units, both rounded up after summing exactly.
"""

from __future__ import annotations

from bowsprit.machinery.objects import Obj
from bowsprit.machinery.quantity import Quantity

Amounts = dict[str, int]

CPU, MEMORY, EPHEMERAL = "cpu", "memory", "ephemeral-storage"
DEFAULT_CPU_NANO = 10**8  # 100m: what scoring assumes for a container without a cpu request
DEFAULT_MEMORY_NANO = 200 * 1024 * 1024 * 10**9
_NON_MISSING = {CPU: DEFAULT_CPU_NANO, MEMORY: DEFAULT_MEMORY_NANO}


def _nano(amounts: Obj | None) -> Amounts:
    return {name: Quantity.parse(value).nano for name, value in (amounts or {}).items()}


def _plus(total: Amounts, more: Amounts) -> None:
    for name, value in more.items():
        total[name] = total.get(name, 0) + value


def _maximum(total: Amounts, other: Amounts) -> None:
    for name, value in other.items():
        if value > total.get(name, -1):
            total[name] = value


def _scaled(nano: Amounts) -> Amounts:
    return {name: -(-value // (10**6 if name == CPU else 10**9)) for name, value in nano.items()}


def is_pod_level(name: str) -> bool:
    """Resources that may be set for the pod as a whole."""
    return name in (CPU, MEMORY) or name.startswith("hugepages-")


def is_scalar(name: str) -> bool:
    """schedutil.IsScalarResourceName: neither cpu, memory, ephemeral storage nor the number of pods."""
    return name not in (CPU, MEMORY, EPHEMERAL, "pods")


def _container_requests(container: Obj, statuses: dict[str, Obj], infeasible: bool, missing: Amounts) -> Amounts:
    requests = _nano((container.get("resources") or {}).get("requests"))
    status = statuses.get(container.get("name", ""))
    if status and (status.get("resources") is not None or status.get("allocatedResources")):
        actuated = _nano((status.get("resources") or {}).get("requests"))
        allocated = _nano(status.get("allocatedResources"))
        wanted = {} if infeasible else dict(requests)
        _maximum(wanted, actuated)
        _maximum(wanted, allocated)
        requests = wanted
    for name, value in missing.items():
        requests.setdefault(name, value)
    return requests


def _aggregate(spec: Obj, status: Obj, missing: Amounts, pod_level: bool = True) -> Amounts:
    statuses: dict[str, Obj] = {}
    for part in ("containerStatuses", "initContainerStatuses"):
        for item in status.get(part) or ():
            statuses[item.get("name", "")] = item
    infeasible = any(
        c.get("type") == "PodResizePending" and c.get("reason") == "Infeasible" for c in status.get("conditions") or ()
    )
    total: Amounts = {}
    for container in spec.get("containers") or ():
        _plus(total, _container_requests(container, statuses, infeasible, missing))
    sidecars: Amounts = {}
    init_phase: Amounts = {}
    for container in spec.get("initContainers") or ():
        requests = _container_requests(container, statuses, infeasible, missing)
        if container.get("restartPolicy") == "Always":
            _plus(total, requests)
            _plus(sidecars, requests)
            requests = dict(sidecars)
        else:
            _plus(requests, sidecars)
        _maximum(init_phase, requests)
    _maximum(total, init_phase)
    for name, value in _nano((spec.get("resources") or {}).get("requests")).items() if pod_level else ():
        if is_pod_level(name):
            total[name] = value
    _plus(total, _nano(spec.get("overhead")))
    return total


def pod_requests(spec: Obj, status: Obj | None = None) -> Amounts:
    """What the pod asks for, by resource. `status` tells of resizes in place."""
    return _scaled(_aggregate(spec, status or {}, {}))


def non_zero_requests(spec: Obj, status: Obj | None = None) -> tuple[int, int]:
    """(cpu, memory) for scoring: containers that ask for none count 100m and 200 MiB."""
    amounts = _scaled(_aggregate(spec, status or {}, _NON_MISSING))
    return amounts.get(CPU, 0), amounts.get(MEMORY, 0)


def scored_requests(spec: Obj, status: Obj | None = None) -> tuple[int, int]:
    """(cpu, memory) of a pod whose fit is scored: as `non_zero_requests`, but pod-level requests do not count."""
    amounts = _scaled(_aggregate(spec, status or {}, _NON_MISSING, pod_level=False))
    return amounts.get(CPU, 0), amounts.get(MEMORY, 0)


def pod_limits(spec: Obj) -> Amounts:
    """What the pod is limited to, by resource (component-helpers/resource.PodLimits); overhead only where there is a limit."""
    total: Amounts = {}
    for container in spec.get("containers") or ():
        _plus(total, _limits(container))
    sidecars: Amounts = {}
    init_phase: Amounts = {}
    for container in spec.get("initContainers") or ():
        limits = _limits(container)
        if container.get("restartPolicy") == "Always":
            _plus(total, limits)
            _plus(sidecars, limits)
            limits = dict(sidecars)
        else:
            _plus(limits, sidecars)
        _maximum(init_phase, limits)
    _maximum(total, init_phase)
    total.update({name: value for name, value in _limits(spec).items() if is_pod_level(name)})
    _plus(total, {name: value for name, value in _nano(spec.get("overhead")).items() if total.get(name)})
    return _scaled(total)


def _limits(holder: Obj) -> Amounts:
    return _nano((holder.get("resources") or {}).get("limits"))


def amounts_of(resources: Obj | None) -> Amounts:
    """A node's allocatable as integers."""
    return _scaled(_nano(resources))
