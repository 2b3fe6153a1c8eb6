"""Server-side apply: recorded exchanges are replayed, then the laws that must hold for any input."""

# ruff: noqa: E501

import gzip
import json
from dataclasses import replace
from pathlib import Path
from typing import Any
from unittest import mock
from urllib.parse import parse_qs, urlsplit

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.machinery import apply, builtin, codec, errors, typed, typedvalue
from bowsprit.machinery.apply import ApplyError, Context
from bowsprit.machinery.fieldset import FieldSet, key_element, path_text
from bowsprit.machinery.objects import Obj, deep_copy, gvk
from bowsprit.machinery.typed import Typed

CASES = [
    json.loads(line)
    for line in gzip.decompress(
        (Path(__file__).parents[1] / "golden/apiserver/cases/apply.jsonl.gz").read_bytes()
    ).splitlines()
]
WIDGETS = next(
    case["request"]["body"]["spec"]["versions"][0]["schema"]["openAPIV3Schema"]
    for case in CASES
    if case["id"] == "apply/crd/crd"
)
NOW = "2030-01-01T00:00:00Z"

# Refused by other parts of the server, or answered in another form; scale goes through its own translation.
OTHERS = {
    "apply/errors/no-apiversion",
    "apply/errors/wrong-name",
    "apply/errors/no-name",
    "apply/errors/missing-key",
    "apply/errors/json-ct",
    "apply/more/ns-mismatch",
    "apply/more/ns-missing",
    "apply/more/table",
}


def context_for(obj: Obj, subresource: str) -> Context:
    type_ = builtin.lookup(gvk(obj))
    ignored = {"": FieldSet.of(("f:status",)), "status": FieldSet.of(("f:spec",), ("f:metadata",))}[subresource]
    head = {"apiVersion": obj["apiVersion"], "kind": obj["kind"]}
    if type_ is None:
        return Context(typed.of_custom_resource(WIDGETS), obj["apiVersion"], head, subresource, ignored)
    return Context(typed.of_message(type_.message), obj["apiVersion"], type_.round_trip(head), subresource, ignored)


def entries(obj: Obj) -> list[str]:
    """managedFields without the values of times and without order: both depend on the clock."""
    found = obj["metadata"].get("managedFields") or []
    return sorted(json.dumps({**entry, "time": "time" in entry}, sort_keys=True) for entry in found)


def covers(recorded: object, ours: object) -> bool:
    if isinstance(recorded, dict) and isinstance(ours, dict):
        skipped = ("managedFields", "resourceVersion", "generation", "stringData")
        return all(
            covers(recorded.get(key), value)
            for key, value in ours.items()
            if key not in skipped and value not in (None, 0)
        )
    if isinstance(recorded, list) and isinstance(ours, list):
        return len(recorded) == len(ours) and all(map(covers, recorded, ours))
    return recorded == ours


def run(
    live: Obj | None, request: Obj, body: object, answer: Obj, query: dict[str, list[str]], subresource: str
) -> Obj:
    manager = query.get("fieldManager", ["my-tool"])[0]
    context = context_for(live or (body if isinstance(body, dict) and "kind" in body else answer), subresource)
    if "apply-patch" in request["headers"].get("content-type", ""):
        force = query.get("force") == ["true"]
        return apply.apply(live or deep_copy(context.empty), body, manager, context=context, now=NOW, force=force)
    new = deep_copy(answer)
    if request["method"] in ("PUT", "POST"):
        new["metadata"]["managedFields"] = (body.get("metadata") or {}).get("managedFields")
    elif isinstance(body, list):
        new["metadata"]["managedFields"] = body[0]["value"]
    else:
        new["metadata"]["managedFields"] = deep_copy((live or {})["metadata"].get("managedFields"))
    apply.update_managed_fields(live, new, manager, context=context, now=NOW)
    return new


