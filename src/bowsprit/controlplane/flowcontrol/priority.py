"""FlowSchemas and PriorityLevelConfigurations: stored and shown; the server itself limits by requests in flight."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.controlplane.flowcontrol.validation import flow_schema_errors, priority_level_errors
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.controlplane.statused import StatusedStrategy
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.objects import Obj, find_condition


class FlowSchemaStrategy(StatusedStrategy):
    """The main endpoint."""

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if not spec.get("matchingPrecedence"):
            spec["matchingPrecedence"] = 1000

    def validate(self, obj: Obj) -> list[FieldError]:
        return flow_schema_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return flow_schema_errors(new)


class PriorityLevelStrategy(StatusedStrategy):
    """The main endpoint."""

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if (limited := spec.get("limited")) is not None:
            if limited.get("nominalConcurrencyShares") is None:
                limited["nominalConcurrencyShares"] = 30
            if limited.get("lendablePercent") is None:
                limited["lendablePercent"] = 0
            queuing = (limited.get("limitResponse") or {}).get("queuing")
            if queuing is not None:
                for field, value in (("handSize", 8), ("queues", 64), ("queueLengthLimit", 50)):
                    queuing[field] = queuing.get(field) or value
        if (exempt := spec.get("exempt")) is not None:
            for field in ("nominalConcurrencyShares", "lendablePercent"):
                if exempt.get(field) is None:
                    exempt[field] = 0

    def validate(self, obj: Obj) -> list[FieldError]:
        return priority_level_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return priority_level_errors(new)


def schema_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, PriorityLevel, MatchingPrecedence, DistinguisherMethod, Age, MissingPL."""
    spec = obj.get("spec") or {}
    missing = (find_condition(obj, "Dangling") or {}).get("status") or "?"
    return [
        name_of(obj),
        (spec.get("priorityLevelConfiguration") or {}).get("name", ""),
        spec.get("matchingPrecedence", 0),
        (spec.get("distinguisherMethod") or {}).get("type") or "<none>",
        age_of(obj, now),
        missing,
    ]


def schema_order(obj: Obj) -> tuple[int, str]:
    """Rows come by precedence (upstream apihelpers.FlowSchemaSequence)."""
    return obj["spec"].get("matchingPrecedence", 0), name_of(obj)


def level_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Type, NominalConcurrencyShares, Queues, HandSize, QueueLengthLimit, Age."""
    spec = obj.get("spec") or {}
    limited = spec.get("limited") or spec.get("exempt") or {}
    queuing = (limited.get("limitResponse") or {}).get("queuing") or {}

    def shown(value: Any) -> Any:
        return "<none>" if value is None else value

    return [
        name_of(obj),
        spec.get("type", ""),
        shown((spec.get("limited") or {}).get("nominalConcurrencyShares")),
        shown(queuing.get("queues")),
        shown(queuing.get("handSize")),
        shown(queuing.get("queueLengthLimit")),
        age_of(obj, now),
    ]
