"""Built-in objects are read and shown as the server's Go types do it. Recorded from Kubernetes v1.36 where it says so."""

# ruff: noqa: E501

import gzip
import json
from pathlib import Path

import pytest

from bowsprit.machinery import builtin, codec, gotypes
from bowsprit.machinery.codec import DecodeError
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj, gvk

GOLDEN = Path(__file__).parents[1] / "golden/apiserver"


def recorded(name: str) -> list[Obj]:
    return [json.loads(line) for line in gzip.decompress((GOLDEN / f"cases/{name}.jsonl.gz").read_bytes()).splitlines()]


def read(obj: Obj) -> Obj:
    type_ = builtin.lookup(gvk(obj))
    assert type_ is not None
    return type_.round_trip(obj)


def test_field_numbers_are_those_of_the_proto_files() -> None:
    messages = json.loads(gzip.decompress((GOLDEN / "protobuf-fields.json.gz").read_bytes()))
    compared = 0
    for message, fields in messages.items():
        if gotypes.has_message(message) and not message.endswith("runtime.Unknown") and gotypes.fields_of(message):
            assert {field.number for field in gotypes.fields_of(message) if field.number} == {
                entry[0] for entry in fields.values()
            }, message
            compared += 1
    assert compared > 1100


def test_recorded_answers_are_fixed_points() -> None:
    compared = 0
    for case in recorded("protobuf") + recorded("fieldvalidation") + recorded("crds"):
        body = (case.get("response") or {}).get("body")
        if (
            isinstance(body, dict)
            and "kind" in body
            and body["kind"] != "Table"
            and builtin.lookup(gvk(body)) is not None
        ):
            assert read(body) == body, case["id"]
            compared += 1
    assert compared > 100


def test_zero_values_are_dropped_and_structs_added() -> None:
    pod = {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p", "labels": {}, "creationTimestamp": None, "bogus": 1},
        "spec": {
            "hostNetwork": False,
            "automountServiceAccountToken": False,
            "priority": 0,
            "nodeName": "",
            "containers": [
                {
                    "name": "c",
                    "resources": {"limits": {"cpu": "1000m", "memory": 1024}},
                    "args": [],
                    "ports": None,
                    "u": 1,
                }
            ],
        },
    }
    assert read(pod) == {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": "p"},
        "spec": {
            "automountServiceAccountToken": False,
            "priority": 0,
            "containers": [{"name": "c", "resources": {"limits": {"cpu": "1", "memory": "1024"}}}],
        },
        "status": {},
    }


def test_zero_values_are_not_shared_between_objects() -> None:
    first = read({"apiVersion": "apps/v1", "kind": "Deployment"})
    first["spec"]["template"]["metadata"]["labels"] = {"a": "b"}
    assert read({"apiVersion": "apps/v1", "kind": "Deployment"})["spec"] == {
        "selector": None,
        "template": {"metadata": {}, "spec": {"containers": None}},
        "strategy": {},
    }


