"""Events: stored as core/v1, also served as events.k8s.io/v1."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver import objectmeta
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.events.validation import changed_event_errors, event_errors, new_event_errors
from bowsprit.controlplane.printing import name_of
from bowsprit.machinery.errors import invalid
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.humanduration import age
from bowsprit.machinery.names import GroupKind
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.validation import is_dns1123_subdomain, is_valid_path_segment_name

NEWER_GROUP = "events.k8s.io"
TTL_SECONDS = 3600
SELECTABLE = (
    "involvedObject.kind",
    "involvedObject.namespace",
    "involvedObject.name",
    "involvedObject.uid",
    "involvedObject.apiVersion",
    "involvedObject.resourceVersion",
    "involvedObject.fieldPath",
    "reason",
    "reportingComponent",
    "source",
    "type",
)
_NAMES = {
    "involvedObject": "regarding",
    "message": "note",
    "source": "deprecatedSource",
    "firstTimestamp": "deprecatedFirstTimestamp",
    "lastTimestamp": "deprecatedLastTimestamp",
    "count": "deprecatedCount",
    "reportingComponent": "reportingController",
}
_BACK = {new: old for old, new in _NAMES.items()}


class EventStrategy(Strategy):
    """Selectable by what they are about."""

    allow_create_on_update = True

    def validate(self, obj: Obj) -> list[FieldError]:
        return event_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return event_errors(new)

    # The newer API has rules that the core one must not apply to old clients; whoever came through it is told of all that
    # is wrong at once, of an Event without a group.

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        if ctx.info.group != NEWER_GROUP:
            return
        meta = obj["metadata"]
        errors = event_errors(obj, reporter_field="reportingController")
        errors += objectmeta.validate(meta, True, is_dns1123_subdomain)
        finalizers = meta.get("finalizers") or []
        errors += objectmeta.validate_standard_finalizers(finalizers, path("metadata", "finalizers"))
        if errors := errors + new_event_errors(obj):
            raise invalid(GroupKind("", "Event"), name_of(obj), errors)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        if ctx.info.group != NEWER_GROUP:
            return
        meta = {**new["metadata"], "uid": new["metadata"].get("uid") or old["metadata"]["uid"]}
        finalizers = meta.get("finalizers") or []
        unchanged = objectmeta.validate_standard_finalizers(finalizers, path("metadata", "finalizers"))
        unchanged += objectmeta.validate_update(meta, old["metadata"])
        errors = objectmeta.validate_common(meta, True) + objectmeta.validate_update(meta, old["metadata"])
        errors += event_errors(new, reporter_field="reportingController") + unchanged
        if errors := errors + changed_event_errors(new, old):
            raise invalid(GroupKind("", "Event"), name_of(new), errors)

    def validate_name(self, name: str) -> list[str]:
        return is_valid_path_segment_name(name)

    def selectable_field_names(self) -> frozenset[str]:
        return frozenset(
            {
                *SELECTABLE,
                "reportingController",
                *(name.replace("involvedObject", "regarding") for name in SELECTABLE[:7]),
            }
        )

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        about, source = obj.get("involvedObject") or {}, (obj.get("source") or {}).get("component") or ""
        fields = {
            f"involvedObject.{name.rpartition('.')[2]}": about.get(name.rpartition(".")[2]) or ""
            for name in SELECTABLE[:7]
        }
        fields |= {name.replace("involvedObject", "regarding"): value for name, value in fields.items()}
        reporter = obj.get("reportingComponent") or ""
        return {
            **fields,
            "reason": obj.get("reason") or "",
            "reportingComponent": reporter,
            "reportingController": reporter,
            "source": source or reporter,
            "type": obj.get("type") or "",
        }


def to_events(obj: Obj) -> Obj:
    """core/v1 to events.k8s.io/v1."""
    new = {_NAMES.get(key, key): deep_copy(value) for key, value in obj.items()}
    new["apiVersion"] = "events.k8s.io/v1"
    if new.get("reportingController") == "":
        del new["reportingController"]
    if new.get("reportingInstance") == "":
        del new["reportingInstance"]
    new.setdefault("eventTime", None)
    for field in ("deprecatedFirstTimestamp", "deprecatedLastTimestamp"):
        new.setdefault(field, None)
    new.setdefault("deprecatedSource", {})
    return new


def from_events(obj: Obj) -> Obj:
    """events.k8s.io/v1 to core/v1."""
    new = {_BACK.get(key, key): deep_copy(value) for key, value in obj.items()}
    new["apiVersion"] = "v1"
    new.setdefault("involvedObject", {})
    new.setdefault("source", {})
    for field in ("firstTimestamp", "lastTimestamp", "eventTime"):
        new.setdefault(field, None)
    for field in ("reportingComponent", "reportingInstance"):
        new.setdefault(field, "")
    return new


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Last Seen, Type, Reason, Object, Subobject, Source, Message, First Seen, Count, Name."""
    if obj.get("apiVersion") == "events.k8s.io/v1":
        obj = from_events(obj)
    first, last = _seen(obj.get("firstTimestamp"), now), _seen(obj.get("lastTimestamp"), now)
    at = _seen(obj.get("eventTime"), now)
    if not obj.get("firstTimestamp"):
        first = at
    if not obj.get("lastTimestamp"):
        last = first
    series, count = obj.get("series"), obj.get("count", 0)
    if series:
        count, last = series.get("count", 0), _seen(series.get("lastObservedTime"), now)
    elif not count:
        count = 1
    about, source = obj.get("involvedObject") or {}, obj.get("source") or {}
    target = str(about.get("kind", "")).lower() + (f"/{about['name']}" if about.get("name") else "")
    parts = [
        source.get("component") or obj.get("reportingComponent") or "",
        source.get("host") or obj.get("reportingInstance") or "",
    ]
    return [
        last,
        obj.get("type", ""),
        obj.get("reason", ""),
        target,
        about.get("fieldPath", ""),
        ", ".join(part for part in parts if part),
        str(obj.get("message", "")).strip(),
        first,
        count,
        name_of(obj),
    ]


def _seen(moment: str | None, now: datetime) -> str:
    return age(moment, now)
