"""What a backend is told of a request: its address anew, who asks, and over whom it came.

Upstream: client-go/transport SetAuthProxyHeaders, apimachinery/pkg/util/proxy, net/http/httputil.ReverseProxy.
"""

from __future__ import annotations

import re
from functools import lru_cache
from posixpath import normpath
from typing import TYPE_CHECKING
from urllib.parse import parse_qsl, quote, unquote_to_bytes, urlencode

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

    from bowsprit.apiserver.request import RequestContext

_HOP_BY_HOP = frozenset(
    {"connection", "proxy-connection", "keep-alive", "proxy-authenticate", "proxy-authorization", "te", "trailer"}
    | {"transfer-encoding", "upgrade"}
)
# What the handler chain has used up, and what is set anew.
_OWN = frozenset({"host", "authorization", "audit-id", "content-length", "expect", "x-forwarded-for"})
_REWRITTEN = frozenset({"x-forwarded-host", "x-forwarded-proto", "x-forwarded-uri"})
_BEARER_PROTOCOL = "base64url.bearer.authorization.k8s.io."
_SAFE_IN_PATH = "/$&+,:;=@"
_PLAIN_PATH = re.compile(r"[A-Za-z0-9_.~$&+,/:;=@-]*")
_PLAIN_QUERY = re.compile(r"[A-Za-z0-9_.~-]+=[A-Za-z0-9_.~-]*")
_DROPPED = re.compile(r";|%(?![0-9A-Fa-f]{2})")  # Go's url.ParseQuery leaves such parameters out
_LEGAL_IN_NAME = re.compile(r"[!#$&'*+\-.^_`|~0-9A-Za-z]")


@lru_cache(1024)
def canonical(name: str) -> str:
    """A field's name as Go writes it: Capitals-After-Dashes."""
    return "-".join(part.capitalize() for part in name.split("-"))


@lru_cache(1024)
def extra_field(key: str) -> str:
    """The field of a user's extra value: bytes that may not be in a name are %-escaped."""
    escaped = "".join(
        chr(byte) if byte < 128 and _LEGAL_IN_NAME.fullmatch(chr(byte)) else f"%{byte:02X}" for byte in key.encode()
    )
    return canonical(f"X-Remote-Extra-{escaped}")


def target_of(request: BaseRequest) -> tuple[str, str]:
    """Path and query to ask for: escaped anew as Go does, the query's parameters sorted by name."""
    raw_path, _, raw_query = request._message.path.partition("?")
    path = raw_path if _PLAIN_PATH.fullmatch(raw_path) else quote(unquote_to_bytes(raw_path), safe=_SAFE_IN_PATH)
    if not raw_query or _PLAIN_QUERY.fullmatch(raw_query):
        return path, raw_query
    pieces = "&".join(piece for piece in raw_query.split("&") if _DROPPED.search(piece) is None)
    pairs = parse_qsl(pieces, keep_blank_values=True, encoding="utf-8", errors="surrogateescape")
    pairs.sort(key=lambda pair: pair[0])
    return path, urlencode(pairs, errors="surrogateescape")


def identity_fields(ctx: RequestContext) -> list[tuple[str, str]]:
    """The user, and the request's audit id."""
    user = ctx.user
    fields = [("Audit-Id", ctx.audit_id), *_named(user.name, user.uid, tuple(user.groups))]
    for key, values in user.extra.items():
        fields += [(extra_field(key), _clean(value)) for value in values]
    return fields


@lru_cache(1024)
def _named(name: str, uid: str, groups: tuple[str, ...]) -> list[tuple[str, str]]:
    uids = [("X-Remote-Uid", _clean(uid))] if uid else []
    return [("X-Remote-User", _clean(name)), *uids, *(("X-Remote-Group", _clean(group)) for group in groups)]


@lru_cache(1024)
def _clean(text: str) -> str:
    return text.translate({10: " ", 13: " ", 0: " "})


def _forwarded_for(request: BaseRequest) -> str:
    peer = request.remote or ""
    return (
        ", ".join([*request.headers.getall("X-Forwarded-For"), peer]) if "X-Forwarded-For" in request.headers else peer
    )


def _cleaned(path: str) -> str:
    """The path without empty and dot segments (Go's path.Join); a slash at its end stays."""
    if "//" not in path and "/." not in path:
        return path
    clean = "/" + normpath(path).lstrip("/")
    return f"{clean}/" if path.endswith("/") and clean != "/" else clean


@lru_cache(1024)
def _passed(name: str) -> str:
    """The name under which a field of a request is passed on, "" if it is not."""
    lower = name.lower()
    if lower in _HOP_BY_HOP or lower in _OWN or lower in _REWRITTEN or _is_identity(lower):
        return ""
    return canonical(name)


def passed_fields(ctx: RequestContext, request: BaseRequest, host: str, path: str) -> list[tuple[str, str]]:
    """The fields of a request that is passed on."""
    fields = [("Host", host)]
    headers = request.headers
    dropped: frozenset[str] = frozenset()
    if "Connection" in headers:
        dropped = frozenset(word.strip().lower() for value in headers.getall("Connection") for word in value.split(","))
    for name, value in headers.items():
        shown = _passed(name)
        if shown and name.lower() not in dropped:
            fields.append((shown, value))
    fields += identity_fields(ctx)
    fields += [
        ("X-Forwarded-For", _forwarded_for(request)),
        ("X-Forwarded-Host", host),
        ("X-Forwarded-Proto", "https"),
        ("X-Forwarded-Uri", _cleaned(path)),
    ]
    if "trailers" in headers.get("TE", ""):
        fields.append(("Te", "trailers"))
    if "Accept-Encoding" not in headers and "Range" not in headers and request.method != "HEAD":
        fields.append(("Accept-Encoding", "gzip"))
    return fields


def upgrade_fields(ctx: RequestContext, request: BaseRequest, host: str) -> list[tuple[str, str]]:
    """The fields of a request for an upgrade: they go on as they came, but for the identity."""
    fields = [("Host", host)]
    for name, value in request.headers.items():
        lower = name.lower()
        if (lower in _OWN and lower != "content-length") or _is_identity(lower):
            continue
        if lower == "sec-websocket-protocol":
            words = [word.strip() for word in value.split(",")]
            value = ", ".join(word for word in words if not word.startswith(_BEARER_PROTOCOL))
            if not value:
                continue
        fields.append((canonical(name), value))
    return [*fields, *identity_fields(ctx), ("X-Forwarded-For", _forwarded_for(request))]


def _is_identity(lower: str) -> bool:
    return lower.startswith(("x-remote-user", "x-remote-uid", "x-remote-group", "x-remote-extra-", "impersonate-"))
