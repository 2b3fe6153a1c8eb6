"""CustomResourceDefinitions are defaulted, prepared and refused as recorded from Kubernetes v1.36."""

# ruff: noqa: E501

import gzip
import json
from datetime import UTC, datetime
from pathlib import Path
from types import SimpleNamespace

import pytest

from bowsprit.controlplane.apiextensions.strategy import FINALIZER, DefinitionStatusStrategy, DefinitionStrategy
from bowsprit.machinery import builtin
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj, deep_copy

GOLDEN = Path(__file__).parents[1] / "golden/apiserver/cases/crds.jsonl.gz"
CASES = [json.loads(line) for line in gzip.decompress(GOLDEN.read_bytes()).splitlines()]
POSTS = {
    case["id"]: case
    for case in CASES
    if case["request"]["method"] == "POST"
    and case["request"]["path"].endswith("/customresourcedefinitions")
    and case["response"]["status"] in (201, 422)
}
TYPE = builtin.lookup(GroupVersionKind("apiextensions.k8s.io", "v1", "CustomResourceDefinition"))
STRATEGY = DefinitionStrategy()
CONTEXT = SimpleNamespace(now=datetime(2030, 1, 1, tzinfo=UTC))


def created(body: Obj) -> Obj:
    assert TYPE is not None
    obj = TYPE.round_trip(body)
    STRATEGY.default(obj)
    STRATEGY.prepare_for_create(obj, CONTEXT)
    return obj


@pytest.mark.parametrize("case", POSTS)
def test_recorded_definitions(case: str) -> None:
    obj = created(POSTS[case]["request"]["body"])
    found = sorted((error.field, error.error_body()) for error in STRATEGY.validate(obj))
    answer = POSTS[case]["response"]["body"]
    if POSTS[case]["response"]["status"] == 201:
        assert found == []
        assert (obj["spec"], obj["status"]) == (answer["spec"], answer["status"])
    else:
        assert found == sorted((cause["field"], cause["message"]) for cause in answer["details"]["causes"])


def definition(schema: Obj, **version: object) -> Obj:
    return created(
        {
            "apiVersion": "apiextensions.k8s.io/v1",
            "kind": "CustomResourceDefinition",
            "metadata": {"name": "ws.e.example.com"},
            "spec": {
                "group": "e.example.com",
                "scope": "Namespaced",
                "names": {"plural": "ws", "kind": "W"},
                "versions": [
                    {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}
                ],
            },
        }
    )


def messages(obj: Obj) -> list[str]:
    return [str(error) for error in STRATEGY.validate(obj)]


ROOT = "spec.validation.openAPIV3Schema"


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"x-kubernetes-preserve-unknown-fields": True}, ["properties[a].x-kubernetes-preserve-unknown-fields"]),
        ({"type": "object", "$ref": "#/x"}, ["properties[a].$ref: Forbidden: $ref is not supported"]),
        ({"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set", "x-kubernetes-list-map-keys": ["k"]}, ['properties[a].x-kubernetes-list-type: Invalid value: "set": must be map if x-kubernetes-list-map-keys is non-empty']),
        ({"type": "array", "items": {"type": "object"}, "x-kubernetes-list-type": "set"}, ["properties[a].items.x-kubernetes-map-type: Invalid value: null: must be atomic as item of a list with x-kubernetes-list-type=set"]),
        ({"type": "object", "x-kubernetes-embedded-resource": True}, ["properties[a].properties: Required value: must not be empty if x-kubernetes-embedded-resource is true without x-kubernetes-preserve-unknown-fields"]),
        ({"type": "object", "x-kubernetes-map-type": "odd"}, ['properties[a].x-kubernetes-map-type: Unsupported value: "odd": supported values: "atomic", "granular"']),
        ({"type": "object", "properties": {"b": {"type": "integer"}}, "default": {"b": "x"}}, ['properties[a].default.b: Invalid value: "string": b in body must be of type integer: "string"']),
        ({"type": "string", "x-kubernetes-validations": [{"rule": "self.size() > 1", "message": "a\nb"}]}, ['properties[a].x-kubernetes-validations[0].message: Invalid value: "a\\nb": must not contain line breaks']),
        ({"type": "integer", "x-kubernetes-validations": [{"rule": "self + 1 == 2 ? 'x' : 'y'"}]}, ["must evaluate to a bool"]),
    ],
)  # fmt: skip
def test_schemas_that_are_refused(schema: Obj, expected: list[str]) -> None:
    found = messages(definition({"type": "object", "properties": {"a": schema}}))
    if schema == {"x-kubernetes-preserve-unknown-fields": True}:
        assert found == []
        return
    assert len(found) == len(expected)
    assert all(part in message for message, part in zip(found, expected, strict=True)), found


