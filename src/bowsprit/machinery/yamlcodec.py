"""YAML as sigs.k8s.io/yaml reads and writes it: YAML 1.1 by go-yaml v2's rules, then the JSON value of it.

We read libyaml's events ourselves instead of using PyYAML's constructors: their scalar rules differ (single-letter
booleans, timestamps, base-60 numbers), and repeated keys, depth and alias expansion must be seen here.
"""

from __future__ import annotations

import base64
import binascii
import math
import re
from collections.abc import Iterator
from typing import Any

import orjson
import yaml

from bowsprit.machinery import goformat
from bowsprit.machinery.decodeerror import DecodeError
from bowsprit.machinery.objects import deep_copy

_MAX_DEPTH = 250
_MAX_NODES = 1_000_000  # counted with every alias expanded

_WORDS: dict[str, Any] = {"": None, "~": None, "null": None, "Null": None, "NULL": None}
_WORDS |= dict.fromkeys(("y", "Y", "yes", "Yes", "YES", "true", "True", "TRUE", "on", "On", "ON"), True)
_WORDS |= dict.fromkeys(("n", "N", "no", "No", "NO", "false", "False", "FALSE", "off", "Off", "OFF"), False)
_WORDS |= dict.fromkeys((".nan", ".NaN", ".NAN"), math.nan)
_WORDS |= dict.fromkeys((".inf", ".Inf", ".INF", "+.inf", "+.Inf", "+.INF"), math.inf)
_WORDS |= dict.fromkeys(("-.inf", "-.Inf", "-.INF"), -math.inf)
_INT = re.compile(r"[-+]?(0[xX][0-9a-fA-F]+|0[bB][01]+|0[oO][0-7]+|0[0-7]*|[1-9][0-9]*)")
_FLOAT = re.compile(r"[-+]?(\.[0-9]+|[0-9]+(\.[0-9]*)?)([eE][-+]?[0-9]+)?")
_BASE60 = re.compile(r"[-+]?[0-9][0-9_]*(?::[0-5]?[0-9])+(?:\.[0-9_]*)?")
_TIMESTAMP = re.compile(r"\d{4}-\d{1,2}-\d{1,2}([Tt ]\d{1,2}:\d{1,2}:\d{1,2}(\.\d+)?([Zz]|[+-]\d\d:\d\d)?)?", re.ASCII)
_MERGE = "tag:yaml.org,2002:merge"
_TAG = "tag:yaml.org,2002:"


def resolve(text: str) -> Any:
    """The value of a plain scalar."""
    try:
        return _WORDS[text]
    except KeyError:
        pass
    if text[0] not in "+-.0123456789":
        return text
    plain = text.replace("_", "") if text[0] != "." else text
    if _INT.fullmatch(plain):
        return _parse_int(plain)
    if _FLOAT.fullmatch(plain):
        return float(plain)
    return text


def _parse_int(plain: str) -> Any:
    sign = -1 if plain.startswith("-") else 1
    digits = plain.lstrip("+-")
    if digits != "0" and digits[0] == "0" and digits[1] not in "xXbBoO":
        number = sign * int(digits, 8)  # 0777, as strconv.ParseInt with base 0
    elif len(digits) > 70:
        return float(plain) if digits.isdigit() else plain
    else:
        number = sign * int(digits, 0)
    return number if -(2**63) <= number < 2**64 else (float(plain) if digits.isdigit() else plain)


def decode_yaml(data: bytes | str) -> Any:
    """The JSON value of the first document; null for an empty text. Raises DecodeError with go-yaml's text."""
    if isinstance(data, bytes) and data.startswith(b"{"):  # most "YAML" bodies are JSON, which orjson reads 100x faster
        try:
            value = orjson.loads(data)
            if _depth_is_safe(data):
                return value
        except orjson.JSONDecodeError:
            pass
    return decode_yaml_strict(data)[0]


def _depth_is_safe(data: bytes) -> bool:
    return data.count(b"{") + data.count(b"[") <= _MAX_DEPTH


def decode_yaml_strict(data: bytes | str) -> tuple[Any, list[str]]:
    """The value and, if keys repeat, the one message that go-yaml's strict mode gives for all of them."""
    for builder in _documents(data):
        errors = builder.duplicates
        return builder.root, (["yaml: unmarshal errors:\n  " + "\n  ".join(errors)] if errors else [])
    return None, []


