"""The three kinds of patches. The replayed exchanges are recorded from Kubernetes v1.36."""

import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bowsprit.machinery import builtin, jsonpatch, mergepatch, strategicpatch
from bowsprit.machinery.codec import DecodeError
from bowsprit.machinery.jsonpatch import JSONPatchError
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj, deep_copy, gvk
from bowsprit.machinery.strategicpatch import StrategicPatchError

CASES = gzip.decompress(
    (Path(__file__).parents[1] / "golden/apiserver/cases/patches.jsonl.gz").read_bytes()
).splitlines()


def patched(live: Obj, content_type: str, patch: object) -> Obj:
    type_ = builtin.lookup(gvk(live))
    assert type_ is not None
    if "json-patch" in content_type:
        return type_.round_trip(jsonpatch.apply(live, jsonpatch.check(patch)))
    if "strategic" in content_type:
        return type_.round_trip(strategicpatch.apply(live, patch, type_))
    return type_.round_trip(mergepatch.apply(live, patch))


def covers(recorded: object, ours: object) -> bool:
    """Whether the recorded answer has all that we have, in our order: it may have more, which the server defaults."""
    if isinstance(recorded, dict) and isinstance(ours, dict):
        return all(covers(recorded.get(key), value) for key, value in ours.items() if value not in (0, {}))
    if isinstance(recorded, list) and isinstance(ours, list):
        return len(recorded) == len(ours) and all(map(covers, recorded, ours))
    return recorded == ours


def removed(before: object, after: object, where: str = "") -> set[str]:
    """Paths of the members that a change took away."""
    if isinstance(before, dict) and isinstance(after, dict):
        gone = {f"{where}.{key}" for key in before if key not in after}
        return gone.union(*(removed(before[key], after[key], f"{where}.{key}") for key in before if key in after))
    return set()


def test_recorded_patches_give_the_recorded_objects() -> None:
    objects: dict[str, Obj] = {}
    replayed = 0
    for case in map(json.loads, CASES):
        request, response = case["request"], case["response"]
        path, body = request["path"].partition("?")[0].removesuffix("/status"), response.get("body")
        if request["method"] == "POST" and body:
            objects[f"{path}/{body['metadata']['name']}"] = body
        if request["method"] != "PATCH" or response["status"] != 200 or path not in objects:
            continue
        patch = request["body"] if "body" in request else json.loads(request["bodyText"])
        live = objects[path]
        ours = patched(live, request["headers"]["content-type"], patch)
        for obj in (ours, body):
            for field in ("resourceVersion", "generation"):
                obj["metadata"].pop(field, None)
        assert covers(body, ours), case["id"]
        if case["id"] != "patches/json/replace-root":  # the server keeps its own metadata
            assert {path for path in removed(live, ours) if path.startswith(".metadata.")} <= removed(live, body) | {
                ".metadata.resourceVersion",
                ".metadata.generation",
            }
        objects[path] = body
        replayed += 1
    assert replayed > 60


@pytest.mark.parametrize(
    ("document", "operations", "expected"),
    [
        ({"a": 1}, [{"op": "add", "path": "/b", "value": 2}], {"a": 1, "b": 2}),
        (
            {"a": [1]},
            [{"op": "add", "path": "/a/0", "value": 0}, {"op": "add", "path": "/a/-", "value": 2}],
            {"a": [0, 1, 2]},
        ),
        ({"a/b": {"~": 1}}, [{"op": "remove", "path": "/a~1b/~0"}], {"a/b": {}}),
        ({"a": 1}, [{"op": "move", "from": "/a", "path": "/b"}], {"b": 1}),
        ({"a": [1, 2]}, [{"op": "remove", "path": "/a/-1"}], {"a": [1]}),
        ({}, [{"op": "copy", "from": "/x", "path": "/b"}], {"b": None}),
        ({}, [{"op": "replace", "path": "/b", "value": 1}], {"b": 1}),
        (
            {"a": 1},
            [{"op": "test", "path": "/a", "value": 1}, {"op": "replace", "path": "", "value": {"c": 1}}],
            {"c": 1},
        ),
    ],
)
def test_json_patch(document: Obj, operations: list[Obj], expected: Obj) -> None:
    before = deep_copy(document)
    assert jsonpatch.apply(document, operations) == expected
    assert document == before


@pytest.mark.parametrize(
    ("operation", "message"),
    [
        (
            {"op": "remove", "path": "/nope"},
            "error in remove for path: '/nope': Unable to remove nonexistent key: nope: missing value",
        ),
        (
            {"op": "add", "path": "/x/y", "value": 1},
            'add operation does not apply: doc is missing path: "/x/y": missing value',
        ),
        ({"op": "add", "path": "/l/9", "value": 1}, "Unable to access invalid index: 9"),
        ({"op": "add", "path": "/l/x", "value": 1}, 'strconv.Atoi: parsing "x": invalid syntax'),
        ({"op": "test", "path": "/b", "value": 1}, "testing value /b failed: test failed"),
        ({"op": "frob", "path": "/a"}, "Unexpected kind: frob"),
        ({"op": "add"}, "add operation: missing path field"),
        ({"op": "move", "path": "/a"}, "move operation: missing from field"),
    ],
)
def test_json_patches_that_do_not_apply(operation: Obj, message: str) -> None:
    with pytest.raises(JSONPatchError) as caught:
        jsonpatch.apply({"l": [1], "b": True}, [operation])
    assert message in str(caught.value)


def test_json_patch_bodies() -> None:
    with pytest.raises(DecodeError, match=r"cannot unmarshal object into Go value of type \[\]handlers.jsonPatchOp"):
        jsonpatch.check({"op": "add"})
    assert jsonpatch.unknown_fields([{"op": "add", "path": "/a", "foo": 1}]) == ['json patch unknown field "[0].foo"']