def test_recorded_exchanges() -> None:
    objects: dict[str, Obj] = {}
    stale: set[str] = set()
    replayed = 0
    for case in CASES:
        request, answer = case["request"], case["response"].get("body")
        url = urlsplit(request["path"])
        path, _, subresource = url.path.rpartition("/")
        if subresource not in ("status", "scale"):
            path, subresource = url.path, ""
        if request["method"] == "GET" or answer is None or case["id"] in OTHERS or answer.get("kind") == "Table":
            continue
        if path in stale and subresource != "scale":  # a scale request, which is not replayed, came between
            stale.discard(path)
            objects[path] = answer
            continue
        if subresource == "scale":
            stale.add(path)
            continue
        request.setdefault("headers", {})
        body = request["body"] if "body" in request else codec.decode_yaml(request.get("bodyText", ""))
        if request["method"] == "POST":
            path = f"{path}/{answer['metadata']['name']}"
        query = parse_qs(url.query)
        if answer["kind"] == "Status":
            with pytest.raises((errors.StatusError, ApplyError)) as caught:
                run(objects.get(path), request, body, answer, query, subresource)
            assert str(caught.value) == answer["message"], case["id"]
            if isinstance(caught.value, errors.StatusError):
                assert sorted(map(str, caught.value.causes)) == sorted(
                    map(str, answer.get("details", {}).get("causes", []))
                )
        else:
            ours = run(objects.get(path), request, body, answer, query, subresource)
            assert entries(ours) == entries(answer), case["id"]
            type_ = builtin.lookup(gvk(ours))
            if case["id"] not in (
                "apply/deployment/status-spec",
                "apply/more/secret-stringdata-2",
            ):  # the endpoint resets spec; stringData becomes data
                assert covers(answer, type_.round_trip(ours) if type_ else ours), case["id"]
            if "dryRun" not in query:
                objects[path] = answer
        replayed += 1
    assert replayed > 60


# --- laws ---------------------------------------------------------------------------------------------------------

SCHEMA: Obj = {
    "type": "object",
    "properties": {
        "text": {"type": "string"},
        "set": {"type": "array", "x-kubernetes-list-type": "set", "items": {"type": "string"}},
        "keyed": {
            "type": "array",
            "x-kubernetes-list-type": "map",
            "x-kubernetes-list-map-keys": ["k"],
            "items": {
                "type": "object",
                "properties": {"k": {"type": "string"}, "v": {"type": "integer"}, "w": {"type": "integer"}},
            },
        },
        "list": {"type": "array", "items": {"type": "integer"}},
        "map": {"type": "object", "additionalProperties": {"type": "integer"}},
        "atomic": {"type": "object", "x-kubernetes-map-type": "atomic", "additionalProperties": {"type": "integer"}},
        "free": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
    },
}
TYPE = typed.of_schema(SCHEMA)
NAMES = st.sampled_from("abc")
ITEMS = st.lists(NAMES, unique=True, min_size=1, max_size=3).flatmap(
    lambda keys: st.tuples(
        *(
            st.fixed_dictionaries({"k": st.just(key)}, optional={"v": st.integers(0, 2), "w": st.integers(0, 2)})
            for key in keys
        )
    ).map(list)
)
# No empty maps or lists: what owns nothing is removed with its last member, and a later apply of it starts anew.
CONFIGS = st.fixed_dictionaries(
    {"text": st.sampled_from(["x", "y"])},
    optional={
        "set": st.lists(NAMES, unique=True, min_size=1, max_size=3),
        "keyed": ITEMS,
        "list": st.lists(st.integers(0, 2), min_size=1, max_size=3),
        "map": st.dictionaries(NAMES, st.integers(0, 2), min_size=1, max_size=2),
        "atomic": st.dictionaries(NAMES, st.integers(0, 2), min_size=1, max_size=2),
        "free": st.dictionaries(
            NAMES,
            st.integers(0, 2) | st.dictionaries(NAMES, st.integers(0, 2), min_size=1, max_size=2),
            min_size=1,
            max_size=2,
        ),
    },
)
STEPS = st.lists(st.tuples(st.sampled_from(["m1", "m2", "m3"]), CONFIGS), min_size=1, max_size=4)
CONTEXT = Context(
    typed.of_custom_resource({"type": "object", "properties": {"spec": SCHEMA}}),
    "v1",
    {"apiVersion": "v1", "kind": "W"},
)


def without_nulls(value: object) -> object:
    """What decoding into a type does to the result before anybody sees it."""
    return (
        {key: without_nulls(below) for key, below in value.items() if below is not None}
        if isinstance(value, dict)
        else value
    )


