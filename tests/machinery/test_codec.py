"""JSON and YAML are read as upstream's decoders read them, and refused with their words."""

import json
from decimal import Decimal

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.machinery import codec
from bowsprit.machinery.codec import DecodeError

TEXT = st.text(st.characters(exclude_categories=["Cs", "Cc"]), max_size=20)
JSON_VALUES = st.recursive(
    st.none()
    | st.booleans()
    | st.integers(-(2**63), 2**63 - 1)
    | st.floats(allow_nan=False, allow_infinity=False).filter(lambda x: not x.is_integer())
    | TEXT,
    lambda children: st.lists(children, max_size=4) | st.dictionaries(TEXT, children, max_size=4),
    max_leaves=15,
)


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("", "unexpected end of JSON input"),
        ('{"apiVersion":"v1",', "unexpected end of JSON input"),
        ("{a", "invalid character 'a' looking for beginning of object key string"),
        ("[1 2]", "invalid character '2' after array element"),
        ('{"a" 1}', "invalid character '1' after object key"),
        ('{"a":1]', "invalid character ']' after object key:value pair"),
        ('"\x01"', "invalid character '\\x01' in string literal"),
        ("truE", "invalid character 'E' in literal true (expecting 'e')"),
        ("1.x", "invalid character 'x' after decimal point in numeric literal"),
        ("{} x", "invalid character 'x' after top-level value"),
        ("'a'", "invalid character '\\'' looking for beginning of value"),
        ("NaN", "invalid character 'N' looking for beginning of value"),
        ("[" * 100_000, "exceeded max depth"),
        ("[" * 600 + "]" * 600, "exceeded max depth"),
        ('{"a":' * 251 + "1" + "}" * 251, "exceeded max depth"),
    ],
)
def test_json_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode_json(text.encode())
    assert str(caught.value) == message


def test_json_at_the_depth_limit_is_read() -> None:
    assert codec.decode_json(b"[" * codec.MAX_DEPTH + b"]" * codec.MAX_DEPTH)


def test_broken_text_becomes_replacement_characters() -> None:
    assert codec.decode_json(b'{"a":"\\ud800x\xff"}') == {"a": "\ufffdx\ufffd"}


def test_integers_beyond_64_bits_become_floats() -> None:
    assert codec.decode_json(b"[9223372036854775807, 123456789012345678901234567890]") == [
        2**63 - 1,
        1.2345678901234568e29,
    ]


def test_strict_json_tells_each_repeated_key_once_in_order() -> None:
    text = b'{"z":{"x":1,"x":2},"b":[{"c":1},{"c":1,"c":2,"c":3}],"b":[]}'
    assert codec.decode_json_strict(text) == (
        {"z": {"x": 2}, "b": []},
        ['duplicate field "z.x"', 'duplicate field "b[1].c"', 'duplicate field "b"'],
    )


@given(JSON_VALUES)
def test_json_round_trip(value: object) -> None:
    assert codec.decode_json(codec.encode_json(value)) == value
    spaced = json.dumps(value, indent=1).encode()
    assert codec.decode_json_strict(spaced) == (value, [])


def go_int(text: str) -> int | float:
    number = int(text)
    if -(2**63) <= number < 2**63:
        return number
    digits = int(Decimal(repr(float(number))))
    return digits if digits < 2**64 and digits > 0 else float(number)


@given(st.binary(max_size=40) | st.text(alphabet='{}[]":,0123456789.eE+-truefalsnl\\ \n', max_size=30).map(str.encode))
def test_any_bytes_are_read_or_refused(data: bytes) -> None:
    try:
        value = codec.decode_json(data)
    except DecodeError:
        with pytest.raises((ValueError, RecursionError)):
            json.loads(data.decode("utf-8", "replace"), parse_constant=float.fromhex)
    else:
        assert json.loads(data.decode("utf-8", "replace"), parse_int=go_int) == value


