"""Strict decoding: values are checked against the Go types, unknown and repeated fields are errors."""

from __future__ import annotations

from typing import Any

from bowsprit.machinery.codec import DecodeError, decode_json_strict
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import format_duration, parse_duration
from bowsprit.machinery.yamlcodec import decode_yaml_strict
from bowsprit.scheduler.config.errors import ConfigError
from bowsprit.scheduler.config.schema import ARGS, CONFIGURATION, Struct

GROUP = "kubescheduler.config.k8s.io"
V1 = f"{GROUP}/v1"
SCHEME = 'in scheme "pkg/scheduler/apis/config/scheme/scheme.go:29"'
_INTEGERS = {"int32": 2**31, "int64": 2**63}


def parse_document(text: str) -> tuple[Obj, list[str]]:
    """YAML or JSON, with the messages about repeated keys. Raises ConfigError."""
    data = text.encode()
    try:
        if text.lstrip().startswith("{"):
            value, repeated = decode_json_strict(data)
        else:
            value, repeated = decode_yaml_strict(data)
    except DecodeError as exc:
        raise ConfigError(str(exc)) from exc
    document: Obj = value if isinstance(value, dict) else {}
    if not text.lstrip().startswith("{"):
        document = _as_json(document)
    _check_kind(document)
    if not document.get("kind"):
        raise ConfigError(f"Object 'Kind' is missing in '{text}'")
    if not document.get("apiVersion"):
        raise ConfigError(f"Object 'apiVersion' is missing in '{text}'")
    return document, repeated


def _as_json(value: Any) -> Any:
    """YAML is turned into JSON first: keys are sorted, and problems found in that order; 1.0 becomes 1."""
    if isinstance(value, dict):
        return {key: _as_json(value[key]) for key in sorted(value)}
    if isinstance(value, list):
        return [_as_json(item) for item in value]
    return int(value) if isinstance(value, float) and value.is_integer() and abs(value) < 1e21 else value


_HEAD = 'struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'


def _check_kind(value: Any) -> None:
    """What SimpleMetaFactory.Interpret says of something whose version and kind cannot be read."""
    problem = ""
    if not isinstance(value, dict):
        problem = f"cannot unmarshal {json_kind(value)} into Go value of type {_HEAD}"
    else:
        for key in value:
            if key in ("apiVersion", "kind") and not isinstance(value[key], str | None):
                problem = f"cannot unmarshal {json_kind(value[key])} into Go struct field .{key} of type string"
                break
    if problem:
        raise ConfigError(f"couldn't get version/kind; json parse error: json: {problem}")


def go_type(kind: Any) -> str:
    if isinstance(kind, Struct):
        return f"{kind.package}.{kind.name}"
    if isinstance(kind, tuple):
        return f"[]{go_type(kind[1])}"
    return {"duration": "string", "*duration": "string", "bytes": "[]uint8"}.get(str(kind), str(kind))


_ZEROS: dict[str, Any] = {"bool": False, "int32": 0, "int64": 0, "float32": 0}


def _zero(kind: Any) -> Any:
    """What null in a list becomes."""
    if isinstance(kind, Struct):
        return {}
    return [] if isinstance(kind, tuple) else _ZEROS.get(str(kind), "")


def json_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


