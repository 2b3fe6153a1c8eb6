"""The OpenAPI v2 (Swagger) document, made from the v3 documents that it merges.

v2 knows less: no alternatives, no defaults beside references, no nullable values; bodies are parameters, and parameters that
many operations take are shared by name (kube-openapi: builder and schemaconv).
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from functools import cache
from typing import Any

import orjson

from bowsprit.machinery.objects import Obj
from bowsprit.machinery.openapi_v3 import INFO, META, REF, TYPED_MEDIA, parameters

_DEFINITIONS = "#/definitions/"
_CONSUMES_PATCH = (
    "application/json-patch+json",
    "application/merge-patch+json",
    "application/strategic-merge-patch+json",
    "application/apply-patch+yaml",
)
# In upstream's order, which is not the alphabet's.
_ORDER = {
    media: position
    for position, media in enumerate(
        (
            "text/plain",
            *TYPED_MEDIA,
            "application/json;stream=watch",
            "application/vnd.kubernetes.protobuf;stream=watch",
            *_CONSUMES_PATCH,
        )
    )
}
_PRESERVE = "x-kubernetes-preserve-unknown-fields"
# What v2 cannot say of a value (apiextensions: ToStructuralOpenAPIV2).
_UNSAYABLE = ("allOf", "anyOf", "oneOf", "not", "nullable", "default", "example", "externalDocs", "title")


def merged(documents: Iterable[Obj], schema: Callable[[str], Obj | None] = lambda name: None) -> Obj:
    """One v2 document of many v3 documents; where two define a name, the first wins.

    Args:
        schema: gives the component schemas of which the documents tell a part only: those that name many kinds.
    """
    paths: dict[str, Obj] = {}
    definitions: dict[str, Obj] = {}
    shared_kinds: dict[str, list[Obj]] = {}
    for document in documents:
        for path, item in document["paths"].items():
            paths.setdefault(path, _path_item(item))
        for name, found in (document["components"].get("schemas") or {}).items():
            kinds = shared_kinds.setdefault(name, [])
            for known in (found, schema(name) or {}):
                kinds += [kind for kind in known.get("x-kubernetes-group-version-kind") or () if kind not in kinds]
            if name not in definitions:
                definitions[name] = _definition(found, custom=not name.startswith("io.k8s."))
    for name, kinds in shared_kinds.items():
        if kinds:
            ordered = sorted(kinds, key=lambda kind: (kind["group"], kind["version"]))
            definitions[name]["x-kubernetes-group-version-kind"] = ordered
    token = {"description": "Bearer Token authentication", "type": "apiKey", "name": "authorization", "in": "header"}
    return {
        "swagger": "2.0",
        "info": INFO,
        "paths": dict(sorted(paths.items())),
        "definitions": dict(sorted(definitions.items())),
        "parameters": _shared_parameters(),
        "securityDefinitions": {"BearerToken": token},
        "security": [{"BearerToken": []}],
    }


@cache
def _references() -> dict[bytes, str]:
    """The shared names of v3 parameters."""
    return {_key(item["v3"]): item["reference"] for item in parameters()["parameters"].values() if item["reference"]}


def _key(parameter: Obj) -> bytes:
    return orjson.dumps(parameter, option=orjson.OPT_SORT_KEYS)


def _shared_parameters() -> Obj:
    found = {
        item["reference"]: _plain_parameter(item["v3"])
        for item in parameters()["parameters"].values()
        if item["reference"]
    }
    for name, reference in parameters()["bodies"].items():
        found[reference] = _body(META + name, required=name == "Patch")
    return dict(sorted(found.items()))


def _body(definition: str, *, required: bool) -> Obj:
    body: Obj = {"name": "body", "in": "body"}
    if required:
        body["required"] = True
    return body | {"schema": {"$ref": _DEFINITIONS + definition}}


def _plain_parameter(parameter: Obj) -> Obj:
    return {**parameter["schema"], **{key: value for key, value in parameter.items() if key != "schema"}}


def _parameter(parameter: Obj) -> Obj:
    reference = _references().get(_key(parameter))
    return {"$ref": f"#/parameters/{reference}"} if reference else _plain_parameter(parameter)


def _path_item(item: Obj) -> Obj:
    result: Obj = {}
    for method, operation in item.items():
        if method == "parameters":
            result[method] = [_parameter(parameter) for parameter in operation]
        else:
            result[method] = _operation(operation)
    return result


def _operation(operation: Obj) -> Obj:
    body = operation.get("requestBody")
    produces = _media(operation["responses"]["200"].get("content") or {})
    result: Obj = {
        "description": operation["description"],
        **_consumes(operation, produces),
        "produces": produces,
        "schemes": ["https"],
        "tags": operation["tags"],
        "operationId": operation["operationId"],
    }
    taken = [_parameter(parameter) for parameter in operation.get("parameters") or ()]
    if body is not None:
        content = next(iter(body["content"].values()))
        definition = content["schema"]["$ref"].removeprefix(REF)
        reference = parameters()["bodies"].get(definition.removeprefix(META))
        own = _body(definition, required=bool(body.get("required")))
        taken.insert(0, {"$ref": f"#/parameters/{reference}"} if reference else own)
    if taken:
        result["parameters"] = taken
    result["responses"] = {code: _response(response) for code, response in operation["responses"].items()}
    return result | {key: value for key, value in operation.items() if key.startswith("x-")}


def _consumes(operation: Obj, produces: list[str]) -> dict[str, list[str]]:
    body = operation.get("requestBody")
    if body is not None:
        return {"consumes": _media(body["content"])}
    if not _response(operation["responses"]["200"])["schema"].get("$ref") and "x-kubernetes-action" not in operation:
        return {}  # a plain document that is no Kubernetes object
    # Plain documents and custom resources take what they give; typed operations without a body take anything.
    typed = "x-kubernetes-action" in operation and "application/vnd.kubernetes.protobuf" in produces
    return {"consumes": ["*/*"] if typed or produces == ["*/*"] or "text/plain" in produces else produces}


def _media(content: Iterable[str]) -> list[str]:
    return sorted(content, key=lambda media: _ORDER.get(media, len(_ORDER)))


def _response(response: Obj) -> Obj:
    if "content" not in response:
        return dict(response)
    schema = next(iter(response["content"].values()))["schema"]
    return {"description": response["description"], "schema": _schema(schema)}


def _definition(schema: Obj, *, custom: bool) -> Obj:
    if custom and schema.get(_PRESERVE):
        # kubectl complains about unknown fields as soon as any field is named, so none is.
        extensions = {key: value for key, value in schema.items() if key.startswith("x-") and key != _PRESERVE}
        return {"type": "object", **extensions}
    result: Obj = _custom_schema(schema) if custom else _schema(schema)
    return result


def _schema(schema: Any) -> Any:
    """A built-in type's schema."""
    if isinstance(schema, list):
        return [_schema(item) for item in schema]
    if not isinstance(schema, dict):
        return schema
    result: Obj = {}
    for key, value in schema.items():
        if key == "$ref":
            result[key] = _DEFINITIONS + value.removeprefix(REF)
        elif key == "allOf" and len(value) == 1 and "$ref" in value[0]:
            result["$ref"] = _DEFINITIONS + value[0]["$ref"].removeprefix(REF)
        elif key == "oneOf":
            # Values of several types are strings to v2 (Quantity, IntOrString).
            result["type"] = "string"
        elif key == "properties":
            result[key] = {name: _schema(item) for name, item in value.items()}
        elif key in ("items", "additionalProperties"):
            result[key] = _schema(value)
        elif key != "default":
            result[key] = value
    return result


