"""From a CustomResourceDefinition to the Resource that serves its objects (upstream customresource handler and strategy)."""

from __future__ import annotations

from collections.abc import Mapping
from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import (
    Column,
    Printer,
    Resource,
    ScaleSubresource,
    StatusSubresource,
    Subresource,
    Version,
)
from bowsprit.apiserver.strategy import Strategy
from bowsprit.apiserver.tables import CREATED_DESCRIPTION, NAME_DESCRIPTION
from bowsprit.controlplane.apiextensions.conversion import WebhookConversion
from bowsprit.machinery.discovery import version_key
from bowsprit.machinery.errors import forbidden
from bowsprit.machinery.humanduration import age
from bowsprit.machinery.jsonpath import JSONPath, value_text
from bowsprit.machinery.names import GroupResource, GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj, deep_copy, nested
from bowsprit.machinery.schema import CustomResourceSchema

VERBS = ("delete", "deletecollection", "get", "list", "patch", "create", "update", "watch")  # in upstream's order
PATCH_TYPES = frozenset({"json", "merge", "apply"})
_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp", "description": CREATED_DESCRIPTION}


_STATUS_RESET: Obj = {"f:spec": {}, "f:metadata": {}}


class CustomResourceStrategy(Strategy):
    """The main endpoint of one kind of custom resources."""

    has_generation = True
    allow_unconditional_update = False

    def __init__(self, gr: GroupResource, selectable: Mapping[str, JSONPath], *, has_status: bool) -> None:
        self._gr = gr
        self._selectable = selectable
        self._has_status = has_status
        self.terminating = False
        if not has_status:
            self.generation_ignores = frozenset({"metadata"})

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        if self.terminating:
            raise forbidden(
                self._gr,
                obj["metadata"].get("name", ""),
                "create not allowed while custom resource definition is terminating",
            )
        if self._has_status:
            obj.pop("status", None)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        if self._has_status:
            new.pop("status", None)
            if "status" in old:
                new["status"] = old["status"]

    def selectable_fields(self, obj: Obj) -> Mapping[str, str]:
        found = {}
        for label, path in self._selectable.items():
            value = path.first(obj)
            found[label] = "" if value is None else value_text(value)
        return found

    def selectable_field_names(self) -> frozenset[str]:
        return frozenset(self._selectable)


class CustomResourceStatusStrategy(CustomResourceStrategy):
    """The status endpoint: everything else stays as it is."""

    reset_fields = _STATUS_RESET

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        status, meta = new.get("status"), new["metadata"]
        managed = meta.get("managedFields")
        version = meta["resourceVersion"]
        for key in list(new):
            del new[key]
        new.update({key: value for key, value in deep_copy(old).items() if key != "status"})
        new["metadata"]["resourceVersion"] = version
        new["metadata"].pop("managedFields", None)
        if managed:
            new["metadata"]["managedFields"] = managed
        if status is not None:
            new["status"] = status


def hub_version(crd: Obj) -> str:
    """The version in which the objects are stored: the oldest that is still around, for stored bytes are sent as they are."""
    names = [version["name"] for version in crd["spec"]["versions"]]
    for stored in nested(crd, "status", "storedVersions") or []:
        if stored in names:
            return str(stored)
    return next(str(version["name"]) for version in crd["spec"]["versions"] if version.get("storage"))


def custom_resource(crd: Obj, conversion: WebhookConversion | None = None) -> Resource:
    """The Resource of an established definition; `conversion` is needed if a webhook converts its versions."""
    spec = crd["spec"]
    group = spec["group"]
    names = nested(crd, "status", "acceptedNames") or spec["names"]
    hub = hub_version(crd)
    described = {version["name"]: version for version in spec["versions"]}
    gr = GroupResource(group, names["plural"])
    has_status = any(nested(version, "subresources", "status") is not None for version in spec["versions"])
    selectable = {
        field["jsonPath"].removeprefix("."): JSONPath.parse(field["jsonPath"])
        for version in spec["versions"]
        for field in version.get("selectableFields") or []
    }
    strategy = CustomResourceStrategy(gr, selectable, has_status=has_status)
    strategy.terminating = bool(crd["metadata"].get("deletionTimestamp"))
    subresources: dict[str, Subresource] = {}
    if has_status:
        subresources["status"] = StatusSubresource(CustomResourceStatusStrategy(gr, selectable, has_status=True))
    scale = next(
        (found for version in spec["versions"] if (found := nested(version, "subresources", "scale")) is not None), None
    )
    if scale is not None:
        subresources["scale"] = _scale(scale)
    order = sorted(described, key=lambda name: name != hub)
    return Resource(
        names["kind"],
        names["plural"],
        [_version(crd, described[name], hub, names, conversion) for name in order],
        storage_version=f"{group}/{hub}",
        group=group,
        singular=names.get("singular") or names["kind"].lower(),
        namespaced=spec["scope"] == "Namespaced",
        short_names=names.get("shortNames") or (),
        categories=names.get("categories") or (),
        verbs=VERBS,
        strategy=strategy,
        subresources=subresources,
        custom=True,
        conversion=conversion,
    )


