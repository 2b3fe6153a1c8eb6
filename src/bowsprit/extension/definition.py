"""From a declaration to the Resource that the generic library serves.

A declaration is written down as a CustomResourceDefinition: the same schema rules, columns, selectable fields, scale paths
and names, judged by the same validation, and turned into a Resource by the same function. What an author adds in Python —
validation, defaults, conversions, storage, connections — takes the place of what a definition could not say.
"""

from __future__ import annotations

from dataclasses import replace
from typing import Any

from bowsprit.apiserver.resource import ConnectSubresource, Convert, Resource, StatusSubresource, Version
from bowsprit.controlplane.apiextensions.serving import custom_resource
from bowsprit.extension.declaration import Declaration, DeclaredVersion
from bowsprit.extension.errors import ExtensionError
from bowsprit.extension.hooks import Hooks
from bowsprit.extension.kind import Kind, parse, render
from bowsprit.extension.kindschema import KindSchema
from bowsprit.extension.markers import Column
from bowsprit.extension.strategy import KindStatusStrategy, KindStrategy
from bowsprit.machinery.discovery import version_key
from bowsprit.machinery.errors import invalid
from bowsprit.machinery.jsonpath import JSONPath
from bowsprit.machinery.names import GroupKind, GroupVersionKind
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.schema import CustomResourceSchema

_AGE = {"name": "Age", "type": "date", "jsonPath": ".metadata.creationTimestamp"}
_METADATA = {"creationTimestamp": "date", "deletionTimestamp": "date", "generation": "integer"}
_KEPT = ("labels", "annotations")  # of metadata, a conversion may change these alone


def definition(declaration: Declaration) -> Obj:
    """The CustomResourceDefinition that says the same."""
    names: Obj = {
        "kind": declaration.kind,
        "listKind": f"{declaration.kind}List",
        "plural": declaration.plural,
        "singular": declaration.singular,
        "shortNames": list(declaration.short_names),
        "categories": list(declaration.categories),
    }
    order = sorted(declaration.versions, key=lambda each: version_key(each.version))
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{declaration.plural}.{declaration.group}"},
        "spec": {
            "group": declaration.group,
            "names": names,
            "scope": "Namespaced" if declaration.namespaced else "Cluster",
            "versions": [_version(declaration, each) for each in order],
            "conversion": {"strategy": "None"},
            "preserveUnknownFields": False,
        },
        "status": {"acceptedNames": names, "storedVersions": [declaration.hub_name]},
    }


def _version(declaration: Declaration, version: DeclaredVersion) -> Obj:
    made: Obj = {
        "name": version.version,
        "served": version.served,
        "storage": version.version == declaration.hub_name,
        "schema": {"openAPIV3Schema": version.schema},
        "additionalPrinterColumns": _columns(version),
    }
    if declaration.selectable:
        made["selectableFields"] = [{"jsonPath": _path(text)} for text in declaration.selectable]
    subresources: Obj = {}
    if declaration.has_status:
        subresources["status"] = {}
    if declaration.scale is not None:
        scale = declaration.scale
        subresources["scale"] = {
            "specReplicasPath": _path(scale.spec_replicas),
            "statusReplicasPath": _path(scale.status_replicas),
            **({"labelSelectorPath": _path(scale.label_selector)} if scale.label_selector else {}),
        }
    if subresources:
        made["subresources"] = subresources
    if version.deprecated:
        made["deprecated"] = True
        if isinstance(version.deprecated, str):
            made["deprecationWarning"] = version.deprecated
    return made


def _columns(version: DeclaredVersion) -> list[Obj]:
    columns = []
    for heading, given in (version.columns or {}).items():
        column = Column(given) if isinstance(given, str) else given
        path = _path(column.path)
        sort, described = _described(version.schema, path)
        made: Obj = {"name": heading, "type": column.type or sort, "jsonPath": path}
        if description := column.description or described:
            made["description"] = description
        if column.priority:
            made["priority"] = column.priority
        if column.format:
            made["format"] = column.format
        columns.append(made)
    return columns if "Age" in (version.columns or {}) else [*columns, _AGE]


def _path(text: str) -> str:
    return text if text.startswith(".") else f".{text}"


def _described(schema: Obj, path: str) -> tuple[str, str]:
    """(a column's type, its description) from the schema at a JSONPath."""
    if path.startswith(".metadata."):
        return _METADATA.get(path.rpartition(".")[2], "string"), ""
    node: Any = schema
    for name in path.strip(".").split("."):
        node = (node.get("properties") or {}).get(name) if isinstance(node, dict) else None
    if not isinstance(node, dict):
        return "string", ""
    if node.get("format") == "date-time":
        return "date", str(node.get("description", ""))
    sort = node.get("type", "string")
    return (sort if sort in ("integer", "number", "boolean") else "string"), str(node.get("description", ""))


