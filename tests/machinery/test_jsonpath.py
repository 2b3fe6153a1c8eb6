"""JSONPaths of printer columns, selectable fields and scale."""

import pytest

from bowsprit.machinery import jsonpath
from bowsprit.machinery.jsonpath import JSONPath, JSONPathError

OBJ = {
    "spec": {"tags": ["x", "y", "z"], "size": 3, "a.b": {"c": 1}},
    "status": {"conditions": [{"type": "Ready", "status": "True", "n": 2}, {"type": "Other", "status": "False"}]},
}


@pytest.mark.parametrize(
    ("path", "found"),
    [
        (".spec.size", [3]),
        ("{.spec.size}", [3]),
        ("$.spec.size", [3]),
        (".spec.nope.deeper", []),
        (".spec.tags[*]", ["x", "y", "z"]),
        (".spec.tags[0]", ["x"]),
        (".spec.tags[-1]", ["z"]),
        (".spec.tags[7]", []),
        (".spec.tags[0:2]", ["x", "y"]),
        (".spec.tags[0,2]", ["x", "z"]),
        (".spec['a.b'].c", [1]),
        (r".spec.a\.b.c", [1]),
        ('.status.conditions[?(@.type=="Ready")].status', ["True"]),
        (".status.conditions[?(@.type!='Ready')].status", ["False"]),
        (".status.conditions[?(@.n>1)].type", ["Ready"]),
        (".status.conditions[?(@.n)].type", ["Ready"]),
        ("..type", ["Ready", "Other"]),
        (".spec.*", [{"c": 1}, 3, ["x", "y", "z"]]),
    ],
)
def test_find(path: str, found: list[object]) -> None:
    assert JSONPath.parse(path).find(OBJ) == found


@pytest.mark.parametrize("path", ["x", ".a[", ".a[b]", ".a[?(@.b==c)]", ".a]"])
def test_paths_that_are_refused(path: str) -> None:
    with pytest.raises(JSONPathError):
        JSONPath.parse(path)


def test_helpers() -> None:
    assert JSONPath.parse(".spec.size").first(OBJ) == 3
    assert JSONPath.parse(".spec.nope").first(OBJ, 0) == 0
    assert jsonpath.is_simple(".spec.replicas")
    assert not jsonpath.is_simple(".spec.tags[0]")
    assert not jsonpath.is_simple("spec.replicas")
    assert jsonpath.value_text({"a": [1]}) == '{"a":[1]}'
    obj: dict[str, object] = {}
    jsonpath.set_simple(obj, ".spec.deep.replicas", 2)
    assert obj == {"spec": {"deep": {"replicas": 2}}}
