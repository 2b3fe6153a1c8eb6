"""Protobuf bodies mean what their JSON means, and encode to the very bytes. Vectors recorded from Kubernetes v1.36."""

import base64
import gzip
import json
from pathlib import Path

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.machinery import protobuf
from bowsprit.machinery.codec import DecodeError
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj

CASES = [
    json.loads(line)
    for line in gzip.decompress(
        (Path(__file__).parents[1] / "golden/apiserver/cases/protobuf.jsonl.gz").read_bytes()
    ).splitlines()
]
VECTORS = {
    case["id"]: (base64.b64decode(case["protobufBase64"]), case["json"]) for case in CASES if "protobufBase64" in case
}

# A template's kind and apiVersion are put back by the StatefulSet's own defaulting, not by the encoding.
WITHOUT_TEMPLATE_KIND = "protobuf/read/statefulset-typical"
# The recorded raw JSON has spaces; ours is compact.
WITH_SPACES = "protobuf/read/controllerrevision"


@pytest.mark.parametrize("case", VECTORS)
def test_vectors_decode_to_their_json(case: str) -> None:
    data, expected = VECTORS[case]
    if case == WITHOUT_TEMPLATE_KIND:
        for template in expected["spec"]["volumeClaimTemplates"]:
            template.pop("kind", None)
            template.pop("apiVersion", None)
    assert protobuf.decode(data) == expected


@pytest.mark.parametrize("case", VECTORS)
def test_decoded_vectors_encode_to_the_same_bytes(case: str) -> None:
    data, _ = VECTORS[case]
    again = protobuf.encode(protobuf.decode(data))
    if case == WITH_SPACES:
        assert protobuf.decode(again) == protobuf.decode(data)
    else:
        assert again == data


def test_recorded_request_bodies_are_read() -> None:
    bodies = [
        case["request"]["bodyBase64"] for case in CASES if "bodyBase64" in case["request"] and "read" not in case["id"]
    ]
    for body in bodies:
        assert protobuf.decode(base64.b64decode(body))["kind"]


