"""ObjectMeta: what the server fills in, what it forbids, and in which order its members are written.

Upstream: k8s.io/apimachinery/pkg/api/validation/objectmeta.go and k8s.io/apiserver/pkg/registry/rest/{create,update}.go.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable
from typing import Any

from bowsprit.machinery.fielderrors import FieldError, Path, forbidden, invalid, path, required, too_long
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import (
    is_dns1123_label,
    is_qualified_name,
    is_valid_label_value,
    is_valid_path_segment_name,
    is_valid_path_segment_prefix,
    mask_trailing_dash,
)

ORPHAN = "orphan"
FOREGROUND = "foregroundDeletion"
MAX_ANNOTATIONS_BYTES = 256 << 10
MAX_GENERATED_PREFIX = 58  # upstream names.simpleNameGenerator: 63 - 5
GENERATED_SUFFIX = 5
_ALPHANUMS = "bcdfghjklmnpqrstvwxz2456789"  # upstream util/rand: no vowels, no look-alikes

# metav1.ObjectMeta in the order of its struct.
_BEFORE_VERSION = ("name", "generateName", "namespace", "selfLink", "uid")
_AFTER_VERSION = (
    "generation",
    "creationTimestamp",
    "deletionTimestamp",
    "deletionGracePeriodSeconds",
    "labels",
    "annotations",
    "ownerReferences",
    "finalizers",
    "managedFields",
)
_IMMUTABLE = ("name", "namespace", "uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds")
_META = path("metadata")


def normalize(meta: Obj) -> tuple[Obj, Obj]:
    """The members before and those behind resourceVersion, in upstream's order, empty ones left out, maps sorted."""
    head = {key: meta[key] for key in _BEFORE_VERSION if meta.get(key)}
    tail: Obj = {}
    for key in _AFTER_VERSION:
        value = meta.get(key)
        if key in ("labels", "annotations"):
            if value:
                tail[key] = dict(sorted(value.items()))
        elif value or (key == "deletionGracePeriodSeconds" and value is not None):
            tail[key] = value
    return head, tail


def ordered(meta: Obj) -> Obj:
    """All of it, in upstream's order."""
    head, tail = normalize(meta)
    if meta.get("resourceVersion"):
        head["resourceVersion"] = meta["resourceVersion"]
    head.update(tail)
    return head


def wipe_system_fields(meta: Obj) -> None:
    """What a client may not choose at creation (upstream WipeObjectMetaSystemFields)."""
    for key in ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "selfLink"):
        meta.pop(key, None)


def generate_name(base: str, choose: Callable[[str, int], list[str]]) -> str:
    """base (cut to 58 characters) + 5 random ones; `choose(alphabet, n)` picks them."""
    return base[:MAX_GENERATED_PREFIX] + "".join(choose(_ALPHANUMS, GENERATED_SUFFIX))


# -- validation --------------------------------------------------------------------------------------------------------


def validate(
    meta: Obj, namespaced: bool, name_problems: Callable[[str], list[str]], where: Path = _META
) -> list[FieldError]:
    """Upstream ValidateObjectMeta."""
    errors: list[FieldError] = []
    generate = meta.get("generateName") or ""
    if generate:
        masked = mask_trailing_dash(generate)
        problems = (
            is_valid_path_segment_prefix(generate)
            if name_problems is is_valid_path_segment_name
            else name_problems(masked)
        )
        errors += [invalid(where.child("generateName"), generate, text) for text in problems]
    name = meta.get("name") or ""
    if not name:
        errors.append(required(where.child("name"), "name or generateName is required"))
    else:
        errors += [invalid(where.child("name"), name, text) for text in name_problems(name)]
    namespace = meta.get("namespace") or ""
    if namespaced:
        if not namespace:
            errors.append(required(where.child("namespace")))
        else:
            errors += [invalid(where.child("namespace"), namespace, text) for text in is_dns1123_label(namespace)]
    elif namespace:
        errors.append(forbidden(where.child("namespace"), "not allowed on this type"))
    if (meta.get("generation") or 0) < 0:
        errors.append(invalid(where.child("generation"), meta["generation"], "must be greater than or equal to 0"))
    errors += validate_labels(meta.get("labels") or {}, where.child("labels"))
    errors += validate_annotations(meta.get("annotations") or {}, where.child("annotations"))
    errors += validate_owner_references(meta.get("ownerReferences") or [], where.child("ownerReferences"))
    errors += validate_finalizers(meta.get("finalizers") or [], where.child("finalizers"))
    errors += validate_managed_fields(meta.get("managedFields") or [], where.child("managedFields"))
    return errors


def validate_common(meta: Obj, namespaced: bool) -> list[FieldError]:
    """As the registry checks every kind, whatever its own name rule (names must fit into a path)."""
    return validate(meta, namespaced, is_valid_path_segment_name)


