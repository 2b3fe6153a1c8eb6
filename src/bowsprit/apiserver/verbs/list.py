"""LIST: the stored bytes of many objects joined, at one revision, in pages if the client wants."""

from __future__ import annotations

from collections.abc import Sequence

from bowsprit.apiserver import encoding, representation
from bowsprit.apiserver.answer import Answer
from bowsprit.apiserver.cacher import Item, TooOldError
from bowsprit.apiserver.call import Call
from bowsprit.apiserver.continuation import INCONSISTENT, ExpiredTokenError, decode_token, encode_token
from bowsprit.apiserver.encoding import encode_plain
from bowsprit.apiserver.negotiation import JSON, Representation, wants_pretty
from bowsprit.apiserver.options import ListOptions, parse_revision
from bowsprit.apiserver.selection import Selection
from bowsprit.apiserver.verbs.get import FRESH_SECONDS
from bowsprit.machinery.errors import bad_request, expired, too_large_resource_version
from bowsprit.machinery.objects import Obj
from bowsprit.store.protocol import CompactedError, FutureRevisionError


class Listing:
    """What a list found: the items of one page and where it stands."""

    __slots__ = ("items", "remaining", "revision", "token")

    def __init__(self, items: Sequence[Item], revision: int, token: str, remaining: int | None) -> None:
        self.items = items
        self.revision = revision
        self.token = token
        self.remaining = remaining

    def metadata(self) -> Obj:
        """As ListMeta."""
        metadata: Obj = {"resourceVersion": str(self.revision)}
        if self.token:
            metadata["continue"] = self.token
        if self.remaining is not None:
            metadata["remainingItemCount"] = self.remaining
        return metadata


async def list_objects(call: Call) -> Answer:
    """Answers the list; 400, 406, 410, 422, 504 as upstream."""
    chosen = call.representation(streams=True)
    options = ListOptions.from_query(call.query)
    options.check(watch=False)
    info = call.ctx.info
    selection = Selection(call.collection, info.namespace, options.label_selector, options.field_selector)
    listing = await find(call, selection, options)
    return await _respond(call, chosen, listing)


async def find(call: Call, selection: Selection, options: ListOptions) -> Listing:
    """The page that the options ask for."""
    cacher = call.collection.cacher
    revision, after, exact = await _where(call, selection, options)
    if exact:
        items: Sequence[Item] = await _items_at(call, selection, revision, after, bool(options.continue_token))
    else:
        only = selection.only()
        if only is not None and after is None:
            one = cacher.get(only)
            items = [one] if one is not None else []
        else:
            items = cacher.items(selection.prefix, after)
        revision = cacher.revision
    # Upstream's watch cache, which answers "any version will do", knows no pages.
    limit = 0 if options.resource_version == "0" and not options.continue_token else options.limit
    if selection.everything:
        if 0 < limit < len(items):
            token = encode_token(revision, selection.prefix, items[limit - 1].key)
            return Listing(items[:limit], revision, token, len(items) - limit)
        return Listing(items, revision, "", None)
    matches = selection.matches
    if limit <= 0:
        return Listing([item for item in items if matches(item)], revision, "", None)
    found: list[Item] = []
    for position, item in enumerate(items):
        if matches(item):
            found.append(item)
            if len(found) == limit:
                token = encode_token(revision, selection.prefix, item.key) if position + 1 < len(items) else ""
                return Listing(found, revision, token, None)
    return Listing(found, revision, "", None)


async def _where(call: Call, selection: Selection, options: ListOptions) -> tuple[int, str | None, bool]:
    """(revision, key to begin behind, whether exactly that revision is wanted). Raises 400, 504."""
    cacher = call.collection.cacher
    if options.continue_token:
        if options.resource_version not in ("", "0"):
            raise bad_request("specifying resource version is not allowed when using continue")
        revision, after = decode_token(options.continue_token, selection.prefix)
        if revision == INCONSISTENT:
            return 0, after, False
        if revision > cacher.revision and not await cacher.wait_until(revision, FRESH_SECONDS):
            raise too_large_resource_version(revision, cacher.revision)
        return revision, after, True
    try:
        revision = parse_revision(options.resource_version)
    except ValueError as failure:
        raise bad_request(f"invalid resource version: {failure}") from None
    match = options.resource_version_match
    exact = revision > 0 and (match == "Exact" or (not match and options.limit > 0))
    if not options.resource_version and call.collection.store.shared:
        revision = await call.collection.store.latest_revision()
    if revision > cacher.revision and (exact or not await cacher.wait_until(revision, FRESH_SECONDS)):
        raise too_large_resource_version(revision, cacher.revision)
    return revision, None, exact


async def _items_at(
    call: Call, selection: Selection, revision: int, after: str | None, continued: bool
) -> Sequence[Item]:
    collection = call.collection
    try:
        return collection.cacher.items_at(selection.prefix, revision, after)
    except TooOldError:
        pass
    try:
        page = await collection.store.list(selection.prefix, revision=revision, after=after)
    except CompactedError as failure:
        if continued and after is not None:
            raise ExpiredTokenError(encode_token(INCONSISTENT, selection.prefix, after)) from failure
        raise expired(f"The resourceVersion for the provided list is too old: {revision}") from failure
    except FutureRevisionError as failure:
        raise too_large_resource_version(revision, failure.current) from failure
    return [Item(*entry) for entry in page.entries]


async def _respond(call: Call, chosen: Representation, listing: Listing) -> Answer:
    collection = call.collection
    version = call.version
    ctx = call.ctx
    pretty = chosen.pretty or wants_pretty(ctx.query.get("pretty") if ctx.query else None, ctx.user_agent)
    if chosen.media_type == JSON and not chosen.convert and not pretty:
        head = encoding.list_head(
            version.list_kind_name,
            version.gvk.api_version,
            listing.revision,
            listing.token,
            listing.remaining,
            untyped=collection.resource.custom,
        )
        if collection.is_hub(version):
            values = [item.value for item in listing.items]
        else:
            shown = await collection.views(version, [collection.decode(item) for item in listing.items])
            values = [encode_plain(obj) for obj in shown]
        cut = 0 if collection.resource.custom else encoding.prefix_length(version.gvk.kind, version.gvk.api_version)
        length = encoding.list_length(head, values, cut)
        if length <= encoding.SLICE_BYTES:
            return Answer(200, b"".join(encoding.list_chunks(head, values, cut)))
        return Answer(200, encoding.list_chunks(head, values, cut), length=length)
    objects = await collection.views(version, [collection.decode(item) for item in listing.items])
    return representation.answer(ctx, chosen, 200, obj=list_object(call, chosen, objects, listing.metadata()))


def list_object(call: Call, chosen: Representation, objects: Sequence[Obj], metadata: Obj) -> Obj:
    """The list as an object, converted if so wanted."""
    version = call.version
    if chosen.convert:
        include = call.query.get("includeObject", "") if call.query else ""
        return representation.convert_list(chosen, objects, version, call.ctx, include=include, metadata=metadata)
    if call.endpoint.resource.custom:
        metadata = {"continue": "", **metadata}
    else:
        objects = [{key: value for key, value in obj.items() if key not in ("kind", "apiVersion")} for obj in objects]
    return {
        "kind": version.list_kind_name,
        "apiVersion": version.gvk.api_version,
        "metadata": metadata,
        "items": objects,
    }
