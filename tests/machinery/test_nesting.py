"""What the decoders let in, everything else can walk: no recursion limit is met, even deep in a server's stack."""

import json
from collections.abc import Callable

import pytest

from bowsprit.machinery import apply, builtin, codec, jsonpatch, mergepatch, protobuf, strategicpatch, typed
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.schema import CustomResourceSchema

LEVELS = 120
FRAMES_BELOW = 150
DEFINITIONS = builtin.lookup(GroupVersionKind("apiextensions.k8s.io", "v1", "CustomResourceDefinition"))
HEAD = {"apiVersion": "apiextensions.k8s.io/v1", "kind": "CustomResourceDefinition"}


def deep_schema() -> Obj:
    schema: Obj = {"type": "object"}
    for _ in range(LEVELS):
        schema = {"type": "object", "properties": {"a": schema}}
    return schema


def deep_object(levels: int) -> Obj:
    value: Obj = {}
    for _ in range(levels):
        value = {"a": value}
    return {"apiVersion": "e/v1", "kind": "W", "metadata": {"name": "x"}, **value}


def with_stack(frames: int, action: Callable[[], object]) -> object:
    return with_stack(frames - 1, action) if frames else action()


CRD = {
    **HEAD,
    "metadata": {"name": "x"},
    "spec": {"versions": [{"name": "v1", "schema": {"openAPIV3Schema": deep_schema()}}]},
}
SCHEMA, FREE = CustomResourceSchema(deep_schema()), CustomResourceSchema(None)
DEEPEST = deep_object(codec.MAX_DEPTH - 1)


def definition_context() -> apply.Context:
    assert DEFINITIONS is not None
    return apply.Context(typed.of_message(DEFINITIONS.message), HEAD["apiVersion"], DEFINITIONS.round_trip(dict(HEAD)))


ACTIONS: dict[str, Callable[[], object]] = {
    "json": lambda: codec.decode_json(json.dumps(CRD).encode()),
    "pairs": lambda: codec.decode_json_strict(json.dumps(CRD, indent=1).encode()),
    "yaml": lambda: codec.decode_yaml(codec.encode_yaml(CRD)),
    "protobuf": lambda: protobuf.decode(protobuf.encode(CRD)),
    "round trip": lambda: DEFINITIONS.round_trip(CRD),  # type: ignore[union-attr]
    "strict": lambda: DEFINITIONS.strict_errors(CRD),  # type: ignore[union-attr]
    "managed fields": lambda: apply.update_managed_fields(
        None, deep_copy(CRD), "m", context=definition_context(), now=""
    ),
    "custom resource": lambda: SCHEMA.validate(SCHEMA.decode(deep_object(LEVELS), deep_object(LEVELS))[0]),
    "free resource": lambda: FREE.validate(FREE.decode(DEEPEST, DEEPEST)[0]),
    "apply": lambda: apply.apply(
        {"apiVersion": "e/v1", "kind": "W"}, DEEPEST, "m", context=apply.Context(FREE.openapi(), "e/v1"), now=""
    ),
    "merge patch": lambda: mergepatch.apply(DEEPEST, DEEPEST),
    "JSON patch": lambda: jsonpatch.apply(DEEPEST, [{"op": "test", "path": "/a", "value": DEEPEST["a"]}]),
    "strategic patch": lambda: strategicpatch.apply(CRD, CRD, DEFINITIONS),  # type: ignore[arg-type]
}


@pytest.mark.parametrize("name", ACTIONS)
def test_the_deepest_objects_can_be_walked(name: str) -> None:
    with_stack(FRAMES_BELOW, ACTIONS[name])


def test_deeper_objects_do_not_get_in() -> None:
    text = json.dumps(deep_object(codec.MAX_DEPTH)).encode()
    with pytest.raises(codec.DecodeError, match="exceeded max depth"):
        codec.decode_json(text)
