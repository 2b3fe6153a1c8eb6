"""An OpenAPI v3 document for a server that has v2 only. v2 cannot say all that v3 can, so something is missing in it.

Pure. Upstream: kube-openapi pkg/openapiconv.
"""

from __future__ import annotations

from typing import Any

from bowsprit.machinery.objects import Obj

_METHODS = ("get", "put", "post", "delete", "options", "head", "patch")
_V2_DEFINITIONS, _V3_SCHEMAS = "#/definitions/", "#/components/schemas/"


def from_v2(document: Obj) -> Obj:
    """The v3 document."""
    made: Obj = {"openapi": "3.0.0", "info": document.get("info") or {"title": "", "version": ""}}
    if document.get("externalDocs"):
        made["externalDocs"] = document["externalDocs"]
    shared = document.get("parameters") or {}
    paths = document.get("paths") or {}
    made["paths"] = {path: _path(item, shared) for path, item in paths.items()}
    components: Obj = {}
    if "definitions" in document:
        components["schemas"] = {name: _schema(item) for name, item in document["definitions"].items()}
    if "responses" in document:
        produces = document.get("produces")
        components["responses"] = {name: _response(item, produces) for name, item in document["responses"].items()}
    if "securityDefinitions" in document:
        components["securitySchemes"] = {
            name: {key: item[key] for key in ("type", "description", "name", "in") if item.get(key)}
            for name, item in document["securityDefinitions"].items()
        }
    if components:
        made["components"] = components
    return made


def _schema(value: Any) -> Any:
    if not isinstance(value, dict):
        return value
    made = dict(value)
    reference = made.get("$ref")
    if isinstance(reference, str) and _V2_DEFINITIONS in reference:
        made["$ref"] = _V3_SCHEMAS + reference.partition(_V2_DEFINITIONS)[2]
    for key in ("items", "additionalProperties", "additionalItems"):
        if key in made:
            item = made[key]
            made[key] = [_schema(each) for each in item] if isinstance(item, list) else _schema(item)
    if isinstance(made.get("properties"), dict):
        made["properties"] = {name: _schema(item) for name, item in made["properties"].items()}
    if "$ref" in made and len(made) > 1:
        made["allOf"] = [{"$ref": made.pop("$ref")}]  # in v3 nothing may stand beside a reference
    return made


def _path(item: Obj, shared: Obj) -> Obj:
    made: Obj = {key: value for key, value in item.items() if key.startswith("x-")}
    for method in _METHODS:
        if method in item:
            made[method] = _operation(item[method], shared)
    if item.get("parameters"):
        made["parameters"] = [_parameter(_resolved(parameter, shared)) for parameter in item["parameters"]]
    return made


def _resolved(parameter: Obj, shared: Obj) -> Obj:
    """References to shared parameters are written out: shared ones have no place in the result."""
    reference = parameter.get("$ref")
    if isinstance(reference, str):
        found = shared.get(reference.removeprefix("#/parameters/"))
        if isinstance(found, dict):
            return found
    return parameter


def _operation(operation: Obj, shared: Obj) -> Obj:
    keep = ("description", "externalDocs", "tags", "summary", "deprecated", "operationId")
    made: Obj = {key: value for key, value in operation.items() if key in keep or key.startswith("x-")}
    parameters = []
    for parameter in operation.get("parameters") or ():
        parameter = _resolved(parameter, shared)
        if parameter.get("in") == "body" and "schema" in parameter:
            media = {"schema": _schema(parameter["schema"])}
            made["requestBody"] = {"content": dict.fromkeys(operation.get("consumes") or (), media)}
        else:
            parameters.append(_parameter(parameter))
    if parameters:
        made["parameters"] = parameters
    produces = operation.get("produces")
    responses = operation.get("responses") or {}
    made["responses"] = {code: _response(response, produces) for code, response in responses.items()}
    return made


def _response(response: Any, produces: list[str] | None) -> Any:
    if not isinstance(response, dict):
        return response
    if "$ref" in response:
        return {"$ref": str(response["$ref"]).replace("#/responses/", "#/components/responses/", 1)}
    made: Obj = {key: value for key, value in response.items() if key == "description" or key.startswith("x-")}
    if response.get("schema") is not None and produces is not None:
        made["content"] = {media: {"schema": _schema(response["schema"])} for media in produces}
    return made


def _parameter(parameter: Obj) -> Obj:
    keep = ("name", "in", "description", "required", "allowEmptyValue")
    made: Obj = {key: value for key, value in parameter.items() if key in keep or key.startswith("x-")}
    if "schema" in parameter:
        made["schema"] = _schema(parameter["schema"])
    else:
        made["schema"] = {key: parameter[key] for key in ("type", "format", "uniqueItems") if parameter.get(key)}
    return made
