"""GET of one object: the stored bytes, unless the client wants something else."""

from __future__ import annotations

from bowsprit.apiserver.answer import Answer
from bowsprit.apiserver.call import Call
from bowsprit.apiserver.collection import Stored
from bowsprit.apiserver.negotiation import JSON
from bowsprit.apiserver.options import parse_revision
from bowsprit.machinery.errors import not_found, too_large_resource_version, unknown

FRESH_SECONDS = 3.0  # upstream's watch cache waits so long for a resourceVersion

_PLAIN_ACCEPT = frozenset({"", "*/*", JSON})


async def get(call: Call) -> Answer:
    """Answers the object; 404, 406, and 504 for a resourceVersion of the future."""
    ctx = call.ctx
    info = ctx.info
    collection = call.collection
    if not ctx.query and collection.is_hub(call.version) and call.request.headers.get("Accept", "") in _PLAIN_ACCEPT:
        if collection.store.shared:
            await wait_until_fresh(call, "")
        item = collection.item(info.namespace, info.name)
        if item is None:
            raise not_found(call.version.gvr.gr, info.name)
        if not ctx.user_agent.startswith(("curl", "Wget", "Mozilla")):
            return Answer(200, item.value + b"\n")
    chosen = call.representation()
    await wait_until_fresh(call, ctx.query.get("resourceVersion", "") if ctx.query else "")
    item = collection.item(info.namespace, info.name)
    if item is None:
        raise not_found(call.version.gvr.gr, info.name)
    return await call.respond(chosen, Stored(collection.decode(item), item.value))


async def wait_until_fresh(call: Call, resource_version: str) -> None:
    """Makes sure that the cache is as new as the client demands. Raises 400, 504."""
    try:
        revision = parse_revision(resource_version)
    except ValueError as failure:
        raise unknown(str(failure)) from None
    collection = call.collection
    if resource_version == "" and collection.store.shared:
        revision = await collection.store.latest_revision()
    if revision > collection.cacher.revision and not await collection.cacher.wait_until(revision, FRESH_SECONDS):
        raise too_large_resource_version(revision, collection.cacher.revision)