def _version(crd: Obj, version: Obj, hub: str, names: Obj, conversion: WebhookConversion | None) -> Version:
    group, name, kind = crd["spec"]["group"], version["name"], names["kind"]
    openapi = nested(version, "schema", "openAPIV3Schema")
    schema = CustomResourceSchema(
        openapi, nested(version, "subresources", "scale"), version.get("selectableFields") or ()
    )
    warning = _deprecation(crd, version, kind) if version.get("deprecated") else ""
    hub_openapi = next(
        (nested(each, "schema", "openAPIV3Schema") for each in crd["spec"]["versions"] if each["name"] == hub), None
    )
    hub_schema = schema if name == hub else CustomResourceSchema(hub_openapi)

    def converted(obj: Obj, api_version: str) -> Obj:
        return conversion.result(obj, api_version) if conversion else {**deep_copy(obj), "apiVersion": api_version}

    def from_hub(obj: Obj) -> Obj:
        made = converted(obj, f"{group}/{name}")
        schema.schema.prune(made)
        return made

    def to_hub(obj: Obj) -> Obj:
        made = converted(obj, f"{group}/{hub}")
        hub_schema.schema.prune(made)
        if conversion is None:
            hub_schema.schema.default(made)
        return made

    return Version(
        GroupVersionResource(group, name, names["plural"]),
        GroupVersionKind(group, name, kind),
        schema=schema,
        to_hub=None if name == hub else to_hub,
        from_hub=None if name == hub else from_hub,
        printer=_printer(version),
        served=bool(version.get("served")),
        deprecation_warning=warning,
        patch_types=PATCH_TYPES,
        protobuf=False,
        list_kind=names.get("listKind") or f"{kind}List",
    )


def _deprecation(crd: Obj, version: Obj, kind: str) -> str:
    """What to say of a deprecated version; upstream's default names the newest one that is to be used instead."""
    group, name = crd["spec"]["group"], version["name"]
    if version.get("deprecationWarning"):
        return str(version["deprecationWarning"])
    text = f"{group}/{name} {kind} is deprecated"
    better = [
        other["name"]
        for other in crd["spec"]["versions"]
        if other.get("served") and not other.get("deprecated") and version_key(other["name"]) < version_key(name)
    ]
    return f"{text}; use {group}/{min(better, key=version_key)} {kind}" if better else text


def _scale(scale: Obj) -> ScaleSubresource:
    label_path = scale.get("labelSelectorPath")
    selector = JSONPath.parse(label_path) if label_path else None

    def selector_of(obj: Obj) -> str:
        value = selector.first(obj) if selector is not None else None
        return value if isinstance(value, str) else ""

    return ScaleSubresource(
        scale["specReplicasPath"].strip(".").split("."),
        scale["statusReplicasPath"].strip(".").split("."),
        selector_of,
        default_replicas=None,
    )


def _printer(version: Obj) -> Printer:
    """The columns that the definition adds to the name; the age if it adds none."""
    added = version.get("additionalPrinterColumns") or [_AGE]
    columns = [Column("Name", "string", NAME_DESCRIPTION, "name")]
    paths = []
    for column in added:
        path = column["jsonPath"]
        text = column.get("description") or f"Custom resource definition column (in JSONPath format): {path}"
        columns.append(
            Column(column["name"], column["type"], text, column.get("format", ""), column.get("priority", 0))
        )
        paths.append((column["type"], JSONPath.parse(path)))

    def cells(obj: Obj, now: datetime) -> list[Any]:
        return [obj["metadata"].get("name", ""), *(_cell(sort, path, obj, now) for sort, path in paths)]

    return Printer(columns, cells)


def _cell(sort: str, path: JSONPath, obj: Obj, now: datetime) -> Any:
    """Upstream tableconvertor's cellForJSONValue: the first result, None when it is of another type."""
    found = path.find(obj)
    if not found or found[0] is None:
        return None
    value = found[0]
    if sort == "string":
        return value_text(value)
    if sort == "date":
        return age(value, now) if isinstance(value, str) else None
    if sort == "boolean":
        return value if isinstance(value, bool) else None
    if isinstance(value, bool) or not isinstance(value, int | float):
        return None
    return int(value) if sort == "integer" else float(value)
