"""OpenAPI v2 of custom resources: what it leaves out, so that kubectl can live with it."""

import gzip
import json
from pathlib import Path
from typing import Any

import pytest

from bowsprit.machinery.objects import deep_copy
from bowsprit.machinery.openapi_v2 import merged

GOLDEN = Path(__file__).resolve().parents[1] / "golden/apiserver/cases/openapi.jsonl.gz"
KIND = [{"group": "x.example.com", "version": "v1", "kind": "W"}]


def recorded(name: str) -> Any:
    with gzip.open(GOLDEN, "rt") as lines:
        return next(case["response"]["body"] for case in map(json.loads, lines) if case["id"] == name)


def definition(schema: dict[str, Any]) -> Any:
    """The v2 definition of a kind with this schema."""
    schema = {**schema, "x-kubernetes-group-version-kind": KIND}
    document = {"paths": {}, "components": {"schemas": {"com.example.x.v1.W": schema}}}
    before = deep_copy(document)
    made = merged([document])["definitions"]["com.example.x.v1.W"]
    assert document == before, "arguments are not changed"
    assert made.pop("x-kubernetes-group-version-kind") == KIND
    return made


def test_recorded_custom_resource() -> None:
    made = merged([recorded("openapi/v3-apis-c.example.com-v1")])
    want = recorded("openapi/v2-crd")
    assert {path: made["paths"][path] for path in want["paths"]} == want["paths"]
    assert {name: made["definitions"][name] for name in want["definitions"]} == want["definitions"]


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "string", "nullable": True, "format": "date"}, {"format": "date"}),
        ({"type": "array", "nullable": True, "items": {"type": "string"}}, {}),
        ({"type": "array", "x-kubernetes-list-type": "atomic"}, {"x-kubernetes-list-type": "atomic"}),
        ({"type": "integer", "default": 1, "oneOf": [{"minimum": 1}], "not": {"enum": [3]}}, {"type": "integer"}),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}]}, {"x-kubernetes-int-or-string": True}),
        (
            {"type": "object", "required": ["a", "b"], "properties": {"a": {"type": "string", "nullable": True}, "b": {}}},
            {"type": "object", "required": ["b"], "properties": {"a": {}, "b": {}}},
        ),
        (
            {"type": "object", "required": ["a"], "additionalProperties": {"type": "string", "nullable": True}},
            {"type": "object", "additionalProperties": {}},
        ),
        (
            {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {"type": "string"}}},
            {"x-kubernetes-preserve-unknown-fields": True},
        ),
        ({"description": "d", "allOf": [{"$ref": "#/components/schemas/X"}]}, {"description": "d", "$ref": "#/definitions/X"}),
        (
            {"type": "object", "properties": {"default": {"type": "string"}, "nullable": {"type": "string"}}},
            {"type": "object", "properties": {"default": {"type": "string"}, "nullable": {"type": "string"}}},
        ),
    ],
)  # fmt: skip
def test_what_v2_cannot_say(schema: dict[str, Any], expected: dict[str, Any]) -> None:
    made = definition({"type": "object", "properties": {"spec": schema}})
    assert made == {"type": "object", "properties": {"spec": expected}}


def test_a_kind_that_keeps_unknown_fields_names_none() -> None:
    kept = {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"a": {"type": "string"}}}
    assert definition(kept) == {"type": "object"}
