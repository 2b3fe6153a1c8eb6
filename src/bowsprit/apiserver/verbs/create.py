"""POST of a collection: create (upstream handlers/create.go), and the virtual kinds that only answer."""

from __future__ import annotations

from bowsprit.apiserver import creation, negotiation, objectmeta, ownership
from bowsprit.apiserver.admit import Operation
from bowsprit.apiserver.answer import Answer
from bowsprit.apiserver.call import Call
from bowsprit.apiserver.decoding import decode_body
from bowsprit.apiserver.options import apply_write_options
from bowsprit.machinery.errors import bad_request
from bowsprit.machinery.objects import Obj

NAMESPACE_MISMATCH = "the namespace of the provided object does not match the namespace sent on the request"


async def create(call: Call) -> Answer:
    """Creates and answers 201."""
    chosen = call.representation()
    media_type = negotiation.body_media_type(
        call.request.headers.get("Content-Type", ""), protobuf=not call.endpoint.resource.custom
    )
    options = apply_write_options(call.ctx, "CreateOptions", call.query)
    obj = await decode(call, await call.body(), media_type)
    virtual = call.endpoint.resource.virtual
    if virtual is not None and virtual.create is not None:
        ensure_namespace(call, obj, may_be_empty=True)
        attributes = call.attributes(Operation.CREATE, obj, None, options, name=obj["metadata"].get("name") or "")
        await call.admission.mutate(attributes)
        await call.admission.validate(attributes)
        return call.respond_object(chosen, await virtual.create(call.ctx, attributes.object or obj), 201)
    ensure_namespace(call, obj)
    objectmeta.wipe_system_fields(obj["metadata"])
    dedup_owner_references(call, obj)
    await ownership.track(call.collection, call.version, None, obj, call.ctx)
    attributes = call.attributes(Operation.CREATE, obj, None, options, name=obj["metadata"].get("name") or "")
    await call.admission.mutate(attributes)
    obj = attributes.object or obj

    async def admit(new: Obj, old: Obj | None) -> None:
        attributes.object = new
        attributes.name = new["metadata"].get("name") or ""
        await call.admission.validate(attributes)

    stored = await creation.create(call.collection, call.version, obj, call.ctx, admit)
    return await call.respond(chosen, stored, 201)


async def decode(call: Call, data: bytes, media_type: str) -> Obj:
    """The body as an object of the call's version, defaulted."""
    version = call.version
    obj = decode_body(
        call.ctx,
        data,
        media_type,
        version.gvk,
        version.schema,
        call.registry.knows,
        custom=call.endpoint.resource.custom,
    )
    call.endpoint.resource.strategy.default(obj)
    return obj


def ensure_namespace(call: Call, obj: Obj, *, may_be_empty: bool = False) -> None:
    """Upstream EnsureObjectNamespaceMatchesRequestNamespace. Raises 400."""
    meta = obj["metadata"]
    if not call.endpoint.resource.namespaced:
        meta.pop("namespace", None)
        return
    wanted = call.ctx.info.namespace
    given = meta.get("namespace") or ""
    if not given:
        if wanted:
            meta["namespace"] = wanted
    elif given != wanted:
        raise bad_request(NAMESPACE_MISMATCH)
    if not wanted and not may_be_empty:
        raise bad_request("an empty namespace may not be set during creation")


def dedup_owner_references(call: Call, obj: Obj) -> None:
    """Upstream dedupOwnerReferences: equal references are kept once, with a warning."""
    meta = obj["metadata"]
    references = meta.get("ownerReferences")
    if not references or len(references) < 2:
        return
    kept: list[Obj] = []
    dropped = []
    for reference in references:
        if reference in kept:
            dropped.append(reference)
        else:
            kept.append(reference)
    if dropped:
        meta["ownerReferences"] = kept
        call.ctx.warn(
            ".metadata.ownerReferences contains duplicate entries; API server dedups owner references in 1.20+, and may reject "
            "such requests as early as 1.24; please fix your requests; duplicate UID(s) observed: "
            + ", ".join(sorted({str(reference.get("uid", "")) for reference in dropped}))
        )
