"""Which requests a webhook or policy is about: rules, selectors, and the other versions of the same resource.

Upstream: k8s.io/apiserver/pkg/admission/plugin/webhook/predicates and .../policy/matching.
"""

from __future__ import annotations

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bowsprit.apiserver.admission.chain import is_virtual_review
from bowsprit.apiserver.admission.lifecycle import NAMESPACES
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.conversion import prepared
from bowsprit.apiserver.lookup import Listers
from bowsprit.apiserver.resource import Resource, Version
from bowsprit.machinery.errors import not_found
from bowsprit.machinery.names import GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj, deep_copy, labels
from bowsprit.machinery.selectors import LabelSelector

ADMISSION_GROUP = "admissionregistration.k8s.io"


@dataclass(frozen=True, slots=True)
class Match:
    """The form in which a request is shown: its own, or that of an equivalent version."""

    gvr: GroupVersionResource
    gvk: GroupVersionKind


def is_exempt(attributes: AdmissionAttributes) -> bool:
    """Whether webhooks and policies never see the request: their own configurations, and the reviews."""
    return attributes.gvr.group == ADMISSION_GROUP or is_virtual_review(attributes.gvk)


class Matcher:
    """Decides for one server."""

    def __init__(self, listers: Listers) -> None:
        self._listers = listers

    def match(
        self,
        attributes: AdmissionAttributes,
        rules: Sequence[Obj],
        *,
        excluded: Sequence[Obj] = (),
        namespaces: Obj | None,
        objects: Obj | None,
        equivalent: bool,
    ) -> Match | None:
        """How the request matches, None when it does not.

        Args:
            attributes: the request.
            rules: RuleWithOperations or NamedRuleWithOperations.
            excluded: rules that take away again.
            namespaces: the namespaceSelector; None selects all.
            objects: the objectSelector; None selects all.
            equivalent: matchPolicy is Equivalent.

        Raises:
            NotFound: the namespace does not exist.
        """
        if _first(attributes, excluded, equivalent) is not None:
            return None
        found = _first(attributes, rules, equivalent)
        if found is None or not self._in_namespace(attributes, namespaces) or not _selects_object(attributes, objects):
            return None
        return found

    def namespace(self, attributes: AdmissionAttributes) -> Obj | None:
        """The namespace that a request is about: its object's, or the object itself."""
        if attributes.gvr.gr == NAMESPACES and not attributes.subresource:
            return attributes.object or attributes.old_object
        if not attributes.namespace:
            return None
        found = self._listers(NAMESPACES).get("", attributes.namespace)
        if found is None:
            raise not_found(NAMESPACES, attributes.namespace)
        return found

    def _in_namespace(self, attributes: AdmissionAttributes, selector: Obj | None) -> bool:
        if not selector:
            return True
        if not attributes.namespace and attributes.gvr.gr != NAMESPACES:
            return True  # cluster-scoped objects are not exempted by a namespace selector
        parsed = LabelSelector.from_obj(selector)
        return parsed.is_empty() or parsed.matches(labels(self.namespace(attributes) or {}))


def _selects_object(attributes: AdmissionAttributes, selector: Obj | None) -> bool:
    if not selector:
        return True
    parsed = LabelSelector.from_obj(selector)
    if parsed.is_empty():
        return True
    return any(obj is not None and parsed.matches(labels(obj)) for obj in (attributes.object, attributes.old_object))


def _first(attributes: AdmissionAttributes, rules: Sequence[Obj], equivalent: bool) -> Match | None:
    for rule in rules:
        if _rule_matches(rule, attributes, attributes.gvr):
            return Match(attributes.gvr, attributes.gvk)
    if equivalent:
        for gvr, gvk in _equivalents(attributes):
            if any(_rule_matches(rule, attributes, gvr) for rule in rules):
                return Match(gvr, gvk)
    return None


def _equivalents(attributes: AdmissionAttributes) -> Iterator[tuple[GroupVersionResource, GroupVersionKind]]:
    """The other versions of the resource; a subresource of another kind (Scale) keeps that kind."""
    resource: Resource | None = attributes.resource
    for version in resource.versions if resource is not None else ():
        if version.gvr != attributes.gvr:
            own_kind = any(item.gvk == attributes.gvk for item in resource.versions) if resource is not None else True
            yield version.gvr, version.gvk if own_kind else attributes.gvk


def _rule_matches(rule: Obj, attributes: AdmissionAttributes, gvr: GroupVersionResource) -> bool:
    operations = rule.get("operations") or ()
    if "*" not in operations and attributes.operation.value not in operations:
        return False
    if not (_has(rule.get("apiGroups"), gvr.group) and _has(rule.get("apiVersions"), gvr.version)):
        return False
    scope = rule.get("scope") or "*"
    # Namespaces themselves are cluster-scoped, though their requests carry a namespace.
    namespaced = bool(attributes.namespace) and gvr.gr != NAMESPACES
    if scope != "*" and (scope == "Namespaced") != namespaced:
        return False
    names = rule.get("resourceNames")
    if names and attributes.name not in names:
        return False
    return any(_resource_matches(item, gvr.resource, attributes.subresource) for item in rule.get("resources") or ())


def _has(values: Iterable[str] | None, wanted: str) -> bool:
    return any(value in ("*", wanted) for value in values or ())


def _resource_matches(pattern: str, resource: str, subresource: str) -> bool:
    left, _, right = pattern.partition("/")
    return left in ("*", resource) and right in (("*", subresource) if "/" in pattern or subresource else ("",))


async def converted(obj: Obj | None, resource: Any, wanted: GroupVersionKind) -> Obj | None:
    """A copy of an object in another version of its resource; of a kind that has only one form, a plain copy."""
    if obj is None:
        return None
    versions: dict[str, Version] = {}
    if isinstance(resource, Resource):
        versions = {item.gvk.api_version: item for item in resource.versions if item.gvk.kind == obj.get("kind")}
    source, target = versions.get(str(obj.get("apiVersion"))), versions.get(wanted.api_version)
    copy: Obj = deep_copy(obj)
    if source is None or target is None or source is target:
        return copy
    to_hub, from_hub = source.to_hub, target.from_hub
    hub: Obj = await prepared(lambda: to_hub(copy)) if to_hub is not None else copy
    made: Obj = await prepared(lambda: from_hub(hub)) if from_hub is not None else dict(hub)
    made["apiVersion"], made["kind"] = target.gvk.api_version, target.gvk.kind
    return made


def redefaulted(obj: Obj, attributes: AdmissionAttributes) -> Obj:
    """An object that was changed from outside, read again by its type and with its defaults."""
    resource = attributes.resource
    if not isinstance(resource, Resource):
        return obj
    for version in resource.versions:
        if version.gvk == attributes.gvk:
            if version.schema is not None:
                obj, _ = version.schema.decode(obj, obj)
            resource.strategy.default(obj)
    return obj
