"""Server-side apply (KEP-555) and the tracking of managed fields on every other write.

A manager that applies owns exactly the fields that its configuration states. Fields of others in its way are conflicts
(or are taken over by force); fields that it stated before and no longer does are removed unless somebody else owns them.
Every other write makes its manager the owner of what it changed.
Contract: sigs.k8s.io/structured-merge-diff/merge (Updater), k8s.io/apimachinery/pkg/util/managedfields (FieldManager).
"""

from __future__ import annotations

from collections.abc import Callable
from dataclasses import dataclass, field

import orjson

from bowsprit.machinery import errors, managedfields, objects, typedvalue
from bowsprit.machinery.fieldset import EMPTY, FieldSet, Path, path_text
from bowsprit.machinery.managedfields import APPLY, UPDATE, Managed, Manager, Managers
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.typed import Typed
from bowsprit.machinery.typedvalue import Comparison, TypedValueError

BEFORE_FIRST_APPLY = "before-first-apply"
_KUBECTL = "kubectl"
# Entries of the scale subresource get no time of their own: upstream's ScaleHandler.ToParent takes times from the parent.
_TIMELESS = "scale"
_LAST_APPLIED = "kubectl.kubernetes.io/last-applied-configuration"


class ApplyError(ValueError):
    """A configuration or object that does not fit its type; the server answers 500 with this text, as upstream."""


@dataclass(frozen=True, slots=True)
class Versions:
    """How to look at an object in another version, for managers that wrote through one.

    `convert` gives the object in a version, None if that version no longer exists; `typed` the type of a version.
    """

    convert: Callable[[Obj, str], Obj | None]
    typed: Callable[[str], Typed]


@dataclass(frozen=True, slots=True)
class Context:
    """What does not change during one write: the type of the version that is written, and what the endpoint ignores.

    `empty` matters for creates: members that are always there (Go's zero values) are nobody's. For built-in kinds it is
    `builtin.Type.round_trip({"apiVersion": …, "kind": …})`.
    """

    type: Typed
    api_version: str
    empty: Obj = field(default_factory=dict)  # what an object of the kind is before anybody sets anything
    subresource: str = ""
    ignored: FieldSet = field(default_factory=FieldSet)  # e.g. status on the main resource (upstream GetResetFields)
    versions: Versions | None = None


# --- the two entrances --------------------------------------------------------------------------------------------


def apply(live: Obj, config: Obj, manager: str, *, context: Context, now: str, force: bool = False) -> Obj:
    """The live object with a configuration applied, managedFields brought up to date.

    `live` is in the version of the configuration; for an object that does not exist yet it is a copy of `context.empty`.
    `now` is RFC 3339. The result is not validated, defaulted or pruned of nulls. Raises ConflictError with one
    FieldManagerConflict cause per field, BadRequestError, or ApplyError.
    """
    if objects.nested(config, "metadata", "managedFields"):
        raise errors.bad_request("metadata.managedFields must be nil")
    managers = managedfields.decode_or_none(objects.nested(live, "metadata", "managedFields"))
    live = _without_managed_fields(live)
    _check(context.type, config, "patch")
    _check(context.type, live, "live", allow_duplicates=True)
    if not managers:
        managers = _before_first_apply(live, context, now)
    who = Manager(manager, APPLY, "", context.subresource)
    try:
        result, managers = _apply(live, config, who, managers, context, force)
    except _ConflictsError as conflicts:
        if manager != _KUBECTL or not conflicts.only_within(_allowed_by_last_applied(live, context)):
            raise conflicts.to_status() from None
        result, managers = _apply(live, config, who, managers, context, force=True)
    if result is None:
        result = deep_copy(live)
    elif who in managers and context.subresource != _TIMELESS:
        managers = {**managers, who: Managed(managers[who].fields, context.api_version, now)}
    if manager == _KUBECTL:
        _refresh_last_applied(result, config)
    managedfields.store(result, managedfields.capped(managedfields.stripped(managers, who)))
    return result


def update_managed_fields(live: Obj | None, new: Obj, manager: str, *, context: Context, now: str) -> None:
    """Bring `new.metadata.managedFields` up to date in place after a create (live is None), update or patch.

    A client may set managedFields itself: `[{}]` clears them, other entries replace the live ones. Objects that lost all
    managers are not tracked until somebody applies again. Never fails: an object that does not fit its type keeps its
    managers.
    """
    given = objects.nested(new, "metadata", "managedFields")
    managers = _decode_live_or_new(live, given, context)
    new_value = _without_managed_fields(new)
    if managers is None:
        managers = {}
    elif managers or live is None or not objects.uid(live):
        old_value = _without_managed_fields(live) if live else context.empty
        managers = _update(
            old_value,
            new_value,
            Manager(manager, UPDATE, context.api_version, context.subresource),
            managers,
            context,
            now,
        )
    managedfields.store(new, managedfields.capped(managers))


