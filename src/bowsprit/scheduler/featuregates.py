"""Feature gates that scheduling knows about, with their defaults in v1.36."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

DEFAULTS: dict[str, bool] = {
    "OpportunisticBatching": True,
    "SchedulerQueueingHints": True,
    "SchedulerAsyncPreemption": True,
    "SchedulerPopFromBackoffQ": True,
    "NominatedNodeNameForExpectation": True,
    "NodeDeclaredFeatures": True,
    "PodLevelResources": True,
    "InPlacePodVerticalScaling": True,
    "DynamicResourceAllocation": True,
    "SchedulerAsyncAPICalls": False,
    "GangScheduling": False,
    "GenericWorkload": False,
    "StorageCapacityScoring": False,
    "VolumeLimitScaling": False,
    "TaintTolerationComparisonOperators": False,
    "CoordinatedLeaderElection": False,
}


def gates_of(changes: Mapping[str, bool]) -> dict[str, bool]:
    """Defaults with changes; gates that we do not know are kept, so that configurations carry over."""
    return {**DEFAULTS, **changes}


_LOCKED = ("SchedulerQueueingHints", "InPlacePodVerticalScaling", "DynamicResourceAllocation")  # generally available
_NEEDS = {"GangScheduling": "GenericWorkload"}
_TRUE, _FALSE = ("1", "t", "T", "true", "TRUE", "True"), ("0", "f", "F", "false", "FALSE", "False")


def parse_gates(texts: Iterable[str]) -> dict[str, bool]:
    """Values of --feature-gates: `A=true,kube:B=false`. Raises ValueError with upstream's messages."""
    gates: dict[str, bool] = {}
    prefixes = set()
    for part in (part.strip() for text in texts for part in text.split(",")):
        if not part:
            continue
        component, colon, pair = part.rpartition(":")
        if colon and component != "kube":
            raise ValueError(f"component not registered: {component}")
        prefixes.add(component)
        if len(prefixes) > 1:
            raise ValueError(
                "set kube feature gates with default empty prefix or kube: prefix consistently, do not mix use"
            )
        name, equals, value = pair.partition("=")
        if not equals:
            raise ValueError(f"missing bool value for {name}")
        if value not in (*_TRUE, *_FALSE):
            problem = f'strconv.ParseBool: parsing "{value}": invalid syntax'
            raise ValueError(f"invalid value of {name}={value}, err: {problem}")
        if name in _LOCKED and value in _FALSE:
            raise ValueError(f"cannot set feature gate {name} to false, feature is locked to true")
        gates[name] = value in _TRUE
    for name, needed in _NEEDS.items():
        if gates.get(name) and not gates.get(needed):
            raise ValueError(f"{name} is enabled, but depends on features that are disabled: [{needed}]")
    return gates
