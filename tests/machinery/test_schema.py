"""Structural schemas and their rules. Messages and exchanges are recorded from Kubernetes v1.36."""

# ruff: noqa: E501

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bowsprit.machinery import cel, codec
from bowsprit.machinery.codec import DecodeError
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.schema import CustomResourceSchema, Schema

CASES = [
    json.loads(line)
    for line in gzip.decompress(
        (Path(__file__).parents[1] / "golden/apiserver/cases/crds.jsonl.gz").read_bytes()
    ).splitlines()
]

# Judged by other parts of the server: names, resource versions, status, conversion; Go's rounding of huge integers.
OTHERS = {
    "crds/life/invalid-name",
    "crds/life/update-norv",
    "crds/life/cr-status-dropped",
    "crds/versions/create-v1",
    "crds/delete/cr",
    "crds/life/invalid-apiversion",
}


def without_metadata(obj: Obj) -> Obj:
    return {key: value for key, value in obj.items() if key != "metadata"}


def test_recorded_custom_resources() -> None:
    schemas: dict[tuple[str, ...], CustomResourceSchema] = {}
    objects: dict[str, Obj] = {}
    replayed = 0
    for case in CASES:
        request, answer, status = case["request"], case["response"].get("body"), case["response"]["status"]
        body, path = request.get("body"), request["path"].partition("?")[0]
        parts = path.split("/")
        if "customresourcedefinitions" in path:
            if request["method"] in ("POST", "PUT") and status in (200, 201):
                for version in body["spec"]["versions"]:
                    names = (body["spec"]["group"], version["name"], body["spec"]["names"]["plural"])
                    schemas[names] = CustomResourceSchema(
                        version.get("schema", {}).get("openAPIV3Schema"), version.get("subresources", {}).get("scale")
                    )
            continue
        if (
            request["method"] not in ("POST", "PUT")
            or parts[1] != "apis"
            or parts[-1] in ("status", "scale")
            or case["id"] in OTHERS
        ):
            continue
        schema = schemas.get((parts[2], parts[3], parts[6] if parts[4] == "namespaces" else parts[4]))
        if schema is None:
            continue
        data = json.dumps(body).encode() if body is not None else request["bodyText"].encode()
        tree = codec.decode_json_pairs(data, codec.decode_json(data))
        replayed += 1
        if status == 400 and "Go struct field" in answer["message"]:
            with pytest.raises(DecodeError) as caught:
                schema.decode(codec.decode_json(data), tree)
            assert answer["message"].endswith(str(caught.value))
            continue
        obj, problems = schema.decode(codec.decode_json(data), tree)
        if status == 400:
            assert answer["message"].endswith(", ".join(problems)), case["id"]
            continue
        found = {(error.error_body(), error.field) for error in schema.validate(obj, objects.get(path))}
        if status < 300:
            assert not found, case["id"]
            assert without_metadata(obj) == without_metadata(answer), case["id"]
            objects[path if request["method"] == "PUT" else f"{path}/{answer['metadata']['name']}"] = answer
        elif status == 422:
            assert found == {(cause["message"], cause["field"]) for cause in answer["details"]["causes"]}, case["id"]
    assert replayed > 30


def messages(schema: Obj, value: object, old: object = None) -> list[str]:
    return [str(error) for error in Schema(schema).validate(value, old)]


@pytest.mark.parametrize(
    ("schema", "value", "expected"),
    [
        ({"type": "string"}, 1, ['a: Invalid value: "integer": a in body must be of type string: "integer"']),
        ({"type": "string"}, None, ['a: Invalid value: "null": a in body must be of type string: "null"']),
        ({"type": "string", "nullable": True}, None, []),
        ({"type": "integer", "format": "int32"}, True, ['a: Invalid value: "": a in body must be of type int32: ""']),
        ({"type": "integer", "format": "int32"}, 2**31, ['<nil>: Invalid value: "": Checked value must be of type integer with format int32 in a']),
        ({"type": "number"}, 1, []),
        ({"type": "integer"}, 1.0, []),
        ({"type": "string", "format": "ipv4"}, "::1", ['a: Invalid value: "::1": a in body must be of type ipv4: "::1"']),
        ({"type": "string", "format": "unknown"}, "x", []),
        ({"type": "array", "items": {"type": "integer"}}, [1, "x"], ['a[1]: Invalid value: "string": a[1] in body must be of type integer: "string"']),
        ({"anyOf": [{"type": "string"}, {"type": "boolean"}]}, 1, ['<nil>: Invalid value: "": "a" must validate at least one schema (anyOf)', 'a: Invalid value: "integer": a in body must be of type string: "integer"']),
        ({"oneOf": [{"type": "integer"}, {"minimum": 0}]}, 1, ['<nil>: Invalid value: "": "a" must validate one and only one schema (oneOf). Found 2 valid alternatives']),
        ({"not": {"type": "integer"}}, 1, ['<nil>: Invalid value: "": "a" must not validate the schema (not)']),
        ({"allOf": [{"type": "string"}, {"type": "integer"}]}, 1, ['a: Invalid value: "integer": a in body must be of type string: "integer"', '<nil>: Invalid value: "": "a" must validate all the schemas (allOf)']),
        ({"type": "object", "minProperties": 1}, {}, ["a: Invalid value: 0: a in body should have at least 1 properties"]),
        ({"x-kubernetes-int-or-string": True, "anyOf": [{"type": "integer"}, {"type": "string"}]}, "50%", []),
        ({"type": "string", "pattern": "^[[:lower:]]+$"}, "ab\n", ["a: Invalid value: \"ab\\n\": a in body should match '^[[:lower:]]+$'"]),
    ],
)  # fmt: skip
def test_messages(schema: Obj, value: object, expected: list[str]) -> None:
    assert messages({"type": "object", "properties": {"a": schema}}, {"a": value}) == expected


