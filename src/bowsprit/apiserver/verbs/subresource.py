"""Subresources: scale, actions such as binding and eviction, and raw connections."""

from __future__ import annotations

from collections.abc import Awaitable, Callable
from typing import Any

from aiohttp.web import StreamResponse

from bowsprit.apiserver import mutation, negotiation, ownership
from bowsprit.apiserver.admit import Operation
from bowsprit.apiserver.answer import Answer, Sent
from bowsprit.apiserver.call import Call
from bowsprit.apiserver.decoding import decode_body
from bowsprit.apiserver.options import apply_write_options
from bowsprit.apiserver.resource import ActionSubresource, ConnectSubresource, ScaleSubresource
from bowsprit.apiserver.verbs.create import ensure_namespace
from bowsprit.apiserver.verbs.get import wait_until_fresh
from bowsprit.apiserver.verbs.patch import parse_applied, parse_patch, patch_sort
from bowsprit.apiserver.verbs.patched import read_back
from bowsprit.apiserver.verbs.update import check_name
from bowsprit.machinery import builtin
from bowsprit.machinery.codec import DecodeError
from bowsprit.machinery.errors import bad_request, conflict, internal_error, invalid, not_found, unknown
from bowsprit.machinery.fielderrors import invalid as invalid_field
from bowsprit.machinery.fielderrors import path
from bowsprit.machinery.names import GroupKind, GroupVersionKind
from bowsprit.machinery.objects import Obj, deep_copy, nested, set_nested

_SCALE = GroupVersionKind("autoscaling", "v1", "Scale")


async def action(call: Call, subresource: ActionSubresource) -> Answer:
    """POST of another kind to an object."""
    assert subresource.gvk is not None
    chosen = call.representation()
    media_type = negotiation.body_media_type(call.request.headers.get("Content-Type", ""))
    options = apply_write_options(call.ctx, "CreateOptions", call.query)
    obj = decode_body(
        call.ctx,
        await call.body(),
        media_type,
        subresource.gvk,
        subresource.schema,
        call.registry.knows,
        accepts=subresource.accepts.__contains__,
    )
    if subresource.default is not None:
        subresource.default(obj)
    ensure_namespace(call, obj)
    attributes = call.attributes(Operation.CREATE, obj, None, options)
    attributes.gvk = subresource.gvk
    await call.admission.mutate(attributes)
    await call.admission.validate(attributes)
    made = await subresource.handler(call.ctx, call.ctx.info.name, attributes.object or obj)
    status = 201
    if made.get("kind") == "Status" and made.get("apiVersion") == "v1":
        status = made.get("code") or 201
    return call.respond_object(chosen, made, status)


async def connect(call: Call, subresource: ConnectSubresource) -> Answer | Sent | StreamResponse:
    """exec, attach, portforward, proxy, log: the handler has the request for itself."""
    if subresource.connects:
        attributes = call.attributes(Operation.CONNECT, None, None, {})
        if subresource.gvk is not None:
            attributes.gvk = subresource.gvk
            attributes.object = {
                "kind": subresource.gvk.kind,
                "apiVersion": subresource.gvk.api_version,
                **dict(call.query.items()),
            }
        await call.admission.mutate(attributes)
        await call.admission.validate(attributes)
    return await subresource.handler(call.ctx, call.ctx.info.name, call.request)


# -- scale ---------------------------------------------------------------------------------------------------------------


async def get_scale(call: Call, subresource: ScaleSubresource) -> Answer:
    chosen = call.representation()
    await wait_until_fresh(call, call.query.get("resourceVersion", "") if call.query else "")
    info = call.ctx.info
    item = call.collection.item(info.namespace, info.name)
    if item is None:
        raise not_found(call.version.gvr.gr, info.name)
    obj = await call.collection.view(call.version, call.collection.decode(item))
    return call.respond_object(chosen, scale_of(subresource, obj))


async def update_scale(call: Call, subresource: ScaleSubresource) -> Answer:
    media_type = negotiation.body_media_type(call.request.headers.get("Content-Type", ""))
    options = apply_write_options(call.ctx, "UpdateOptions", call.query)
    body = decode_body(call.ctx, await call.body(), media_type, _SCALE, None, call.registry.knows, accepts=_is_scale)
    body = _typed(body)
    check_name(call, body)
    return await _change(call, subresource, options, lambda current: deep_copy(body))


async def patch_scale(call: Call, subresource: ScaleSubresource) -> Answer:
    sort = patch_sort(call)
    data = await call.body()
    options = apply_write_options(call.ctx, "PatchOptions", call.query, patch=True, apply_patch=sort == "apply")
    if sort == "apply":
        applied = parse_applied(call, data)
        check_name(call, applied)

        return await _apply_scale(call, subresource, options, _typed(applied))
    if sort == "strategic":
        sort = "merge"  # a Scale has no lists to merge
    apply = parse_patch(call, sort, data)

    def patched(current: Obj) -> Obj:
        made = read_back(call, apply(current), _SCALE, _decode_scale)
        check_name(call, made)
        return made

    return await _change(call, subresource, options, patched)


