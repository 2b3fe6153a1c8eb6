"""PolicyRules as values: what they match, what they cover, how they print.

Upstream: pkg/apis/rbac/v1/evaluation_helpers.go, plugin/pkg/auth/authorizer/rbac/rule.go,
staging/src/k8s.io/component-helpers/auth/rbac/validation/policy_comparator.go.
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace

from bowsprit.apiserver.access import Attributes
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.objects import Obj


@dataclass(frozen=True, slots=True)
class PolicyRule:
    """rbac.v1.PolicyRule."""

    verbs: tuple[str, ...] = ()
    api_groups: tuple[str, ...] = ()
    resources: tuple[str, ...] = ()
    resource_names: tuple[str, ...] = ()
    non_resource_urls: tuple[str, ...] = ()

    @classmethod
    def from_obj(cls, rule: Obj) -> PolicyRule:
        return cls(
            tuple(rule.get("verbs") or ()),
            tuple(rule.get("apiGroups") or ()),
            tuple(rule.get("resources") or ()),
            tuple(rule.get("resourceNames") or ()),
            tuple(rule.get("nonResourceURLs") or ()),
        )

    def allows(self, attributes: Attributes) -> bool:
        """Whether the rule allows what is asked (upstream RuleAllows)."""
        if "*" not in self.verbs and attributes.verb not in self.verbs:
            return False
        if not attributes.resource_request:
            return any(_url_matches(url, attributes.path) for url in self.non_resource_urls)
        if "*" not in self.api_groups and attributes.group not in self.api_groups:
            return False
        if self.resource_names and attributes.name not in self.resource_names:
            return False
        return self._resource_matches(attributes.resource, attributes.subresource)

    def _resource_matches(self, resource: str, subresource: str) -> bool:
        combined = f"{resource}/{subresource}" if subresource else resource
        for item in self.resources:
            if item in ("*", combined):
                return True
            # "*/scale" stands for that subresource of every resource.
            if subresource and item == f"*/{subresource}":
                return True
        return False

    def covers(self, sub: PolicyRule) -> bool:
        """Whether everything that a broken-down rule allows is allowed here (upstream ruleCovers)."""
        verbs = "*" in self.verbs or set(sub.verbs) <= set(self.verbs)
        groups = "*" in self.api_groups or set(sub.api_groups) <= set(self.api_groups)
        if not sub.resource_names:
            names = not self.resource_names
        else:
            names = not self.resource_names or set(sub.resource_names) <= set(self.resource_names)
        urls = all(any(_url_covers(own, url) for own in self.non_resource_urls) for url in sub.non_resource_urls)
        return verbs and groups and self._covers_resources(sub.resources) and names and urls

    def _covers_resources(self, wanted: Sequence[str]) -> bool:
        own = set(self.resources)
        if "*" in own or set(wanted) <= own:
            return True
        return all(item in own or ("/" in item and f"*/{item.partition('/')[2]}" in own) for item in wanted)

    def __str__(self) -> str:
        """As `CompactString` prints it."""
        parts = []
        for label, values in (
            ("APIGroups", self.api_groups),
            ("Resources", self.resources),
            ("NonResourceURLs", self.non_resource_urls),
            ("ResourceNames", self.resource_names),
            ("Verbs", self.verbs),
        ):
            if values:
                parts.append(f"{label}:[{' '.join(quote(value) for value in values)}]")
        return "{" + ", ".join(parts) + "}"


def _url_matches(pattern: str, path: str) -> bool:
    if pattern in ("*", path):
        return True
    return pattern.endswith("*") and path.startswith(pattern.rstrip("*"))


def _url_covers(owner: str, wanted: str) -> bool:
    if owner in ("*", wanted):
        return True
    return owner.endswith("*") and wanted.startswith(owner.rstrip("*"))


def missing_rights(owned: Sequence[PolicyRule], wanted: Iterable[PolicyRule]) -> list[PolicyRule]:
    """The parts of `wanted` that no single owned rule covers, compacted and sorted as they print (upstream Covers)."""
    missing = [piece for rule in wanted for piece in _break_down(rule) if not any(own.covers(piece) for own in owned)]
    return sorted(_compact(missing), key=str)


def _break_down(rule: PolicyRule) -> list[PolicyRule]:
    """One rule per group, resource, verb and name, so that several owned rules may cover it together."""
    pieces = []
    for group in rule.api_groups:
        for resource in rule.resources:
            for verb in rule.verbs:
                base = PolicyRule((verb,), (group,), (resource,))
                names = rule.resource_names
                pieces += [replace(base, resource_names=(name,)) for name in names] if names else [base]
    pieces += [PolicyRule((verb,), non_resource_urls=(url,)) for url in rule.non_resource_urls for verb in rule.verbs]
    return pieces


def _compact(rules: Sequence[PolicyRule]) -> list[PolicyRule]:
    """Join rules for one resource that differ only in verbs (upstream CompactRules)."""
    joined: dict[tuple[object, ...], PolicyRule] = {}
    result: list[PolicyRule] = []
    for rule in rules:
        if len(rule.api_groups) != 1 or len(rule.resources) != 1 or rule.non_resource_urls:
            result.append(rule)
            continue
        key = (rule.api_groups, rule.resources, rule.resource_names)
        known = joined.get(key)
        joined[key] = rule if known is None else replace(known, verbs=known.verbs + rule.verbs)
    return result + list(joined.values())