def test_references_are_followed_also_into_themselves() -> None:
    tree = {"type": "object", "properties": {"value": {"type": "integer"}, "next": {"$ref": "#/tree"}}}
    schema = Schema(tree, lambda reference: {"#/tree": tree}[reference])
    assert [str(error) for error in schema.validate({"next": {"next": {"value": "x"}}})] == [
        'next.next.value: Invalid value: "string": next.next.value in body must be of type integer: "string"'
    ]
    assert schema.unknown_fields({"next": {"next": {"bogus": 1}}}, root=False) == ["next.next.bogus"]


def test_rules_of_lists_see_the_old_item_with_the_same_key() -> None:
    schema = {
        "type": "object",
        "properties": {
            "l": {
                "type": "array",
                "x-kubernetes-list-type": "map",
                "x-kubernetes-list-map-keys": ["k"],
                "items": {
                    "type": "object",
                    "properties": {"k": {"type": "string"}, "v": {"type": "integer"}},
                    "x-kubernetes-validations": [{"rule": "self.v >= oldSelf.v", "message": "only up"}],
                },
            }
        },
    }
    old = {"l": [{"k": "a", "v": 3}, {"k": "b", "v": 1}]}
    assert messages(schema, {"l": [{"k": "b", "v": 2}, {"k": "a", "v": 2}, {"k": "c", "v": 0}]}, old) == [
        "l[1]: Invalid value: only up"
    ]
    assert messages(schema, {"l": [{"k": "a", "v": 0}]}) == [], "no old object, no transition rule"


@pytest.mark.parametrize(
    ("rule", "value", "expected"),
    [
        ({"rule": "self.x < 3"}, {"x": 5}, ["a: Invalid value: failed rule: self.x < 3"]),
        (
            {"rule": "self.x < 3", "message": "m", "reason": "FieldValueForbidden", "fieldPath": ".x"},
            {"x": 5},
            ["a.x: Forbidden: m"],
        ),
        (
            {"rule": "self.x < 3", "messageExpression": "'got %d'.format([self.x])"},
            {"x": 5},
            ["a: Invalid value: got 5"],
        ),
        ({"rule": "self.x < 3", "message": "m", "messageExpression": "self.nope"}, {"x": 5}, ["a: Invalid value: m"]),
        (
            {"rule": "self.y == 1"},
            {"x": 5},
            ['a: Invalid value: "object": no such key: y evaluating rule: failed rule: self.y == 1'],
        ),
        ({"rule": "!has(self.y) || self.y == 1"}, {"x": 5}, []),
        (
            {"rule": "self.t > timestamp('2020-01-01T00:00:00Z')"},
            {"t": "2019-01-01T00:00:00Z"},
            ["a: Invalid value: failed rule: self.t > timestamp('2020-01-01T00:00:00Z')"],
        ),
        ({"rule": "self.d <= duration('1h')"}, {"d": "30m"}, []),
        ({"rule": "self.s.find('[0-9]+') == '12'"}, {"s": "ab12"}, []),
        ({"rule": "self.l.isSorted() && self.l.sum() == 6 && self.l.max() == 3"}, {"l": [1, 2, 3]}, []),
        ({"rule": "isQuantity(self.s)"}, {"s": "1x"}, ["a: Invalid value: failed rule: isQuantity(self.s)"]),
        ({"rule": "self.l.all(i, i > 0)"}, {"l": [0]}, ["a: Invalid value: failed rule: self.l.all(i, i > 0)"]),
        ({"rule": "oldSelf.hasValue() ? self.x == oldSelf.value().x : true", "optionalOldSelf": True}, {"x": 1}, []),
        ({"rule": "self.__in__ == 1"}, {"in": 1}, []),
    ],
)
def test_rules(rule: Obj, value: Obj, expected: list[str]) -> None:
    properties = {
        "x": {"type": "integer"}, "y": {"type": "integer"}, "in": {"type": "integer"}, "s": {"type": "string"},
        "t": {"type": "string", "format": "date-time"}, "d": {"type": "string", "format": "duration"}, "l": {"type": "array", "items": {"type": "integer"}},
    }  # fmt: skip
    schema = {
        "type": "object",
        "properties": {"a": {"type": "object", "properties": properties, "x-kubernetes-validations": [rule]}},
    }
    assert messages(schema, {"a": value}) == expected