class Decoder:
    """Collects unknown fields while it converts a value, and the first value of a wrong type.

    As in encoding/json a wrong type does not end the decoding, but what a type's own decoder refuses (a duration) does.
    """

    def __init__(self) -> None:
        self.unknown: list[str] = []
        self._wrong = ""

    def decode(self, kind: Struct, value: Obj) -> Obj:
        """Raises ConfigError."""
        result = self.struct(kind, value)
        if self._wrong:
            raise ConfigError(self._wrong)
        return result

    def struct(self, kind: Struct, value: Any, where: str = "", names: str = "") -> Obj:
        """`where` is the path for unknown fields, `names` the one (without indices) that Go's messages have."""
        result: Obj = {}
        for key in value:
            inner = f"{where}.{key}" if where else key
            if key not in kind.fields:
                self.unknown.append(f'unknown field "{inner}"')
            elif value[key] is not None or kind.fields[key] == "duration":
                named = f"{kind.embedded[key]}.{key}" if key in kind.embedded else key
                path = f"{names}.{named}" if names else named
                found = self.value(kind.fields[key], value[key], inner, path, kind.name)
                if found is not None:
                    result[key] = found
        return result

    def value(self, kind: Any, value: Any, where: str, names: str, owner: str) -> Any:
        if kind == "any":
            return value
        if isinstance(kind, Struct):
            if not isinstance(value, dict):
                return self._refuse(json_kind(value), kind, names, owner)
            return self.struct(kind, value, where, names)
        if isinstance(kind, tuple):
            if not isinstance(value, list):
                return self._refuse(json_kind(value), kind, names, owner)
            return [
                _zero(kind[1]) if item is None else self.value(kind[1], item, f"{where}[{i}]", names, owner)
                for i, item in enumerate(value)
            ]
        return self._scalar(kind, value, names, owner)

    def _scalar(self, kind: str, value: Any, names: str, owner: str) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind in ("duration", "*duration"):
            if not isinstance(value, str | None):
                raise ConfigError(self._message(json_kind(value), kind, names, owner))
            try:
                return format_duration(parse_duration(value or ""))
            except ValueError as exc:
                raise ConfigError(str(exc)) from exc
        if kind in _INTEGERS:
            if not number:
                return self._refuse(json_kind(value), kind, names, owner)
            if isinstance(value, float) or not -_INTEGERS[kind] <= value < _INTEGERS[kind]:
                return self._refuse(f"number {number_text(value)}", kind, names, owner)
            return value
        good = {"bool": isinstance(value, bool), "float32": number, "map[string]string": isinstance(value, dict)}
        if not good.get(kind, isinstance(value, str)):
            return self._refuse(json_kind(value), kind, names, owner)
        return value

    def _refuse(self, what: str, kind: Any, names: str, owner: str) -> None:
        self._wrong = self._wrong or self._message(what, kind, names, owner)

    @staticmethod
    def _message(what: str, kind: Any, names: str, owner: str) -> str:
        return f"json: cannot unmarshal {what} into Go struct field {owner}.{names} of type {go_type(kind)}"


def number_text(value: int | float) -> str:
    """A number as it stands in the JSON."""
    return str(value) if isinstance(value, int) else repr(value)


def decode_v1(document: Obj, repeated: list[str], unknown_args: set[str] | None = None) -> Obj:
    """The configuration with its arguments decoded. Raises ConfigError."""
    kind = document["kind"]
    decoder = Decoder()
    known = kind == "KubeSchedulerConfiguration" or kind in {s.name for s in ARGS.values()}
    if document["apiVersion"] != V1 or not known:
        raise ConfigError(f'no kind "{kind}" is registered for version "{document["apiVersion"]}" {SCHEME}')
    if kind != "KubeSchedulerConfiguration":
        raise ConfigError(f"couldn't decode as KubeSchedulerConfiguration, got {V1}, Kind={kind}: ")
    config = decoder.decode(CONFIGURATION, document)
    problems = [*repeated, *decoder.unknown]
    for i, profile in enumerate(config.get("profiles") or ()):
        for j, item in enumerate(profile.get("pluginConfig") or ()):
            problem = _decode_args(item, f".profiles[{i}].pluginConfig[{j}]")
            if problem:
                problems.append(problem)
    if problems:
        raise ConfigError("strict decoding error: " + ", ".join(problems))
    return config


def _decode_args(item: Obj, where: str) -> str:
    """Decode one plugin's arguments in place; returns a strictness problem. Raises ConfigError for others."""
    name = item.get("name") or ""
    args = item.get("args")
    if args is None or name not in ARGS:
        return ""
    struct = ARGS[name]
    try:
        _check_kind(args)
    except ConfigError as exc:
        raise ConfigError(f"decoding {where}: decoding args for plugin {name}: {exc}") from exc
    version, kind = args.get("apiVersion") or V1, args.get("kind") or struct.name
    kinds = {s.name for s in (*ARGS.values(), CONFIGURATION)}
    if version != V1 or kind not in kinds:
        raise ConfigError(
            f'decoding {where}: decoding args for plugin {name}: no kind "{kind}" is registered for version '
            f'"{version}" {SCHEME}'
        )
    if kind != struct.name:
        raise ConfigError(
            f"decoding {where}: args for plugin {name} were not of type {struct.name}.{GROUP}, got {kind}.{GROUP}"
        )
    decoder = Decoder()
    try:
        decoded = decoder.decode(struct, args)
    except ConfigError as exc:
        raise ConfigError(f"decoding {where}: decoding args for plugin {name}: {exc}") from exc
    item["args"] = {**decoded, "kind": kind, "apiVersion": V1}
    if decoder.unknown:
        unknown = ", ".join(decoder.unknown)
        return f"decoding {where}: strict decoding error: decoding args for plugin {name}: strict decoding error: {unknown}"
    return ""