@pytest.mark.parametrize(
    ("data", "message"),
    [
        (b"", "empty data"),
        (b"not protobuf", "provided data does not appear to be a protobuf message, expected prefix [107 56 115 0]"),
        (b"k8s\x00", "empty body"),
        (b"k8s\x00\x0a\xff", "unexpected EOF"),
        (b"k8s\x00\x0a\x05ab", "unexpected EOF"),
        (b"k8s\x00\x00", "proto: illegal tag 0 (wire type 0)"),
        (b"k8s\x00\x0b", "proto: illegal wireType 3"),
        (b"k8s\x00" + b"\xff" * 11, "proto: integer overflow"),
    ],
)
def test_what_is_no_envelope(data: bytes, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        protobuf.decode(data)
    assert str(caught.value) == message


def envelope(raw: bytes, kind: str = "ConfigMap") -> bytes:
    type_meta = b"\x0a\x02v1\x12" + bytes([len(kind)]) + kind.encode()
    return b"k8s\x00\x0a" + bytes([len(type_meta)]) + type_meta + b"\x12" + bytes([len(raw)]) + raw


def test_a_field_with_the_wrong_wire_type_is_refused_and_an_unknown_one_skipped() -> None:
    with pytest.raises(DecodeError, match="proto: wrong wireType = 0 for field ObjectMeta"):
        protobuf.decode(envelope(b"\x08\x01"))
    assert protobuf.decode(envelope(b"\x98\x06\x01\x20\x00")) == {
        "kind": "ConfigMap",
        "apiVersion": "v1",
        "metadata": {},
        "immutable": False,
    }


def test_the_envelope_may_leave_the_type_to_the_caller() -> None:
    bare = b"k8s\x00\x12\x02\x08\x05"
    options = protobuf.decode(bare, GroupVersionKind("", "v1", "DeleteOptions"))
    assert options == {"kind": "DeleteOptions", "apiVersion": "v1", "gracePeriodSeconds": 5}


def test_meta_kinds_are_known_in_every_group_version() -> None:
    options: Obj = {
        "kind": "DeleteOptions",
        "apiVersion": "apps/v1",
        "propagationPolicy": "Background",
        "preconditions": {"uid": "u"},
    }
    assert protobuf.decode(protobuf.encode(options)) == options
    assert protobuf.is_supported(GroupVersionKind("", "v1", "Status"))
    assert not protobuf.is_supported(GroupVersionKind("meta.k8s.io", "v1", "Table"))
    assert not protobuf.is_supported(GroupVersionKind("example.com", "v1", "Widget"))


def test_a_type_that_is_not_built_in_keeps_its_name() -> None:
    assert protobuf.decode(b"k8s\x00\x0a\x0c\x0a\x02v1\x12\x06Widget\x12\x02\x08\x01") == {
        "kind": "Widget",
        "apiVersion": "v1",
    }
    with pytest.raises(KeyError):
        protobuf.encode({"kind": "Widget", "apiVersion": "v1"})


def test_deep_nesting_is_refused() -> None:
    schema: Obj = {}
    for _ in range(300):
        schema = {"items": schema}
    crd = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "spec": {"versions": [{"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}]},
    }
    with pytest.raises(DecodeError, match="exceeded max depth"):
        protobuf.decode(protobuf.encode(crd))


def test_special_types_round_trip() -> None:
    crd = {
        "kind": "CustomResourceDefinition",
        "apiVersion": "apiextensions.k8s.io/v1",
        "metadata": {},
        "spec": {
            "group": "g",
            "names": {"plural": "p", "kind": "K"},
            "scope": "Namespaced",
            "versions": [
                {
                    "name": "v1",
                    "served": True,
                    "storage": True,
                    "schema": {
                        "openAPIV3Schema": {
                            "type": "object",
                            "default": {"a": [1, None]},
                            "enum": ["x", 1],
                            "maximum": 1.5,
                            "additionalProperties": False,
                            "items": [{"type": "string"}],
                            "dependencies": {"a": ["b"], "c": {"type": "string"}},
                            "properties": {
                                "p": {
                                    "additionalProperties": {"type": "string"},
                                    "x-kubernetes-int-or-string": True,
                                    "$ref": "#/x",
                                }
                            },
                        }
                    },
                }
            ],
        },
        "status": {"conditions": None, "acceptedNames": {"plural": "", "kind": ""}, "storedVersions": None},
    }
    assert protobuf.decode(protobuf.encode(crd)) == crd
    lease = {
        "kind": "Lease",
        "apiVersion": "coordination.k8s.io/v1",
        "metadata": {"deletionTimestamp": "2024-01-01T00:00:00Z"},
        "spec": {"renewTime": "1969-12-31T23:59:59.999999Z", "leaseDurationSeconds": -5},
    }
    assert protobuf.decode(protobuf.encode(lease)) == lease


def test_watch_events_are_framed() -> None:
    pod = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": "a"}, "binaryData": {"b": "aGk="}}
    frame = protobuf.encode_watch_event("ADDED", protobuf.encode(pod))
    assert protobuf.decode_watch_events(frame * 2 + frame[:7]) == ([("ADDED", pod)] * 2, frame[:7])
    with pytest.raises(DecodeError, match="larger than the limit"):
        protobuf.decode_watch_events(b"\x7f\xff\xff\xff")
    with pytest.raises(DecodeError, match="without an object"):
        protobuf.decode_watch_events(b"\x00\x00\x00\x00")


def test_recorded_watch_events_are_read() -> None:
    for case in CASES:
        body = (case.get("response") or {}).get("bodyBase64")
        if body and "watch" in case["id"]:
            events, rest = protobuf.decode_watch_events(base64.b64decode(body))
            assert events
            assert not rest


SAMPLES = [data for data, _ in list(VECTORS.values())[::7]]


@settings(max_examples=300)
@given(
    st.sampled_from(SAMPLES),
    st.lists(st.tuples(st.integers(4, 10_000), st.integers(0, 255)), min_size=1, max_size=4),
    st.integers(0, 50),
)
def test_damaged_bodies_are_read_or_refused(data: bytes, changes: list[tuple[int, int]], cut: int) -> None:
    damaged = bytearray(data)
    for at, byte in changes:
        damaged[4 + at % (len(damaged) - 4)] = byte
    body = bytes(damaged[: len(damaged) - cut])
    try:
        obj = protobuf.decode(body)
    except DecodeError:
        return
    assert isinstance(obj, dict)
    json.dumps(obj)


@given(st.binary(max_size=60))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        protobuf.decode(b"k8s\x00\x0a\x0b\x0a\x02v1\x12\x05Event\x12" + bytes([len(data)]) + data)
    except DecodeError as error:
        assert str(error)  # noqa: PT017