def _decode_live_or_new(live: Obj | None, given: object, context: Context) -> Managers | None:
    """The managers to start from, None when the client resets them."""
    live_entries = objects.nested(live or {}, "metadata", "managedFields")
    if context.subresource:
        return managedfields.decode_or_none(live_entries)
    if given == [{}]:
        return None
    try:
        managers = managedfields.decode(given)
    except ValueError:
        managers = {}
    return managers or managedfields.decode_or_none(live_entries)


def _without_managed_fields(obj: Obj) -> Obj:
    """A shallow copy: what is below is shared, and nobody here changes it."""
    copy = dict(obj)
    if isinstance(copy.get("metadata"), dict):
        copy["metadata"] = {key: value for key, value in copy["metadata"].items() if key != "managedFields"}
    return copy


def _check(type_: Typed, obj: Obj, role: str, *, allow_duplicates: bool = False) -> None:
    try:
        typedvalue.validate(type_, obj, allow_duplicates=allow_duplicates)
    except TypedValueError as error:
        if not isinstance(obj, dict):
            raise ApplyError(str(error)) from None
        gvk = GroupVersionKind.parse(obj.get("apiVersion") or "", obj.get("kind") or "")
        where = f"{objects.namespace(obj)}/{objects.name(obj)}"
        raise ApplyError(f"failed to create typed {role} object ({where}; {gvk}): {error}") from None


def _before_first_apply(live: Obj, context: Context, now: str) -> Managers:
    """Whatever an untracked object has belongs to nobody in particular."""
    who = Manager(BEFORE_FIRST_APPLY, UPDATE, context.api_version)
    return _update(context.empty, live, who, {}, context, now)


def _update(old: Obj, new: Obj, who: Manager, managers: Managers, context: Context, now: str) -> Managers:
    """The managers after a write that is not an apply; others lose what was changed or removed."""
    try:
        others, change = _take_from_others(old, new, None, managers, context)
    except TypedValueError:
        return managers
    taken = change.modified.union(change.added)
    mine = managedfields.stripped({who: Managed(taken, context.api_version)}, who)
    if mine:
        before = others.get(who)
        fields = mine[who].fields.union(before.fields) if before else mine[who].fields
        if context.subresource == _TIMELESS:
            now = before.time if before else ""
        others[who] = Managed(fields, context.api_version, now)
    return others


# --- the core -----------------------------------------------------------------------------------------------------


class _ConflictsError(Exception):
    """Fields of others that an apply would change."""

    def __init__(self, conflicts: list[tuple[Manager, Path]]):
        super().__init__()
        self.conflicts = conflicts

    def only_within(self, allowed: FieldSet) -> bool:
        return all(allowed.has(path) for _, path in self.conflicts)

    def to_status(self) -> errors.StatusError:
        causes = [
            errors.cause("FieldManagerConflict", f"conflict with {manager}", path_text(path))
            for manager, path in self.conflicts
        ]
        return errors.apply_conflict(causes, f"Apply failed with {self._message()}")

    def _message(self) -> str:
        if len(self.conflicts) == 1:
            [(manager, path)] = self.conflicts
            return f"1 conflict: conflict with {manager}: {path_text(path)}"
        paths: dict[str, list[str]] = {}
        for manager, path in self.conflicts:
            paths.setdefault(str(manager), []).append(path_text(path))
        parts = [
            f"conflicts with {manager}:\n" + "\n".join(f"- {path}" for path in paths[manager])
            for manager in sorted(paths)
        ]
        return f"{len(self.conflicts)} conflicts: " + "\n".join(parts)


def _apply(
    live: Obj, config: Obj, who: Manager, managers: Managers, context: Context, force: bool
) -> tuple[Obj | None, Managers]:
    """The merged object (None when nothing changed) and the new managers."""
    try:
        merged = typedvalue.merge(context.type, live, config)
        last = managers.get(who)
        stated = typedvalue.field_set(context.type, config).recursive_difference(context.ignored)
        managers = {**managers, who: Managed(stated, context.api_version, last.time if last else "")}
        merged = _prune(merged, managers, last, stated, context)
        managers, change = _take_from_others(live, merged, who, managers, context, force)
    except TypedValueError as error:
        raise ApplyError(str(error)) from None
    return (None if change.is_same() else merged), managers


def _take_from_others(
    old: Obj, new: Obj, who: Manager | None, managers: Managers, context: Context, force: bool = True
) -> tuple[Managers, Comparison]:
    """The managers without what a change took from them, and the change itself."""
    changes = {context.api_version: typedvalue.compare(context.type, old, new).without(context.ignored)}
    conflicts: list[tuple[Manager, Path]] = []
    result = dict(managers)
    for manager, managed in managers.items():
        if manager == who:
            continue
        change = _change_in(managed.api_version, old, new, changes, context)
        if change is None:  # its version is gone, and its claims with it
            del result[manager]
            continue
        taken = managed.fields.intersection(change.modified.union(change.added))
        conflicts += ((manager, path) for path in taken.paths())
        result[manager] = managed.with_fields(managed.fields.difference(taken).difference(change.removed))
    if conflicts and not force:
        raise _ConflictsError(conflicts)
    kept = {manager: managed for manager, managed in result.items() if not managed.fields.is_empty()}
    return kept, changes[context.api_version]


