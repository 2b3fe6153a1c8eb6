"""Documents of several servers made one, and v3 made of v2."""

from __future__ import annotations

from typing import Any

import pytest

from bowsprit.aggregator.openapi_v2 import join, only_paths
from bowsprit.aggregator.openapi_v3 import from_v2


def document(path: str, **definitions: Any) -> dict[str, Any]:
    name = next(iter(definitions), "X")
    answer = {"200": {"description": "OK", "schema": {"$ref": f"#/definitions/{name}"}}}
    return {"swagger": "2.0", "info": {}, "paths": {path: {"get": {"responses": answer}}}, "definitions": definitions}


def reference(made: dict[str, Any], path: str) -> str:
    found: str = made["paths"][path]["get"]["responses"]["200"]["schema"]["$ref"]
    return found


def test_definitions_go_that_only_dropped_paths_used():
    whole = document(
        "/a", A={"properties": {"b": {"$ref": "#/definitions/B"}}}, B={"type": "string"}, C={"type": "object"}
    )
    whole["paths"]["/d"] = document("/d", D={})["paths"]["/d"]
    whole["definitions"]["D"] = {"type": "string"}
    kept = only_paths(whole, "/a".__eq__)
    assert list(kept["paths"]) == ["/a"]
    assert list(kept["definitions"]) == ["A", "B", "C"]  # nobody ever used C: it stays
    assert "/d" in whole["paths"]


def test_definitions_that_differ_are_renamed():
    mine, theirs = document("/a", A={"type": "string"}), document("/b", A={"type": "integer"})
    made = join(mine, theirs)
    assert reference(made, "/a") == "#/definitions/A"
    assert reference(made, "/b") == "#/definitions/A_v2"
    assert made["definitions"] == {"A": {"type": "string"}, "A_v2": {"type": "integer"}}
    third = join(made, document("/c", A={"type": "integer"}))
    assert reference(third, "/c") == "#/definitions/A_v2"
    fourth = join(third, document("/d", A={"type": "boolean"}))
    assert reference(fourth, "/d") == "#/definitions/A_v3"
    assert mine["definitions"] == {"A": {"type": "string"}}


def test_kinds_of_equal_definitions_are_joined():
    kinds = [{"group": "g", "version": "v1", "kind": name} for name in "AB"]
    key = "x-kubernetes-group-version-kind"
    made = join(
        document("/a", A={"type": "object", key: kinds[:1]}), document("/b", A={"type": "object", key: kinds[1:]})
    )
    assert made["definitions"] == {"A": {"type": "object", key: kinds}}


def test_paths_that_are_there_win():
    mine = document("/a", A={"type": "string"})
    assert join(mine, document("/a", B={"type": "integer"})) is mine
    theirs = document("/a", B={"type": "integer"})
    theirs["paths"]["/b"] = document("/b", C={})["paths"]["/b"]
    theirs["definitions"]["C"] = {"type": "boolean"}
    assert join(mine, theirs)["definitions"] == {"A": {"type": "string"}, "C": {"type": "boolean"}}


def test_shared_parameters_that_differ_are_renamed():
    mine, theirs = document("/a", A={}), document("/b", A={})
    mine["parameters"] = {"p": {"name": "p", "in": "query", "type": "string"}}
    theirs["parameters"] = {"p": {"name": "p", "in": "query", "type": "integer"}}
    theirs["paths"]["/b"]["parameters"] = [{"$ref": "#/parameters/p"}]
    made = join(mine, theirs)
    assert made["paths"]["/b"]["parameters"] == [{"$ref": "#/parameters/p_v2"}]
    assert set(made["parameters"]) == {"p", "p_v2"}


def test_a_third_version_of_a_second():
    second = {
        "swagger": "2.0",
        "info": {"title": "t", "version": "1"},
        "securityDefinitions": {"B": {"type": "apiKey", "name": "authorization", "in": "header"}},
        "parameters": {"p": {"name": "p", "in": "query", "type": "string", "uniqueItems": True}},
        "definitions": {
            "A": {
                "properties": {
                    "plain": {"$ref": "#/definitions/B"},
                    "told": {"description": "d", "$ref": "#/definitions/B"},
                    "several": {"type": "array", "items": {"$ref": "#/definitions/B"}},
                    "named": {"type": "object", "additionalProperties": {"$ref": "#/definitions/B"}},
                }
            },
            "B": {"type": "string"},
        },
        "paths": {
            "/a": {
                "put": {
                    "operationId": "o",
                    "consumes": ["application/json"],
                    "produces": ["application/json", "application/yaml"],
                    "parameters": [
                        {"name": "body", "in": "body", "schema": {"$ref": "#/definitions/A"}},
                        {"$ref": "#/parameters/p"},
                    ],
                    "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/A"}}},
                    "x-kubernetes-action": "put",
                }
            }
        },
    }
    made = from_v2(second)
    schema = {"schema": {"$ref": "#/components/schemas/A"}}
    assert made["openapi"] == "3.0.0"
    assert made["paths"]["/a"]["put"] == {
        "operationId": "o",
        "requestBody": {"content": {"application/json": schema}},
        "parameters": [{"name": "p", "in": "query", "schema": {"type": "string", "uniqueItems": True}}],
        "responses": {
            "200": {"description": "OK", "content": {"application/json": schema, "application/yaml": schema}}
        },
        "x-kubernetes-action": "put",
    }
    part = {"$ref": "#/components/schemas/B"}
    assert made["components"]["schemas"]["A"]["properties"] == {
        "plain": part,
        "told": {"description": "d", "allOf": [part]},
        "several": {"type": "array", "items": part},
        "named": {"type": "object", "additionalProperties": part},
    }
    assert made["components"]["securitySchemes"]["B"] == {"type": "apiKey", "name": "authorization", "in": "header"}


@pytest.mark.parametrize("odd", [{}, {"paths": {}}, {"paths": {"/a": {}}, "definitions": {}}])
def test_documents_with_little_in_them(odd):
    assert from_v2(odd)["paths"].keys() == odd.get("paths", {}).keys()
    assert only_paths(odd, lambda _: True)["paths"] == odd.get("paths", {})
