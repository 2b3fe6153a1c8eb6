"""metadata.managedFields: who manages which fields, decoded, encoded and put in order.

Contract: k8s.io/apimachinery/pkg/util/managedfields/internal (DecodeManagedFields, EncodeObjectManagedFields,
capManagersManager, stripMetaManager).
"""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any

from bowsprit.machinery import goformat
from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.fieldset import FieldSet
from bowsprit.machinery.objects import Obj

APPLY, UPDATE = "Apply", "Update"
MAX_UPDATERS = 10
"""More update managers than these are merged into one bucket, the oldest first."""
_BUCKET = "ancient-changes"

# Fields that the server owns, or that identify the object: nobody manages them.
_UNMANAGED = FieldSet.of(
    ("f:apiVersion",),
    ("f:kind",),
    ("f:metadata",),
    *(
        ("f:metadata", f"f:{name}")
        for name in (
            "name",
            "namespace",
            "creationTimestamp",
            "selfLink",
            "uid",
            "clusterName",
            "generation",
            "managedFields",
            "resourceVersion",
        )
    ),
)


@dataclass(frozen=True, slots=True)
class Manager:
    """Who manages. Appliers have no apiVersion here: they stay the same manager when they move to another version."""

    name: str
    operation: str
    api_version: str = ""
    subresource: str = ""

    def __str__(self) -> str:
        """As a conflict names it."""
        text = goformat.quote(self.name)
        if self.subresource:
            text += f" with subresource {goformat.quote(self.subresource)}"
        return f"{text} using {self.api_version}" if self.operation == UPDATE else text


@dataclass(frozen=True, slots=True)
class Managed:
    """The fields of one manager, in terms of a version, and when they last changed (RFC 3339; empty: never since)."""

    fields: FieldSet
    api_version: str
    time: str = ""

    def with_fields(self, fields: FieldSet) -> Managed:
        return replace(self, fields=fields)


Managers = dict[Manager, Managed]


@dataclass(slots=True)
class _Bucket:
    fields: FieldSet = field(default_factory=FieldSet)
    time: str = ""


def decode(entries: Any) -> Managers:
    """The managers of an object. Raises DecodeError for what upstream refuses."""
    managers: Managers = {}
    for entry in entries or ():
        if not isinstance(entry, dict):
            raise DecodeError("managedFields: expected an object")
        operation = entry.get("operation") or ""
        if operation not in (APPLY, UPDATE):
            raise DecodeError(f"operation is `{operation}`, expected `Apply` or `Update`")
        if not entry.get("apiVersion"):
            raise DecodeError("apiVersion must not be empty")
        if entry.get("fieldsType") != "FieldsV1":
            raise DecodeError(f"fieldsType is `{entry.get('fieldsType') or ''}`, expected `FieldsV1`")
        version = entry["apiVersion"]
        manager = Manager(
            entry.get("manager") or "",
            operation,
            version if operation == UPDATE else "",
            entry.get("subresource") or "",
        )
        fields = FieldSet.from_obj(entry.get("fieldsV1") or {})
        managers[manager] = Managed(fields, version, entry.get("time") or "")
    return managers


def decode_or_none(entries: Any) -> Managers:
    """The managers, or none at all when the entries are broken: a damaged object must stay writable."""
    try:
        return decode(entries)
    except DecodeError:
        return {}


def encode(managers: Mapping[Manager, Managed]) -> list[Obj]:
    """The entries in upstream's order: appliers first, then by time, manager, version, subresource."""
    ordered = sorted(
        managers.items(),
        key=lambda item: (
            item[0].operation,
            item[1].time,
            item[0].name,
            item[1].api_version,
            item[0].subresource,
        ),
    )
    return [_entry(manager, managed) for manager, managed in ordered]


def _entry(manager: Manager, managed: Managed) -> Obj:
    entry: Obj = {}
    if manager.name:
        entry["manager"] = manager.name
    entry |= {"operation": manager.operation, "apiVersion": managed.api_version}
    if managed.time:
        entry["time"] = managed.time
    entry |= {"fieldsType": "FieldsV1", "fieldsV1": managed.fields.to_obj()}
    if manager.subresource:
        entry["subresource"] = manager.subresource
    return entry


def store(obj: Obj, managers: Mapping[Manager, Managed]) -> None:
    """Write the managers into an object; no managers means no member."""
    metadata = obj.setdefault("metadata", {})
    if managers:
        metadata["managedFields"] = encode(managers)
    else:
        metadata.pop("managedFields", None)


def remove(obj: Obj) -> None:
    (obj.get("metadata") or {}).pop("managedFields", None)


def stripped(managers: Managers, manager: Manager) -> Managers:
    """Without what nobody manages, in the entry of the manager that acts."""
    if manager not in managers:
        return managers
    fields = managers[manager].fields.difference(_UNMANAGED)
    rest = {key: value for key, value in managers.items() if key != manager}
    return rest if fields.is_empty() else {**rest, manager: managers[manager].with_fields(fields)}


def capped(managers: Managers) -> Managers:
    """At most MAX_UPDATERS update managers: the oldest of each version share one entry beyond that."""
    updaters = [(managed.time, manager) for manager, managed in managers.items() if manager.operation == UPDATE]
    excess = len(updaters) - MAX_UPDATERS
    if excess <= 0:
        return managers
    result = dict(managers)
    buckets: dict[str, _Bucket] = {}
    updaters.sort(key=lambda item: (item[0], item[1].name, item[1].api_version, item[1].subresource))
    for _, manager in updaters:
        if excess <= 0:
            break
        managed = result.pop(manager)
        bucket = buckets.get(managed.api_version)
        if bucket is None:  # the first of a version moves into its bucket, which saves nothing yet
            bucket = buckets[managed.api_version] = _Bucket()
        else:
            excess -= 1
        bucket.fields = bucket.fields.union(managed.fields)
        bucket.time = max(bucket.time, managed.time)
    for version, bucket in buckets.items():
        result[Manager(_BUCKET, UPDATE, version)] = Managed(bucket.fields, version, bucket.time)
    return result
