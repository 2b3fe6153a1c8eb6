"""Rules for roles and bindings (upstream pkg/apis/rbac/validation)."""

from __future__ import annotations

from bowsprit.controlplane.labelrules import name_errors, selector_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_subdomain, is_valid_path_segment_name

_GROUP = "rbac.authorization.k8s.io"


def role_errors(obj: Obj) -> list[FieldError]:
    """A Role or ClusterRole."""
    namespaced = obj.get("kind") == "Role"
    errors: list[FieldError] = []
    for index, rule in enumerate(obj.get("rules") or ()):
        errors += _rule(rule, path("rules").index(index), namespaced=namespaced)
    aggregation = obj.get("aggregationRule")
    if aggregation is not None:
        where = path("aggregationRule", "clusterRoleSelectors")
        selectors = aggregation.get("clusterRoleSelectors") or []
        if not selectors:
            errors.append(
                fielderrors.required(where, "at least one clusterRoleSelector required if aggregationRule is non-nil")
            )
        for index, selector in enumerate(selectors):
            found = selector_errors(selector, where.index(index))
            if found:
                found.append(fielderrors.invalid(where.index(index), None, "invalid label selector."))
            errors += found
    return errors


def _rule(rule: Obj, where: Path, *, namespaced: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    if not rule.get("verbs"):
        errors.append(fielderrors.required(where.child("verbs"), "verbs must contain at least one value"))
    urls = rule.get("nonResourceURLs") or []
    if urls:
        place = where.child("nonResourceURLs")
        if namespaced:
            errors.append(fielderrors.invalid(place, urls, "namespaced rules cannot apply to non-resource URLs"))
        if rule.get("apiGroups") or rule.get("resources") or rule.get("resourceNames"):
            detail = "rules cannot apply to both regular resources and non-resource URLs"
            errors.append(fielderrors.invalid(place, urls, detail))
        return errors
    if not rule.get("apiGroups"):
        errors.append(
            fielderrors.required(where.child("apiGroups"), "resource rules must supply at least one api group")
        )
    if not rule.get("resources"):
        errors.append(
            fielderrors.required(where.child("resources"), "resource rules must supply at least one resource")
        )
    return errors


def binding_errors(obj: Obj) -> list[FieldError]:
    """A RoleBinding or ClusterRoleBinding."""
    errors: list[FieldError] = []
    reference, where = obj.get("roleRef") or {}, path("roleRef")
    namespaced = obj.get("kind") == "RoleBinding"
    if reference.get("apiGroup") != _GROUP:
        errors.append(fielderrors.not_supported(where.child("apiGroup"), reference.get("apiGroup", ""), [_GROUP]))
    kinds = ["Role", "ClusterRole"] if namespaced else ["ClusterRole"]
    if reference.get("kind") not in kinds:
        errors.append(fielderrors.not_supported(where.child("kind"), reference.get("kind", ""), kinds))
    name = reference.get("name", "")
    if not name:
        errors.append(fielderrors.required(where.child("name")))
    else:
        errors += name_errors(name, where.child("name"), is_valid_path_segment_name)
    for index, subject in enumerate(obj.get("subjects") or ()):
        errors += _subject(subject, path("subjects").index(index), namespaced=namespaced)
    return errors


def _subject(subject: Obj, where: Path, *, namespaced: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    kind, name, group = subject.get("kind", ""), subject.get("name", ""), subject.get("apiGroup", "")
    if not name:
        errors.append(fielderrors.required(where.child("name")))
    if kind == "ServiceAccount":
        if name:
            errors += name_errors(name, where.child("name"), is_dns1123_subdomain)
        if group:
            errors.append(fielderrors.not_supported(where.child("apiGroup"), group, [""]))
        if not namespaced and not subject.get("namespace"):
            errors.append(fielderrors.required(where.child("namespace")))
    elif kind in ("User", "Group"):
        if group != _GROUP:
            errors.append(fielderrors.not_supported(where.child("apiGroup"), group, [_GROUP]))
    else:
        errors.append(fielderrors.not_supported(where.child("kind"), kind, ["ServiceAccount", "User", "Group"]))
    return errors