KEYED = {"type": "object", "properties": {"k": {"type": "string"}}, "required": ["k"]}
STRUCTURE = "must be empty to be structural"


@pytest.mark.parametrize(
    ("schema", "expected"),
    [
        ({"type": "object", "additionalProperties": True}, [".additionalProperties: Forbidden: must not be used at the root"]),
        ({"type": "object", "nullable": True}, [".nullable: Forbidden: nullable cannot be true at the root"]),
        ({"type": "object", "not": {"type": "object"}}, [f".not.type: Forbidden: {STRUCTURE}"]),
        ({"type": "object", "oneOf": [{"x-kubernetes-validations": [{"rule": "true"}]}]}, [f".oneOf[0].x-kubernetes-validations: Forbidden: {STRUCTURE}"]),
        ({"type": "object", "allOf": [{"not": {"default": {}}}]}, [".allOf[0].not.default: Forbidden: must be undefined to be structural"]),
        ({"type": "object", "anyOf": [{"properties": {"metadata": {"minProperties": 1}}}]}, [
            ".anyOf[0].properties[metadata]: Forbidden: must not be specified in a nested context",
            ".properties[metadata]: Required value: because it is defined in ",
        ]),
        ({"type": "object", "definitions": {"a": {"type": "odd"}}}, [
            ".definitions: Forbidden: definitions is not supported",
            '.definitions[a].type: Unsupported value: "odd"',
        ]),
        ({"type": "object", "$schema": "x"}, [": Invalid value: \"\": OpenAPIV3Schema 'schema' is not supported"]),
        ({"type": "object", "properties": {"kind": {"type": "integer"}}}, ['.properties[kind].type: Invalid value: "integer": must be string']),
        ({"type": "object", "properties": {"metadata": {"type": "object", "description": "x"}}}, [".properties[metadata]: Forbidden: must not specify anything other"]),
        ({"type": "object", "properties": {"metadata": {"type": "object", "default": {}}}}, [".properties[metadata].default: Forbidden: must not be set in top-level metadata"]),
        ({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}}}, []),
        ({"type": "object", "properties": {"a": {"x-kubernetes-int-or-string": True, "allOf": [{"anyOf": [{"type": "integer"}, {"type": "string"}]}, {"anyOf": [{"type": "integer"}]}]}}}, [".properties[a].allOf[1].anyOf[0].type: Forbidden"]),
        ({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k", "k"], "items": {**KEYED, "nullable": True}}}}, [
            ".properties[a].items.nullable: Forbidden: cannot be nullable when x-kubernetes-list-type is map",
            '.properties[a].x-kubernetes-list-map-keys: Invalid value: ["k","k"]: must not contain duplicate entries',
        ]),
        ({"type": "object", "properties": {"a": {"type": "array", "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["k"], "items": {"type": "string"}}}}, ['.properties[a].items.type: Invalid value: "string": must be object if parent']),
        ({"type": "object", "properties": {"a": {"type": "object", "properties": {"b": {"type": "string"}}, "x-kubernetes-validations": [{"rule": "true", "fieldPath": ".c"}]}}}, ['.properties[a].x-kubernetes-validations[0].fieldPath: Invalid value: ".c": must be a valid path']),
        ({"type": "object", "x-kubernetes-validations": [{"rule": "true", "optionalOldSelf": True, "messageExpression": " "}]}, [".x-kubernetes-validations[0].messageExpression: Required value: messageExpression must be non-empty if specified"]),
        ({"type": "object", "x-kubernetes-validations": [{"rule": "true", "optionalOldSelf": True}]}, [".x-kubernetes-validations[0].optionalOldSelf: Invalid value: true: may not be set if oldSelf is not used in rule"]),
        ({"type": "object", "properties": {"a": {"type": "object", "x-kubernetes-map-type": "atomic", "properties": {"b": {"type": "string", "x-kubernetes-validations": [{"rule": "self == oldSelf"}]}}}}}, [
            '.properties[a].properties[b].x-kubernetes-validations[0].rule: Invalid value: "self == oldSelf": oldSelf cannot be used on the uncorrelatable portion of the schema within ',
        ]),
    ],
)  # fmt: skip
def test_what_a_schema_may_not_say(schema: Obj, expected: list[str]) -> None:
    found = messages(definition(schema))
    assert len(found) == len(expected), found
    assert all(message.startswith(ROOT + part) for message, part in zip(sorted(found), expected, strict=True)), found


def test_the_root_says_only_what_holds_for_the_status_too() -> None:
    with_status = {"subresources": {"status": {}}}
    assert messages(definition({"type": "object", "description": "x", "required": ["spec"]}, **with_status)) == []
    [error] = messages(definition({"type": "object", "maxProperties": 3}, **with_status))
    assert error.startswith(
        f'{ROOT}: Invalid value: {{"ID":"","Schema":"","Ref":null,"Description":"","Type":"object",'
    )
    assert '"MaxProperties":3,' in error
    assert error.endswith("fields are allowed at the root of the schema if the status subresource is enabled")


def test_formats_that_nobody_checks_are_warned_of() -> None:
    known = {"type": "string", "format": "date-time"}
    odd = {"type": "object", "properties": {"a": {"type": "string", "format": "odd"}, "b": known}}
    new = definition({**odd, "anyOf": [{"format": "int32"}]})
    assert STRATEGY.warnings(new, None) == ['unrecognized format "odd"', 'unrecognized format "int32"']
    assert STRATEGY.warnings(new, definition(odd)) == ['unrecognized format "int32"']


@pytest.mark.parametrize(
    ("version", "expected"),
    [
        ({"deprecationWarning": "x"}, ["can only be set for deprecated versions"]),
        ({"deprecated": True, "deprecationWarning": ""}, ["must not be an empty string"]),
        ({"deprecated": True, "deprecationWarning": "é\x07"}, ["must only contain printable UTF-8 characters; non-printable character found at index 2"]),
        ({"deprecated": True, "deprecationWarning": "x" * 257}, ["must be <= 256 characters long"]),
        ({"deprecated": True, "deprecationWarning": "go away"}, []),
    ],
)  # fmt: skip
def test_warnings_of_deprecated_versions(version: Obj, expected: list[str]) -> None:
    found = messages(definition({"type": "object"}, **version))
    assert [message.rpartition('": ')[2] for message in found] == expected


def test_versions_that_differ_are_named() -> None:
    obj = definition({"type": "object"})
    obj["spec"]["versions"].append(
        {"name": "v2", "served": True, "storage": False, "schema": {"openAPIV3Schema": {"type": "string"}}}
    )
    assert messages(obj) == [
        'spec.versions[1].schema.openAPIV3Schema.type: Invalid value: "string": must be object at the root'
    ]


def test_columns() -> None:
    obj = definition({"type": "object"}, additionalPrinterColumns=[{"name": "", "type": "odd", "jsonPath": "x"}])
    assert [message.partition(":")[0] for message in messages(obj)] == [
        f"spec.additionalPrinterColumns[0].{field}" for field in ("name", "type", "JSONPath")
    ]


def test_what_an_update_may_not_change() -> None:
    old = definition({"type": "object"})
    new = deep_copy(old)
    new["spec"]["names"]["kind"] = "Other"
    assert STRATEGY.validate_update(new, old) == [], "not established yet"
    old["status"]["conditions"] = [{"type": "Established", "status": "True"}]
    new["spec"]["scope"] = "Cluster"
    new["spec"]["group"] = "f.example.com"
    fields = [error.field for error in STRATEGY.validate_update(new, old)]
    assert fields == ["spec.scope", "spec.names.kind", "spec.group"]


def test_a_new_storage_version_is_noted_and_an_old_one_must_stay() -> None:
    old = definition({"type": "object"})
    new = deep_copy(old)
    new["spec"]["versions"] = [{**new["spec"]["versions"][0], "name": "v2"}]
    STRATEGY.prepare_for_update(new, old, CONTEXT)
    assert new["status"]["storedVersions"] == ["v1", "v2"]
    assert old["status"]["storedVersions"] == ["v1"]
    [error] = STRATEGY.validate_update(new, old)
    assert error.field == "status.storedVersions[0]"
    new["status"]["storedVersions"] = ["v2"]
    assert DefinitionStatusStrategy(STRATEGY).validate_update(new, old) == []


def test_a_deleted_definition_waits_for_its_objects() -> None:
    obj = definition({"type": "object"})
    assert not STRATEGY.may_vanish(obj)
    STRATEGY.mark_deleting(obj, CONTEXT)
    STRATEGY.mark_deleting(obj, CONTEXT)
    assert obj["metadata"]["finalizers"] == [FINALIZER]
    [condition] = obj["status"]["conditions"]
    assert (condition["type"], condition["reason"], condition["lastTransitionTime"]) == (
        "Terminating",
        "InstanceDeletionPending",
        "2030-01-01T00:00:00Z",
    )
    obj["metadata"]["deletionTimestamp"] = "2030-01-01T00:00:00Z"
    assert STRATEGY.may_vanish(obj)


RULED = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "count": {"type": "integer"},
        "share": {"type": "number"},
        "either": {"x-kubernetes-int-or-string": True},
        "items": {
            "type": "array",
            "maxItems": 3,
            "items": {"type": "object", "properties": {"b-c": {"type": "string"}}},
        },
        "names": {"type": "object", "maxProperties": 3, "additionalProperties": {"type": "integer"}},
        "since": {"type": "string", "format": "date-time"},
        "grid": {"type": "array", "maxItems": 3, "items": {"type": "array", "items": {"type": "integer"}}},
        "spare": {
            "type": "object",
            "x-kubernetes-embedded-resource": True,
            "x-kubernetes-preserve-unknown-fields": True,
        },
    },
}