def applied(live: Obj, manager: str, config: Obj, *, force: bool = True) -> Obj:
    return without_nulls(
        apply.apply(
            live,
            {"apiVersion": "v1", "kind": "W", "spec": deep_copy(config)},
            manager,
            context=CONTEXT,
            now=NOW,
            force=force,
        )
    )


def holds(value: object, config: object, type_: Typed) -> bool:
    """Whether a value has what a configuration states."""
    type_ = type_.resolve(config)
    if config == {}:
        return not value or not type_.atomic
    if type_.kind == "scalar" or type_.atomic:
        return value == config
    if isinstance(config, dict):
        return isinstance(value, dict) and all(
            key in value and holds(value[key], below, type_.member(key)) for key, below in config.items()
        )
    found = {typedvalue.item_element(type_, item): item for item in value or []}
    return all(holds(found[typedvalue.item_element(type_, item)], item, type_.item) for item in config)


@settings(max_examples=150)
@given(STEPS)
def test_the_last_applied_configuration_holds_and_applying_again_changes_nothing(steps: list[tuple[str, Obj]]) -> None:
    live: Obj = deep_copy(CONTEXT.empty)
    for manager, config in steps:
        before = deep_copy(live)
        result = applied(live, manager, config)
        assert live == before, "arguments are not changed"
        live = result
        assert holds(live.get("spec"), config, TYPE)
        again = applied(live, manager, config, force=False)
        assert again.get("spec") == live.get("spec")
        assert entries(again) == entries(live)


@settings(max_examples=100)
@given(STEPS)
def test_an_object_is_empty_when_every_manager_has_given_up(steps: list[tuple[str, Obj]]) -> None:
    live: Obj = deep_copy(CONTEXT.empty)
    for manager, config in steps:
        live = applied(live, manager, config)
    for manager in ("m1", "m2", "m3"):
        live = without_nulls(apply.apply(live, {"apiVersion": "v1", "kind": "W"}, manager, context=CONTEXT, now=NOW))

    def leaves(value: object) -> list[object]:
        if isinstance(value, dict):
            return [leaf for below in value.values() for leaf in leaves(below)]
        return [] if value is None or value == [] else [value]

    assert leaves(live.get("spec")) == []
    assert "managedFields" not in live.get("metadata", {})


@settings(max_examples=100)
@given(STEPS)
def test_pruning_only_when_something_was_given_up_changes_nothing(steps: list[tuple[str, Obj]]) -> None:
    prune = apply._prune

    def both_ways(merged: Obj, managers: Any, last: Any, stated: FieldSet, context: Context) -> Obj:
        shortened = prune(merged, managers, last, stated, context)
        if last is not None:
            assert shortened == prune(merged, managers, last, FieldSet(), context)
        return shortened

    live: Obj = deep_copy(CONTEXT.empty)
    with mock.patch.object(apply, "_prune", both_ways):
        for manager, config in steps:
            live = applied(live, manager, config)


@given(CONFIGS, CONFIGS)
def test_a_comparison_with_oneself_is_empty_and_differences_are_found(left: Obj, right: Obj) -> None:
    assert typedvalue.compare(TYPE, left, left).is_same()
    if left != right:
        sets = [name for name in ("set", "keyed") if name in left or name in right]
        if any(left.get(name) != right.get(name) for name in {*left, *right} - set(sets)):
            assert not typedvalue.compare(TYPE, left, right).is_same()


PATHS = st.lists(st.sampled_from(["f:a", "f:b", 'k:{"n":1}', 'v:"x"', "i:0"]), min_size=1, max_size=3).map(tuple)
SETS = st.lists(PATHS, max_size=6).map(lambda paths: FieldSet.of(*paths))


@given(SETS, SETS)
def test_field_sets_obey_set_algebra(left: FieldSet, right: FieldSet) -> None:
    a, b = set(left.paths()), set(right.paths())
    assert set(left.union(right).paths()) == a | b
    assert set(left.intersection(right).paths()) == a & b
    assert set(left.difference(right).paths()) == a - b
    assert left.difference(right).is_empty() is (a <= b)
    assert all(left.has(path) for path in a)


@given(SETS)
def test_field_sets_survive_their_json(fields: FieldSet) -> None:
    assert FieldSet.from_obj(json.loads(json.dumps(fields.to_obj()))) == fields


