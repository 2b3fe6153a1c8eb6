"""Roles and bindings: subjects' groups, fixed role references, no escalation."""

from __future__ import annotations

from collections.abc import Callable
from datetime import datetime
from typing import Any

from bowsprit.apiserver.authorization.escalation import EscalationCheck
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.strategy import Finish, Strategy
from bowsprit.controlplane.gostructs import go_value
from bowsprit.controlplane.printing import age_of, name_of
from bowsprit.controlplane.rbac.validation import binding_errors, role_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_valid_path_segment_name

RBAC_GROUP = "rbac.authorization.k8s.io"
Check = Callable[[], EscalationCheck | None]


class RoleStrategy(Strategy):
    """Role and ClusterRole.

    Args:
        check: gives the escalation check of the running server; None where RBAC is off.
    """

    allow_create_on_update = True

    def __init__(self, check: Check) -> None:
        self._check = check

    def validate_name(self, name: str) -> list[str]:
        return is_valid_path_segment_name(name)

    async def begin_create(self, obj: Obj, ctx: RequestContext) -> Finish | None:
        await self._guard(obj, None, ctx)
        return None

    async def begin_update(self, new: Obj, old: Obj, ctx: RequestContext) -> Finish | None:
        await self._guard(new, old, ctx)
        return None

    async def _guard(self, new: Obj, old: Obj | None, ctx: RequestContext) -> None:
        check = self._check()
        if check is not None:
            await check.check_role(ctx.user, new, old)

    def validate(self, obj: Obj) -> list[FieldError]:
        return role_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return role_errors(new)


class BindingStrategy(RoleStrategy):
    """RoleBinding and ClusterRoleBinding."""

    def default(self, obj: Obj) -> None:
        for subject in obj.get("subjects") or ():
            if subject.get("kind") in ("User", "Group") and not subject.get("apiGroup"):
                subject["apiGroup"] = RBAC_GROUP
        reference = obj.get("roleRef")
        if reference is not None and not reference.get("apiGroup"):
            reference["apiGroup"] = RBAC_GROUP

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        errors = self.validate(new)
        if new.get("roleRef") != old.get("roleRef"):
            shown = go_value("RoleRef", new.get("roleRef"))
            errors.append(fielderrors.invalid(path("roleRef"), shown, "cannot change roleRef"))
        return errors

    async def _guard(self, new: Obj, old: Obj | None, ctx: RequestContext) -> None:
        check = self._check()
        if check is not None:
            await check.check_binding(ctx.user, new, old)

    def validate(self, obj: Obj) -> list[FieldError]:
        return binding_errors(obj)


def role_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Created At."""
    return [name_of(obj), obj["metadata"].get("creationTimestamp", "")]


def binding_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Role, Age, Users, Groups, ServiceAccounts."""
    reference = obj.get("roleRef") or {}
    named: dict[str, list[str]] = {"User": [], "Group": [], "ServiceAccount": []}
    for subject in obj.get("subjects") or ():
        name = subject.get("name", "")
        if subject.get("kind") == "ServiceAccount":
            name = f"{subject.get('namespace', '')}/{name}"
        named.setdefault(subject.get("kind", ""), []).append(name)
    return [
        name_of(obj),
        f"{reference.get('kind', '')}/{reference.get('name', '')}",
        age_of(obj, now),
        *(", ".join(named[kind]) for kind in ("User", "Group", "ServiceAccount")),
    ]
