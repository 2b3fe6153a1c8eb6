"""SubjectAccessReview and its kin: asking the authorizer through the API.

Upstream: pkg/registry/authorization, pkg/apis/authorization/validation. None of them is stored.
"""

from __future__ import annotations

from bowsprit.apiserver.access import Attributes, Authorizer, Decision
from bowsprit.apiserver.authorization.node import NODE_PREFIX, NODES_GROUP
from bowsprit.apiserver.authorization.rbac import RoleResolver, join_problems
from bowsprit.apiserver.authorization.rules import PolicyRule
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import Resource, Version, Virtual
from bowsprit.apiserver.user import UserInfo
from bowsprit.controlplane.authorization.selectors import check_selector, selector_text
from bowsprit.controlplane.schemas import BuiltinSchema
from bowsprit.machinery import fielderrors
from bowsprit.machinery.errors import bad_request, invalid
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.names import GroupKind, GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj

GROUP = "authorization.k8s.io"
# Upstream builds this error from an object whose kind is empty.
_KIND = GroupKind(GROUP, "")


class AccessReviews:
    """The four virtual resources of authorization.k8s.io.

    Args:
        authorizer: who is asked.
        resolver: who lists a user's rules; None when RBAC is not among the authorization modes.
        allow_all: AlwaysAllow is among the modes.
    """

    def __init__(self, authorizer: Authorizer, resolver: RoleResolver | None, *, allow_all: bool = False) -> None:
        self._authorizer = authorizer
        self._resolver = resolver
        self._allow_all = allow_all

    def resources(self) -> list[Resource]:
        """What to serve."""
        return [
            _resource("SubjectAccessReview", Virtual(create=self.subject)),
            _resource("SelfSubjectAccessReview", Virtual(create=self.self_subject)),
            _resource("LocalSubjectAccessReview", Virtual(create=self.local_subject), namespaced=True),
            _resource("SelfSubjectRulesReview", Virtual(create=self.self_rules)),
        ]

    async def subject(self, _: RequestContext, review: Obj) -> Obj:
        """POST of a SubjectAccessReview."""
        spec = review.get("spec") or {}
        _raise(_check_user(spec) + _check_attributes(spec) + _check_metadata(review))
        return {**review, "status": await self._ask(_user_of(spec), spec)}

    async def self_subject(self, ctx: RequestContext, review: Obj) -> Obj:
        """POST of a SelfSubjectAccessReview."""
        spec = review.get("spec") or {}
        _raise(_check_attributes(spec) + _check_metadata(review))
        return {**review, "status": await self._ask(ctx.user, spec)}

    async def local_subject(self, ctx: RequestContext, review: Obj) -> Obj:
        """POST of a LocalSubjectAccessReview: about one namespace, for those who may only ask there."""
        spec = review.get("spec") or {}
        errors = _check_user(spec) + _check_attributes(spec)
        meta = dict(review.get("metadata") or {})
        namespace = meta.pop("namespace", "")
        if meta:
            where = path("metadata")
            errors.append(fielderrors.invalid(where, review["metadata"], "must be empty except for namespace"))
        resource = spec.get("resourceAttributes")
        if resource is not None and (resource.get("namespace") or "") != namespace:
            where = path("spec", "resourceAttributes", "namespace")
            errors.append(fielderrors.invalid(where, resource.get("namespace") or "", "must match metadata.namespace"))
        if spec.get("nonResourceAttributes") is not None:
            where = path("spec", "nonResourceAttributes")
            text = "disallowed on this kind of request"
            errors.append(fielderrors.invalid(where, _shown(spec["nonResourceAttributes"]), text))
        _raise(errors)
        if ctx.info.namespace and namespace != ctx.info.namespace:
            raise bad_request(f"spec.resourceAttributes.namespace must match namespace: {ctx.info.namespace}")
        return {**review, "status": await self._ask(_user_of(spec), spec)}

    async def self_rules(self, ctx: RequestContext, review: Obj) -> Obj:
        """POST of a SelfSubjectRulesReview: everything the user may do in a namespace."""
        namespace = (review.get("spec") or {}).get("namespace") or ""
        if not namespace:
            raise bad_request("no namespace on request")
        rules, problems, incomplete = self._rules(ctx.user, namespace)
        status: Obj = {
            "resourceRules": [_resource_rule(rule) for rule in rules if rule.resources],
            "nonResourceRules": [
                {"verbs": list(rule.verbs), "nonResourceURLs": list(rule.non_resource_urls)}
                for rule in rules
                if rule.non_resource_urls
            ],
            "incomplete": incomplete,
        }
        if problems:
            status["evaluationError"] = join_problems(problems)
        head: Obj = {"kind": review.get("kind"), "apiVersion": review.get("apiVersion"), "metadata": {}}
        return {**head, "spec": {}, "status": status}

    def _rules(self, user: UserInfo, namespace: str) -> tuple[list[PolicyRule], list[str], bool]:
        rules: list[PolicyRule] = []
        problems: list[str] = []
        incomplete = False
        if self._allow_all:
            rules += [PolicyRule(("*",), ("*",), ("*",)), PolicyRule(("*",), non_resource_urls=("*",))]
        if NODES_GROUP in user.groups and user.name.startswith(NODE_PREFIX):
            incomplete = True
            problems.append("node authorizer does not support user rule resolution")
        if self._resolver is not None:
            found, unresolved = self._resolver.rules_for(user, namespace)
            rules += found
            problems += unresolved
            incomplete = incomplete or bool(unresolved)
        return rules, problems, incomplete

    async def _ask(self, user: UserInfo, spec: Obj) -> Obj:
        decision, reason = await self._authorizer.authorize(_attributes_of(user, spec))
        status: Obj = {"allowed": decision is Decision.ALLOW}
        if decision is Decision.DENY:
            status["denied"] = True
        if reason:
            status["reason"] = reason
        return status