@pytest.mark.parametrize(
    "rule",
    [
        "self.count > 1.5 && self.share > 1",
        "self.either == 5 || self.either == '5'",
        "self.items.all(i, i.b__dash__c != '')",
        "self.names.exists(n, self.names[n] > 3)",
        "self.since > timestamp('2020-01-01T00:00:00Z')",
        "self.grid.all(row, row.all(n, n > 0))",
        "self.spare.metadata.name == 'x' && self.spare.kind != ''",
        "self == oldSelf",
        "self.?text.orValue('') == '' && self.items.first().hasValue()",
    ],
)
def test_rules_that_fit_their_schema_compile(rule: str) -> None:
    schema = {**RULED, "x-kubernetes-validations": [{"rule": rule}]}
    assert messages(definition({"type": "object", "properties": {"a": schema}})) == []


@pytest.mark.parametrize(
    ("rule", "problem"),
    [
        ("self.nosuch == 1", "ERROR: <input>:1:5: undefined field 'nosuch'\n | self.nosuch == 1\n | ....^"),
        ("self.items.all(i, has(i.x))", "ERROR: <input>:1:22: undefined field 'x'\n"),
        ("self.spare.metadata.labels == {}", "ERROR: <input>:1:20: undefined field 'labels'\n"),
        ("self.text + 1 == ''", "ERROR: <input>:1:11: found no matching overload for '_+_' applied to '(string, int)'\n"),
        ("self.text.matches(1)", "ERROR: <input>:1:18: found no matching overload for 'matches' applied to 'string.(int)'\n"),
        ("self.text == null", "found no matching overload for '_==_' applied to '(string, null)'\n"),
        ("self.text.x", "ERROR: <input>:1:10: type 'string' does not support field selection\n"),
        ("self.either", "cel expression must evaluate to a bool"),
        ("self.count", "cel expression must evaluate to a bool"),
    ],
)  # fmt: skip
def test_rules_that_do_not_fit_their_schema_are_refused(rule: str, problem: str) -> None:
    schema = {**RULED, "x-kubernetes-validations": [{"rule": rule}]}
    [found] = messages(definition({"type": "object", "properties": {"a": schema}}))
    assert problem in found


