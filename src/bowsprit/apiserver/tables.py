"""metav1.Table: objects as rows for people (upstream registry/rest/table.go and endpoints/handlers/response.go)."""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from datetime import datetime
from typing import Any

from bowsprit.apiserver.resource import Column, Printer
from bowsprit.machinery.errors import bad_request
from bowsprit.machinery.fielderrors import invalid, path
from bowsprit.machinery.objects import Obj

NAME_DESCRIPTION = (
    "Name must be unique within a namespace. Is required when creating resources, although some resources may allow a client "
    "to request the generation of an appropriate name automatically. Name is primarily intended for creation idempotence and "
    "configuration definition. Cannot be updated. More info: "
    "https://kubernetes.io/docs/concepts/overview/working-with-objects/names#names"
)
CREATED_DESCRIPTION = (
    "CreationTimestamp is a timestamp representing the server time when this object was created. It is not guaranteed to be "
    "set in happens-before order across separate operations. Clients may not set this value. It is represented in RFC3339 form "
    "and is in UTC.\n\nPopulated by the system. Read-only. Null for lists. More info: "
    "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md#metadata"
)
DEFAULT_PRINTER = Printer(
    (Column("Name", "string", NAME_DESCRIPTION, "name"), Column("Created At", "date", CREATED_DESCRIPTION)),
    lambda obj, now: [obj["metadata"].get("name", ""), obj["metadata"].get("creationTimestamp")],
)
INCLUDE_OBJECT = ("", "None", "Metadata", "Object")


def check_include(include: str) -> str:
    """The includeObject parameter with its default. Raises 400."""
    if include not in INCLUDE_OBJECT:
        error = invalid(path("includeObject"), include, "must be 'Metadata', 'Object', 'None', or empty")
        raise bad_request(f"Unable to convert to Table as requested: {error}")
    return include or "Metadata"


def columns(printer: Printer) -> list[Obj]:
    return [
        {
            "name": column.name,
            "type": column.type,
            "format": column.format,
            "description": column.description,
            "priority": column.priority,
        }
        for column in printer.columns
    ]


def row(obj: Obj, printer: Printer, now: datetime, include: str, version: str) -> Obj:
    """One object's row; `version` is that of the Table (v1, v1beta1)."""
    made: Obj = {"cells": printer.cells(obj, now)}
    conditions = printer.conditions(obj) if printer.conditions is not None else None
    if conditions:
        made["conditions"] = conditions
    made["object"] = _row_object(obj, include, version)
    return made


def _row_object(obj: Obj, include: str, version: str) -> Any:
    if include == "None":
        return None
    if include == "Object":
        return obj
    return partial(obj, version)


def partial(obj: Obj, version: str) -> Obj:
    """PartialObjectMetadata of an object."""
    return {"kind": "PartialObjectMetadata", "apiVersion": f"meta.k8s.io/{version}", "metadata": obj["metadata"]}


def table(
    objects: Iterable[Obj],
    printer: Printer | None,
    now: datetime,
    *,
    include: str,
    version: str,
    metadata: Obj,
    with_columns: bool = True,
) -> Obj:
    """The Table of the objects. `metadata` is its ListMeta."""
    printer = printer or DEFAULT_PRINTER
    if printer.order is not None:
        objects = sorted(objects, key=printer.order)
    rows: Sequence[Obj] = [row(obj, printer, now, include, version) for obj in objects]
    return {
        "kind": "Table",
        "apiVersion": f"meta.k8s.io/{version}",
        "metadata": metadata,
        "columnDefinitions": columns(printer) if with_columns else None,
        "rows": rows,
    }