def _custom_schema(schema: Any) -> Any:
    """A custom resource's schema without what v2 cannot say (upstream ToStructuralOpenAPIV2)."""
    if not isinstance(schema, dict):
        return schema
    if "$ref" in schema or any("$ref" in part for part in schema.get("allOf") or ()):
        return _schema(schema)
    result = {key: value for key, value in schema.items() if key not in _UNSAYABLE}
    required = list(schema.get("required") or ())
    if schema.get("nullable") or schema.get(_PRESERVE):
        # kubectl cannot check what has no single type, nor values of which only some fields are known.
        for key in ("type", "items", "properties"):
            result.pop(key, None)
        if schema.get("x-kubernetes-embedded-resource"):
            required = [name for name in required if name not in ("apiVersion", "kind")]  # v3 put them there
    elif "properties" in schema:
        properties = schema["properties"]
        result["properties"] = {name: _custom_schema(item) for name, item in properties.items()}
        required = [name for name in required if not properties.get(name, {}).get("nullable")]
    if "items" in result:
        result["items"] = _custom_schema(schema["items"])
    elif result.get("type") == "array":
        del result["type"]  # kubectl cannot read an array without items
    additional = schema.get("additionalProperties")
    if isinstance(additional, dict):
        result["additionalProperties"] = _custom_schema(additional)
        required = [] if additional.get("nullable") else required
    result.pop("required", None)
    return result | ({"required": required} if required else {})
