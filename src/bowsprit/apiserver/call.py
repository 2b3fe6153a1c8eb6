"""A Call: one request that has reached its endpoint, with what the verbs need to answer it."""

from __future__ import annotations

import asyncio
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

from aiohttp.http_exceptions import HttpProcessingError
from aiohttp.web_protocol import RequestPayloadError

from bowsprit.apiserver import negotiation, representation
from bowsprit.apiserver.access import Attributes, Authorizer, Decision, forbidden_error
from bowsprit.apiserver.admit import Admission, AdmissionAttributes, Operation
from bowsprit.apiserver.answer import Answer
from bowsprit.apiserver.collection import Collection, Stored
from bowsprit.apiserver.negotiation import Representation
from bowsprit.apiserver.registry import Endpoint, Registry
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import Version
from bowsprit.machinery.errors import bad_request, too_large
from bowsprit.machinery.objects import Obj

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

MAX_BODY_BYTES = 3 << 20  # upstream MaxRequestBodyBytes
_CONTINUE = b"HTTP/1.1 100 Continue\r\n\r\n"


@dataclass(slots=True)
class Call:
    """See the module's docstring."""

    ctx: RequestContext
    request: BaseRequest
    endpoint: Endpoint
    registry: Registry
    admission: Admission
    authorizer: Authorizer

    @property
    def collection(self) -> Collection:
        return self.endpoint.collection

    @property
    def version(self) -> Version:
        return self.endpoint.version

    @property
    def query(self) -> Mapping[str, str]:
        return self.ctx.query

    # -- bodies --------------------------------------------------------------------------------------------------------

    async def body(self) -> bytes:
        """The whole body. Raises 413 beyond 3 MiB, 400 for one that breaks off."""
        return await read_body(self.request)

    # -- admission -----------------------------------------------------------------------------------------------------

    def attributes(
        self,
        operation: Operation,
        obj: Obj | None,
        old: Obj | None,
        options: Obj,
        *,
        name: str | None = None,
        subresource: str | None = None,
    ) -> AdmissionAttributes:
        """An admission question about this call's object."""
        ctx = self.ctx
        version = self.version
        return AdmissionAttributes(
            operation,
            version.gvr,
            version.gvk,
            ctx.info.subresource if subresource is None else subresource,
            ctx.info.namespace if self.endpoint.resource.namespaced else self._cluster_namespace(),
            ctx.info.name if name is None else name,
            obj,
            old,
            options,
            ctx.user,
            dry_run=ctx.dry_run,
            cluster_scoped=not self.endpoint.resource.namespaced,
            resource=self.endpoint.resource,
            warn=ctx.warn,
        )

    def _cluster_namespace(self) -> str:
        # A namespace object's requests carry its own name as their namespace.
        return self.ctx.info.namespace if self.version.gvr.resource == "namespaces" else ""

    async def authorize(self, verb: str) -> None:
        """Checks a second verb on the same target (a PATCH that creates). Raises 403."""
        attributes = self.authorization(verb)
        decision, reason = await self.authorizer.authorize(attributes)
        if decision is not Decision.ALLOW:
            raise forbidden_error(attributes, reason)

    def authorization(self, verb: str) -> Attributes:
        info = self.ctx.info
        return Attributes(
            self.ctx.user,
            verb,
            info.group,
            info.version,
            info.resource,
            info.subresource,
            info.namespace,
            info.name,
            info.path,
        )

    # -- answers -------------------------------------------------------------------------------------------------------

    def representation(self, *, streams: bool = False) -> Representation:
        """How the client wants the answer. Raises 406."""
        accept = self.request.headers.get("Accept", "")
        negotiation.check_route(accept, streams=streams)
        chosen = negotiation.negotiate(accept, protobuf=self.version.protobuf)
        if chosen.convert == "Table":
            representation.check_table(self.query)
        return chosen

    async def respond(self, chosen: Representation, stored: Stored, status: int = 200) -> Answer:
        """A stored object in the version of the call."""
        collection = self.collection
        if collection.is_hub(self.version) and not chosen.convert:
            return representation.answer(self.ctx, chosen, status, value=stored.value, obj=stored.obj)
        return self.respond_object(chosen, await collection.view(self.version, stored.obj), status)

    def respond_object(self, chosen: Representation, obj: Obj, status: int = 200) -> Answer:
        """Any object; of this call's kind when the representation converts it."""
        if chosen.convert:
            obj = representation.convert(
                chosen, obj, self.version, self.ctx, include=self.query.get("includeObject", "") if self.query else ""
            )
        return representation.answer(self.ctx, chosen, status, obj=obj)


async def read_body(request: BaseRequest, limit: int = MAX_BODY_BYTES) -> bytes:
    """The body of a request. Raises 413, 400."""
    length = request.content_length
    if length is not None and length > limit:
        raise too_large(f"limit is {limit}")
    content = request.content
    if content.at_eof():
        return b""
    if request.headers.get("Expect", "").lower() == "100-continue" and request.transport is not None:
        request.transport.write(_CONTINUE)
    pieces = []
    size = 0
    try:
        while piece := await content.readany():
            size += len(piece)
            if size > limit:
                raise too_large(f"limit is {limit}")
            pieces.append(piece)
    except (RequestPayloadError, HttpProcessingError, asyncio.IncompleteReadError, ConnectionError) as failure:
        raise bad_request(f"unable to read the request's body: {failure}") from failure
    return pieces[0] if len(pieces) == 1 else b"".join(pieces)
