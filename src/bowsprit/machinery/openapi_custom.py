"""The OpenAPI definitions of custom resources (upstream apiextensions controller/openapi/builder)."""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.openapi_v3 import META, REF

_CONVENTIONS = "https://git.k8s.io/community/contributors/devel/sig-architecture/api-conventions.md"
_API_VERSION = (
    "APIVersion defines the versioned schema of this representation of an object. Servers should convert recognized "
    f"schemas to the latest internal value, and may reject unrecognized values. More info: {_CONVENTIONS}#resources"
)
_KIND = (
    "Kind is a string value representing the REST resource this object represents. Servers may infer this from the endpoint "
    f"the client submits requests to. Cannot be updated. In CamelCase. More info: {_CONVENTIONS}#types-kinds"
)
_EMBEDDED_API_VERSION = (
    f"apiVersion defines the versioned schema of this representation of an object. More info: {_CONVENTIONS}#resources"
)
_EMBEDDED_KIND = (
    f"kind is a string value representing the type of this object. In CamelCase. More info: {_CONVENTIONS}#types-kinds"
)
_METADATA = f"Standard object's metadata. More info: {_CONVENTIONS}#metadata"


def definition_name(gvk: GroupVersionKind) -> str:
    """``com.example.c.v1.Foo`` for Foo of c.example.com/v1."""
    return ".".join([*reversed(gvk.group.split(".")), gvk.version, gvk.kind])


def definitions(
    gvk: GroupVersionKind, list_kind: str, plural: str, schema: Obj | None, selectable: Sequence[Obj] = ()
) -> dict[str, Obj]:
    """The definitions of a kind and its list.

    Args:
        schema: the version's openAPIV3Schema, None if it has none.
        selectable: the version's selectableFields.
    """
    name = definition_name(gvk)
    list_name = definition_name(GroupVersionKind(gvk.group, gvk.version, list_kind))
    fields = [{"fieldPath": field["jsonPath"].removeprefix(".")} for field in selectable]
    extensions: Obj = {"x-kubernetes-selectable-fields": fields} if fields else {}
    item: Obj = _published(schema) if schema else {"type": "object", "x-kubernetes-preserve-unknown-fields": True}
    item["properties"] = {**(item.get("properties") or {}), **_identity(_API_VERSION, _KIND)}
    item["x-kubernetes-group-version-kind"] = [_kind(gvk, gvk.kind)]
    metadata = {
        "description": f"Standard list metadata. More info: {_CONVENTIONS}#types-kinds",
        "allOf": [{"$ref": f"{REF}{META}ListMeta"}],
    }
    items = {
        "description": f"List of {plural}. More info: {_CONVENTIONS}",
        "type": "array",
        "items": {"$ref": REF + name},
    }
    several = {
        "description": f"{list_kind} is a list of {gvk.kind}",
        "type": "object",
        "required": ["items"],
        "properties": {**_identity(_API_VERSION, _KIND), "items": items, "metadata": metadata},
        "x-kubernetes-group-version-kind": [_kind(gvk, list_kind)],
    }
    return {name: item | extensions, list_name: several | extensions}


def _published(schema: Any) -> Any:
    """A structural schema with what an embedded resource is known to have."""
    if isinstance(schema, list):
        return [_published(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result: Obj = {}
    for key, value in schema.items():
        if key == "properties":
            result[key] = {name: _published(item) for name, item in value.items()}
        elif key in ("items", "additionalProperties", "allOf", "anyOf", "oneOf", "not"):
            result[key] = _published(value)
        else:
            result[key] = value
    if schema.get("x-kubernetes-int-or-string") and not ({"anyOf", "allOf"} & set(schema)):
        result["anyOf"] = [{"type": "integer"}, {"type": "string"}]
    if schema.get("x-kubernetes-embedded-resource"):
        known = _identity(_EMBEDDED_API_VERSION, _EMBEDDED_KIND)
        result["properties"] = {**(result.get("properties") or {}), **known}
        result["required"] = [*(result.get("required") or ()), "kind", "apiVersion"]
    return result


def _identity(api_version: str, kind: str) -> Obj:
    return {
        "apiVersion": {"description": api_version, "type": "string"},
        "kind": {"description": kind, "type": "string"},
        "metadata": {"description": _METADATA, "allOf": [{"$ref": f"{REF}{META}ObjectMeta"}]},
    }


def _kind(gvk: GroupVersionKind, kind: str) -> Obj:
    return {"group": gvk.group, "kind": kind, "version": gvk.version}
