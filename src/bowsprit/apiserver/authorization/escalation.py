"""Nobody grants more than they hold: checks on writes of roles and bindings.

Upstream: pkg/registry/rbac/{role,clusterrole,rolebinding,clusterrolebinding}/policybased, escalation_check.go. The verbs
`escalate` (on roles) and `bind` (on the referenced role) lift the check.
"""

from __future__ import annotations

from collections.abc import Sequence

from bowsprit.apiserver.access import Attributes, Authorizer, Decision
from bowsprit.apiserver.authorization.rbac import RBAC_GROUP, RoleNotFound, RoleResolver, join_problems
from bowsprit.apiserver.authorization.rules import PolicyRule, missing_rights
from bowsprit.apiserver.user import SYSTEM_PRIVILEGED_GROUP, UserInfo
from bowsprit.machinery.errors import forbidden, not_found
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj


class EscalationCheck:
    """What the strategies of the four RBAC kinds ask before a write."""

    def __init__(self, resolver: RoleResolver, authorizer: Authorizer) -> None:
        self._resolver = resolver
        self._authorizer = authorizer

    async def check_role(self, user: UserInfo, role: Obj, old: Obj | None) -> None:
        """Whether the user may write this Role or ClusterRole.

        Raises:
            Forbidden: it grants what the user does not hold.
        """
        kind, meta = role["kind"], role["metadata"]
        namespace, name = meta.get("namespace", ""), meta.get("name", "")
        rules_same = old is not None and old.get("rules") == role.get("rules")
        aggregation_same = old is not None and old.get("aggregationRule") == role.get("aggregationRule")
        if _is_privileged(user) or (rules_same and aggregation_same):
            return
        resource = GroupResource(RBAC_GROUP, "roles" if kind == "Role" else "clusterroles")
        if await self._has_verb(user, "escalate", resource, namespace, name):
            return
        if role.get("aggregationRule") and not self._holds(user, _EVERYTHING, ""):
            raise forbidden(resource, name, "must have cluster-admin privileges to use the aggregationRule")
        self._confirm(user, [PolicyRule.from_obj(rule) for rule in role.get("rules") or ()], namespace, resource, name)

    async def check_binding(self, user: UserInfo, binding: Obj, old: Obj | None) -> None:
        """Whether the user may write this RoleBinding or ClusterRoleBinding.

        Raises:
            Forbidden: the role grants what the user does not hold.
            NotFound: the role does not exist, so that it cannot be told.
        """
        if _is_privileged(user) or (old is not None and old.get("subjects") == binding.get("subjects")):
            return
        meta, reference = binding["metadata"], binding.get("roleRef") or {}
        namespace, name = meta.get("namespace", ""), meta.get("name", "")
        kind, role = reference.get("kind", ""), reference.get("name", "")
        role_resource = GroupResource(RBAC_GROUP, "roles" if kind == "Role" else "clusterroles")
        if await self._has_verb(user, "bind", role_resource, namespace, role):
            return
        try:
            rules = self._resolver.role_rules(kind, role, namespace)
        except RoleNotFound:
            raise not_found(GroupResource(RBAC_GROUP, kind.lower()), role) from None
        resource = GroupResource(RBAC_GROUP, f"{binding['kind'].lower()}s")
        self._confirm(user, rules, namespace, resource, name)

    async def _has_verb(self, user: UserInfo, verb: str, resource: GroupResource, namespace: str, name: str) -> bool:
        attributes = Attributes(user, verb, resource.group, "*", resource.resource, namespace=namespace, name=name)
        return (await self._authorizer.authorize(attributes))[0] is Decision.ALLOW

    def _holds(self, user: UserInfo, rules: Sequence[PolicyRule], namespace: str) -> bool:
        return not missing_rights(self._resolver.rules_for(user, namespace)[0], rules)

    def _confirm(
        self, user: UserInfo, rules: Sequence[PolicyRule], namespace: str, resource: GroupResource, name: str
    ) -> None:
        owned, problems = self._resolver.rules_for(user, namespace)
        missing = missing_rights(owned, rules)
        if not missing:
            return
        groups = " ".join(quote(group) for group in user.groups)
        text = (
            f"user {quote(user.name)} (groups=[{groups}]) is attempting to grant RBAC permissions not currently held:\n"
            + "\n".join(map(str, missing))
        )
        if problems:
            text += f"; resolution errors: {join_problems(problems) if len(problems) > 1 else f'[{problems[0]}]'}"
        raise forbidden(resource, name, text)


_EVERYTHING = (
    PolicyRule(("*",), ("*",), ("*",)),
    PolicyRule(("*",), non_resource_urls=("*",)),
)


def _is_privileged(user: UserInfo) -> bool:
    return SYSTEM_PRIVILEGED_GROUP in user.groups
