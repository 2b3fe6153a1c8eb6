"""Resource quantities: `500m`, `1Gi`, `1e3`. Exact, with upstream's canonical form.

Upstream: k8s.io/apimachinery/pkg/api/resource.Quantity. A quantity keeps the family of its suffix (decimal, binary,
exponent); its canonical text has the largest suffix that leaves no fraction. Values finer than 1n are rounded away
from zero to 1n, as upstream does ("if you want some resources, you should get some").
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from enum import Enum
from functools import lru_cache, total_ordering

_FORMAT_WRONG = "quantities must match the regular expression '^([+-]?[0-9.]+)([eEinumkKMGTP]*[-+]?[0-9]*)$'"
_SUFFIX_WRONG = "unable to parse quantity's suffix"
_NANO = 10**9
_MAX_BINARY = 2**63 - 1
_MAX_EXPONENT = 300  # upstream has no limit; nobody means more, and the digits must fit in memory

# The grammar of parseQuantityString, which is laxer than the regular expression in its message ("m" is 0m, "1.G" is 1G).
_GRAMMAR = re.compile(r"([+-]?)([0-9]*)(?:\.([0-9]*))?([eEinumkKMGTP]*[-+]?[0-9]*)", re.ASCII)
_EXPONENT = re.compile(r"[eE]([-+]?[0-9]+)", re.ASCII)


class Format(Enum):
    """The family of suffixes that a quantity is written with."""

    DECIMAL_SI = "DecimalSI"
    BINARY_SI = "BinarySI"
    DECIMAL_EXPONENT = "DecimalExponent"


_DECIMAL = {"n": -9, "u": -6, "m": -3, "": 0, "k": 3, "M": 6, "G": 9, "T": 12, "P": 15, "E": 18}
_BINARY = {"Ki": 10, "Mi": 20, "Gi": 30, "Ti": 40, "Pi": 50, "Ei": 60}
_DECIMAL_SUFFIX = {exponent: suffix for suffix, exponent in _DECIMAL.items()}
_BINARY_SUFFIX = {exponent: suffix for suffix, exponent in _BINARY.items()}


class QuantityError(ValueError):
    """A text that is no quantity, with upstream's message."""


@total_ordering
@dataclass(frozen=True, slots=True, eq=False)
class Quantity:
    """An exact amount: `nano` is the value times 10^9. Compares by value, whatever the format."""

    nano: int
    format: Format = Format.DECIMAL_SI

    @classmethod
    def parse(cls, text: str | int | float) -> Quantity:
        """Read a quantity as JSON has it, text or number. Raises QuantityError."""
        return _parse(text if isinstance(text, str) else repr(text))

    @classmethod
    def of(cls, value: int, format: Format = Format.DECIMAL_SI) -> Quantity:
        """A whole amount."""
        return cls(value * _NANO, format)

    @classmethod
    def of_milli(cls, milli: int, format: Format = Format.DECIMAL_SI) -> Quantity:
        """An amount of thousandths."""
        return cls(milli * 10**6, format)

    def value(self) -> int:
        """The amount rounded away from zero to a whole number."""
        return self._scaled(_NANO)

    def milli_value(self) -> int:
        """The amount in thousandths, rounded away from zero."""
        return self._scaled(10**6)

    def _scaled(self, unit: int) -> int:
        return -(-self.nano // unit) if self.nano > 0 else self.nano // unit

    def is_zero(self) -> bool:
        return self.nano == 0

    def sign(self) -> int:
        return (self.nano > 0) - (self.nano < 0)

    def __float__(self) -> float:
        return self.nano / _NANO

    def __bool__(self) -> bool:
        return self.nano != 0

    def __eq__(self, other: object) -> bool:
        return self.nano == other.nano if isinstance(other, Quantity) else NotImplemented

    def __lt__(self, other: Quantity) -> bool:
        return self.nano < other.nano

    def __hash__(self) -> int:
        return hash(self.nano)

    def __add__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano + other.nano, self.format if self.nano else other.format)

    def __sub__(self, other: Quantity) -> Quantity:
        return Quantity(self.nano - other.nano, self.format if self.nano else other.format)

    def __mul__(self, factor: int) -> Quantity:
        return Quantity(self.nano * factor, self.format)

    def __neg__(self) -> Quantity:
        return Quantity(-self.nano, self.format)

    def __str__(self) -> str:
        """The canonical text."""
        if self.nano == 0:
            return "0"
        whole, fraction = divmod(abs(self.nano), _NANO)
        sign = "-" if self.nano < 0 else ""
        # Small or fractional amounts are shown as decimals whatever they were written as: no precision is lost.
        if self.format is Format.BINARY_SI and not fraction and whole >= 1024:
            exponent = 0
            while whole % 1024 == 0 and exponent < 60:
                whole //= 1024
                exponent += 10
            return f"{sign}{whole}{_BINARY_SUFFIX.get(exponent, '')}"
        return sign + self._decimal_text()

    def _decimal_text(self) -> str:
        digits, exponent = abs(self.nano), -9
        while digits % 1000 == 0:
            digits //= 1000
            exponent += 3
        if self.format is not Format.DECIMAL_EXPONENT and exponent in _DECIMAL_SUFFIX:
            return f"{digits}{_DECIMAL_SUFFIX[exponent]}"
        return f"{digits}e{exponent}" if exponent else str(digits)

    def __repr__(self) -> str:
        return f"Quantity({str(self)!r})"


@lru_cache(maxsize=4096)
def _parse(text: str) -> Quantity:
    if len(text) > 512:
        raise QuantityError(_FORMAT_WRONG)
    match = _GRAMMAR.fullmatch(text)
    if not text or match is None:
        raise QuantityError(_FORMAT_WRONG)
    sign, whole, fraction, suffix = match.group(1), match.group(2), match.group(3) or "", match.group(4)
    digits = int(whole + fraction or "0")
    base, exponent, format_ = _interpret(suffix)
    if base == 10:
        shift = exponent - len(fraction) + 9
        numerator, denominator = (digits * 10**shift, 1) if shift >= 0 else (digits, 10**-shift)
    else:
        numerator, denominator = digits * _NANO << exponent, 10 ** len(fraction)
    nano = -(-numerator // denominator)
    if format_ is Format.BINARY_SI:
        nano = min(nano, _MAX_BINARY * _NANO)
        if 0 < nano < _NANO:
            format_ = Format.DECIMAL_SI
    return Quantity(-nano if sign == "-" else nano, format_)


def _interpret(suffix: str) -> tuple[int, int, Format]:
    """Base, exponent and family of a suffix."""
    if suffix in _DECIMAL:
        return 10, _DECIMAL[suffix], Format.DECIMAL_SI
    if suffix in _BINARY:
        return 2, _BINARY[suffix], Format.BINARY_SI
    match = _EXPONENT.fullmatch(suffix)
    if match is None or abs(int(match.group(1))) > _MAX_EXPONENT:
        raise QuantityError(_SUFFIX_WRONG)
    return 10, int(match.group(1)), Format.DECIMAL_EXPONENT


def canonical(value: str | int | float) -> str:
    """The canonical text of a quantity as JSON has it. Raises QuantityError."""
    return str(Quantity.parse(value))
