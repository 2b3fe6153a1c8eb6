"""Role-based access control over the cluster's roles and bindings (upstream plugin/pkg/auth/authorizer/rbac).

Bindings are indexed by subject and rebuilt when a binding changes; the rules of a role are parsed once per object, so that a
decision looks only at the bindings of the user.
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import dataclass, field
from typing import Any

from bowsprit.apiserver.access import Attributes, Decision
from bowsprit.apiserver.authentication.serviceaccount import USER_PREFIX
from bowsprit.apiserver.authorization.rules import PolicyRule
from bowsprit.apiserver.lookup import Lister, Listers
from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj

RBAC_GROUP = "rbac.authorization.k8s.io"
ROLES = GroupResource(RBAC_GROUP, "roles")
ROLE_BINDINGS = GroupResource(RBAC_GROUP, "rolebindings")
CLUSTER_ROLES = GroupResource(RBAC_GROUP, "clusterroles")
CLUSTER_ROLE_BINDINGS = GroupResource(RBAC_GROUP, "clusterrolebindings")


_RESOURCES = (ROLES, ROLE_BINDINGS, CLUSTER_ROLES, CLUSTER_ROLE_BINDINGS)
_REMEMBERED = 4096


class RoleNotFound(LookupError):
    """A binding names a role that does not exist; the text is upstream's."""


@dataclass(frozen=True, slots=True)
class _Binding:
    name: str
    namespace: str  # "" for a ClusterRoleBinding
    role_kind: str
    role_name: str
    subject: str  # how the subject that matched prints

    def reason(self) -> str:
        """The reason of an allowing decision."""
        kind = "RoleBinding" if self.namespace else "ClusterRoleBinding"
        name = f"{self.name}/{self.namespace}" if self.namespace else self.name
        return f"RBAC: allowed by {kind} {quote(name)} of {self.role_kind} {quote(self.role_name)} to {self.subject}"


_Grant = tuple[_Binding, "tuple[PolicyRule, ...] | RoleNotFound"]


@dataclass(slots=True)
class _Index:
    """Bindings by subject, for one version of a lister's content."""

    token: object
    by_subject: dict[tuple[str, str, str], list[_Binding]] = field(default_factory=dict)