def check_definition(declaration: Declaration) -> None:
    """Raises ExtensionError for what a CustomResourceDefinition could not say either."""
    from bowsprit.controlplane.apiextensions.validation import definition_errors

    errors = definition_errors(definition(declaration))
    if errors:
        lines = "; ".join(_told(str(error)) for error in errors[:5])
        raise ExtensionError(f"{declaration.kind}: {lines}", reason="InvalidKind")


def _told(text: str) -> str:
    """An error of the definition in the words of the declaration."""
    for there, here in (
        ("spec.names.plural", "plural"),
        ("spec.names.singular", "singular"),
        ("spec.names.kind", "kind"),
        ("spec.names.shortNames", "short_names"),
        ("spec.names.categories", "categories"),
        (".schema.openAPIV3Schema", " schema"),
        ("spec.validation.openAPIV3Schema", "schema"),
        ("spec.versions", "version"),
        ("additionalPrinterColumns", "columns"),
        ("selectableFields", "selectable"),
    ):
        text = text.replace(there, here)
    return text


def resource_of(declaration: Declaration) -> tuple[Resource, Hooks]:
    """The Resource, and what the author added to it."""
    hooks = Hooks(declaration)
    made = custom_resource(definition(declaration))
    gr = made.gr
    selectable = {_path(text).removeprefix("."): JSONPath.parse(_path(text)) for text in declaration.selectable}
    strategy = KindStrategy(gr, selectable, has_status=declaration.has_status, hooks=hooks)
    made.strategy = strategy
    subresources = dict(made.subresources)
    if declaration.has_status:
        status = KindStatusStrategy(gr, selectable, has_status=True, hooks=hooks)
        subresources["status"] = StatusSubresource(status)
    made.versions = [_served(declaration, version, hooks) for version in made.versions]
    hub = made.versions[0].gvk
    for connection in declaration.connections.values():
        from bowsprit.extension.stream import connect_handler

        kind = f"{declaration.kind}{connection.name.title().replace('-', '')}Options"
        subresources[connection.name] = ConnectSubresource(
            connection.name,
            GroupVersionKind(hub.group, hub.version, kind),
            connect_handler(connection, hooks),
            methods=connection.methods,
            verbs=tuple(dict.fromkeys("get" if method == "GET" else "create" for method in connection.methods)),
        )
    made.subresources = subresources
    made.verbs = declaration.verbs
    return made, hooks


def _served(declaration: Declaration, version: Version, hooks: Hooks) -> Version:
    declared = declaration.of_version(version.gvk.version)
    plain = version.schema
    assert isinstance(plain, CustomResourceSchema)
    schema = KindSchema(
        declared.schema,
        plain.scale,
        plain.selectable,
        declared.model,
        hooks.validation_errors,
        version.gvk,
    )
    hooks.add_schema(schema)
    version = replace(version, patch_types=version.patch_types | {"strategic"})  # what kubectl patch sends unasked
    if version.gvk.version == declaration.hub_name:
        return replace(version, schema=schema)
    hub = declaration.hub
    there = declaration.conversions.get((declared.model, hub.model))
    back = declaration.conversions.get((hub.model, declared.model))
    if there is None or back is None:
        return replace(version, schema=schema)
    hub_gvk = GroupVersionKind(declaration.group, declaration.hub_name, declaration.kind)
    hub_schema = KindSchema(hub.schema, None, (), hub.model, hooks.validation_errors, hub_gvk)
    return replace(
        version,
        schema=schema,
        to_hub=_conversion(there, declared.model, schema, hub_schema),
        from_hub=_conversion(back, hub.model, hub_schema, schema),
    )


def _conversion(function: Any, source: type[Kind], schema: KindSchema, target: KindSchema) -> Convert:
    gvk = target.gvk

    def convert(obj: Obj) -> Obj:
        errors = schema.shape_errors(obj)
        if errors:
            raise invalid(GroupKind(gvk.group, gvk.kind), (obj.get("metadata") or {}).get("name", ""), errors)
        made: Obj = deep_copy(render(function(parse(source, obj))))
        meta = made.get("metadata") or {}
        metadata = {**deep_copy(obj["metadata"]), **{key: meta[key] for key in _KEPT if meta.get(key)}}
        for key in _KEPT:
            if not meta.get(key) and "metadata" in made:
                metadata.pop(key, None)
        made |= {"apiVersion": gvk.api_version, "kind": gvk.kind, "metadata": metadata}
        target.schema.prune(made)
        target.schema.default(made)
        return made

    return convert
