"""Objects as the bytes of an answer: JSON, YAML, protobuf; as Table or PartialObjectMetadata."""

from __future__ import annotations

from collections.abc import Iterable, Mapping

import orjson

from bowsprit.apiserver import negotiation, tables
from bowsprit.apiserver.answer import Answer
from bowsprit.apiserver.encoding import encode_plain
from bowsprit.apiserver.negotiation import JSON, PROTOBUF, YAML, Representation
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import Version
from bowsprit.machinery import protobuf
from bowsprit.machinery.codec import decode_json, encode_yaml
from bowsprit.machinery.errors import StatusError, not_acceptable
from bowsprit.machinery.objects import Obj


def check_table(query: Mapping[str, str]) -> None:
    """Raises 400 for an includeObject that does not exist."""
    tables.check_include(query.get("includeObject", "") if query else "")


def answer(
    ctx: RequestContext, chosen: Representation, status: int, *, obj: Obj | None = None, value: bytes | None = None
) -> Answer:
    """An object, given as JSON bytes (`value`), decoded (`obj`) or both."""
    pretty = chosen.pretty or negotiation.wants_pretty(ctx.query.get("pretty") if ctx.query else None, ctx.user_agent)
    if chosen.media_type == JSON:
        if pretty:
            if obj is None or value is not None:
                obj = decode_json(value or b"null")
            return Answer(status, orjson.dumps(obj, option=orjson.OPT_INDENT_2), JSON)
        return Answer(status, (value if value is not None else _json(obj)) + b"\n", JSON)
    if obj is None:
        obj = decode_json(value or b"null")
    return Answer(status, to_bytes(chosen.media_type, obj), chosen.media_type)


def to_bytes(media_type: str, obj: Obj) -> bytes:
    """An object in YAML or protobuf (or JSON)."""
    if media_type == YAML:
        return encode_yaml(obj).encode()
    if media_type == PROTOBUF:
        return protobuf.encode(obj)
    return _json(obj)


def _json(obj: Obj | None) -> bytes:
    if obj is not None and isinstance(obj.get("metadata"), dict) and "uid" in obj["metadata"]:
        return encode_plain(obj)
    return orjson.dumps(obj)


def convert(chosen: Representation, obj: Obj, version: Version, ctx: RequestContext, *, include: str) -> Obj:
    """A single object as the Table or PartialObjectMetadata that the client asked for. Raises 406."""
    if obj.get("kind") == "Status" and obj.get("apiVersion") == "v1":
        return obj
    if chosen.convert == "Table":
        meta = obj.get("metadata") or {}
        revision = meta.get("resourceVersion")
        return tables.table(
            [obj],
            version.printer,
            ctx.now,
            include=tables.check_include(include),
            version=chosen.version,
            metadata={"resourceVersion": revision} if revision else {},
        )
    if chosen.convert == "PartialObjectMetadataList":
        raise not_acceptable(
            f"you requested {chosen.convert}, but the requested object is not a list ({go_type(version, obj['kind'])})"
        )
    return tables.partial(obj, chosen.version)


def convert_list(
    chosen: Representation,
    objects: Iterable[Obj],
    version: Version,
    ctx: RequestContext,
    *,
    include: str,
    metadata: Obj,
) -> Obj:
    """A list as the Table or PartialObjectMetadataList that the client asked for. Raises 406."""
    if chosen.convert == "Table":
        return tables.table(
            objects,
            version.printer,
            ctx.now,
            include=tables.check_include(include),
            version=chosen.version,
            metadata=metadata,
        )
    if chosen.convert == "PartialObjectMetadata":
        raise not_acceptable(
            f"you requested {chosen.convert}, but the requested object is a list ({go_type(version, version.list_kind_name)})"
        )
    return {
        "kind": "PartialObjectMetadataList",
        "apiVersion": f"meta.k8s.io/{chosen.version}",
        "metadata": metadata,
        "items": [tables.partial(obj, chosen.version) for obj in objects],
    }


def go_type(version: Version, kind: str) -> str:
    """The Go type that upstream's messages name."""
    return f"*{version.gvk.group.partition('.')[0] or 'core'}.{kind}"


def status_answer(error: StatusError, accept: str, ctx: RequestContext | None) -> Answer:
    """A failure as the client would like to read it; JSON when it cannot be pleased."""
    headers: list[tuple[str, str]] = []
    if error.retry_after:
        headers.append(("Retry-After", str(error.retry_after)))
    if error.code == 403:
        headers.append(("X-Content-Type-Options", "nosniff"))
    status = error.to_status()
    media_type = JSON
    try:
        media_type = negotiation.negotiate(accept, transforms=False).media_type if accept else JSON
    except StatusError:
        media_type = JSON
    pretty = ctx is not None and negotiation.wants_pretty(
        ctx.query.get("pretty") if ctx.query else None, ctx.user_agent
    )
    if media_type == JSON:
        body = orjson.dumps(status, option=orjson.OPT_INDENT_2) if pretty else orjson.dumps(status) + b"\n"
    else:
        body = to_bytes(media_type, status)
    return Answer(error.code, body, media_type, headers)
