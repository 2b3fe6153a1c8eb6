"""Namespaces: the finalizer in the spec, the phase, the name label (upstream pkg/registry/core/namespace)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.controlplane.statused import PartStrategy, StatusStrategy, copy_field
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_label, is_qualified_name

NAME_LABEL = "kubernetes.io/metadata.name"
FINALIZER = "kubernetes"


class NamespaceStrategy(Strategy):
    """The main endpoint."""

    marks_grace_period = False

    def validate_name(self, name: str) -> list[str]:
        return is_dns1123_label(name)

    def default(self, obj: Obj) -> None:
        name = obj["metadata"].get("name")
        if name:
            labels = obj["metadata"].setdefault("labels", {})
            labels[NAME_LABEL] = name

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {"phase": "Active"}
        spec = obj.setdefault("spec", {})
        finalizers = spec.setdefault("finalizers", [])
        if FINALIZER not in finalizers:
            finalizers.append(FINALIZER)

    def validate(self, obj: Obj) -> list[FieldError]:
        where, names = path("spec", "finalizers"), obj["spec"]["finalizers"]
        return [error for name in names for error in _finalizer_errors(name, where)]

    def canonicalize(self, obj: Obj) -> None:
        self.default(obj)

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        copy_field(new, old, "status")
        new.setdefault("spec", {})
        copy_field(new["spec"], old.get("spec") or {}, "finalizers")

    def selectable_field_names(self) -> frozenset[str]:
        return frozenset({"status.phase"})

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"status.phase": (obj.get("status") or {}).get("phase") or ""}

    def mark_deleting(self, obj: Obj, ctx: RequestContext) -> None:
        obj.setdefault("status", {})["phase"] = "Terminating"

    def may_vanish(self, obj: Obj) -> bool:
        return not (obj.get("spec") or {}).get("finalizers")


class NamespaceStatusStrategy(StatusStrategy):
    """``/status``: the phase follows from the deletion."""

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        phase, deleting = (new.get("status") or {}).get("phase", ""), bool(new["metadata"].get("deletionTimestamp"))
        if deleting and phase != "Terminating":
            detail = "may only be 'Terminating' if `deletionTimestamp` is not empty"
            return [fielderrors.invalid(path("status", "Phase"), phase, detail)]
        if not deleting and phase != "Active":
            detail = "may only be 'Active' if `deletionTimestamp` is empty"
            return [fielderrors.invalid(path("status", "Phase"), phase, detail)]
        return []


class NamespaceFinalizeStrategy(PartStrategy):
    """``/finalize``: only the finalizers of the spec change."""

    def prepare_for_update(self, new: Obj, old: Obj, ctx: RequestContext) -> None:
        copy_field(new, old, "status")

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        names, where = (new.get("spec") or {}).get("finalizers") or (), path("spec", "finalizers")
        return [error for index, name in enumerate(names) for error in _finalizer_errors(name, where.index(index))]


def _finalizer_errors(name: str, where: Path) -> list[FieldError]:
    errors = [fielderrors.invalid(where, name, text) for text in is_qualified_name(name)]
    if "/" not in name and name not in (FINALIZER, "orphan", "foregroundDeletion"):
        detail = "name is neither a standard finalizer name nor is it fully qualified"
        errors.append(fielderrors.invalid(where, name, detail))
    return errors


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Status, Age."""
    return [name_of(obj), (obj.get("status") or {}).get("phase", ""), age_of(obj, now)]