def _resource_rule(rule: PolicyRule) -> Obj:
    shown: Obj = {"verbs": list(rule.verbs), "apiGroups": list(rule.api_groups), "resources": list(rule.resources)}
    if rule.resource_names:
        shown["resourceNames"] = list(rule.resource_names)
    return shown


def _attributes_of(user: UserInfo, spec: Obj) -> Attributes:
    resource = spec.get("resourceAttributes")
    if resource is None:
        other = spec.get("nonResourceAttributes") or {}
        return Attributes(user, other.get("verb") or "", path=other.get("path") or "", resource_request=False)

    def text(field: str) -> str:
        return str(resource.get(field) or "")

    return Attributes(
        user,
        text("verb"),
        text("group"),
        text("version"),
        text("resource"),
        text("subresource"),
        text("namespace"),
        text("name"),
        field_selector=selector_text(resource.get("fieldSelector")),
        label_selector=selector_text(resource.get("labelSelector")),
    )


def _user_of(spec: Obj) -> UserInfo:
    extra = {key.lower(): tuple(values or ()) for key, values in (spec.get("extra") or {}).items()}
    return UserInfo(spec.get("user") or "", spec.get("uid") or "", tuple(spec.get("groups") or ()), extra)


def _check_user(spec: Obj) -> list[FieldError]:
    if spec.get("user") or spec.get("groups"):
        return []
    return [fielderrors.invalid(path("spec", "user"), "", "at least one of user or group must be specified")]


def _check_attributes(spec: Obj) -> list[FieldError]:
    where = path("spec")
    resource, other = spec.get("resourceAttributes"), spec.get("nonResourceAttributes")
    errors: list[FieldError] = []
    if resource is not None and other is not None:
        text = "cannot be specified in combination with resourceAttributes"
        errors.append(fielderrors.invalid(where.child("nonResourceAttributes"), _shown(other), text))
    if resource is None and other is None:
        text = "exactly one of nonResourceAttributes or resourceAttributes must be specified"
        errors.append(fielderrors.invalid(where.child("resourceAttributes"), None, text))
    if resource is not None:
        child: Path = where.child("resourceAttributes")
        errors += check_selector(resource.get("fieldSelector"), child.child("fieldSelector"))
        errors += check_selector(resource.get("labelSelector"), child.child("labelSelector"))
    return errors


def _shown(non_resource: Obj) -> Obj:
    """As upstream prints its internal type, which has no JSON names."""
    return {"Path": non_resource.get("path") or "", "Verb": non_resource.get("verb") or ""}


def _check_metadata(review: Obj) -> list[FieldError]:
    meta = review.get("metadata") or {}
    return [fielderrors.invalid(path("metadata"), meta, "must be empty")] if meta else []


def _raise(errors: list[FieldError]) -> None:
    if errors:
        raise invalid(_KIND, "", errors)


def _resource(kind: str, virtual: Virtual, *, namespaced: bool = False) -> Resource:
    gvk = GroupVersionKind(GROUP, "v1", kind)
    plural = kind.lower() + "s"
    version = Version(GroupVersionResource(GROUP, "v1", plural), gvk, BuiltinSchema(gvk))
    return Resource(kind, plural, [version], group=GROUP, namespaced=namespaced, verbs=("create",), virtual=virtual)
