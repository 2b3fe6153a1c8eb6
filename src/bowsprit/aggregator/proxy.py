"""Passing a request on to an extension API server, on behalf of the user who sent it.

Upstream: kube-aggregator pkg/apiserver/handler_proxy.go. The user is told in X-Remote-* headers; those that came with the request
are dropped. Failures are plain text, as upstream's.
"""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import TYPE_CHECKING
from urllib.parse import quote

import aiohttp
from aiohttp import web
from multidict import CIMultiDict
from yarl import URL

from bowsprit.aggregator.backend import Backend, failure_text
from bowsprit.apiserver.answer import Answer, text_answer
from bowsprit.net.dial import DialError

if TYPE_CHECKING:
    from bowsprit.apiserver.request import RequestContext

_PIECE = 1 << 16
_DISCOVERY_SECONDS = 5.0
_HOP_BY_HOP = frozenset(
    {
        "connection",
        "keep-alive",
        "proxy-authenticate",
        "proxy-authorization",
        "te",
        "trailer",
        "transfer-encoding",
        "upgrade",
        "host",
        "authorization",
        "audit-id",
        "x-forwarded-host",
        "x-forwarded-proto",
        "x-forwarded-uri",
        "x-forwarded-for",
    }
)
_NOT_BACK = _HOP_BY_HOP - {"audit-id"} | {"date"}
_UNAVAILABLE = "service unavailable\n"


async def forward(backend: Backend, ctx: RequestContext, request: web.BaseRequest) -> Answer | web.StreamResponse:
    """The backend's answer, or why there is none."""
    if not backend.available:
        return text_answer(503, _UNAVAILABLE)
    if "upgrade" in request.headers.get("Connection", "").lower():
        return text_answer(503, "upgraded connections are not passed on to extension API servers\n")
    try:
        base = await backend.url()
    except LookupError:
        return text_answer(503, _UNAVAILABLE)
    # Only discovery itself is cut short: everything else has the request's own limits.
    limit = _DISCOVERY_SECONDS if request.path.rstrip("/") == backend.path else None
    try:
        async with asyncio.timeout(limit):
            return await _pass(backend, base, ctx, request)
    except TimeoutError:
        raise
    except (aiohttp.ClientError, DialError, OSError) as exc:
        return text_answer(503, f"error trying to reach service: {failure_text(exc)}\n")


async def _pass(
    backend: Backend, base: str, ctx: RequestContext, request: web.BaseRequest
) -> Answer | web.StreamResponse:
    url = URL(base + request.rel_url.raw_path_qs, encoded=True)
    async with backend.session.request(
        request.method,
        url,
        headers=_headers(ctx, request, url),
        data=_body(request) if request.body_exists else None,
        allow_redirects=False,
        skip_auto_headers=("User-Agent", "Accept", "Accept-Encoding", "Content-Type"),
        timeout=aiohttp.ClientTimeout(total=None, sock_connect=10.0),
    ) as answer:
        if 300 <= answer.status < 400 and "Location" in answer.headers:
            return text_answer(502, "the backend attempted to redirect this request, which is not permitted", ())
        response = web.StreamResponse(status=answer.status, reason=answer.reason)
        for name, value in answer.headers.items():
            if name.lower() not in _NOT_BACK:
                response.headers.add(name, value)
        await response.prepare(request)
        if request.method != "HEAD":
            async for piece in answer.content.iter_any():
                await response.write(piece)
        await response.write_eof()
        return response


def _headers(ctx: RequestContext, request: web.BaseRequest, url: URL) -> CIMultiDict[str]:
    headers: CIMultiDict[str] = CIMultiDict()
    for name, value in request.headers.items():
        lower = name.lower()
        if lower not in _HOP_BY_HOP and not lower.startswith("x-remote-") and not lower.startswith("impersonate-"):
            headers.add(name, value)
    user = ctx.user
    headers.add("X-Remote-User", user.name)
    if user.uid:
        headers.add("X-Remote-Uid", user.uid)
    for group in user.groups:
        headers.add("X-Remote-Group", group)
    for key, values in user.extra.items():
        for value in values:
            headers.add(f"X-Remote-Extra-{quote(key, safe='')}", value)
    headers.add("Audit-Id", ctx.audit_id)
    before = request.headers.get("X-Forwarded-For")
    peer = request.remote or ""
    headers.add("X-Forwarded-For", f"{before}, {peer}" if before else peer)
    headers.add("X-Forwarded-Host", url.authority)
    headers.add("X-Forwarded-Proto", "https")
    headers.add("X-Forwarded-Uri", url.raw_path)
    return headers


async def _body(request: web.BaseRequest) -> AsyncIterator[bytes]:
    async for piece in request.content.iter_chunked(_PIECE):
        yield piece
