"""/openapi/v2 and /openapi/v3: documents made on demand, kept as bytes with their hashes until the registry changes."""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Awaitable, Callable
from dataclasses import dataclass
from email.utils import formatdate
from time import time

from aiohttp import web

from bowsprit.apiserver.answer import TEXT, Answer, Sent
from bowsprit.apiserver.request import RequestContext
from bowsprit.machinery.codec import encode_json
from bowsprit.machinery.objects import Obj

PROTOBUF_V2 = "application/com.github.proto-openapi.spec.v2@v1.0+protobuf"
PROTOBUF_V3 = "application/com.github.proto-openapi.spec.v3@v1.0+protobuf"
_YEAR = 365 * 24 * 3600

Supplier = Callable[[], Obj]
Handler = Callable[[RequestContext, web.BaseRequest], Awaitable["Answer | Sent | web.StreamResponse"]]


@dataclass(slots=True)
class _Document:
    supplier: Supplier
    body: bytes | None = None
    digest: str = ""
    protobuf: bytes | None = None
    made_at: float = 0.0


@dataclass(slots=True)
class _Foreign:
    """A document that another server has (`url`, `handler`), or that was made for it (`document`)."""

    owner: str
    url: str = ""
    handler: Handler | None = None
    document: _Document | None = None
    before_own: bool = False