def decode_yaml_all(data: bytes | str) -> list[Any]:
    """The values of all documents of a stream, empty ones left out (`---` separated manifests)."""
    return [builder.root for builder in _documents(data) if builder.root is not None]


def _documents(data: bytes | str) -> Iterator[_Builder]:
    if isinstance(data, bytes):
        data = data.decode("utf-8", "replace")
    builder = _Builder()
    try:
        for event in yaml.parse(data, Loader=yaml.CSafeLoader):
            if isinstance(event, yaml.DocumentStartEvent):
                builder = _Builder()
            elif isinstance(event, yaml.DocumentEndEvent):
                yield builder
            else:
                builder.feed(event)
    except yaml.MarkedYAMLError as error:
        raise DecodeError(_problem(error)) from None
    except yaml.YAMLError as error:  # the reader: control characters
        reason = getattr(error, "reason", None) or "control characters are not allowed"
        raise DecodeError(f"yaml: {reason}") from None


def _problem(error: yaml.MarkedYAMLError) -> str:
    # go-yaml v2's parser.fail: parser errors tell the line before, scanner errors the line itself.
    line = 0
    if error.problem_mark and error.problem_mark.line:
        line = error.problem_mark.line + isinstance(error, yaml.scanner.ScannerError)
    elif error.context_mark and error.context_mark.line:
        line = error.context_mark.line
    where = f"line {line}: " if line else ""
    return f"yaml: {where}{error.problem or 'unknown problem parsing YAML content'}"


class _Container:
    """A mapping or sequence under construction."""

    __slots__ = ("anchor", "key", "line", "merges", "start_nodes", "value")

    def __init__(self, value: Any, anchor: str | None, line: int, start_nodes: int):
        self.value = value
        self.anchor = anchor
        self.line = line
        self.start_nodes = start_nodes
        self.key: Any = _NO_KEY
        self.merges: list[Any] = []


_NO_KEY: Any = object()
_MERGE_KEY: Any = object()


class _Builder:
    """Builds one document from events."""

    def __init__(self) -> None:
        self.root: Any = None
        self.duplicates: list[str] = []
        self._stack: list[_Container] = []
        self._anchors: dict[str, tuple[Any, int]] = {}
        self._nodes = 0

    def feed(self, event: yaml.Event) -> None:
        if isinstance(event, yaml.ScalarEvent):
            self._scalar(event)
        elif isinstance(event, yaml.MappingStartEvent):
            self._open({}, event)
        elif isinstance(event, yaml.SequenceStartEvent):
            self._open([], event)
        elif isinstance(event, (yaml.MappingEndEvent, yaml.SequenceEndEvent)):
            self._close()
        elif isinstance(event, yaml.AliasEvent):
            self._alias(event)

    def _count(self, nodes: int) -> None:
        self._nodes += nodes
        if self._nodes > _MAX_NODES:
            raise DecodeError("yaml: document contains excessive aliasing")

    def _open(self, value: Any, event: yaml.NodeEvent) -> None:
        if len(self._stack) >= _MAX_DEPTH:
            raise DecodeError("yaml: exceeded max depth")
        self._count(1)
        self._stack.append(_Container(value, event.anchor, _line(event), self._nodes))

    def _close(self) -> None:
        done = self._stack.pop()
        for merged in done.merges:
            done.value = {**merged, **done.value}
        if done.anchor is not None:
            self._anchors[done.anchor] = (done.value, self._nodes - done.start_nodes + 1)
        self._add(done.value, done.line)

    def _alias(self, event: yaml.AliasEvent) -> None:
        if event.anchor not in self._anchors:
            raise DecodeError(f"yaml: unknown anchor '{event.anchor}' referenced")
        value, nodes = self._anchors[event.anchor]
        self._count(nodes)
        self._add(deep_copy(value), _line(event))

    def _scalar(self, event: yaml.ScalarEvent) -> None:
        self._count(1)
        value = _scalar_value(event)
        if event.anchor is not None:
            self._anchors[event.anchor] = (value, 1)
        parent = self._stack[-1] if self._stack else None
        expects_key = parent is not None and parent.key is _NO_KEY and isinstance(parent.value, dict)
        if (
            expects_key
            and parent is not None
            and ((event.value == "<<" and event.implicit[0] and event.tag is None) or event.tag == _MERGE)
        ):
            parent.key = _MERGE_KEY
            return
        self._add(value, _line(event))

    def _add(self, value: Any, line: int) -> None:
        if not self._stack:
            self.root = value
            return
        parent = self._stack[-1]
        if isinstance(parent.value, list):
            parent.value.append(_json_value(value))
        elif parent.key is _NO_KEY:
            parent.key = _key_text(value)
        elif parent.key is _MERGE_KEY:
            parent.merges.extend(_merged(value))
            parent.key = _NO_KEY
        else:
            if parent.key in parent.value:
                self.duplicates.append(f"line {line + 1}: key {goformat.quote(parent.key)} already set in map")
            parent.value[parent.key] = _json_value(value)
            parent.key = _NO_KEY