def test_path_texts() -> None:
    path = ("f:spec", "f:ports", key_element({"protocol": "TCP", "port": 80}), "f:name")
    assert path_text(path) == '.spec.ports[port=80,protocol="TCP"].name'
    assert path_text(("f:a", 'v:"x"', "i:0")) == '.a[="x"][0]'


def test_type_problems_are_listed_together() -> None:
    with pytest.raises(typedvalue.TypedValueError) as caught:
        typedvalue.validate(TYPE, {"text": 1, "bogus": 2, "set": ["a", "a"], "map": []})
    assert (
        str(caught.value)
        == 'errors:\n  .text: expected string, got &value.valueUnstructured{Value:1}\n  .bogus: field not declared in schema\n  .set: duplicate entries for key [="a"]\n  .map: expected map, got &{[]}'
    )


def test_too_many_updaters_share_a_bucket() -> None:
    live: Obj = {"apiVersion": "v1", "kind": "W", "metadata": {}}
    for number in range(15):
        new = {
            **deep_copy(live),
            "spec": {**live.get("spec", {}), "map": {**live.get("spec", {}).get("map", {}), f"k{number}": 1}},
        }
        apply.update_managed_fields(
            None if number == 0 else {**live, "metadata": {**live["metadata"], "uid": "u"}},
            new,
            f"m{number:02}",
            context=CONTEXT,
            now=f"2030-01-01T00:00:{number:02}Z",
        )
        live = new
    managers = [entry["manager"] for entry in live["metadata"]["managedFields"]]
    assert len(managers) == 10
    assert "ancient-changes" in managers
    owned = [FieldSet.from_obj(entry["fieldsV1"]) for entry in live["metadata"]["managedFields"]]
    assert all(any(fields.has(("f:spec", "f:map", f"f:k{number}")) for fields in owned) for number in range(15))


def test_broken_managed_fields_do_not_stop_writes() -> None:
    live = {
        "apiVersion": "v1",
        "kind": "W",
        "metadata": {"uid": "u", "managedFields": [{"manager": "x", "operation": "Frob"}]},
        "spec": {"text": "x"},
    }
    new = deep_copy(live) | {"spec": {"text": "y"}}
    apply.update_managed_fields(live, new, "m", context=CONTEXT, now=NOW)
    assert "managedFields" not in new["metadata"]


def test_objects_without_a_schema_can_be_applied() -> None:
    for schema in (None, {"type": "object", "x-kubernetes-preserve-unknown-fields": True}):
        context = Context(typed.of_custom_resource(schema), "v1", {"apiVersion": "v1", "kind": "W"})
        config = {"apiVersion": "v1", "kind": "W", "metadata": {"name": "x"}, "spec": {"a": {"b": [1]}}}
        live = apply.apply(deep_copy(context.empty), config, "m", context=context, now=NOW)
        assert live["metadata"]["managedFields"][0]["fieldsV1"] == {"f:spec": {".": {}, "f:a": {".": {}, "f:b": {}}}}
        assert "spec" not in without_nulls(
            apply.apply(live, {"apiVersion": "v1", "kind": "W"}, "m", context=context, now=NOW)
        )


def test_writes_of_scale_leave_no_time() -> None:
    head = {"apiVersion": "apps/v1", "kind": "Deployment", "metadata": {"name": "d", "uid": "u"}}
    main = context_for(head, "")
    scale = replace(main, subresource="scale")
    live = apply.apply(deep_copy(main.empty), {**head, "spec": {"paused": True}}, "m", context=main, now=NOW)
    new = deep_copy(live)
    new["spec"]["replicas"] = 3
    apply.update_managed_fields(live, new, "hpa", context=scale, now=NOW)
    new = apply.apply(new, {**head, "spec": {"replicas": 4}}, "s", context=scale, now=NOW, force=True)
    found = {(entry["manager"], entry.get("subresource")): entry for entry in new["metadata"]["managedFields"]}
    assert found.keys() == {("m", None), ("s", "scale")}
    assert found["m", None]["time"] == NOW
    assert "time" not in found["s", "scale"]
    apply.update_managed_fields(
        new, again := {**new, "spec": {**new["spec"], "replicas": 5}}, "hpa", context=scale, now=NOW
    )
    assert [
        entry for entry in again["metadata"]["managedFields"] if entry["manager"] == "hpa" and "time" in entry
    ] == []
