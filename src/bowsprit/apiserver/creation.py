"""Creating objects (upstream registry.Store.Create and rest.BeforeCreate)."""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bowsprit.apiserver import objectmeta
from bowsprit.apiserver.collection import Collection, Stored
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import Version
from bowsprit.machinery.errors import AlreadyExistsError, already_exists, generate_name_conflict, invalid, unknown
from bowsprit.machinery.fielderrors import path
from bowsprit.machinery.names import GroupKind
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.store.protocol import RevisionMismatchError

_FINALIZERS = path("metadata", "finalizers")
GENERATE_NAME_TRIES = 8  # KEP-4420

Validate = Callable[
    [Obj, Obj | None], Awaitable[None]
]  # (object, old object) in the request's version; raises StatusError


async def create(collection: Collection, version: Version, obj: Obj, ctx: RequestContext, admit: Validate) -> Stored:
    """Creates an object of the request's version whose namespace is set and whose system fields are wiped.

    Raises already_exists, invalid, and whatever admission and the strategy's hooks raise.
    """
    meta = obj["metadata"]
    if meta.get("resourceVersion", "").isdecimal() and int(meta["resourceVersion"]):
        admit = _refusing_versions(admit)
    if meta.get("name") or not meta.get("generateName"):
        return await create_once(collection, version, obj, ctx, admit)
    for attempt in range(1, GENERATE_NAME_TRIES + 1):
        candidate = deep_copy(obj)
        name = objectmeta.generate_name(meta["generateName"], collection.world.choose)
        candidate["metadata"]["name"] = name
        try:
            return await create_once(collection, version, candidate, ctx, admit)
        except AlreadyExistsError:
            if attempt == GENERATE_NAME_TRIES:
                raise generate_name_conflict(version.gvr.gr, name) from None
    raise AssertionError("unreachable")


def _refusing_versions(admit: Validate) -> Validate:
    """An object that comes with a resourceVersion passes all checks before the storage refuses it."""

    async def checked(obj: Obj, old: Obj | None) -> None:
        await admit(obj, old)
        raise unknown("resourceVersion should not be set on objects to be created")

    return checked


async def create_once(
    collection: Collection, version: Version, obj: Obj, ctx: RequestContext, admit: Validate
) -> Stored:
    """As `create`, for an object that has its name."""
    strategy = collection.resource.strategy
    if collection.resource.conversion is not None:
        # Whoever converts sees what will be stored, and nothing that is not valid.
        obj["metadata"] |= {"creationTimestamp": ctx.timestamp, "uid": collection.world.uid()}
        check_form(collection, version, obj, None)
    hub = await collection.hub(version, obj)
    meta = hub["metadata"]
    if collection.resource.conversion is None:
        meta["creationTimestamp"] = ctx.timestamp
        meta["uid"] = collection.world.uid()
    meta.pop("resourceVersion", None)
    strategy.prepare_for_create(hub, ctx)
    if strategy.has_generation:
        meta["generation"] = 1
    _validate(collection, version, hub, await collection.view(version, hub) if version.schema is not None else hub)
    for text in strategy.warnings(hub, None):
        ctx.warn(text)
    strategy.canonicalize(hub)
    await admit(await collection.view(version, hub), None)
    finish = await strategy.begin_create(hub, ctx)
    done = False
    try:
        if ctx.dry_run:
            if collection.item(meta.get("namespace", ""), meta["name"]) is not None:
                raise _exists(collection, version, meta)
            return collection.unstored(hub)
        try:
            stored = await collection.put(hub, 0)
        except RevisionMismatchError:
            raise _exists(collection, version, meta) from None
        done = True
    finally:
        if finish is not None:
            finish(done)
    await strategy.after_create(hub, ctx)
    return stored


def _exists(collection: Collection, version: Version, meta: Obj) -> AlreadyExistsError:
    """The name is taken; upstream says so when whoever has it is about to go."""
    error = already_exists(version.gvr.gr, meta["name"])
    item = collection.item(meta.get("namespace", ""), meta["name"])
    if item is not None and collection.decode(item)["metadata"].get("deletionTimestamp"):
        return AlreadyExistsError(f"object is being deleted: {error.message}", details=error.details)
    return error


def check_form(collection: Collection, version: Version, obj: Obj, old: Obj | None) -> None:
    """Refuses an object of the request's version that is not valid as it is. Raises invalid."""
    resource, meta = collection.resource, obj["metadata"]
    errors = objectmeta.validate(meta, resource.namespaced, resource.strategy.validate_name) if old is None else []
    if version.schema is not None:
        errors += version.schema.validate(obj, old)
    if errors:
        raise invalid(GroupKind(version.gvk.group, version.gvk.kind), meta.get("name", ""), errors)


def _validate(collection: Collection, version: Version, hub: Obj, shown: Obj) -> None:
    resource = collection.resource
    strategy = resource.strategy
    meta = hub["metadata"]
    group_kind = GroupKind(version.gvk.group, version.gvk.kind)
    errors = objectmeta.validate(meta, resource.namespaced, strategy.validate_name)
    if resource.standard_finalizers:
        errors += objectmeta.validate_standard_finalizers(meta.get("finalizers") or [], _FINALIZERS)
    errors += strategy.validate(hub)
    if version.schema is not None:
        errors += version.schema.validate(shown, None)
    if errors:
        raise invalid(group_kind, meta.get("name", ""), errors)
    errors = objectmeta.validate_common(meta, resource.namespaced)
    if errors:
        raise invalid(group_kind, meta["name"], errors)
