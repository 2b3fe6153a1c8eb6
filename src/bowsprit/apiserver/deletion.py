"""Deleting objects (upstream registry.Store.Delete, rest.BeforeDelete and the garbage collector's finalizers)."""

from __future__ import annotations

from datetime import timedelta

from bowsprit.apiserver.cacher import Item
from bowsprit.apiserver.collection import Collection, Stored
from bowsprit.apiserver.creation import Validate
from bowsprit.apiserver.mutation import MAX_ATTEMPTS, OPTIMISTIC_LOCK, same
from bowsprit.apiserver.objectmeta import FOREGROUND, ORPHAN
from bowsprit.apiserver.options import DeleteOptions
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import Version
from bowsprit.machinery.errors import conflict, not_found
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import format_time, parse_time
from bowsprit.store.protocol import RevisionMismatchError


async def delete(
    collection: Collection,
    version: Version,
    namespace: str,
    name: str,
    options: DeleteOptions,
    ctx: RequestContext,
    admit: Validate,
) -> tuple[Stored, bool]:
    """Deletes or begins to delete; gives the last state and whether the object is gone.

    `admit` gets (None-like) the live object as its second argument. Raises not_found, conflict, invalid options.
    """
    options.check()
    ctx.dry_run = ctx.dry_run or bool(options.dry_run)
    for _ in range(MAX_ATTEMPTS):
        item = collection.item(namespace, name)
        if item is None:
            raise not_found(version.gvr.gr, name)
        try:
            return await _delete_once(collection, version, item, options, ctx, admit)
        except RevisionMismatchError:
            continue
    raise conflict(version.gvr.gr, name, OPTIMISTIC_LOCK)


async def _delete_once(
    collection: Collection,
    version: Version,
    item: Item,
    options: DeleteOptions,
    ctx: RequestContext,
    admit: Validate,
) -> tuple[Stored, bool]:
    strategy = collection.resource.strategy
    obj = collection.decode(item)
    _check_preconditions(version, obj, options)
    strategy.validate_delete(obj, ctx)
    await admit(obj, await collection.view(version, obj))
    if strategy.orphans_by_default and options.propagation_policy is None and options.orphan_dependents is None:
        ctx.warn(strategy.orphan_warning)
    graceful, pending = _begin_graceful(collection, obj, options, ctx)
    if pending:
        return Stored(obj, item.value), False
    revision = item.revision
    finalizers = _finalizers(obj, options, orphans=strategy.orphans_by_default)
    meta = obj["metadata"]
    if set(finalizers) != set(meta.get("finalizers") or []):
        meta["finalizers"] = finalizers
    stays = bool(meta.get("finalizers")) or not strategy.may_vanish(obj)
    if graceful or stays:
        if not graceful:
            _mark_deleting(collection, obj, ctx)
        stored = await _write(collection, item, obj, ctx)
        if stays or (meta.get("deletionGracePeriodSeconds") or 0) > 0:
            return stored, False
        revision = int(meta["resourceVersion"])
        if ctx.dry_run:
            return stored, True
    if ctx.dry_run:
        return collection.unstored(obj), True
    await strategy.before_delete(obj, ctx)
    stored = await collection.remove(obj, revision)
    await strategy.after_delete(obj, ctx)
    return stored, True


async def _write(collection: Collection, item: Item, obj: Obj, ctx: RequestContext) -> Stored:
    if same(item, obj):
        return Stored(obj, item.value)
    if ctx.dry_run:
        return collection.unstored(obj)
    return await collection.put(obj, item.revision)


def _check_preconditions(version: Version, obj: Obj, options: DeleteOptions) -> None:
    meta = obj["metadata"]
    kind = GroupResource(version.gvk.group, version.gvk.kind)  # upstream puts the kind where the resource belongs
    if options.uid is not None and options.uid != meta["uid"]:
        raise conflict(
            kind,
            meta["name"],
            f"the UID in the precondition ({options.uid}) does not match the UID in record ({meta['uid']}). "
            "The object might have been deleted and then recreated",
        )
    if options.resource_version is not None and options.resource_version != meta["resourceVersion"]:
        raise conflict(
            kind,
            meta["name"],
            f"the ResourceVersion in the precondition ({options.resource_version}) does not match the ResourceVersion in "
            f"record ({meta['resourceVersion']}). The object might have been modified",
        )


def _begin_graceful(collection: Collection, obj: Obj, options: DeleteOptions, ctx: RequestContext) -> tuple[bool, bool]:
    """Upstream rest.BeforeDelete: (graceful: write the marked object, pending: a graceful deletion is under way already)."""
    strategy = collection.resource.strategy
    meta = obj["metadata"]
    if options.grace_period_seconds is not None and options.grace_period_seconds < 0:
        options.grace_period_seconds = 1
    period = strategy.grace_period(obj, options.grace_period_seconds, ctx)
    if period is None:
        return False, False
    if meta.get("deletionTimestamp"):
        current = meta.get("deletionGracePeriodSeconds")
        if current is None:
            return False, False
        requested = options.grace_period_seconds
        if requested is None or requested >= current:
            return False, True
        begin = parse_time(meta["deletionTimestamp"]) - timedelta(seconds=current)
        meta["deletionTimestamp"] = format_time(begin + timedelta(seconds=requested))
        meta["deletionGracePeriodSeconds"] = requested
        return True, False
    meta["deletionTimestamp"] = format_time(ctx.now + timedelta(seconds=period))
    meta["deletionGracePeriodSeconds"] = period
    if meta.get("generation"):
        meta["generation"] += 1
    strategy.mark_deleting(obj, ctx)
    return True, False


def _mark_deleting(collection: Collection, obj: Obj, ctx: RequestContext) -> None:
    """Upstream markAsDeleting: for kinds without graceful deletion that finalizers keep."""
    meta = obj["metadata"]
    strategy = collection.resource.strategy
    existing = meta.get("deletionTimestamp")
    if strategy.marks_grace_period and not existing and meta.get("generation"):
        meta["generation"] += 1
    if not existing or parse_time(existing) > ctx.now:
        meta["deletionTimestamp"] = ctx.timestamp
    if strategy.marks_grace_period:
        meta["deletionGracePeriodSeconds"] = 0
    strategy.mark_deleting(obj, ctx)


def _finalizers(obj: Obj, options: DeleteOptions, *, orphans: bool) -> list[str]:
    """The finalizers with those of the garbage collector as the propagation policy wants them."""
    present = obj["metadata"].get("finalizers") or []
    others = [name for name in present if name not in (ORPHAN, FOREGROUND)]
    orphan = foreground = False
    if options.orphan_dependents is not None:
        orphan = options.orphan_dependents
    elif options.propagation_policy is not None:
        orphan = options.propagation_policy == "Orphan"
        foreground = options.propagation_policy == "Foreground"
    elif ORPHAN in present or FOREGROUND in present:
        orphan, foreground = ORPHAN in present, FOREGROUND in present
    else:
        orphan = orphans
    return others + [ORPHAN] * orphan + [FOREGROUND] * foreground
