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
    "k8s-short-name": lambda text: not validation.is_dns1123_label(text),
    "k8s-long-name": lambda text: not validation.is_dns1123_subdomain(text),
}
