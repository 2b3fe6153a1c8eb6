"""Request bodies to objects: media type, kind and version checks, strict decoding (upstream handlers' decoder and
transformDecodeError)."""

from __future__ import annotations

import re
from collections.abc import Callable
from decimal import Decimal
from typing import Any

from bowsprit.apiserver import negotiation
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import TypeSchema
from bowsprit.machinery import builtin, protobuf
from bowsprit.machinery.codec import (
    DecodeError,
    decode_json,
    decode_json_pairs,
    decode_yaml,
    decode_yaml_strict,
    duplicate_fields,
)
from bowsprit.machinery.errors import bad_request
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.jsonsyntax import type_name
from bowsprit.machinery.names import GroupVersion, GroupVersionKind
from bowsprit.machinery.objects import Obj

_SUMMARY_BYTES = 30
_LONG_NUMBER = re.compile(rb"[0-9]{19}")
_YAML_ERRORS = "yaml: unmarshal errors:\n"
_TYPE_AND_METADATA = ("apiVersion", "kind", "metadata")
OBJECT_META = "k8s.io.apimachinery.pkg.apis.meta.v1.ObjectMeta"
_SCHEME = "pkg/api/legacyscheme/scheme.go:30"  # upstream names the scheme in its messages; clients may match on it

Known = Callable[[GroupVersionKind], bool]


def decode_body(
    ctx: RequestContext,
    data: bytes,
    media_type: str,
    expected: GroupVersionKind,
    schema: TypeSchema | None,
    known: Known,
    *,
    accepts: Callable[[GroupVersionKind], bool] | None = None,
    custom: bool = False,
) -> Obj:
    """The object in a body, with kind and apiVersion filled in.

    `known` tells whether a kind exists at all; `accepts` which other versions than `expected` may be sent. Unknown and
    repeated fields become warnings or a 400, as ctx.field_validation says.
    """
    value, tree, texts = _parse(data, media_type, expected, strict=ctx.field_validation != "Ignore")
    if value is None and data.strip():
        value = tree = {}
    if not isinstance(value, dict):
        raise bad_request(_unrecognized(expected, data, not_an_object(value)))
    gvk = _kind_of(value, expected, data)
    if gvk != expected and not (accepts is not None and accepts(gvk)):
        if custom and gvk.kind == expected.kind and gvk.group == expected.group:
            # Upstream decodes with the schema of the version in the data; one that is not there knows no fields.
            report(ctx, [f'unknown field "{key}"' for key in value if key not in _TYPE_AND_METADATA], "")
            raise bad_request(_other_version(gvk, expected))
        raise bad_request(_refused(gvk, expected, known))
    if custom and _LONG_NUMBER.search(data):
        value = _as_floats(value)
    obj = {"kind": gvk.kind, "apiVersion": gvk.api_version, **value}
    obj["kind"], obj["apiVersion"] = gvk.kind, gvk.api_version
    obj, found = check_type(obj, tree, gvk, expected.kind, schema)
    report(ctx, [*texts, *found], f'{gvk.kind} in version "{gvk.version}" cannot be handled as a {expected.kind}: ')
    return obj


def _as_floats(value: Any) -> Any:
    """Integers beyond int64 as Go's untyped decoder keeps and prints them: as float64, in its shortest digits."""
    if isinstance(value, dict):
        return {key: _as_floats(child) for key, child in value.items()}
    if isinstance(value, list):
        return [_as_floats(child) for child in value]
    if type(value) is int and not -(2**63) <= value < 2**63:
        shortest = int(Decimal(repr(float(value))))
        return shortest if -(2**63) <= shortest < 2**64 else float(value)
    return value


def check_type(
    obj: Obj, tree: Any, gvk: GroupVersionKind, wanted: str, schema: TypeSchema | None
) -> tuple[Obj, list[str]]:
    """The object without what its type does not know, and the strict decoder's complaints."""
    if obj.get("metadata") is None:
        obj["metadata"] = {}
    try:
        if schema is not None:
            return schema.decode(obj, tree)
        return {**obj, "metadata": read_metadata(obj["metadata"])}, duplicate_fields(tree)
    except DecodeError as failure:
        raise bad_request(
            f'{gvk.kind} in version "{gvk.version}" cannot be handled as a {wanted}: {failure}'
        ) from failure


def read_metadata(metadata: Any) -> Obj:
    """ObjectMeta as its Go type reads it, for types without a schema of their own. Raises DecodeError."""
    typed: Obj = builtin.message_type(OBJECT_META).round_trip(metadata)
    return {key: value for key, value in typed.items() if value is not None}