def validate_update(new: Obj, old: Obj, where: Path = _META) -> list[FieldError]:
    """Upstream ValidateObjectMetaUpdate."""
    errors: list[FieldError] = []
    if old.get("deletionTimestamp"):
        added = [name for name in new.get("finalizers") or [] if name not in (old.get("finalizers") or [])]
        if added:
            listed = ", ".join(quote(name) for name in sorted(added))
            errors.append(
                forbidden(
                    where.child("finalizers"),
                    f"no new finalizers can be added if the object is being deleted, found new finalizers []string{{{listed}}}",
                )
            )
    if not new.get("resourceVersion"):
        errors.append(invalid(where.child("resourceVersion"), "", "must be specified for an update"))
    if (new.get("generation") or 0) < (old.get("generation") or 0):
        errors.append(invalid(where.child("generation"), new.get("generation") or 0, "must not be decremented"))
    for key in _IMMUTABLE:
        if (new.get(key) or None) != (old.get(key) or None):
            errors.append(invalid(where.child(key), new.get(key), "field is immutable"))
    errors += validate_labels(new.get("labels") or {}, where.child("labels"))
    errors += validate_annotations(new.get("annotations") or {}, where.child("annotations"))
    errors += validate_owner_references(new.get("ownerReferences") or [], where.child("ownerReferences"))
    errors += validate_managed_fields(new.get("managedFields") or [], where.child("managedFields"))
    return errors


def validate_labels(labels: dict[str, str], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for key, value in sorted(labels.items()):
        errors += [invalid(where, key, text) for text in is_qualified_name(key)]
        errors += [invalid(where, value, text) for text in is_valid_label_value(value)]
    return errors


def validate_annotations(annotations: dict[str, str], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    size = 0
    for key, value in sorted(annotations.items()):
        errors += [invalid(where, key, text) for text in is_qualified_name(key.lower())]
        size += len(key.encode()) + len(value.encode())
    if size > MAX_ANNOTATIONS_BYTES:
        errors.append(too_long(where, MAX_ANNOTATIONS_BYTES))
    return errors


def _reference(reference: Obj) -> Obj:
    shown: Obj = {key: reference.get(key) or "" for key in ("apiVersion", "kind", "name", "uid")}
    for key in ("controller", "blockOwnerDeletion"):
        if reference.get(key) is not None:
            shown[key] = reference[key]
    return shown


def validate_owner_references(references: list[Obj], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    controller = ""
    for reference in references:
        group, _, version = (reference.get("apiVersion") or "").rpartition("/")
        if "/" in group:  # upstream takes an apiVersion that it cannot read for none at all
            group = version = ""
        if not version:
            errors.append(
                invalid(where.child("apiVersion"), reference.get("apiVersion") or "", "version must not be empty")
            )
        for key in ("kind", "name", "uid"):
            if not reference.get(key):
                errors.append(invalid(where.child(key), "", "must not be empty"))
        if not group and version == "v1" and reference.get("kind") == "Event":
            errors.append(invalid(where, _reference(reference), "/v1, Kind=Event is disallowed from being an owner"))
        if reference.get("controller"):
            current = f"{reference.get('kind') or ''}/{reference.get('name') or ''}"
            if controller:
                errors.append(
                    invalid(
                        where,
                        [_reference(each) for each in references],
                        'Only one reference can have Controller set to true. Found "true" in references for '
                        f"{controller} and {current}",
                    )
                )
            else:
                controller = current
    return errors


def validate_finalizers(finalizers: list[str], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for name in finalizers:
        errors += [invalid(where, name, text) for text in is_qualified_name(name)]
    if ORPHAN in finalizers and FOREGROUND in finalizers:
        errors.append(invalid(where, finalizers, f"finalizer {ORPHAN} and {FOREGROUND} cannot be both set"))
    return errors


def validate_standard_finalizers(finalizers: list[str], where: Path) -> list[FieldError]:
    """What the kinds of Kubernetes itself demand besides: only the old finalizers have names without a domain."""
    return [
        invalid(where.index(index), name, "name is neither a standard finalizer name nor is it fully qualified")
        for index, name in enumerate(finalizers)
        if "/" not in name and name not in (ORPHAN, FOREGROUND, "kubernetes")
    ]


def validate_managed_fields(entries: Iterable[Any], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, entry in enumerate(entries):
        at = where.index(index)
        operation = entry.get("operation") or ""
        if operation not in ("Apply", "Update"):
            errors.append(invalid(at.child("operation"), operation, "must be `Apply` or `Update`"))
        fields_type = entry.get("fieldsType") or ""
        if fields_type and fields_type != "FieldsV1":
            errors.append(invalid(at.child("fieldsType"), fields_type, "must be `FieldsV1`"))
        errors += validate_field_manager(entry.get("manager") or "", at.child("manager"))
        subresource = entry.get("subresource") or ""
        if len(subresource) > 256:
            errors.append(too_long(at.child("subresource"), 256))
    return errors


def validate_field_manager(manager: str, where: Path) -> list[FieldError]:
    """Upstream ValidateFieldManager: at most 128 bytes, printable."""
    errors: list[FieldError] = []
    if len(manager.encode()) > 128:
        errors.append(too_long(where, 128))
    for index, char in enumerate(manager):
        if not char.isprintable():
            errors.append(invalid(where, manager, f"invalid character U+{ord(char):04X} (at position {index})"))
            break
    return errors
