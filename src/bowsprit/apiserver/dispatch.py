"""From a checked request to the verb that answers it."""

from __future__ import annotations

from typing import TYPE_CHECKING

from aiohttp import web

from bowsprit.apiserver.answer import TEXT, Answer, Sent, not_found_answer
from bowsprit.apiserver.call import Call
from bowsprit.apiserver.metrics import CONTENT_TYPE
from bowsprit.apiserver.negotiation import negotiate
from bowsprit.apiserver.registry import Endpoint
from bowsprit.apiserver.representation import answer as object_answer
from bowsprit.apiserver.request import RequestContext, RequestInfo
from bowsprit.apiserver.resource import (
    ActionSubresource,
    ConnectSubresource,
    ScaleSubresource,
    StatusSubresource,
    Subresource,
)
from bowsprit.apiserver.verbs.create import create
from bowsprit.apiserver.verbs.delete import delete, delete_collection
from bowsprit.apiserver.verbs.get import get
from bowsprit.apiserver.verbs.list import list_objects
from bowsprit.apiserver.verbs.patch import patch
from bowsprit.apiserver.verbs.subresource import action, connect, get_scale, patch_scale, update_scale
from bowsprit.apiserver.verbs.update import update
from bowsprit.apiserver.verbs.watch import watch
from bowsprit.machinery.errors import StatusError, generic, not_acceptable, not_found

if TYPE_CHECKING:
    from bowsprit.apiserver.server import Handler, Server, _Exchange

_METHOD_VERBS = {
    ("GET", True): ("get",),
    ("GET", False): ("list", "watch"),
    ("POST", False): ("create",),
    ("PUT", True): ("update",),
    ("PATCH", True): ("patch",),
    ("DELETE", True): ("delete",),
    ("DELETE", False): ("deletecollection",),
}


def not_allowed() -> StatusError:
    """405 as the router gives it."""
    return generic(405)


def no_such_resource() -> StatusError:
    """404 as the router gives it."""
    return generic(404)


async def resource(server: Server, exchange: _Exchange) -> Answer | Sent | web.StreamResponse:
    """Answers a request for a resource. Raises StatusError."""
    ctx = exchange.ctx
    info = ctx.info
    foreign = server._group_versions.get((info.group, info.version))
    if foreign is not None:
        return await exchange.mounted(foreign)
    endpoint = server.registry.endpoint(info.group, info.version, info.resource)
    if endpoint is None:
        group_version = server.registry.endpoints(info.group, info.version)
        if not group_version or all(each.resource.custom for each in group_version):
            return not_found_answer()
        raise no_such_resource()
    if endpoint.version.deprecation_warning:
        ctx.warn(endpoint.version.deprecation_warning)
    if endpoint.resource.open is not None:
        endpoint = Endpoint(await endpoint.resource.open(ctx, endpoint.collection), endpoint.version)
    call = Call(ctx, exchange.request, endpoint, server.registry, server.admission, server.authorizer)
    if info.subresource:
        return await _subresource(call, exchange)
    _check_path(info, endpoint)
    return await _verb(call, exchange)


def _check_path(info: RequestInfo, endpoint: Endpoint) -> None:
    """Refuses paths that do not exist for the resource's scope."""
    if endpoint.resource.namespaced:
        if info.name and not info.namespace and len(info.parts) > 1:
            raise no_such_resource()
    elif info.namespace and info.resource != "namespaces":
        raise no_such_resource()


async def _verb(call: Call, exchange: _Exchange) -> Answer | Sent | web.StreamResponse:
    info = call.ctx.info
    resource = call.endpoint.resource
    method = call.request.method
    verb = info.verb
    named = len(info.parts) > 1
    if verb == "watch":
        if method != "GET" or "watch" not in resource.verbs:
            raise not_allowed()
        return await watch(call, exchange.common())
    if verb not in _METHOD_VERBS.get((method, named), ()):
        raise not_allowed()
    if verb not in resource.verbs:
        raise not_allowed()
    if verb == "create" and resource.namespaced and not info.namespace:
        raise not_allowed()
    if resource.virtual is not None:
        return await _virtual(call, verb)
    if verb == "get":
        return await get(call)
    if verb == "list":
        return await list_objects(call)
    if verb == "create":
        return await create(call)
    if verb == "update":
        return await update(call)
    if verb == "patch":
        return await patch(call)
    if verb == "delete":
        return await delete(call)
    if resource.namespaced and not info.namespace:
        raise not_allowed()
    return await delete_collection(call)


async def _virtual(call: Call, verb: str) -> Answer:
    virtual = call.endpoint.resource.virtual
    assert virtual is not None
    if verb == "create" and virtual.create is not None:
        return await create(call)
    if verb == "get" and virtual.get is not None:
        return call.respond_object(call.representation(), await virtual.get(call.ctx, call.ctx.info.name))
    if verb == "list" and virtual.list is not None:
        return await _virtual_list(call)
    raise not_allowed()


