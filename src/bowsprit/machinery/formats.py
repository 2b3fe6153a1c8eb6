"""The `format` names that schemas of custom resources know, as predicates. Unknown formats are not checked.

Upstream: k8s.io/apiextensions-apiserver supported formats and k8s.io/kube-openapi/pkg/validation/strfmt.
"""

from __future__ import annotations

import base64
import binascii
import ipaddress
import re
from collections.abc import Callable
from datetime import date
from urllib.parse import urlsplit

from bowsprit.machinery import time, validation
from bowsprit.machinery.decodeerror import DecodeError

_DATE_TIME = re.compile(r"\d{4}-\d\d-\d\d[Tt ]\d\d:\d\d:\d\d(\.\d+)?([Zz]|[+-]\d\d:?\d\d)", re.ASCII)
_DURATION = re.compile(
    r"\s*([+-]?\d+(\.\d+)?)\s*(ns|us|µs|μs|ms|s|m|h|d|w|ms|millis?|seconds?|secs?|minutes?|mins?|hours?|hrs?|days?|weeks?|wks?)",
    re.ASCII,
)
_HOSTNAME = re.compile(
    r"([a-zA-Z0-9\u0080-\U0010ffff]([a-zA-Z0-9\u0080-\U0010ffff-]{0,61}[a-zA-Z0-9\u0080-\U0010ffff])?\.?)+"
)
_EMAIL = re.compile(r"[^@\s]+@[^@\s]+")
_MAC = re.compile(r"([0-9a-fA-F]{2}[:-]){5}[0-9a-fA-F]{2}|([0-9a-fA-F]{4}\.){2}[0-9a-fA-F]{4}")
_UUID = re.compile(r"(?i)[0-9a-f]{8}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{4}-?[0-9a-f]{12}")
_UUID_VERSIONS = {
    version: re.compile(
        rf"(?i)[0-9a-f]{{8}}-?[0-9a-f]{{4}}-?{version}[0-9a-f]{{3}}-?[89ab0-9][0-9a-f]{{3}}-?[0-9a-f]{{12}}"
    )
    for version in (3, 4, 5)
}
_OBJECT_ID = re.compile(r"[0-9a-fA-F]{24}")
_HEX_COLOR = re.compile(r"#?([0-9a-fA-F]{3}|[0-9a-fA-F]{6})")
_RGB_COLOR = re.compile(r"rgb\(\s*\d{1,3}\s*,\s*\d{1,3}\s*,\s*\d{1,3}\s*\)")
_SSN = re.compile(r"\d{3}[- ]?\d{2}[- ]?\d{4}", re.ASCII)


_CREDIT_CARD = re.compile(
    "4[0-9]{12}(?:[0-9]{3})?|5[1-5][0-9]{14}|6(?:011|5[0-9][0-9])[0-9]{12}|3[47][0-9]{13}|3(?:0[0-5]|[68][0-9])[0-9]{11}"
    "|(?:2131|1800|35[0-9]{3})[0-9]{11}"
)


def _is_date_time(text: str) -> bool:
    if not _DATE_TIME.fullmatch(text):
        return False
    try:
        time.parse_time(text[:10] + "T" + text[11:19] + "Z")
    except DecodeError:
        return False
    return True


def _is_date(text: str) -> bool:
    try:
        return len(text) == 10 and date.fromisoformat(text) is not None
    except ValueError:
        return False


def _is_duration(text: str) -> bool:
    try:
        time.parse_duration(text)
    except DecodeError:
        return _DURATION.fullmatch(text) is not None
    return True


def _is_ipv4(text: str) -> bool:
    return isinstance(validation.parse_ip(text), ipaddress.IPv4Address)


def _is_ipv6(text: str) -> bool:
    return isinstance(validation.parse_ip(text), ipaddress.IPv6Address)


def _is_uri(text: str) -> bool:
    try:
        parts = urlsplit(text)
    except ValueError:
        return False
    return bool(parts.scheme) or text.startswith("/")


def _is_base64(text: str) -> bool:
    try:
        base64.b64decode(text, validate=True)
    except binascii.Error:
        return False
    return True


def _matches(pattern: re.Pattern[str]) -> Callable[[str], bool]:
    return lambda text: pattern.fullmatch(text) is not None


def _is_credit_card(text: str) -> bool:
    digits = re.sub("[^0-9]+", "", text)
    doubled = [int(digit) * (1 + place % 2) for place, digit in enumerate(reversed(digits))]
    return _CREDIT_CARD.fullmatch(digits) is not None and sum(value // 10 + value % 10 for value in doubled) % 10 == 0


def _is_isbn10(text: str) -> bool:
    compact = re.sub(r"[\s-]+", "", text)
    if not re.fullmatch("[0-9]{9}[0-9X]", compact):
        return False
    return sum(place * (10 if digit == "X" else int(digit)) for place, digit in enumerate(compact, 1)) % 11 == 0


def _is_isbn13(text: str) -> bool:
    compact = re.sub(r"[\s-]+", "", text)
    if not re.fullmatch("[0-9]{13}", compact):
        return False
    return sum(int(digit) * (1, 3)[place % 2] for place, digit in enumerate(compact)) % 10 == 0


CHECKS: dict[str, Callable[[str], bool]] = {
    "date-time": _is_date_time,
    "datetime": _is_date_time,
    "date": _is_date,
    "duration": _is_duration,
    "ipv4": _is_ipv4,
    "ipv6": _is_ipv6,
    "cidr": lambda text: validation.parse_cidr(text) is not None,
    "mac": _matches(_MAC),
    "uuid": _matches(_UUID),
    "uuid3": _matches(_UUID_VERSIONS[3]),
    "uuid4": _matches(_UUID_VERSIONS[4]),
    "uuid5": _matches(_UUID_VERSIONS[5]),
    "uri": _is_uri,
    "hostname": lambda text: len(text) <= 255 and _HOSTNAME.fullmatch(text) is not None,
    "email": _matches(_EMAIL),
    "byte": _is_base64,
    "bsonobjectid": _matches(_OBJECT_ID),
    "hexcolor": _matches(_HEX_COLOR),
    "rgbcolor": _matches(_RGB_COLOR),
    "ssn": _matches(_SSN),
    "password": lambda text: True,
    "creditcard": _is_credit_card,
    "isbn": lambda text: _is_isbn10(text) or _is_isbn13(text),
    "isbn10": _is_isbn10,
    "isbn13": _is_isbn13,
    "k8s-short-name": lambda text: not validation.is_dns1123_label(text),
    "k8s-long-name": lambda text: not validation.is_dns1123_subdomain(text),
}


_NUMBERS = {"integer": ("int32", "int64"), "number": ("float", "double")}


def check_of(name: str) -> Callable[[str], bool] | None:
    """What says whether a text has a format; names may be written with dashes. None for formats that nobody checks."""
    return CHECKS.get(name) or CHECKS.get(name.replace("-", ""))


def is_known(name: str, kind: str) -> bool:
    """Whether values of a type (``string``, "" or another of JSON's) are checked for a format."""
    if kind in ("", "string"):
        return check_of(name) is not None
    return name in _NUMBERS.get(kind, ())