@pytest.mark.parametrize(
    ("schema", "refused"),
    [
        ({"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [{"rule": "self.all(a, a != '')"}]}, False),
        ({"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [{"rule": "self.all(a, self.exists_one(b, a == b))"}]}, True),
        ({"type": "array", "maxItems": 50, "items": {"type": "string"}, "x-kubernetes-validations": [{"rule": "self.all(a, self.exists_one(b, a == b))"}]}, False),
        ({"type": "array", "items": {"type": "array", "items": {"type": "string", "x-kubernetes-validations": [{"rule": "self != ''"}]}}}, False),
        ({"type": "object", "additionalProperties": {"type": "integer"}, "x-kubernetes-validations": [{"rule": "self.all(k, self.all(l, k == l))"}]}, True),
        ({"type": "array", "items": {"type": "string"}, "x-kubernetes-validations": [{"rule": "self.map(a, a).all(b, b != '') && self.all(c, c != '')"}]}, False),
    ],
)  # fmt: skip
def test_loops_within_unbounded_loops_cost_too_much(schema: Obj, refused: bool) -> None:
    found = messages(definition({"type": "object", "properties": {"a": schema}}))
    assert any("exceeds budget" in message for message in found) is refused
    assert len(found) == (3 if refused else 0)


EITHER = [{"type": "integer"}, {"type": "string"}]
AT = "spec.validation.openAPIV3Schema"


@pytest.mark.parametrize(
    ("root", "told"),
    [
        ({"properties": {"p": {"x-kubernetes-int-or-string": True, "anyOf": EITHER}}}, {}),
        (
            {"properties": {"p": {"x-kubernetes-int-or-string": True, "allOf": [{"anyOf": EITHER}, {"pattern": "1"}]}}},
            {},
        ),
        (
            {"properties": {"p": {"x-kubernetes-int-or-string": True, "anyOf": EITHER[::-1]}}},
            {f"{AT}.properties[p].anyOf[{i}].type": "Forbidden: must be empty to be structural" for i in (0, 1)},
        ),
        (
            {
                "properties": {
                    "p": {"x-kubernetes-int-or-string": True, "allOf": [{"anyOf": EITHER}, {"anyOf": EITHER}]}
                }
            },
            {
                f"{AT}.properties[p].allOf[1].anyOf[{i}].type": "Forbidden: must be empty to be structural"
                for i in (0, 1)
            },
        ),
        (
            {"anyOf": [{"properties": {"p": {"pattern": "x"}}}]},
            {f"{AT}.properties[p]": f"Required value: because it is defined in {AT}.anyOf[0].properties[p]"},
        ),
        (
            {"allOf": [{"anyOf": [{"properties": {"s": {"items": {}}}}]}], "properties": {"s": {"type": "object"}}},
            {
                f"{AT}.properties[s].items": f"Required value: because it is defined in {AT}.allOf[0].anyOf[0].properties[s].items"
            },
        ),
        ({"properties": {"p": {"type": "object", "anyOf": [{"properties": {"q": {"minimum": 1}}}]}}}, {}),
        (
            {"properties": {"p": {"type": "object", "anyOf": [{"additionalProperties": {}}]}}},
            {f"{AT}.properties[p].anyOf[0].additionalProperties": "Forbidden: must be undefined to be structural"},
        ),
    ],
)
def test_parts_of_a_schema_are_structural(root: Obj, told: dict[str, str]) -> None:
    """Messages as recorded from Kubernetes v1.36."""
    found = STRATEGY.validate(definition({"type": "object", **root}))
    assert {error.field: error.error_body() for error in found} == told