async def _virtual_list(call: Call) -> Answer:
    from bowsprit.apiserver.verbs.list import list_object

    virtual = call.endpoint.resource.virtual
    assert virtual is not None
    assert virtual.list is not None
    chosen = call.representation(streams=True)
    made = await virtual.list(call.ctx)
    version = call.version
    objects = [
        {"kind": version.gvk.kind, "apiVersion": version.gvk.api_version, **item} for item in made.get("items") or []
    ]
    return object_answer(call.ctx, chosen, 200, obj=list_object(call, chosen, objects, made.get("metadata") or {}))


async def _subresource(call: Call, exchange: _Exchange) -> Answer | Sent | web.StreamResponse:
    info = call.ctx.info
    resource = call.endpoint.resource
    subresource: Subresource | None = resource.subresources.get(info.subresource)
    method = call.request.method
    if subresource is None:
        if resource.custom:
            raise not_found(call.version.gvr.gr, info.name)
        raise no_such_resource()
    if resource.namespaced and not info.namespace:
        raise no_such_resource()
    if isinstance(subresource, ConnectSubresource):
        if len(info.parts) > 3 and not subresource.takes_path:
            raise no_such_resource()
        if method not in subresource.methods:
            raise not_allowed()
        exchange.request.common = exchange.common()
        call.ctx.http = call.request
        return await connect(call, subresource)
    if len(info.parts) > 3:
        raise no_such_resource()
    verb = info.verb
    if (method, verb) not in (("GET", "get"), ("POST", "create"), ("PUT", "update"), ("PATCH", "patch")):
        raise not_allowed()
    if verb not in subresource.verbs:
        raise not_allowed()
    if isinstance(subresource, ActionSubresource):
        return await action(call, subresource)
    if isinstance(subresource, ScaleSubresource):
        if verb == "get":
            return await get_scale(call, subresource)
        return await (update_scale if verb == "update" else patch_scale)(call, subresource)
    assert isinstance(subresource, StatusSubresource)
    if verb == "get":
        return await get(call)
    return await (update if verb == "update" else patch)(call, subresource.strategy)


# -- paths that are no resources -------------------------------------------------------------------------------------------


def mount_standard(server: Server) -> None:
    """Mounts what every server has: health, metrics, version, discovery, OpenAPI, the index."""
    for endpoint in ("livez", "readyz", "healthz"):
        server.mount(f"/{endpoint}", server.health.serve)
        server.mount(f"/{endpoint}/", server.health.serve, prefix=True)

    async def metrics(ctx: RequestContext, request: web.BaseRequest) -> Answer:
        return Answer(200, server.metrics.text().encode(), CONTENT_TYPE)

    async def version(ctx: RequestContext, request: web.BaseRequest) -> Answer:
        return object_answer(ctx, negotiate(""), 200, obj=dict(server.options.version))

    async def index(ctx: RequestContext, request: web.BaseRequest) -> Answer:
        return object_answer(ctx, negotiate(""), 200, obj={"paths": server.index()})

    async def page(ctx: RequestContext, request: web.BaseRequest) -> Answer:
        accept = request.headers.get("Accept", "")
        if not any(part.partition(";")[0].strip() in ("text/plain", "*/*") for part in accept.split(",")):
            raise not_acceptable(
                "only the following media types are accepted: application/json, application/yaml, text/plain"
            )
        text = server.status_page() if ctx.info.path == "/statusz" else server.flags_page()
        return Answer(200, text.encode(), TEXT)

    server.mount("/statusz", page)
    server.mount("/flagz", page)
    server.mount("/metrics", metrics)
    server.mount("/version", version)
    server.mount("/version/", version)
    server.mount("/", index)
    server.mount("/api", server.discovery.serve_root)
    server.mount("/apis", server.discovery.serve_root)
    server.mount("/api/", server.discovery.serve_root)
    server.mount("/apis/", server.discovery.serve_root)
    server.mount("/openapi/v2", server.openapi.serve_v2)
    server.mount("/openapi/v3", server.openapi.serve_v3)
    server.mount("/openapi/v3/", server.openapi.serve_v3, prefix=True)


def discovery_handler(server: Server, parts: list[str]) -> Handler | None:
    """/apis/<group>, /apis/<group>/<version> and /api/<version>, with or without a slash at the end."""
    if parts and parts[-1] == "":
        parts = parts[:-1]
    if len(parts) == 3 and parts[1] == "api":
        return server.discovery.serve_version
    if len(parts) == 3 and parts[1] == "apis":
        return server.discovery.serve_group
    if len(parts) == 4 and parts[1] == "apis":
        return server.discovery.serve_version
    return None