def report(ctx: RequestContext, texts: list[str], prefix: str) -> None:
    """Warns or fails, as fieldValidation demands."""
    if not texts or ctx.field_validation == "Ignore":
        return
    if ctx.field_validation == "Strict":
        raise bad_request(f"{prefix}strict decoding error: {', '.join(texts)}")
    for text in texts:
        for line in text.removeprefix(_YAML_ERRORS).splitlines():
            ctx.warn(line.strip())


def _parse(data: bytes, media_type: str, expected: GroupVersionKind, *, strict: bool) -> tuple[Any, Any, list[str]]:
    """(value, tree with repeated keys, complaints of the syntax itself)."""
    try:
        if media_type == negotiation.PROTOBUF:
            value: Any = protobuf.decode(data, expected)
            return value, value, []
        if media_type == negotiation.YAML:
            if strict:
                value, texts = decode_yaml_strict(data)
                return value, value, texts
            value = decode_yaml(data)
            return value, value, []
        value = decode_json(data)
        return value, decode_json_pairs(data, value) if strict else value, []
    except DecodeError as failure:
        prefix = "couldn't get version/kind; json parse error: " if media_type == negotiation.JSON else ""
        raise bad_request(_unrecognized(expected, data, f"{prefix}{failure}")) from failure


def not_an_object(value: Any) -> str:
    """What Go says when a body should be an object and is not."""
    if value is None:
        return "couldn't get version/kind; json parse error: unexpected end of JSON input"
    return (
        f"couldn't get version/kind; json parse error: json: cannot unmarshal {type_name(value)} into Go value of "
        'type struct { APIVersion string "json:\\"apiVersion,omitempty\\""; Kind string "json:\\"kind,omitempty\\"" }'
    )


def _unrecognized(expected: GroupVersionKind, data: bytes, problem: str) -> str:
    if not data:
        summary = "<empty>"
    elif data[:1] == b"{":
        cut = data[:_SUMMARY_BYTES].decode("utf-8", "replace")
        summary = cut + " ..." if len(data) > _SUMMARY_BYTES else cut
    else:
        summary = data[:_SUMMARY_BYTES].hex() + (" ..." if len(data) > _SUMMARY_BYTES else "")
    return f"the object provided is unrecognized (must be of type {expected.kind}): {problem} ({summary})"


def _kind_of(value: Obj, expected: GroupVersionKind, data: bytes) -> GroupVersionKind:
    if problem := check_head(value):
        raise bad_request(_unrecognized(expected, data, problem))
    kind, api_version = value.get("kind"), value.get("apiVersion")
    gv = GroupVersion.parse(api_version) if api_version else expected.gv
    return GroupVersionKind(gv.group, gv.version, kind or expected.kind)


def check_head(value: Obj) -> str:
    """What Go says of an object's kind and apiVersion when it cannot make sense of them, else ""."""
    for field in ("kind", "apiVersion"):
        content = value.get(field)
        if content is not None and not isinstance(content, str):
            return (
                f"couldn't get version/kind; json parse error: json: cannot unmarshal {type_name(content)} into Go struct "
                f"field .{field} of type string"
            )
    api_version = value.get("apiVersion") or ""
    return f"unexpected GroupVersion string: {api_version}" if api_version.count("/") > 1 else ""


def _package(group: str) -> str:
    return group.partition(".")[0] or "core"


def _other_version(gvk: GroupVersionKind, expected: GroupVersionKind) -> str:
    return f"the API version in the data ({gvk.api_version}) does not match the expected API version ({expected.api_version})"


def _refused(gvk: GroupVersionKind, expected: GroupVersionKind, known: Known) -> str:
    if gvk.kind == expected.kind and gvk.group == expected.group and (known(gvk) or builtin.lookup(gvk) is not None):
        return _other_version(gvk, expected)
    return (
        f'{gvk.kind} in version "{gvk.version}" cannot be handled as a {expected.kind}: {refusal(gvk, expected, known)}'
    )


def refusal(gvk: GroupVersionKind, expected: GroupVersionKind, known: Known) -> str:
    """Why an object of a kind is none of the expected one."""
    if known(gvk) or builtin.lookup(gvk) is not None:
        return (
            f"converting ({gvk.version}.{gvk.kind}) to ({_package(expected.group)}.{expected.kind}): unknown conversion"
        )
    return f"no kind {quote(gvk.kind)} is registered for version {quote(gvk.api_version)} in scheme {quote(_SCHEME)}"
