"""PUT of an object or of its status-like subresources (upstream handlers/update.go)."""

from __future__ import annotations

from bowsprit.apiserver import mutation, negotiation, ownership
from bowsprit.apiserver.admit import Operation
from bowsprit.apiserver.answer import Answer
from bowsprit.apiserver.call import Call
from bowsprit.apiserver.creation import Validate
from bowsprit.apiserver.options import apply_write_options
from bowsprit.apiserver.strategy import Strategy
from bowsprit.apiserver.verbs.create import NAMESPACE_MISMATCH, decode, dedup_owner_references
from bowsprit.machinery.errors import bad_request
from bowsprit.machinery.objects import Obj, deep_copy


async def update(call: Call, strategy: Strategy | None = None) -> Answer:
    """Replaces and answers 200, or 201 where the kind lets PUT create. `strategy` is that of a subresource."""
    chosen = call.representation()
    media_type = negotiation.body_media_type(
        call.request.headers.get("Content-Type", ""), protobuf=not call.endpoint.resource.custom
    )
    options = apply_write_options(call.ctx, "UpdateOptions", call.query)
    obj = await decode(call, await call.body(), media_type)
    check_name(call, obj)
    info = call.ctx.info

    async def compute(live: Obj | None) -> Obj:
        new = deep_copy(obj)
        dedup_owner_references(call, new)
        await ownership.track(call.collection, call.version, live, new, call.ctx, info.subresource)
        return await mutate(call, new, live, options)

    stored, created = await mutation.update(
        call.collection,
        call.version,
        info.namespace,
        info.name,
        call.ctx,
        compute,
        admission(call, Operation.UPDATE, options),
        strategy=strategy,
        uid=obj["metadata"].get("uid") or "",
        admit_creation=admission(call, Operation.CREATE, options),
    )
    return await call.respond(chosen, stored, 201 if created else 200)


async def mutate(call: Call, new: Obj, live: Obj | None, options: Obj) -> Obj:
    """What mutating admission makes of the object."""
    operation = Operation.UPDATE if live is not None else Operation.CREATE
    attributes = call.attributes(operation, new, live, options)
    await call.admission.mutate(attributes)
    return attributes.object or new


def admission(call: Call, operation: Operation, options: Obj) -> Validate:
    """Validating admission of (new, old)."""

    async def admit(new: Obj, old: Obj | None) -> None:
        await call.admission.validate(call.attributes(operation, new, old, options))

    return admit


def check_name(call: Call, obj: Obj) -> None:
    """Upstream checkName: the body must name what the path names; fills in the namespace. Raises 400."""
    meta = obj["metadata"]
    info = call.ctx.info
    if not call.endpoint.resource.namespaced:
        meta.pop("namespace", None)
    elif not meta.get("namespace"):
        meta["namespace"] = info.namespace
    elif meta["namespace"] != info.namespace:
        raise bad_request(NAMESPACE_MISMATCH)
    name = meta.get("name") or ""
    if not name:
        raise bad_request(
            f"the name of the object ({info.name} based on URL) was undeterminable: name must be provided"
        )
    if name != info.name:
        raise bad_request(f"the name of the object ({name}) does not match the name on the URL ({info.name})")