def test_optional_old_values_are_there_on_update() -> None:
    rule = {"rule": "!oldSelf.hasValue() || self == oldSelf.value()", "message": "fixed", "optionalOldSelf": True}
    schema = {"type": "object", "properties": {"a": {"type": "integer", "x-kubernetes-validations": [rule]}}}
    assert messages(schema, {"a": 1}) == []
    assert messages(schema, {"a": 2}, {"a": 1}) == ["a: Invalid value: fixed"]


@pytest.mark.parametrize(
    "expression",
    [
        "quantity('1Gi').isGreaterThan(quantity('1000Mi'))",
        "quantity('1000m') == quantity('1')",
        "quantity('1').add(quantity('500m')).compareTo(quantity('1.5')) == 0",
        "quantity('2').sub(quantity('3')).sign() == -1",
        "quantity('2k').asInteger() == 2000 && !quantity('1m').isInteger()",
        "quantity('500m').asApproximateFloat() == 0.5",
        "sets.contains(self, [1]) && sets.equivalent(self, [3, 2, 1])",
        "self.all(i, v, v == i + 1)",
        "'abc'.indexOf('c') == 2 && 'a-b'.split('-') == ['a', 'b']",
        "isIP('10.0.0.1') && !isCIDR('10.0.0.1') && isURL('https://a/b')",
        "'%s-%d'.format(['a', 1]) == 'a-1'",
    ],
)
def test_libraries(expression: str) -> None:
    assert cel.compile_expression(expression).evaluate({"self": [1, 2, 3], "oldSelf": None}) is True


@pytest.mark.parametrize(
    ("expression", "message"),
    [
        ("self.nokey", "no such key: nokey"),
        ("1 / (self.a - 1)", "division by zero"),
        ("[1][self.a + 4]", "index out of bounds: 5"),
        ("self.a + 'x'", "no such overload"),
    ],
)
def test_failures_are_told_as_cel_go_tells_them(expression: str, message: str) -> None:
    with pytest.raises(cel.EvaluationError) as caught:
        cel.compile_expression(expression).evaluate({"self": {"a": 1}, "oldSelf": None})
    assert str(caught.value) == message


def test_expressions_that_do_not_compile() -> None:
    with pytest.raises(cel.CelError, match=r"compilation failed: .*Syntax error"):
        cel.compile_expression("self.(")
    assert cel.uses_old_self("self == oldSelf")
    assert not cel.uses_old_self("self == 'oldSelf' || self.oldSelf == 1")


SCHEMA: Obj = {
    "type": "object",
    "properties": {
        "s": {"type": "string", "default": "d"},
        "o": {
            "type": "object",
            "default": {},
            "properties": {"n": {"type": "integer", "default": 1}, "z": {"type": "string", "nullable": True}},
        },
        "l": {"type": "array", "items": {"type": "object", "properties": {"k": {"type": "boolean", "default": True}}}},
        "m": {"type": "object", "additionalProperties": {"type": "integer"}},
        "f": {"type": "object", "x-kubernetes-preserve-unknown-fields": True, "properties": {"p": {"type": "object"}}},
    },
}
JSON = st.recursive(
    st.none() | st.booleans() | st.integers(-5, 5) | st.floats(-2, 2) | st.text("ab", max_size=2),
    lambda below: (
        st.lists(below, max_size=3)
        | st.dictionaries(st.sampled_from(["s", "o", "l", "m", "f", "n", "z", "k", "p", "q"]), below, max_size=4)
    ),
    max_leaves=12,
)


@given(st.dictionaries(st.sampled_from(["s", "o", "l", "m", "f", "q"]), JSON, max_size=5))
def test_pruning_and_defaulting_settle_at_once(obj: Obj) -> None:
    schema = Schema(SCHEMA)
    before = deep_copy(obj)
    told = schema.unknown_fields(obj)
    assert obj == before
    assert schema.prune(obj) == told
    assert schema.prune(obj) == []
    schema.default(obj)
    once = deep_copy(obj)
    schema.default(obj)
    assert obj == once
    schema.validate(obj)


def test_defaults_and_nulls() -> None:
    obj: Obj = {"s": None, "o": {"z": None}, "l": [{}], "m": {"a": None}, "f": {"x": None, "p": {"gone": 1}}}
    schema = Schema(SCHEMA)
    assert schema.prune(obj) == ["f.p.gone"]
    schema.default(obj)
    assert obj == {"s": "d", "o": {"z": None, "n": 1}, "l": [{"k": True}], "m": {}, "f": {"x": None, "p": {}}}
