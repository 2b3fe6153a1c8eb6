"""Rules for the storage kinds (upstream pkg/apis/storage/validation)."""

from __future__ import annotations

from bowsprit.controlplane.countrules import one_of
from bowsprit.controlplane.immutable import immutable_struct
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_subdomain, is_qualified_name

_MOST_PARAMETERS = 512
_LARGEST_PARAMETERS = 256 << 10


def storage_class_errors(obj: Obj) -> list[FieldError]:
    """A StorageClass."""
    errors: list[FieldError] = []
    provisioner, where = obj.get("provisioner", ""), path("provisioner")
    if not provisioner:
        errors.append(fielderrors.required(where))
    else:
        errors += [fielderrors.invalid(where, provisioner, text) for text in is_qualified_name(provisioner.lower())]
    errors += parameters_errors(obj, required=False)
    errors += one_of(obj.get("reclaimPolicy"), ["Delete", "Retain"], path("reclaimPolicy"))
    modes = ["Immediate", "WaitForFirstConsumer"]
    errors += one_of(obj.get("volumeBindingMode"), modes, path("volumeBindingMode"))
    return errors + _topologies_errors(obj.get("allowedTopologies") or [])


def parameters_errors(obj: Obj, *, required: bool) -> list[FieldError]:
    """The parameters of a class: bounded in number and size."""
    parameters, where = obj.get("parameters") or {}, path("parameters")
    if len(parameters) > _MOST_PARAMETERS:
        return [fielderrors.too_long(where, _MOST_PARAMETERS)]
    errors: list[FieldError] = []
    if "" in parameters:
        errors.append(fielderrors.invalid(where, "", "field can not be empty."))
    if sum(len(key) + len(value) for key, value in parameters.items()) > _LARGEST_PARAMETERS:
        errors.append(fielderrors.too_long(where, _LARGEST_PARAMETERS))
    if required and not parameters:
        errors.append(fielderrors.required(where, "must contain at least one key/value pair"))
    return errors


def _topologies_errors(terms: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: list[dict[str, set[str]]] = [{} for _ in terms]  # as upstream has it: no term may be empty
    for index, term in enumerate(terms):
        place = path("allowedTopologies").index(index).child("matchLabelExpressions")
        wanted: dict[str, set[str]] = {}
        for position, expression in enumerate(term.get("matchLabelExpressions") or ()):
            spot, key, values = place.index(position), expression.get("key", ""), expression.get("values") or []
            if not values:
                errors.append(fielderrors.required(spot.child("values")))
            for number, value in enumerate(values):
                if value in values[:number]:
                    errors.append(fielderrors.duplicate(spot.child("values").index(number), value))
            errors += name_errors(key, spot.child("key"), is_qualified_name)
            if key in wanted:
                errors.append(fielderrors.duplicate(spot.child("key"), key))
            wanted[key] = set(values)
        errors += [fielderrors.duplicate(place, "") for other in seen if other == wanted]
        seen.append(wanted)
    return errors


def volume_attachment_errors(obj: Obj) -> list[FieldError]:
    """A VolumeAttachment."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    attacher = spec.get("attacher", "")
    if not attacher:
        errors.append(fielderrors.required(where.child("attacher")))
    else:
        errors += [
            fielderrors.invalid(where.child("attacher"), attacher, text) for text in is_qualified_name(attacher.lower())
        ]
    source = spec.get("source") or {}
    given = [kind for kind in ("inlineVolumeSpec", "persistentVolumeName") if source.get(kind) is not None]
    if not given:
        detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        errors.append(fielderrors.required(where.child("source"), detail))
    elif len(given) > 1:
        detail = "must specify exactly one of inlineVolumeSpec and persistentVolumeName"
        errors.append(fielderrors.forbidden(where.child("source"), detail))
    return errors + name_errors(spec.get("nodeName", ""), where.child("nodeName"), is_dns1123_subdomain)


def volume_attachment_update_errors(new: Obj, old: Obj) -> list[FieldError]:
    """The spec stays."""
    errors = volume_attachment_errors(new)
    return errors + immutable_struct("VolumeAttachmentSpec", new.get("spec"), old.get("spec"), path("spec"))
