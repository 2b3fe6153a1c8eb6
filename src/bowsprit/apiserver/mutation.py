"""Changing objects (upstream registry.Store.Update and rest.BeforeUpdate).

Theory. A change is a function of the live object: it is computed, checked and written with compare-and-set; whoever loses the
race computes again on the new live object, unless the client named the resourceVersion it wants to replace.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

import orjson

from bowsprit.apiserver import objectmeta
from bowsprit.apiserver.cacher import Item
from bowsprit.apiserver.collection import Collection, Stored
from bowsprit.apiserver.creation import Validate, check_form, create_once
from bowsprit.apiserver.encoding import encode
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import Version
from bowsprit.apiserver.strategy import Strategy
from bowsprit.machinery.codec import decode_json
from bowsprit.machinery.errors import AlreadyExistsError, conflict, invalid, not_found
from bowsprit.machinery.fielderrors import invalid as invalid_field
from bowsprit.machinery.fielderrors import path
from bowsprit.machinery.names import GroupKind
from bowsprit.machinery.objects import Obj
from bowsprit.store.protocol import RevisionMismatchError

# Upstream registry.OptimisticLockErrorMsg
OPTIMISTIC_LOCK = "the object has been modified; please apply your changes to the latest version and try again"
MAX_ATTEMPTS = 100

# (live object in the request's version or None) -> new object in the request's version
Compute = Callable[[Obj | None], Awaitable[Obj]]


async def update(
    collection: Collection,
    version: Version,
    namespace: str,
    name: str,
    ctx: RequestContext,
    compute: Compute,
    admit: Validate,
    *,
    strategy: Strategy | None = None,
    uid: str = "",
    create_absent: bool = False,
    admit_creation: Validate | None = None,
) -> tuple[Stored, bool]:
    """Replaces an object by what `compute` makes of it; gives the result and whether it was created.

    strategy: that of a subresource, default the resource's own. uid: a precondition.
    Raises not_found, conflict, invalid, and whatever `compute`, `admit` and the hooks raise.
    """
    rules = strategy or collection.resource.strategy
    gr = version.gvr.gr
    for _ in range(MAX_ATTEMPTS):
        item = collection.item(namespace, name)
        try:
            if item is not None:
                if uid:
                    _check_uid(collection, version, item, uid)
                return await _update_once(collection, version, item, ctx, compute, admit, rules), False
            if uid and not create_absent:
                raise not_found(gr, name)
            if not (create_absent or (strategy is None and rules.allow_create_on_update)):
                raise not_found(gr, name)
            new = await compute(None)
            objectmeta.wipe_system_fields(new["metadata"])
            return await create_once(collection, version, new, ctx, admit_creation or admit), True
        except RevisionMismatchError:
            continue
        except AlreadyExistsError:
            if item is not None or ctx.dry_run:
                raise
    raise conflict(gr, name, OPTIMISTIC_LOCK)


def _check_uid(collection: Collection, version: Version, item: Item, uid: str) -> None:
    have = collection.decode(item)["metadata"]["uid"]
    if have != uid:
        raise conflict(version.gvr.gr, item.key.rpartition("/")[2], precondition_failed(item.key, "UID", uid, have))


def precondition_failed(key: str, what: str, wanted: str, have: str) -> str:
    """Upstream storage.NewInvalidObjError."""
    return (
        f"StorageError: invalid object, Code: 4, Key: {key}, ResourceVersion: 0, AdditionalErrorMsg: "
        f"Precondition failed: {what} in precondition: {wanted}, {what} in object meta: {have}"
    )


async def _update_once(
    collection: Collection,
    version: Version,
    item: Item,
    ctx: RequestContext,
    compute: Compute,
    admit: Validate,
    strategy: Strategy,
) -> Stored:
    old = collection.decode(item)
    # `compute` may change its argument: it gets its own copy.
    new = await compute(await collection.view(version, collection.decode(item)))
    if collection.resource.conversion is not None:
        check_form(collection, version, new, await collection.view(version, collection.decode(item)))
    hub = await collection.hub(version, new)
    meta = hub["metadata"]
    _check_revision(version, item, meta, strategy)
    await _before_update(collection, version, hub, old, ctx, strategy)
    await admit(await collection.view(version, hub), await collection.view(version, old))
    if _vanishes(hub, old, collection.resource.strategy):
        return await _remove(collection, item, hub, old, ctx)
    if same(item, hub):
        return Stored(hub, item.value)
    finish = await strategy.begin_update(hub, old, ctx)
    done = False
    try:
        if ctx.dry_run:
            return collection.unstored(hub)
        stored = await collection.put(hub, item.revision)
        done = True
    finally:
        if finish is not None:
            finish(done)
    await strategy.after_update(hub, ctx)
    return stored


def _check_revision(version: Version, item: Item, meta: Obj, strategy: Strategy) -> None:
    given = meta.get("resourceVersion") or ""
    name = item.key.rpartition("/")[2]
    if given in ("", "0"):
        if not strategy.allow_unconditional_update:
            error = invalid_field(path("metadata").child("resourceVersion"), 0, "must be specified for an update")
            raise invalid(GroupKind(version.gvr.group, version.gvr.resource), name, [error])
    else:
        if not given.isascii() or not given.isdigit():
            raise invalid(
                GroupKind(version.gvk.group, version.gvk.kind),
                name,
                [
                    invalid_field(
                        path("metadata").child("resourceVersion"),
                        given,
                        f'strconv.ParseUint: parsing "{given}": invalid syntax',
                    )
                ],
            )
        if int(given) != item.revision:
            raise conflict(version.gvr.gr, name, OPTIMISTIC_LOCK)
    meta["resourceVersion"] = str(item.revision)


async def _before_update(
    collection: Collection, version: Version, hub: Obj, old: Obj, ctx: RequestContext, strategy: Strategy
) -> None:
    """Upstream rest.BeforeUpdate."""
    resource = collection.resource
    meta, old_meta = hub["metadata"], old["metadata"]
    if not resource.namespaced:
        meta.pop("namespace", None)
    for key in ("generation", "creationTimestamp"):
        _take(meta, old_meta, key)
    strategy.prepare_for_update(hub, old, ctx)
    if (
        strategy.has_generation
        and strategy.spec_bumps_generation
        and (_spec_changed(hub, old, strategy.generation_ignores) or strategy.bumps_generation(hub, old))
    ):
        meta["generation"] = (old_meta.get("generation") or 0) + 1
    if not meta.get("uid"):
        meta["uid"] = old_meta["uid"]
    if old_meta.get("deletionTimestamp"):
        # Once set, these can be neither removed nor changed.
        meta.setdefault("deletionTimestamp", old_meta["deletionTimestamp"])
        if old_meta.get("deletionGracePeriodSeconds") is not None and meta.get("deletionGracePeriodSeconds") is None:
            meta["deletionGracePeriodSeconds"] = old_meta["deletionGracePeriodSeconds"]
    meta.pop("selfLink", None)
    # Upstream checks the metadata in the registry and in the kind's strategy, and clients see both.
    errors = objectmeta.validate_common(meta, resource.namespaced)
    errors += objectmeta.validate_update(meta, old_meta) * (1 + resource.repeats_update_rules)
    if resource.standard_finalizers:
        found = objectmeta.validate_standard_finalizers(
            meta.get("finalizers") or [], path("metadata").child("finalizers")
        )
        errors += found * (resource.repeats_update_rules + resource.repeats_creation_rules)
    if resource.repeats_creation_rules:
        errors += objectmeta.validate(meta, resource.namespaced, strategy.validate_name)
    errors += strategy.validate_update(hub, old)
    if version.schema is not None:
        shown, before = await collection.view(version, hub), await collection.view(version, old)
        errors += version.schema.validate(shown, before)
    if errors:
        raise invalid(GroupKind(version.gvk.group, version.gvk.kind), meta.get("name", ""), errors)
    for text in strategy.warnings(hub, old):
        ctx.warn(text)
    strategy.canonicalize(hub)


def _take(meta: Obj, old_meta: Obj, key: str) -> None:
    if old_meta.get(key) is None:
        meta.pop(key, None)
    else:
        meta[key] = old_meta[key]


def _spec_changed(new: Obj, old: Obj, ignored: frozenset[str]) -> bool:
    keys = {*new, *old} - ignored - {"kind", "apiVersion"}
    return any(_canonical(new.get(key)) != _canonical(old.get(key)) for key in keys)


def _canonical(value: object) -> bytes:
    # Python's == takes True for 1 and 1.0 for 1.
    return orjson.dumps(value, option=orjson.OPT_SORT_KEYS)


def same(item: Item, hub: Obj) -> bool:
    """Whether writing `hub` would change nothing (upstream GuaranteedUpdate's short cut)."""
    value = encode(hub).at(item.revision)
    return value == item.value or _canonical(decode_json(value)) == _canonical(decode_json(item.value))


def _vanishes(new: Obj, old: Obj, strategy: Strategy) -> bool:
    """Upstream ShouldDeleteDuringUpdate: the last finalizer of an object under deletion has gone."""
    old_meta = old["metadata"]
    return (
        bool(old_meta.get("deletionTimestamp"))
        and not old_meta.get("deletionGracePeriodSeconds")
        and not new["metadata"].get("finalizers")
        and strategy.may_vanish(new)
    )


async def _remove(collection: Collection, item: Item, hub: Obj, old: Obj, ctx: RequestContext) -> Stored:
    if ctx.dry_run:
        return collection.unstored(hub)
    strategy = collection.resource.strategy
    await strategy.before_delete(old, ctx)
    await collection.remove(old, item.revision)
    await strategy.after_delete(old, ctx)
    # A client that PUTs expects the object it sent, with the resourceVersion it replaced.
    return collection.unstored(hub)