@pytest.mark.parametrize(
    ("obj", "message"),
    [
        ({"kind": "Pod", "spec": {"containers": "x"}}, "cannot unmarshal string into Go struct field PodSpec.spec.containers of type []v1.Container"),
        ({"kind": "Pod", "spec": {"terminationGracePeriodSeconds": "x"}}, "cannot unmarshal string into Go struct field PodSpec.spec.terminationGracePeriodSeconds of type int64"),
        ({"kind": "Service", "spec": {"ports": [{"port": "x"}]}}, "cannot unmarshal string into Go struct field ServicePort.spec.ports.port of type int32"),
        ({"kind": "ConfigMap", "data": {"a": True}}, "cannot unmarshal bool into Go struct field ConfigMap.data of type string"),
        ({"kind": "ConfigMap", "metadata": {"labels": {"a": 1}}}, "cannot unmarshal number into Go struct field ObjectMeta.metadata.labels of type string"),
        ({"kind": "Service", "spec": {"ports": [{"port": 5000000000}]}}, "cannot unmarshal number 5000000000 into Go struct field ServicePort.spec.ports.port of type int32"),
        ({"kind": "Pod", "spec": []}, "cannot unmarshal array into Go struct field Pod.spec of type v1.PodSpec"),
    ],
)  # fmt: skip
def test_wrong_types_are_told_as_go_tells_them(obj: Obj, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read({"apiVersion": "v1", **obj})
    assert str(caught.value) == f"json: {message}"


@pytest.mark.parametrize(
    ("group", "obj", "message"),
    [
        ("v1", {"kind": "Secret", "data": {"a": "!"}}, "illegal base64 data at input byte 0"),
        ("v1", {"kind": "Secret", "data": {"a": "YQ==1"}}, "illegal base64 data at input byte 4"),
        ("v1", {"kind": "Secret", "data": {"a": "AAAA="}}, "illegal base64 data at input byte 4"),
        ("v1", {"kind": "Secret", "data": {"a": "AA=A"}}, "illegal base64 data at input byte 2"),
        ("v1", {"kind": "Secret", "data": {"a": "AAA"}}, "illegal base64 data at input byte 0"),
        ("v1", {"kind": "Secret", "data": {"a": "AA\n\nA"}}, "illegal base64 data at input byte 2"),
        (
            "v1",
            {"kind": "Pod", "metadata": {"creationTimestamp": "x"}},
            'parsing time "x" as "2006-01-02T15:04:05Z07:00": cannot parse "x" as "2006"',
        ),
        (
            "v1",
            {"kind": "ResourceQuota", "spec": {"hard": {"pods": "x"}}},
            "quantities must match the regular expression",
        ),
        (
            "v1",
            {"kind": "ResourceQuota", "spec": {"hard": {"pods": True}}},
            "quantities must match the regular expression",
        ),
    ],
)
def test_special_values_are_checked(group: str, obj: Obj, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        read({"apiVersion": group, **obj})
    assert str(caught.value).startswith(message)


def test_strict_errors_come_in_the_order_of_the_text() -> None:
    text = b'{"apiVersion":"v1","kind":"ConfigMap","metadata":{"name":"x","bogusMeta":1},"data":{"a":"1","a":"2"},"bogus":{"c":1,"c":2}}'
    config_map = builtin.lookup(GroupVersionKind("", "v1", "ConfigMap"))
    assert config_map is not None
    tree = codec.decode_json_pairs(text, codec.decode_json(text))
    assert config_map.strict_errors(tree) == [
        'unknown field "metadata.bogusMeta"',
        'duplicate field "data.a"',
        'unknown field "bogus"',
    ]


def test_strict_errors_point_into_lists() -> None:
    pod = builtin.lookup(GroupVersionKind("", "v1", "Pod"))
    assert pod is not None
    obj = {
        "spec": {
            "containers": [{"name": "c", "bogus": 1, "resources": {"limit": {}}}, {"ports": [{"containerport": 80}]}]
        }
    }
    assert pod.strict_errors(obj) == [
        'unknown field "spec.containers[0].bogus"',
        'unknown field "spec.containers[0].resources.limit"',
        'unknown field "spec.containers[1].ports[0].containerport"',
    ]
    assert len(pod.strict_errors({f"u{n}": 1 for n in range(1000)})) == 100


def test_custom_resources_are_no_built_in_types() -> None:
    assert builtin.lookup(GroupVersionKind("example.com", "v1", "Widget")) is None
    with pytest.raises(KeyError):
        builtin.message_type("k8s.io.api.core.v1.Nope")


def test_empty_lists_that_are_always_there_are_null() -> None:
    role = {"kind": "Role", "apiVersion": "rbac.authorization.k8s.io/v1", "metadata": {"name": "r"}, "rules": []}
    assert read(role)["rules"] is None
    pod = read({"kind": "Pod", "apiVersion": "v1", "spec": {"containers": [], "tolerations": []}})
    assert (pod["spec"]["containers"], "tolerations" in pod["spec"]) == (None, False)
