"""ControllerRevisions."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.apps.validation import controller_revision_errors, new_revision_errors
from bowsprit.controlplane.immutable import immutable_field
from bowsprit.controlplane.printing import NONE, age_of, name_of
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.names import GroupResource, GroupVersion
from bowsprit.machinery.objects import Obj, controller_of


class ControllerRevisionStrategy(Strategy):
    """The recorded state cannot change."""

    def validate(self, obj: Obj) -> list[FieldError]:
        return new_revision_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return controller_revision_errors(new) + immutable_field(new.get("data"), old.get("data"), path("data"))


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Controller, Revision, Age."""
    owner = controller_of(obj)
    text = NONE
    if owner is not None:
        group = GroupVersion.parse(owner.get("apiVersion", "")).group
        text = f"{GroupResource(group, owner.get('kind', '').lower())}/{owner.get('name', '')}"
    return [name_of(obj), text, obj.get("revision", 0), age_of(obj, now)]