class RoleResolver:
    """Which rules apply to a user, and where they come from."""

    def __init__(self, listers: Listers) -> None:
        self._listers = listers
        self._indexes: dict[GroupResource, _Index] = {}
        self._rules: dict[int, tuple[Obj, tuple[PolicyRule, ...]]] = {}
        self._versions: tuple[Any, ...] = ()
        self._remembered: dict[tuple[str, tuple[str, ...], str], Sequence[_Grant]] = {}

    def visit(self, user: UserInfo, namespace: str) -> Sequence[_Grant]:
        """Every binding of the user that holds in a namespace ("" for the cluster scope), with its role's rules.

        Remembered per user and namespace until a role or binding changes.
        """
        versions = tuple(getattr(self._listers(resource), "version", None) for resource in _RESOURCES)
        if None in versions:
            return list(self._grants(user, namespace))
        if versions != self._versions:
            self._versions = versions
            self._remembered.clear()
        key = (user.name, user.groups, namespace)
        grants = self._remembered.get(key)
        if grants is None:
            if len(self._remembered) >= _REMEMBERED:
                self._remembered.clear()
            grants = self._remembered[key] = list(self._grants(user, namespace))
        return grants

    def _grants(self, user: UserInfo, namespace: str) -> Iterator[_Grant]:
        for resource in (CLUSTER_ROLE_BINDINGS, ROLE_BINDINGS) if namespace else (CLUSTER_ROLE_BINDINGS,):
            for binding in self._bindings(resource, user, namespace):
                try:
                    yield binding, self.role_rules(binding.role_kind, binding.role_name, binding.namespace)
                except RoleNotFound as exc:
                    yield binding, exc

    def rules_for(self, user: UserInfo, namespace: str) -> tuple[list[PolicyRule], list[str]]:
        """All rules of a user in a namespace, and what could not be resolved."""
        rules: list[PolicyRule] = []
        problems: list[str] = []
        for _, found in self.visit(user, namespace):
            if isinstance(found, RoleNotFound):
                problems.append(str(found))
            else:
                rules.extend(found)
        return rules, problems

    def role_rules(self, kind: str, name: str, namespace: str) -> tuple[PolicyRule, ...]:
        """The rules of a role.

        Raises:
            RoleNotFound: it does not exist.
        """
        if kind == "Role":
            role = self._listers(ROLES).get(namespace, name)
        elif kind == "ClusterRole":
            role = self._listers(CLUSTER_ROLES).get("", name)
        else:
            raise RoleNotFound(f"unsupported role reference kind: {quote(kind)}")
        if role is None:
            raise RoleNotFound(f"{kind.lower()}.{RBAC_GROUP} {quote(name)} not found")
        # Listers answer the same object until it changes, so its identity may stand for its content.
        known = self._rules.get(id(role))
        if known is None or known[0] is not role:
            if len(self._rules) > 10_000:
                self._rules.clear()
            known = (role, tuple(PolicyRule.from_obj(rule) for rule in role.get("rules") or ()))
            self._rules[id(role)] = known
        return known[1]

    def _bindings(self, resource: GroupResource, user: UserInfo, namespace: str) -> list[_Binding]:
        by_subject = self._index(resource, self._listers(resource)).by_subject
        scope = namespace if resource is ROLE_BINDINGS else ""
        found = [binding for key in _subject_keys(user) for binding in by_subject.get((scope, *key), ())]
        found.sort(key=lambda binding: binding.name)
        return found

    def _index(self, resource: GroupResource, lister: Lister) -> _Index:
        version: Any = getattr(lister, "version", None)
        token = version if version is not None else tuple(map(id, lister.list()))
        index = self._indexes.get(resource)
        if index is None or index.token != token:
            index = _Index(token)
            for binding in lister.list():
                meta = binding["metadata"]
                scope = meta.get("namespace", "")
                for subject in binding.get("subjects") or ():
                    key, text = _subject(subject, scope)
                    if key is not None:
                        reference = binding.get("roleRef") or {}
                        entry = _Binding(
                            meta["name"], scope, reference.get("kind", ""), reference.get("name", ""), text
                        )
                        index.by_subject.setdefault((scope, *key), []).append(entry)
            self._indexes[resource] = index
        return index


def _subject(subject: Obj, namespace: str) -> tuple[tuple[str, str] | None, str]:
    kind, name = subject.get("kind"), subject.get("name", "")
    if kind == "ServiceAccount":
        owner = subject.get("namespace") or namespace
        if not owner:
            return None, ""
        return ("User", f"{USER_PREFIX}{owner}:{name}"), f"ServiceAccount {quote(f'{name}/{owner}')}"
    if kind in ("User", "Group"):
        return (kind, name), f"{kind} {quote(name)}"
    return None, ""


def _subject_keys(user: UserInfo) -> list[tuple[str, str]]:
    return [("User", user.name), *(("Group", group) for group in user.groups)]


class RBACAuthorizer:
    """`--authorization-mode=RBAC`."""

    def __init__(self, resolver: RoleResolver) -> None:
        self.resolver = resolver

    async def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        """See access.Authorizer."""
        problems: list[str] = []
        for binding, rules in self.resolver.visit(attributes.user, attributes.namespace):
            if isinstance(rules, RoleNotFound):
                problems.append(str(rules))
            elif any(rule.allows(attributes) for rule in rules):
                return Decision.ALLOW, binding.reason()
        return Decision.NO_OPINION, f"RBAC: {join_problems(problems)}" if problems else ""


def join_problems(problems: Sequence[str]) -> str:
    """Several texts as Go's aggregate error prints them: each once."""
    unique = list(dict.fromkeys(problems))
    return unique[0] if len(unique) == 1 else f"[{', '.join(unique)}]"