def _line(event: yaml.Event) -> int:
    return event.start_mark.line if event.start_mark else 0


def _merged(value: Any) -> list[Any]:
    """The mappings behind a merge key, the strongest first."""
    values = value if isinstance(value, list) else [value]
    if not all(isinstance(item, dict) for item in values):
        raise DecodeError("yaml: map merge requires map or sequence of maps as the value")
    return values


def _scalar_value(event: yaml.ScalarEvent) -> Any:
    text: str = event.value
    tag: str | None = event.tag
    if tag is None or tag == "!":
        return resolve(text) if event.implicit[0] else text
    if tag == _TAG + "str":
        return text
    if tag == _TAG + "binary":
        try:
            return base64.b64decode(text, validate=False).decode("utf-8", "replace")
        except binascii.Error:
            raise DecodeError("yaml: !!binary value contains invalid base64 data") from None
    value = resolve(text)
    if tag == _TAG + "float" and isinstance(value, int) and not isinstance(value, bool):
        return float(value)
    return value


def _json_value(value: Any) -> Any:
    """What is left of a number after its way through JSON text: whole floats become integers."""
    if type(value) is not float:
        return value
    if not math.isfinite(value):
        raise DecodeError(f"json: unsupported value: {goformat.float_text(value)}")
    return int(value) if value.is_integer() and abs(value) < 2**63 else value


def _key_text(key: Any) -> str:
    """A mapping key as JSON needs it."""
    if isinstance(key, str):
        return key
    if isinstance(key, bool):
        return "true" if key else "false"
    if isinstance(key, int):
        return str(key)
    if isinstance(key, float):
        return goformat.float_text(key)
    if key is None:
        return "null"
    raise DecodeError(f"yaml: unsupported map key of type {'map' if isinstance(key, dict) else 'slice'}")


class _Dumper(yaml.CSafeDumper):
    """Writes the layout of sigs.k8s.io/yaml: sorted keys, unindented sequences, literal blocks for several lines."""

    def ignore_aliases(self, data: Any) -> bool:
        return True


def _represent_text(dumper: _Dumper, text: str) -> yaml.Node:
    style: str | None = None
    if resolve(text) is not text or _BASE60.fullmatch(text) or _TIMESTAMP.fullmatch(text) or text in {"<<", "="}:
        style = '"'
    elif "\n" in text:
        style = "|"
    return dumper.represent_scalar(_TAG + "str", text, style=style)


def _represent_float(dumper: _Dumper, number: float) -> yaml.Node:
    return dumper.represent_scalar(_TAG + "float", orjson.dumps(number).decode())


_Dumper.yaml_implicit_resolvers = {}
_Dumper.add_implicit_resolver(_TAG + "null", re.compile(r"null$"), ["n"])
_Dumper.add_implicit_resolver(_TAG + "bool", re.compile(r"(true|false)$"), ["t", "f"])
_Dumper.add_implicit_resolver(_TAG + "int", re.compile(r"-?[0-9]+$"), list("-0123456789"))
_Dumper.add_implicit_resolver(_TAG + "float", re.compile(r"-?[0-9][0-9.eE+-]*$"), list("-0123456789"))
_Dumper.add_representer(str, _represent_text)
_Dumper.add_representer(float, _represent_float)


def encode_yaml(value: Any) -> str:
    """YAML text of a JSON value as `kubectl get -o yaml` lays it out."""
    return yaml.dump(value, Dumper=_Dumper, default_flow_style=False, sort_keys=True, allow_unicode=True, width=80)
