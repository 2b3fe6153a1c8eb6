"""Feature gates that scheduling knows about, with their defaults in v1.36."""

from __future__ import annotations

from collections.abc import Mapping

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
