"""Rules for Events (upstream pkg/apis/core/validation/events.go); the newer API is stricter. Events are in core form."""

from __future__ import annotations

from typing import Any

from bowsprit.controlplane.gostructs import go_value
from bowsprit.controlplane.immutable import immutable_field
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import parse_micro_time
from bowsprit.machinery.validation import is_dns1123_subdomain, is_qualified_name

_LONGEST = 128
_LONGEST_NOTE = 1024
_FROZEN = (
    "involvedObject",
    "reason",
    "message",
    "source",
    "firstTimestamp",
    "lastTimestamp",
    "count",
    "reason",  # upstream looks at it twice, and clients are told twice
    "type",
    "eventTime",
    "action",
    "related",
)

_STRUCTS = {"involvedObject": "ObjectReference", "related": "*ObjectReference", "source": "EventSource"}


def event_errors(obj: Obj, *, reporter_field: str = "reportingComponent") -> list[FieldError]:
    """What holds for events of every API; `reporter_field`: what the request's API calls who reports."""
    errors: list[FieldError] = []
    namespace = obj["metadata"].get("namespace", "")
    about = (obj.get("involvedObject") or {}).get("namespace", "")
    # Cluster-scoped objects have their events in "default", newer ones also in "kube-system".
    if obj.get("eventTime"):
        agree = bool(about) or namespace in ("default", "kube-system")
    else:
        agree = about == namespace if about else namespace in ("", "default")
    if not agree:
        errors.append(fielderrors.invalid(path("involvedObject", "namespace"), about, "does not match event.namespace"))
    if obj.get("eventTime"):
        errors += _reported_errors(obj, reporter_field)
    return errors + name_errors(namespace, path("namespace"), is_dns1123_subdomain)


def _reported_errors(obj: Obj, reporter_field: str) -> list[FieldError]:
    reporter, place = obj.get("reportingComponent", ""), path(reporter_field)
    errors = [] if reporter else [fielderrors.required(place)]
    errors += name_errors(reporter, place, is_qualified_name)
    for field in ("reportingInstance", "action", "reason"):
        value = obj.get(field, "")
        if not value:
            errors.append(fielderrors.required(path(field)))
        elif len(value.encode()) > _LONGEST:
            errors.append(fielderrors.invalid(path(field), "", f"can have at most {_LONGEST} characters"))
    if len(obj.get("message", "").encode()) > _LONGEST_NOTE:
        errors.append(fielderrors.invalid(path("message"), "", f"can have at most {_LONGEST_NOTE} characters"))
    return errors


def new_event_errors(obj: Obj) -> list[FieldError]:
    """What the newer API asks of new events beyond that."""
    errors = _series_errors(obj)
    if not obj.get("eventTime"):
        errors.append(fielderrors.required(path("eventTime")))
    if obj.get("type") not in ("Normal", "Warning"):
        errors.append(fielderrors.invalid(path("type"), "", f"has invalid value: {obj.get('type', '')}"))
    source = obj.get("source") or {}
    old_fields = {field: obj.get(field) for field in ("firstTimestamp", "lastTimestamp", "count")}
    for field, value in {**old_fields, "source": source.get("component") or source.get("host")}.items():
        if value:
            errors.append(fielderrors.invalid(path(field), "", "needs to be unset"))
    return errors


def changed_event_errors(new: Obj, old: Obj) -> list[FieldError]:
    """What the newer API asks of changed events: only the series may change."""
    errors = _series_errors(new) if new.get("series") != old.get("series") else []
    for field in _FROZEN:
        if field == "eventTime" and _moment(new) == _moment(old):
            continue
        errors += immutable_field(_shown(new, field), _shown(old, field), path(field))
    errors += immutable_field(
        _shown(new, "reportingComponent"), _shown(old, "reportingComponent"), path("reportingController")
    )
    return errors + immutable_field(
        _shown(new, "reportingInstance"), _shown(old, "reportingInstance"), path("reportingInstance")
    )


def _shown(obj: Obj, field: str) -> Any:
    """A field's value as upstream shows it in refusals: with Go's names, and with zero values."""
    if field in _STRUCTS:
        return go_value(_STRUCTS[field], obj.get(field))
    return obj.get(field) or (0 if field == "count" else None if field.endswith(("Time", "Timestamp")) else "")


def _moment(obj: Obj) -> object:
    """The event's time to the microsecond."""
    return parse_micro_time(obj["eventTime"]) if obj.get("eventTime") else None


def _series_errors(obj: Obj) -> list[FieldError]:
    series = obj.get("series")
    if series is None:
        return []
    errors = []
    if series.get("count", 0) < 2:
        errors.append(fielderrors.invalid(path("series.count"), "", "should be at least 2"))
    if not series.get("lastObservedTime"):
        errors.append(fielderrors.required(path("series.lastObservedTime")))
    return errors
