"""Texts as Go's fmt and encoding/json print them."""

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bowsprit.machinery import goformat


@pytest.mark.parametrize(
    ("number", "text"),
    [
        (0.0, "0"),
        (-0.0, "-0"),
        (0.3, "0.3"),
        (100000.0, "100000"),
        (1e6, "1e+06"),
        (123456789.0, "1.23456789e+08"),
        (0.0001, "0.0001"),
        (0.00001, "1e-05"),
        (-2.5, "-2.5"),
        (1e300, "1e+300"),
    ],
)
def test_floats(number: float, text: str) -> None:
    assert goformat.float_text(number) == text


@given(st.floats(allow_nan=False, allow_infinity=False))
def test_float_texts_read_back_exactly(number: float) -> None:
    assert float(goformat.float_text(number)) == number


def test_quote() -> None:
    assert goformat.quote('a"b\\c\n\t\x00\x7fé\u200b\U0001f600') == '"a\\"b\\\\c\\n\\t\\x00\\x7fé\\u200b\U0001f600"'


def test_value() -> None:
    assert goformat.value({"b": [1, "x", None], "a": True, "c": 1.5}) == "map[a:true b:[1 x <nil>] c:1.5]"


def test_json_text_escapes_html() -> None:
    assert goformat.json_text({"b": "<&>", "a": 1}) == '{"b":"\\u003c\\u0026\\u003e","a":1}'
    assert goformat.json_text({"b": 2, "a": 1}, sort_keys=True) == '{"a":1,"b":2}'