async def _apply_scale(call: Call, subresource: ScaleSubresource, options: Obj, applied: Obj) -> Answer:
    """Applies a Scale as what it says of the object itself (upstream's scale handler and its ScaleHandler)."""
    if call.endpoint.resource.custom:
        raise unknown(
            f"failed to convert new object (/{call.ctx.info.name}; autoscaling/v1, Kind=Scale) to proper version: request to "
            "convert CR to an invalid group/version: autoscaling/v1"
        )
    gvk = call.version.gvk
    config: Obj = {"kind": gvk.kind, "apiVersion": gvk.api_version, "metadata": {"name": call.ctx.info.name}}
    set_nested(config, nested(applied, "spec", "replicas", default=0), *subresource.spec_replicas)

    async def own(live: Obj) -> Obj:
        return await ownership.apply(
            call.collection,
            call.version,
            live,
            deep_copy(config),
            call.ctx,
            force=bool(options.get("force")),
            subresource="scale",
        )

    return await _change(
        call, subresource, options, lambda current: {**current, "spec": applied.get("spec") or {}}, own
    )


def _is_scale(gvk: GroupVersionKind) -> bool:
    return gvk == _SCALE


def _decode_scale(scale: Obj, tree: Any) -> tuple[Obj, list[str]]:
    type_ = builtin.lookup(_SCALE)
    assert type_ is not None
    return type_.round_trip(scale), type_.strict_errors(tree)


def _typed(scale: Obj) -> Obj:
    type_ = builtin.lookup(_SCALE)
    if type_ is None:
        return scale
    try:
        typed: Obj = type_.round_trip(scale)
        return typed
    except DecodeError as failure:
        raise bad_request(f'Scale in version "v1" cannot be handled as a Scale: {failure}') from failure


async def _change(
    call: Call,
    subresource: ScaleSubresource,
    options: Obj,
    make: Callable[[Obj], Obj],
    own: Callable[[Obj], Awaitable[Obj]] | None = None,
) -> Answer:
    """`make` gives the new Scale of the current one; `own` makes the new object of the live one, by default replicas are set."""
    chosen = call.representation()
    info = call.ctx.info

    async def compute(live: Obj | None) -> Obj:
        assert live is not None  # a scale creates nothing
        current = scale_of(subresource, live)
        wanted = make(current)
        meta = wanted["metadata"]
        if meta.get("uid") and meta["uid"] != live["metadata"]["uid"]:
            raise conflict(
                call.version.gvr.gr,
                info.name,
                mutation.precondition_failed(
                    call.endpoint.resource.key(info.namespace, info.name), "UID", meta["uid"], live["metadata"]["uid"]
                ),
            )
        replicas = nested(wanted, "spec", "replicas", default=0)
        if not call.endpoint.resource.custom and (not isinstance(replicas, int) or replicas < 0):
            error = invalid_field(path("spec").child("replicas"), replicas, "must be greater than or equal to 0")
            raise invalid(GroupKind("autoscaling", "Scale"), info.name, [error])
        given = meta.get("resourceVersion") or ""
        if given not in ("", "0") and given != live["metadata"]["resourceVersion"]:
            raise conflict(call.version.gvr.gr, info.name, mutation.OPTIMISTIC_LOCK)
        attributes = call.attributes(Operation.UPDATE, wanted, current, options)
        attributes.gvk = _SCALE
        await call.admission.mutate(attributes)
        replicas = nested(attributes.object or wanted, "spec", "replicas", default=replicas)
        if own is not None:
            return await own(live)
        new: Obj = deep_copy(live)
        set_nested(new, replicas, *subresource.spec_replicas)
        await ownership.track(call.collection, call.version, live, new, call.ctx, "scale")
        return new

    async def admit(new: Obj, old: Obj | None) -> None:
        before = scale_of(subresource, old) if old is not None else None
        attributes = call.attributes(Operation.UPDATE, scale_of(subresource, new), before, options)
        attributes.gvk = _SCALE
        await call.admission.validate(attributes)

    stored, _ = await mutation.update(
        call.collection, call.version, info.namespace, info.name, call.ctx, compute, admit
    )
    return call.respond_object(chosen, scale_of(subresource, await call.collection.view(call.version, stored.obj)))


def scale_of(subresource: ScaleSubresource, obj: Obj) -> Obj:
    """The Scale of an object. Raises internal_error where a custom resource has no replicas."""
    meta = obj["metadata"]
    replicas = nested(obj, *subresource.spec_replicas, default=subresource.default_replicas)
    if replicas is None:
        raise internal_error(f'the spec replicas field ".{".".join(subresource.spec_replicas)}" does not exist')
    status: Obj = {"replicas": nested(obj, *subresource.status_replicas, default=0) or 0}
    selector = subresource.selector(obj) if subresource.selector is not None else ""
    if selector:
        status["selector"] = selector
    kept = ("name", "namespace", "uid", "resourceVersion", "creationTimestamp")
    return {
        "kind": "Scale",
        "apiVersion": "autoscaling/v1",
        "metadata": {key: meta[key] for key in kept if key in meta},
        "spec": {"replicas": replicas} if replicas else {},
        "status": status,
    }
