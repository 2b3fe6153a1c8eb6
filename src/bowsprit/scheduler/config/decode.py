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
    if not document.get("kind"):
        raise ConfigError(f"Object 'Kind' is missing in '{text}'")
    if not document.get("apiVersion"):
        raise ConfigError(f"Object 'apiVersion' is missing in '{text}'")
    return document, repeated


def go_type(kind: Any) -> str:
    if isinstance(kind, Struct):
        return f"v1.{kind.name}"
    if isinstance(kind, tuple):
        return f"[]{go_type(kind[1])}"
    return {"duration": "string", "bytes": "[]uint8"}.get(str(kind), str(kind))


def json_kind(value: Any) -> str:
    if isinstance(value, bool):
        return "bool"
    if isinstance(value, int | float):
        return "number"
    if isinstance(value, str):
        return "string"
    return "array" if isinstance(value, list) else "object"


class Decoder:
    """Collects unknown fields while it converts a value; type errors end it at once."""

    def __init__(self) -> None:
        self.unknown: list[str] = []

    def struct(self, kind: Struct, value: Any, where: str = "", names: str = "") -> Obj:
        """`where` is the path for unknown fields, `names` the one (without indices) that Go's messages have."""
        result: Obj = {}
        for key in sorted(value):
            inner = f"{where}.{key}" if where else key
            if key not in kind.fields:
                self.unknown.append(f'unknown field "{inner}"')
            elif value[key] is not None:
                path = f"{names}.{key}" if names else key
                result[key] = self.value(kind.fields[key], value[key], inner, path, kind.name)
        return result

    def value(self, kind: Any, value: Any, where: str, names: str, owner: str) -> Any:
        if kind == "any":
            return value
        if isinstance(kind, Struct):
            self._expect(isinstance(value, dict), value, kind, names, owner)
            return self.struct(kind, value, where, names)
        if isinstance(kind, tuple):
            self._expect(isinstance(value, list), value, kind, names, owner)
            return [
                self.value(kind[1], item, f"{where}[{i}]", names, owner)
                for i, item in enumerate(value)
                if item is not None
            ]
        return self._scalar(kind, value, names, owner)

    def _scalar(self, kind: str, value: Any, names: str, owner: str) -> Any:
        number = isinstance(value, int | float) and not isinstance(value, bool)
        if kind == "duration":
            self._expect(isinstance(value, str), value, kind, names, owner)
            try:
                return format_duration(parse_duration(value))
            except ValueError as exc:
                raise ConfigError(str(exc)) from exc
        if kind in _INTEGERS:
            self._expect(number, value, kind, names, owner)
            if value != int(value) or not -_INTEGERS[kind] <= value < _INTEGERS[kind]:
                self._fail(f"number {value}", kind, names, owner)
            return int(value)
        good = {"string": isinstance(value, str), "bool": isinstance(value, bool), "float32": number}
        self._expect(good.get(kind, isinstance(value, str)), value, kind, names, owner)
        return value

    def _expect(self, good: bool, value: Any, kind: Any, names: str, owner: str) -> None:
        if not good:
            self._fail(json_kind(value), kind, names, owner)

    @staticmethod
    def _fail(what: str, kind: Any, names: str, owner: str) -> None:
        raise ConfigError(f"json: cannot unmarshal {what} into Go struct field {owner}.{names} of type {go_type(kind)}")


def decode_v1(document: Obj, repeated: list[str], unknown_args: set[str] | None = None) -> Obj:
    """The configuration with its arguments decoded. Raises ConfigError."""
    kind = document["kind"]
    decoder = Decoder()
    known = kind == "KubeSchedulerConfiguration" or kind in {s.name for s in ARGS.values()}
    if document["apiVersion"] != V1 or not known:
        raise ConfigError(f'no kind "{kind}" is registered for version "{document["apiVersion"]}" {SCHEME}')
    if kind != "KubeSchedulerConfiguration":
        raise ConfigError(f"couldn't decode as KubeSchedulerConfiguration, got {V1}, Kind={kind}: ")
    config = decoder.struct(CONFIGURATION, document)
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
    version, kind = args.get("apiVersion") or V1, args.get("kind") or struct.name
    kinds = {s.name for s in ARGS.values()}
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
        decoded = decoder.struct(struct, args)
    except ConfigError as exc:
        raise ConfigError(f"decoding {where}: decoding args for plugin {name}: {exc}") from exc
    item["args"] = {**decoded, "kind": kind, "apiVersion": V1}
    if decoder.unknown:
        unknown = ", ".join(decoder.unknown)
        return f"decoding {where}: strict decoding error: decoding args for plugin {name}: strict decoding error: {unknown}"
    return ""
