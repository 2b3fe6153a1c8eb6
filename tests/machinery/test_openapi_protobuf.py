"""OpenAPI v2 documents in gnostic's protobuf messages, read back field by field."""

from bowsprit.machinery.objects import Obj
from bowsprit.machinery.openapi_protobuf import encode_v2
from bowsprit.machinery.protobufdecoding import read_fields

DOCUMENT: Obj = {
    "swagger": "2.0",
    "info": {"title": "T", "version": "1"},
    "paths": {
        "/b": {
            "get": {
                "operationId": "readB",
                "consumes": ["*/*"],
                "parameters": [
                    {"name": "q", "in": "query", "type": "boolean", "uniqueItems": True},
                    {"name": "p", "in": "path", "required": True, "type": "string"},
                    {"name": "body", "in": "body", "schema": {"$ref": "#/definitions/D"}},
                    {"$ref": "#/parameters/x"},
                ],
                "responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/D"}}},
                "x-kubernetes-action": "get",
            }
        },
        "/a": {},
    },
    "definitions": {
        "D": {
            "type": "object",
            "required": ["k"],
            "properties": {"k": {"type": "array", "items": {"type": "string"}, "default": ""}},
            "additionalProperties": False,
            "x-kubernetes-group-version-kind": [{"group": "", "version": "v1", "kind": "D"}],
        },
        "M": {"additionalProperties": {"type": "integer", "minimum": 1}},
    },
    "security": [{"BearerToken": []}],
    "securityDefinitions": {"BearerToken": {"type": "apiKey", "name": "authorization", "in": "header"}},
}


def fields(data: bytes) -> dict[int, list[bytes | int]]:
    found: dict[int, list[bytes | int]] = {}
    for number, wire, value, end in read_fields(data, 0, len(data)):
        found.setdefault(number, []).append(value if wire == 0 else data[value:end])
    return found


def at(data: bytes, *numbers: int) -> bytes:
    for number in numbers:
        [value] = fields(data)[number]
        assert isinstance(value, bytes)
        data = value
    return data


def named(data: bytes, number: int) -> dict[str, bytes]:
    """Pairs of a name and the bytes of a value."""
    pairs = [fields(pair) for pair in fields(data)[number] if isinstance(pair, bytes)]
    return {pair[1][0].decode(): pair[2][0] for pair in pairs if isinstance(pair[1][0], bytes)}  # type: ignore[misc]


ENCODED = encode_v2(DOCUMENT)


def test_the_document() -> None:
    assert at(ENCODED, 1) == b"2.0"
    assert at(ENCODED, 2, 1) == b"T"
    assert list(named(at(ENCODED, 8), 2)) == ["/a", "/b"]
    assert list(named(at(ENCODED, 9), 1)) == ["D", "M"]
    assert named(at(ENCODED, 12), 1) == {"BearerToken": b""}
    assert at(named(at(ENCODED, 13), 1)["BearerToken"], 2, 3) == b"header"


def test_schemas() -> None:
    schemas = named(at(ENCODED, 9), 1)
    assert at(schemas["D"], 22, 1) == b"object"
    assert at(schemas["D"], 19) == b"k"
    assert fields(at(schemas["D"], 21)) == {2: [0]}, "additionalProperties: false is said, not left out"
    k = named(at(schemas["D"], 25), 1)["k"]
    assert at(k, 23, 1, 22, 1) == b"string"
    assert at(k, 5, 2) == b'""\n'
    assert (
        at(named(schemas["D"], 31)["x-kubernetes-group-version-kind"], 2) == b'- group: ""\n  kind: D\n  version: v1\n'
    )
    assert at(schemas["M"], 21, 1, 22, 1) == b"integer"
    assert at(schemas["M"], 21, 1, 9) == b"\x00\x00\x00\x00\x00\x00\xf0?"


def test_operations() -> None:
    operation = at(named(at(ENCODED, 8), 2)["/b"], 2)
    assert at(operation, 5) == b"readB"
    assert at(operation, 7) == b"*/*"
    query, path, body, reference = (value for value in fields(operation)[8] if isinstance(value, bytes))
    assert at(query, 1, 2, 3, 4) == b"q"
    assert fields(at(query, 1, 2, 3))[20] == [1]
    assert fields(at(path, 1, 2, 4))[1] == [1]
    assert at(path, 1, 2, 4, 5) == b"string"
    assert at(body, 1, 1, 5, 1) == b"#/definitions/D"
    assert at(reference, 2, 1) == b"#/parameters/x"
    response = named(at(operation, 9), 1)["200"]
    assert at(response, 1, 1) == b"OK"
    assert at(response, 1, 2, 1, 1) == b"#/definitions/D"
    assert at(named(operation, 13)["x-kubernetes-action"], 2) == b"get\n"
