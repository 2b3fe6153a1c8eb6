"""What a pod asks for in total (upstream component-helpers/resource/helpers.go).

Containers run side by side, init containers one after another; an init container that restarts always (a sidecar) runs on
beside everything after it.
"""

from __future__ import annotations

from collections.abc import Iterable, Mapping

from bowsprit.machinery.objects import Obj, nested
from bowsprit.machinery.quantity import Quantity

Amounts = dict[str, Quantity]
# Resources that may be set for the pod as a whole (spec.resources).
_POD_LEVEL = ("cpu", "memory")


def amounts(listed: Mapping[str, str | int | float] | None) -> Amounts:
    """A ResourceList as quantities."""
    return {name: Quantity.parse(value) for name, value in (listed or {}).items()}


def add(total: Amounts, more: Mapping[str, Quantity]) -> None:
    """Add in place."""
    for name, value in more.items():
        total[name] = total[name] + value if name in total else value


def pod_total(spec: Obj, which: str, *, overhead: bool = False) -> Amounts:
    """The sum of a pod's `requests` or `limits`, with the pod's overhead if asked.

    Overhead is added to a limit only where there is one.
    """
    total: Amounts = {}
    for container in spec.get("containers") or ():
        add(total, _of(container, which))
    sidecars: Amounts = {}
    peak: Amounts = {}
    for container in spec.get("initContainers") or ():
        own = _of(container, which)
        if container.get("restartPolicy") == "Always":
            add(total, own)
            add(sidecars, own)
            stage = sidecars
        else:
            stage = dict(sidecars)
            add(stage, own)
        _raise_to(peak, stage)
    _raise_to(total, peak)
    for name, value in _of(spec, which).items():
        if name in _POD_LEVEL or name.startswith("hugepages-"):
            total[name] = value
    if overhead:
        extra = amounts(spec.get("overhead"))
        add(total, extra if which == "requests" else {name: value for name, value in extra.items() if name in total})
    return total


def _of(holder: Obj, which: str) -> Amounts:
    return amounts(nested(holder, "resources", which))


def _raise_to(total: Amounts, other: Mapping[str, Quantity]) -> None:
    for name, value in other.items():
        if name not in total or total[name] < value:
            total[name] = value


def show(values: Mapping[str, Quantity]) -> str:
    """`a=1,b=2Gi`, sorted (upstream prettyPrint)."""
    return ",".join(f"{name}={values[name]}" for name in sorted(values))


def aggregated(texts: Iterable[str]) -> str:
    """Several errors in one text, each once (upstream utilerrors.NewAggregate)."""
    unique = list(dict.fromkeys(texts))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]"
