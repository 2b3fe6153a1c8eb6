"""Quantities are exact and print canonically."""

from fractions import Fraction

import pytest
from hypothesis import given
from hypothesis import strategies as st

from bowsprit.machinery.quantity import Format, Quantity, QuantityError, canonical


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("1000m", "1"),
        ("0.5", "500m"),
        ("1024Mi", "1Gi"),
        ("1500m", "1500m"),
        ("100000", "100k"),
        ("0", "0"),
        ("-0", "0"),
        ("0Mi", "0"),
        ("1Ki", "1Ki"),
        ("0.5Ki", "512"),
        ("1.5Gi", "1536Mi"),
        ("1.1Mi", "1153433600m"),
        ("1e3", "1e3"),
        ("12e4", "120e3"),
        ("1E", "1E"),
        ("1E3", "1e3"),
        ("1e-3", "1e-3"),
        ("1000000n", "1m"),
        ("0.1n", "1n"),
        ("-0.1n", "-1n"),
        ("1.G", "1G"),
        (".5", "500m"),
        ("m", "0"),
        ("+5", "5"),
        ("-1500m", "-1500m"),
        ("0001", "1"),
        ("16Ei", "9223372036854775807"),
        ("1000000000000000000000", "1e21"),
        ("3000Ki", "3000Ki"),
        (5, "5"),
        (0.25, "250m"),
    ],
)
def test_canonical_text(text: str | int | float, expected: str) -> None:
    assert canonical(text) == expected


@pytest.mark.parametrize("text", ["", "abc", "1 ", "1.5.5", "1Gi1Gi", "--1", "1e", "1x"])
def test_what_is_no_quantity(text: str) -> None:
    with pytest.raises(QuantityError):
        canonical(text)


def test_error_texts() -> None:
    with pytest.raises(QuantityError, match="quantities must match the regular expression"):
        canonical("abc")
    with pytest.raises(QuantityError, match="unable to parse quantity's suffix"):
        canonical("1mm")


def test_rounding_is_away_from_zero() -> None:
    assert Quantity.parse("1001m").value() == 2
    assert Quantity.parse("-1001m").value() == -2
    assert Quantity.parse("1.0001").milli_value() == 1001
    assert Quantity.parse("2").milli_value() == 2000


def test_comparison_ignores_the_format() -> None:
    assert Quantity.parse("1024") == Quantity.parse("1Ki")
    assert hash(Quantity.parse("1024")) == hash(Quantity.parse("1Ki"))
    assert Quantity.parse("1k") < Quantity.parse("1Ki")


def test_sums_keep_the_format_of_the_first_that_is_not_zero() -> None:
    assert str(Quantity.parse("1Gi") + Quantity.parse("1Mi")) == "1025Mi"
    assert str(Quantity.parse("0") + Quantity.parse("1Gi")) == "1Gi"
    assert str(Quantity.parse("1") - Quantity.parse("100m")) == "900m"
    assert str(Quantity.of(2048, Format.BINARY_SI)) == "2Ki"
    assert str(Quantity.of_milli(1500) * 2) == "3"


SUFFIXES = {"": 1, "m": Fraction(1, 1000), "k": 1000, "M": 10**6, "G": 10**9, "Ki": 1024, "Mi": 1024**2, "Gi": 1024**3}


@given(st.decimals(-(10**6), 10**6, places=3), st.sampled_from(sorted(SUFFIXES)))
def test_values_are_exact_and_the_canonical_text_means_the_same(number: object, suffix: str) -> None:
    quantity = Quantity.parse(f"{number:f}{suffix}")  # no exponent, which would be a suffix of its own
    assert quantity.nano == Fraction(str(number)) * SUFFIXES[suffix] * 10**9
    again = Quantity.parse(str(quantity))
    assert again == quantity
    assert str(again) == str(quantity)


@given(st.text(alphabet="0123456789.+-eEinumkKMGTP", max_size=12))
def test_any_text_is_read_or_refused(text: str) -> None:
    try:
        quantity = Quantity.parse(text)
    except QuantityError:
        return
    assert Quantity.parse(str(quantity)) == quantity