def _change_in(version: str, old: Obj, new: Obj, changes: dict[str, Comparison], context: Context) -> Comparison | None:
    """The change in terms of another version."""
    if version not in changes:
        if context.versions is None:
            return changes[context.api_version]
        before, after = context.versions.convert(old, version), context.versions.convert(new, version)
        if before is None or after is None:
            return None
        changes[version] = typedvalue.compare(context.versions.typed(version), before, after).without(context.ignored)
    return changes[version]


def _prune(merged: Obj, managers: Managers, last: Managed | None, stated_now: FieldSet, context: Context) -> Obj:
    """Remove what the manager stated last time and nobody states or owns now, be it in another version."""
    if last is None:
        return merged
    version = last.api_version
    if version == context.api_version and last.fields.difference(stated_now).is_empty():
        return merged  # nothing was given up, which is so in almost every apply: spares the walks below
    whole = _in_version(merged, context.api_version, version, context)
    if whole is None:
        return merged
    last_type = _type_of(version, context)
    stated = typedvalue.with_named_fields(last_type, last.fields)
    pruned: Obj = typedvalue.remove_items(last_type, whole, stated)
    # Back come the items that somebody owns, and those that nobody ever did. Owners in this version come first: what
    # they have may be needed to look at the object in another.
    owned: dict[str, FieldSet] = {version: EMPTY}
    for managed in managers.values():
        owned[managed.api_version] = owned.get(managed.api_version, EMPTY).union(managed.fields)
    at = version
    for other, fields in owned.items():
        seen, left = (_in_version(obj, at, other, context) for obj in (whole, pruned))
        if seen is None or left is None:
            continue
        type_, (everything, kept) = _type_of(other, context), _named_fields(other, context, seen, left)
        gone = everything.difference(kept.union(typedvalue.with_named_fields(type_, fields)))
        whole, pruned, at = seen, typedvalue.remove_items(type_, seen, gone), other
    seen, left = (_in_version(obj, at, version, context) for obj in (whole, pruned))
    if seen is None or left is None:
        return merged
    everything, kept = _named_fields(version, context, seen, left)
    pruned = typedvalue.remove_items(last_type, seen, everything.difference(kept).intersection(stated))
    return _in_version(pruned, version, context.api_version, context) or merged


def _named_fields(version: str, context: Context, *objs: Obj) -> tuple[FieldSet, ...]:
    type_ = _type_of(version, context)
    return tuple(typedvalue.with_named_fields(type_, typedvalue.field_set(type_, obj)) for obj in objs)


def _type_of(version: str, context: Context) -> Typed:
    if version == context.api_version or context.versions is None:
        return context.type
    return context.versions.typed(version)


def _in_version(obj: Obj, given: str, wanted: str, context: Context) -> Obj | None:
    """The object in another version, None if that is gone."""
    if given == wanted or context.versions is None:
        return obj
    return context.versions.convert(obj, wanted)


# --- kubectl's own client-side apply ------------------------------------------------------------------------------


def _allowed_by_last_applied(live: Obj, context: Context) -> FieldSet:
    """Fields that kubectl's client-side apply set and nobody changed since: kubectl may take them over silently."""
    text = objects.annotations(live).get(_LAST_APPLIED)
    if not text:
        return EMPTY
    try:
        last = orjson.loads(text)
        if last.get("apiVersion") != context.api_version:
            return EMPTY
        typedvalue.validate(context.type, last, allow_duplicates=True)
        fields = typedvalue.field_set(context.type, last)
        change = typedvalue.compare(context.type, last, live)
    except (ValueError, AttributeError):
        return EMPTY
    return fields.difference(change.modified.union(change.added).union(change.removed))


def _refresh_last_applied(obj: Obj, config: Obj) -> None:
    """Keep the annotation of client-side apply right while it exists, so that one can go back to it."""
    annotations = objects.nested(obj, "metadata", "annotations")
    if not isinstance(annotations, dict) or not annotations.get(_LAST_APPLIED):
        return
    copy = deep_copy(_without_managed_fields(config))
    (objects.nested(copy, "metadata", "annotations") or {}).pop(_LAST_APPLIED, None)
    text = orjson.dumps(copy, option=orjson.OPT_SORT_KEYS | orjson.OPT_APPEND_NEWLINE).decode()
    annotations[_LAST_APPLIED] = text if len(text) <= 256 * 1024 else ""
