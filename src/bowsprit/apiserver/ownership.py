"""Field ownership: managedFields kept up to date by every write, and server-side apply (upstream fieldmanager)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any
from weakref import WeakKeyDictionary

from bowsprit.apiserver.collection import Collection
from bowsprit.apiserver.conversion import prepared
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import StatusSubresource, Version
from bowsprit.machinery import apply as machinery_apply
from bowsprit.machinery import builtin, typed
from bowsprit.machinery.apply import ApplyError, Context, Versions
from bowsprit.machinery.errors import unknown
from bowsprit.machinery.fieldset import FieldSet
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.typed import Typed

MAX_MANAGER_BYTES = 128
# What an endpoint does not change its manager does not own, where a strategy does not say it itself.
_RESET: Mapping[str, Mapping[str, Any]] = {"": {"f:status": {}}, "status": {"f:spec": {}}}


def manager_of(ctx: RequestContext) -> str:
    """The fieldManager parameter, else what precedes the first slash of the User-Agent (upstream managerOrUserAgent)."""
    if ctx.field_manager:
        return ctx.field_manager
    prefix = ctx.user_agent.partition("/")[0]
    if prefix.isascii() and prefix.isprintable() and len(prefix) <= MAX_MANAGER_BYTES:
        return prefix
    kept = bytearray()
    for char in prefix:
        if not char.isprintable():
            continue
        data = char.encode()
        if len(kept) + len(data) > MAX_MANAGER_BYTES:
            break
        kept += data
    return kept.decode()


async def track(
    collection: Collection, version: Version, live: Obj | None, new: Obj, ctx: RequestContext, subresource: str = ""
) -> None:
    """Sets the managedFields of `new`, which `ctx`'s manager made of `live` (None: created)."""
    context = _contexts(collection, version, subresource)
    manager, now = manager_of(ctx), ctx.timestamp
    if collection.resource.conversion is None:
        machinery_apply.update_managed_fields(live, new, manager, context=context, now=now)
        return

    def tracked() -> Obj:
        copy: Obj = deep_copy(new)
        machinery_apply.update_managed_fields(live, copy, manager, context=context, now=now)
        return copy

    made = await prepared(tracked)
    new.clear()
    new.update(made)


async def apply(
    collection: Collection,
    version: Version,
    live: Obj | None,
    config: Obj,
    ctx: RequestContext,
    *,
    force: bool,
    subresource: str = "",
) -> Obj:
    """Server-side apply of a configuration to the live object (None: it is created).

    Raises a conflict, bad_request, and 500 for a configuration that does not fit its type, as upstream.
    """
    context = _contexts(collection, version, subresource)
    base = deep_copy(context.empty) if live is None else live
    manager, now = manager_of(ctx), ctx.timestamp

    def applied() -> Obj:
        own = config if collection.resource.conversion is None else deep_copy(config)
        return machinery_apply.apply(base, own, manager, context=context, now=now, force=force)

    try:
        return await prepared(applied)
    except ApplyError as failure:
        raise unknown(str(failure)) from failure


_CONTEXTS: WeakKeyDictionary[Version, dict[str, Context]] = WeakKeyDictionary()


def _contexts(collection: Collection, version: Version, subresource: str) -> Context:
    by_subresource = _CONTEXTS.setdefault(version, {})
    context = by_subresource.get(subresource)
    if context is None:
        context = by_subresource[subresource] = _context(collection, version, subresource)
    return context


def _context(collection: Collection, version: Version, subresource: str) -> Context:
    type_meta = {"kind": version.gvk.kind, "apiVersion": version.gvk.api_version}
    known = builtin.lookup(version.gvk)
    return Context(
        typed_of(version),
        version.gvk.api_version,
        known.round_trip(type_meta) if known is not None else {**type_meta, "metadata": {}},
        subresource,
        FieldSet.from_obj(_ignored(collection, subresource)),
        _versions(collection),
    )


def typed_of(version: Version) -> Typed:
    """The type of a version's objects, as apply sees it."""
    known = builtin.lookup(version.gvk)
    if known is not None:
        return typed.of_message(known.message)
    schema = version.schema.openapi() if version.schema is not None else None
    return schema if isinstance(schema, Typed) else typed.of_custom_resource(schema)


def _ignored(collection: Collection, subresource: str) -> Mapping[str, Any]:
    resource = collection.resource
    strategy = resource.strategy
    if subresource:
        endpoint = resource.subresources.get(subresource)
        if not isinstance(endpoint, StatusSubresource):
            return {}
        strategy = endpoint.strategy
    if strategy.reset_fields is not None:
        return strategy.reset_fields
    return _RESET.get(subresource, {}) if "status" in resource.subresources else {}


def _versions(collection: Collection) -> Versions | None:
    versions = {version.gvk.api_version: version for version in collection.resource.versions}
    if len(versions) < 2:
        return None

    def convert(obj: Obj, api_version: str) -> Obj | None:
        source, target = versions.get(obj["apiVersion"]), versions.get(api_version)
        if source is None or target is None:
            return None
        return collection.from_hub(target, collection.to_hub(source, obj))

    return Versions(convert, lambda api_version: typed_of(versions[api_version]))