class OpenAPI:
    """The documents, by path ("apis/apps/v1"). They are made in a thread when first asked for."""

    def __init__(self) -> None:
        self._documents: dict[str, _Document] = {}
        self._foreign: dict[str, list[_Foreign]] = {}
        self._v2 = _Document(lambda: {})
        self.extend_v2: Callable[[Obj], Obj] | None = None  # adds other servers' paths; runs in a thread
        self._lock = asyncio.Lock()
        self.encode_v2: Callable[[Obj], bytes] | None = None
        self.encode_v3: Callable[[Obj], bytes] | None = None
        self.redirects = True  # from the hash of an older document to the newest; False: the newest is the answer

    def put(self, path: str, supplier: Supplier) -> None:
        """Publishes (or replaces) the v3 document of a path."""
        self._documents[path] = _Document(supplier)
        self._v2.body = None

    def drop(self, path: str) -> None:
        if self._documents.pop(path, None) is not None:
            self._v2.body = None

    def set_v2(self, supplier: Supplier) -> None:
        """How the v2 document is made."""

        def supply() -> Obj:
            made = supplier()
            return self.extend_v2(made) if self.extend_v2 is not None else made

        self._v2 = _Document(supply)

    # -- other servers' documents ----------------------------------------------------------------------------------------

    def mount(self, path: str, owner: str, url: str, handler: Handler, *, before_own: bool = False) -> None:
        """Lists an owner's v3 document of a path under `url`; whoever asks for it gets the handler's answer.

        before_own: it takes the place of a document of ours.
        """
        self._mount(path, _Foreign(owner, url, handler, before_own=before_own))

    def mount_document(self, path: str, owner: str, supplier: Supplier) -> None:
        """Publishes a v3 document in the name of an owner; it takes the place of a document of ours."""
        self._mount(path, _Foreign(owner, document=_Document(supplier), before_own=True))

    def _mount(self, path: str, foreign: _Foreign) -> None:
        self.unmount(path, foreign.owner)
        self._foreign.setdefault(path, []).append(foreign)

    def unmount(self, path: str, owner: str) -> None:
        """Forgets what an owner has at a path."""
        left = [each for each in self._foreign.get(path, ()) if each.owner != owner]
        if left:
            self._foreign[path] = left
        else:
            self._foreign.pop(path, None)

    def _foreign_at(self, path: str) -> _Foreign | None:
        own = path in self._documents
        return next((each for each in self._foreign.get(path, ()) if each.before_own or not own), None)

    def invalidate_v2(self) -> None:
        self._v2.body = None

    async def _made(self, document: _Document) -> bytes:
        if document.body is None:
            async with self._lock:
                if document.body is None:
                    body = await asyncio.to_thread(lambda: encode_json(document.supplier()))
                    document.digest = hashlib.sha512(body).hexdigest().upper()
                    document.protobuf = None
                    document.made_at = time()
                    document.body = body
        return document.body

    async def serve_v3(self, ctx: RequestContext, request: web.BaseRequest) -> Answer | Sent | web.StreamResponse:
        """/openapi/v3 and /openapi/v3/<path>."""
        path = ctx.info.path.removeprefix("/openapi/v3").strip("/")
        if not path:
            return await self._index()
        foreign = self._foreign_at(path)
        if foreign is not None and foreign.handler is not None:
            return await foreign.handler(ctx, request)
        document = foreign.document if foreign is not None else self._documents.get(path)
        if document is None:
            return Answer(404, b"", "")
        sort = _sort(request.headers.get("Accept", ""), PROTOBUF_V3)
        if not sort:
            return Answer(406, b"", "", [("Vary", "Accept")])
        body = await self._made(document)
        etag = f'"{document.digest}"'
        headers = [("Etag", etag), ("Vary", "Accept")]
        wanted = ctx.query.get("hash") if ctx.query else None
        if wanted and wanted != document.digest:
            if self.redirects:
                location = f"/openapi/v3/{path}?hash={document.digest}"
                return Answer(301, b"", "application/json", [*headers, ("Location", location)])
        elif wanted:
            headers.append(("Cache-Control", "public, immutable"))
            headers.append(("Expires", formatdate(time() + _YEAR, usegmt=True)))
        if request.headers.get("If-None-Match") == etag:
            return Answer(304, b"", "", headers)
        headers += _file_headers(document)
        return await self._answer(document, body, sort, headers, self.encode_v3)

    async def _index(self) -> Answer:
        paths = {}
        made_at = 0.0
        for path in sorted({*self._documents, *self._foreign}):
            foreign = self._foreign_at(path)
            if foreign is not None and foreign.handler is not None:
                paths[path] = {"serverRelativeURL": foreign.url}
                continue
            document = foreign.document if foreign is not None else self._documents.get(path)
            if document is not None:
                await self._made(document)
                made_at = max(made_at, document.made_at)
                paths[path] = {"serverRelativeURL": f"/openapi/v3/{path}?hash={document.digest}"}
        modified = ("Last-Modified", formatdate(made_at, usegmt=True))
        return Answer(200, encode_json({"paths": paths}), TEXT, [("Accept-Ranges", "bytes"), modified])

    async def serve_v2(self, ctx: RequestContext, request: web.BaseRequest) -> Answer:
        """/openapi/v2."""
        sort = _sort(request.headers.get("Accept", ""), PROTOBUF_V2)
        vary = [("Vary", "Accept-Encoding"), ("Vary", "Accept")]
        if not sort:
            return Answer(406, b"", "", vary)
        body = await self._made(self._v2)
        etag = f'"{self._v2.digest}"'
        if request.headers.get("If-None-Match") == etag:
            return Answer(304, b"", "", [("Etag", etag), *vary])
        headers = [("Etag", etag), *vary, *_file_headers(self._v2)]
        return await self._answer(self._v2, body, sort, headers, self.encode_v2)

    async def _answer(
        self,
        document: _Document,
        body: bytes,
        sort: str,
        headers: list[tuple[str, str]],
        encode: Callable[[Obj], bytes] | None,
    ) -> Answer:
        if sort == "application/json":
            return Answer(200, body, sort, headers)
        if encode is None:
            return Answer(406, b"", "", [("Vary", "Accept")])
        if document.protobuf is None:
            document.protobuf = await asyncio.to_thread(lambda: encode(document.supplier()))
        return Answer(200, document.protobuf, sort, headers)


def _file_headers(document: _Document) -> list[tuple[str, str]]:
    return [("Accept-Ranges", "bytes"), ("Last-Modified", formatdate(document.made_at, usegmt=True))]


def _sort(accept: str, protobuf: str) -> str:
    """application/json or the protobuf type, "" when neither will do."""
    if not accept:
        return "application/json"
    for part in accept.split(","):
        media_type = part.partition(";")[0].strip()
        if media_type in ("*/*", "application/*", "application/json"):
            return "application/json"
        # Clients may ask with "@", but Go's mime package cannot read an answer of such a type: it says ".v1.0".
        if media_type in (protobuf, protobuf.replace("@", ".")):
            return protobuf.replace("@", ".")
    return ""
