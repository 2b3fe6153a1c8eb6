"""Write the data of the built-in kinds: names, verbs, columns, schemas, bootstrap objects.

Sources: the recordings of Kubernetes v1.36 in tests/golden/apiserver, and the v1.36 schemas of the package
kubernetes-validate. Run it after either changes: ``python tools/generate_kinds.py``.
"""

from __future__ import annotations

import gzip
import json
from pathlib import Path
from typing import Any

import kubernetes_validate

from bowsprit.machinery import builtin, gotypes

ROOT = Path(__file__).parents[1]
GOLDEN = ROOT / "tests" / "golden" / "apiserver"
TARGET = ROOT / "src" / "bowsprit" / "controlplane" / "data"
SCHEMAS = Path(kubernetes_validate.__file__).parent / "kubernetes-json-schema" / "v1.36.0-local" / "_definitions.json"


def recorded(name: str) -> Any:
    return json.loads(gzip.decompress((GOLDEN / f"{name}.json.gz").read_bytes()))


def write(name: str, value: Any) -> None:
    TARGET.mkdir(exist_ok=True)
    data = json.dumps(value, separators=(",", ":"), sort_keys=False).encode()
    (TARGET / f"{name}.json.gz").write_bytes(gzip.compress(data, 9, mtime=0))
    print(f"{name}.json.gz: {len(data):,} bytes of JSON")


def kinds() -> list[dict[str, Any]]:
    """One entry per resource and group-version, in the order of discovery."""
    discovery, tables = recorded("discovery"), recorded("tables")["tables"]
    groups = [g["metadata"].get("name", "") for g in discovery["/apis aggregated"]["body"]["items"]]
    result: list[dict[str, Any]] = []
    for body in [discovery["/api aggregated"]["body"], discovery["/apis aggregated"]["body"]]:
        for group in body["items"]:
            name = group["metadata"].get("name", "")
            for version in group["versions"]:
                path = f"/apis/{name}/{version['version']}" if name else f"/api/{version['version']}"
                result += resources(discovery[path]["body"], name, version["version"], tables)
    assert len(groups) == len(set(groups))
    return result


def resources(listed: dict[str, Any], group: str, version: str, tables: dict[str, Any]) -> list[dict[str, Any]]:
    by_name: dict[str, dict[str, Any]] = {}
    for entry in listed["resources"]:
        name, _, subresource = entry["name"].partition("/")
        if subresource:
            by_name[name].setdefault("subresources", []).append(
                {key: entry[key] for key in ("group", "version", "kind", "verbs") if key in entry}
                | {"name": subresource}
            )
            continue
        gv = f"{group}/{version}" if group else version
        item = {"group": group, "version": version, "resource": name}
        item |= {
            key: entry[key]
            for key in ("kind", "singularName", "namespaced", "verbs", "shortNames", "categories", "storageVersionHash")
            if key in entry
        }
        table = tables.get(f"{gv}/{name}")
        if table is not None:
            item["columns"] = table["columnDefinitions"]
        by_name[name] = item
    return list(by_name.values())


REF = "#/components/schemas/"
ZERO = {"string": "", "bool": False, "int32": 0, "int64": 0, "int": 0, "uint32": 0, "uint64": 0, "float64": 0}
# What the package's JSON schemas say of these types in their own way.
SPECIAL: dict[str, dict[str, Any]] = {
    "io.k8s.apimachinery.pkg.util.intstr.IntOrString": {
        "oneOf": [{"type": "integer"}, {"type": "string"}],
        "format": "int-or-string",
    },
    "io.k8s.apimachinery.pkg.api.resource.Quantity": {"oneOf": [{"type": "string"}, {"type": "number"}]},
}


def schemas() -> dict[str, Any]:
    """The OpenAPI v3 component schemas of all built-in types, as a v1.36 server publishes them."""
    definitions = json.loads(SCHEMAS.read_text())["$defs"]
    made = {name: definition(name, schema) for name, schema in sorted(definitions.items())}
    for name, schema in recorded_schemas().items():
        # What was recorded wins (enums, defaults), but each document names its own kinds only.
        kinds = {key: value for key, value in made.get(name, {}).items() if key == "x-kubernetes-group-version-kind"}
        made[name] = schema | kinds
    return made


def recorded_schemas() -> dict[str, Any]:
    """The component schemas of built-in types in the recorded OpenAPI v3 documents."""
    found: dict[str, Any] = {}
    with gzip.open(GOLDEN / "cases" / "openapi.jsonl.gz", "rt") as lines:
        for line in lines:
            body = json.loads(line)["response"].get("body")
            if isinstance(body, dict) and "components" in body:
                schemas = body["components"]["schemas"]
                found |= {name: schema for name, schema in schemas.items() if name.startswith("io.k8s.")}
    return found


def definition(name: str, schema: dict[str, Any]) -> dict[str, Any]:
    members = go_members(name)
    result: dict[str, Any] = plain(schema)
    if name in SPECIAL:
        result = {**{key: value for key, value in result.items() if key == "description"}, **SPECIAL[name]}
    for field, value in (schema.get("properties") or {}).items():
        result["properties"][field] = property_schema(value, members.get(field))
    if "x-kubernetes-group-version-kind" in schema:
        for field in ("apiVersion", "kind"):
            result["properties"].get(field, {}).pop("enum", None)
    return result


def go_members(name: str) -> dict[str, gotypes.GoField]:
    """The Go fields of a definition by JSON name; empty for types that are no structs."""
    package, _, kind = name.rpartition(".")
    message = "k8s.io." + package.removeprefix("io.k8s.").replace("-", "_") + "." + kind
    if not gotypes.has_message(message):
        return {}
    return {field.json_name: field for field in builtin.members(message)}


def plain(schema: dict[str, Any]) -> dict[str, Any]:
    """A schema without the ``null`` alternatives, with references in OpenAPI's place."""
    result: dict[str, Any] = {}
    for key, value in schema.items():
        if key == "type" and isinstance(value, list):
            result[key] = next(item for item in value if item != "null")
        elif key == "$ref":
            result[key] = REF + value.rpartition("/")[2]
        elif key in ("items", "additionalProperties") and isinstance(value, dict):
            result[key] = plain(value)
        elif key == "properties":
            result[key] = {name: plain(item) for name, item in value.items()}
        elif key == "enum":
            result[key] = [item for item in value if item is not None]
        else:
            result[key] = value
    return result


def property_schema(schema: dict[str, Any], field: gotypes.GoField | None) -> dict[str, Any]:
    result = plain(schema)
    reference = result.pop("$ref", "")
    if field is not None:
        if field.type.kind == "struct" or (field.type.kind == "special" and not reference.endswith(UNDEFAULTED)):
            result["default"] = {}
        elif field.type.kind in ZERO and not field.omitempty and "default" not in result:
            result["default"] = ZERO[field.type.kind]
    if reference:
        if len(result) == 0:
            return {"$ref": reference}
        result["allOf"] = [{"$ref": reference}]
    return result


# Types with an encoding of their own publish no default, though they are structs in Go.
UNDEFAULTED = (".Time", ".MicroTime", ".Quantity", ".IntOrString", ".Duration", ".RawExtension", ".FieldsV1", ".JSON")


def main() -> None:
    write("kinds", kinds())
    write("schemas", schemas())
    write("bootstrap", recorded("bootstrap")["apiserver"])


if __name__ == "__main__":
    main()
