"""`--authorization-mode`: which authorizers are asked, and in which order."""

from __future__ import annotations

from collections.abc import Sequence

from bowsprit.apiserver.access import Attributes, Authorizer, Decision
from bowsprit.apiserver.authorization.node import NodeAuthorizer
from bowsprit.apiserver.authorization.rbac import RBACAuthorizer, RoleResolver
from bowsprit.apiserver.lookup import Listers
from bowsprit.apiserver.user import SYSTEM_PRIVILEGED_GROUP

MODES = ("AlwaysAllow", "AlwaysDeny", "Node", "RBAC")
ALWAYS_ALLOWED_PATHS = frozenset({"/healthz", "/livez", "/readyz"})


class PrivilegedGroup:
    """Members of system:masters may do everything."""

    async def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        """See access.Authorizer."""
        allowed = SYSTEM_PRIVILEGED_GROUP in attributes.user.groups
        return (Decision.ALLOW if allowed else Decision.NO_OPINION), ""


class AlwaysAllow:
    """`AlwaysAllow`."""

    async def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        """See access.Authorizer."""
        return Decision.ALLOW, ""


class AlwaysDeny:
    """`AlwaysDeny`."""

    async def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        """See access.Authorizer."""
        return Decision.NO_OPINION, "Everything is forbidden."


class AuthorizerUnion:
    """The first authorizer that allows or denies wins; reasons of the others are joined (upstream authorizer/union)."""

    def __init__(self, members: Sequence[Authorizer]) -> None:
        self._members = list(members)

    async def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        """See access.Authorizer."""
        reasons: list[str] = []
        for member in self._members:
            decision, reason = await member.authorize(attributes)
            if decision is not Decision.NO_OPINION:
                return decision, reason
            if reason:
                reasons.append(reason)
        return Decision.NO_OPINION, "\n".join(reasons)


def authorizer_for(modes: Sequence[str], listers: Listers, resolver: RoleResolver) -> AuthorizerUnion:
    """The authorizers of the modes, in their order, behind system:masters.

    Raises:
        ValueError: a mode is unknown or given twice.
    """
    members: list[Authorizer] = [PrivilegedGroup()]
    if not modes:
        raise ValueError("at least one authorization-mode must be passed")
    for mode in modes:
        if mode not in MODES:
            raise ValueError(f"authorization-mode {mode!r} is not one of {', '.join(MODES)}")
        if list(modes).count(mode) > 1:
            raise ValueError(f"authorization-mode {list(modes)!r} has mode specified more than once")
        match mode:
            case "AlwaysAllow":
                members.append(AlwaysAllow())
            case "AlwaysDeny":
                members.append(AlwaysDeny())
            case "Node":
                members.append(NodeAuthorizer(resolver, listers))
            case "RBAC":
                members.append(RBACAuthorizer(resolver))
    return AuthorizerUnion(members)