@pytest.mark.parametrize(
    ("text", "value"),
    [
        ("y", True),
        ("on", True),
        ("No", False),
        ("~", None),
        ("", None),
        ("0777", 511),
        ("0o17", 15),
        ("0x1F", 31),
        ("-0b11", -3),
        ("1_000", 1000),
        ("+5", 5),
        (".5", 0.5),
        ("1e3", 1000),
        ("1.0", 1),
        ("1.50", 1.5),
        ("0o", "0o"),
        ("089", 89),
        ("2001-01-01", "2001-01-01"),
        ("2001-01-01T00:00:00Z", "2001-01-01T00:00:00Z"),
        ("12:30:45", "12:30:45"),
        ('"y"', "y"),
        ("!!str 5", "5"),
        ("!!binary aGk=", "hi"),
        ("1.2.3", "1.2.3"),
        ("=", "="),
        ("18446744073709551615", 2**64 - 1),
    ],
)
def test_yaml_scalars(text: str, value: object) -> None:
    decoded = codec.decode_yaml(f"a: {text}\n")["a"]
    assert decoded == value
    assert type(decoded) is type(value)


def test_yaml_keys_become_strings() -> None:
    assert codec.decode_yaml("1: a\ntrue: b\n~: c\n1.5: d\n") == {"1": "a", "true": "b", "null": "c", "1.5": "d"}


def test_yaml_merge_keys_and_aliases() -> None:
    text = "x: &a {b: 1, c: 2}\nz: {<<: *a, c: 3}\nl: {<<: [{b: 5}, *a]}\nw: *a\n"
    value = codec.decode_yaml(text)
    assert value["z"] == {"b": 1, "c": 3}
    assert value["l"] == {"b": 5, "c": 2}
    value["w"]["b"] = 9
    assert value["x"] == {"b": 1, "c": 2}, "an alias is a copy"


def test_strict_yaml_tells_repeated_keys_with_their_lines() -> None:
    value, errors = codec.decode_yaml_strict("a: 1\na: 2\nb:\n  x: 1\n  x:\n    q: 1\n")
    assert value == {"a": 2, "b": {"x": {"q": 1}}}
    assert errors == [
        'yaml: unmarshal errors:\n  line 2: key "a" already set in map\n  line 6: key "x" already set in map'
    ]


@pytest.mark.parametrize(
    ("text", "message"),
    [
        ("a: [", "yaml: line 1: did not find expected node content"),
        ("a: b: c", "yaml: mapping values are not allowed in this context"),
        ("\ta: 1", "yaml: found character that cannot start any token"),
        ("a: *b", "yaml: unknown anchor 'b' referenced"),
        ("a: \x01", "yaml: control characters are not allowed"),
        ("? {a: b}\n: c", "yaml: unsupported map key of type map"),
        ("a: .nan", "json: unsupported value: NaN"),
        ("[" * 300 + "]" * 300, "yaml: exceeded max depth"),
    ],
)
def test_yaml_that_is_refused(text: str, message: str) -> None:
    with pytest.raises(DecodeError) as caught:
        codec.decode_yaml(text)
    assert str(caught.value) == message


def test_a_laughing_yaml_is_refused() -> None:
    levels = ["a0: &a0 [x]"] + [f"a{i}: &a{i} [{','.join([f'*a{i - 1}'] * 10)}]" for i in range(1, 12)]
    with pytest.raises(DecodeError, match="excessive aliasing"):
        codec.decode_yaml("\n".join(levels))


def test_all_documents_of_a_stream() -> None:
    assert codec.decode_yaml_all(b"---\n---\na: 1\n---\nb: 2\n...\n# end\n") == [{"a": 1}, {"b": 2}]
    assert codec.decode_yaml(b"a: 1\n---\nb: 2\n") == {"a": 1}


@settings(max_examples=60)
@given(JSON_VALUES)
def test_yaml_round_trip(value: object) -> None:
    assert codec.decode_yaml(codec.encode_yaml(value)) == value
    assert codec.decode_yaml(codec.encode_json(value)) == value


def test_yaml_layout_is_kubectls() -> None:
    obj = {
        "b": "y",
        "a": [{"x": 1, "n": None}],
        "t": "true",
        "m": "a\nb\n",
        "e": {},
        "l": [],
        "f": 1.5,
        "s": "- x",
        "k": "é",
    }
    assert codec.encode_yaml(obj) == (
        'a:\n- "n": null\n  x: 1\nb: "y"\ne: {}\nf: 1.5\nk: é\nl: []\nm: |\n  a\n  b\ns: \'- x\'\nt: "true"\n'
    )