VALUES = st.recursive(
    st.none() | st.booleans() | st.integers(0, 3),
    lambda below: st.lists(below, max_size=3) | st.dictionaries(st.sampled_from("abc"), below, max_size=3),
    max_leaves=8,
)
OBJECTS = st.dictionaries(st.sampled_from("abc"), VALUES, max_size=3)
POINTERS = st.lists(st.sampled_from(["a", "b", "c", "0", "-", "-1"]), max_size=3).map(
    lambda tokens: "".join(f"/{token}" for token in tokens)
)
OPERATIONS = st.fixed_dictionaries(
    {
        "op": st.sampled_from(["add", "remove", "replace", "move", "copy", "test"]),
        "path": POINTERS,
        "from": POINTERS,
        "value": VALUES,
    }
)


@given(OBJECTS, st.lists(OPERATIONS, max_size=4))
def test_any_json_patch_applies_or_is_refused(document: Obj, operations: list[Obj]) -> None:
    before = deep_copy(document)
    try:
        json.dumps(jsonpatch.apply(document, operations))
    except JSONPatchError:
        pass
    assert document == before


def without_nulls(value: object) -> object:
    return (
        {key: without_nulls(member) for key, member in value.items() if member is not None}
        if isinstance(value, dict)
        else value
    )


@given(OBJECTS, OBJECTS)
def test_a_merge_diff_leads_to_the_other_object(old: Obj, new: Obj) -> None:
    old, new = without_nulls(old), without_nulls(new)
    assert mergepatch.apply(old, mergepatch.diff(old, new)) == new


@given(OBJECTS, VALUES)
def test_merging_twice_changes_nothing_more(target: Obj, patch: object) -> None:
    once = mergepatch.apply(target, patch)
    assert mergepatch.apply(once, patch) == once


POD = builtin.message_type("k8s.io.api.core.v1.Pod")


def test_strategic_list_directives() -> None:
    live = {"spec": {"containers": [{"name": "a", "image": "1"}, {"name": "b", "image": "2"}]}}
    patch = {
        "spec": {
            "$setElementOrder/containers": [{"name": "c"}, {"name": "a"}],
            "containers": [{"name": "c", "image": "3"}, {"name": "b", "$patch": "delete"}],
        }
    }
    assert strategicpatch.apply(live, patch, POD) == {
        "spec": {"containers": [{"name": "c", "image": "3"}, {"name": "a", "image": "1"}]}
    }
    assert live["spec"]["containers"][1] == {"name": "b", "image": "2"}


def test_directives_in_added_values_are_carried_out_not_stored() -> None:
    patch = {
        "spec": {
            "containers": [{"name": "a", "$patch": "delete"}, {"name": "b", "env": None}],
            "securityContext": {"$patch": "delete"},
        }
    }
    assert strategicpatch.apply({}, patch, POD) == {"spec": {"containers": [{"name": "b"}]}}


def test_maps_of_unknown_members_merge_as_maps() -> None:
    live = {"metadata": {"annotations": {"a": "1", "b": "2"}}}
    assert strategicpatch.apply(live, {"metadata": {"annotations": {"a": None, "c": "3"}}}, POD) == {
        "metadata": {"annotations": {"b": "2", "c": "3"}}
    }


@pytest.mark.parametrize(
    ("patch", "message"),
    [
        (
            {"spec": {"nodeSelector": {"$patch": "frobnicate"}}},
            "unknown patch type: frobnicate in map: map[$patch:frobnicate]",
        ),
        ({"spec": {"containers": [{"image": "x"}]}}, "map: map[image:x] does not contain declared merge key: name"),
        (
            {"spec": {"containers": [{"name": "a", "$patch": "merge"}]}},
            "merging lists cannot yet be specified in the patch",
        ),
        ({"spec": {"$setElementOrder/containers": "x"}}, "invalid patch format of setElementOrder list"),
        ({"spec": {"$retainKeys": ["a"], "hostNetwork": True}}, "invalid patch format of retainKeys"),
        (
            {
                "spec": {
                    "$setElementOrder/containers": [{"name": "a"}, {"name": "b"}],
                    "containers": [{"name": "b"}, {"name": "a"}],
                }
            },
            "The order in patch list:",
        ),
    ],
)
def test_strategic_patches_that_do_not_apply(patch: Obj, message: str) -> None:
    with pytest.raises(StrategicPatchError) as caught:
        strategicpatch.apply({"spec": {"nodeSelector": {"x": "y"}, "containers": [{"name": "a"}]}}, patch, POD)
    assert str(caught.value).startswith(message)


NAMES = st.sampled_from("abcd")
CONTAINERS = st.lists(NAMES, unique=True, max_size=4).map(
    lambda names: [{"name": name, "image": "old"} for name in names]
)


@given(CONTAINERS, CONTAINERS)
def test_merged_lists_hold_each_element_once(live: list[Obj], added: list[Obj]) -> None:
    patch = {"spec": {"containers": [{"name": item["name"], "image": "new"} for item in added]}}
    merged = strategicpatch.apply({"spec": {"containers": live}}, patch, POD)["spec"]["containers"]
    names = [item["name"] for item in merged]
    assert len(names) == len(set(names))
    assert set(names) == {item["name"] for item in live + added}
    assert [item["name"] for item in merged if item["image"] == "new"] == [item["name"] for item in added]


def test_lookup_of_the_type_of_a_patch() -> None:
    assert builtin.lookup(GroupVersionKind("", "v1", "Pod")) is POD
