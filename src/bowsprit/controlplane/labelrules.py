"""Rules for label maps, label selectors and names of things (upstream apimachinery metav1 validation)."""

from __future__ import annotations

import re
from collections.abc import Callable

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_subdomain, is_qualified_name, is_valid_label_value, regex_error


def label_errors(labels: Obj | None, where: Path) -> list[FieldError]:
    """A map of labels; errors stand at the map, as upstream has it."""
    errors: list[FieldError] = []
    for key, value in (labels or {}).items():
        errors += [fielderrors.invalid(where, key, text) for text in is_qualified_name(key)]
        errors += [fielderrors.invalid(where, value, text) for text in is_valid_label_value(value)]
    return errors


def template_metadata_errors(metadata: Obj, where: Path) -> list[FieldError]:
    """The metadata of objects that are made from a template: only labels and annotations may be given."""
    errors: list[FieldError] = []
    for key in metadata.get("annotations") or {}:
        errors += [
            fielderrors.invalid(where.child("annotations"), key, text) for text in is_qualified_name(key.lower())
        ]
    errors += label_errors(metadata.get("labels"), where.child("labels"))
    for field, value in metadata.items():
        given = value not in (None, "") and (field, value) != ("generation", 0)
        if given and field not in ("annotations", "labels"):
            shown = "uID" if field == "uid" else field  # upstream makes the names from Go's
            errors.append(fielderrors.forbidden(where.child(shown), "cannot be set"))
    return errors


def selector_errors(selector: Obj | None, where: Path, *, allow_invalid_values: bool = False) -> list[FieldError]:
    """A metav1.LabelSelector."""
    if selector is None:
        return []
    errors = label_errors(selector.get("matchLabels"), where.child("matchLabels"))
    for index, term in enumerate(selector.get("matchExpressions") or ()):
        errors += _expression_errors(term, where.child("matchExpressions").index(index), allow_invalid_values)
    return errors


def _expression_errors(term: Obj, where: Path, allow_invalid_values: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    operator, values = term.get("operator", ""), term.get("values") or []
    if operator in ("In", "NotIn"):
        if not values:
            errors.append(
                fielderrors.required(where.child("values"), "must be specified when `operator` is 'In' or 'NotIn'")
            )
    elif operator in ("Exists", "DoesNotExist"):
        if values:
            detail = "may not be specified when `operator` is 'Exists' or 'DoesNotExist'"
            errors.append(fielderrors.forbidden(where.child("values"), detail))
    else:
        errors.append(fielderrors.invalid(where.child("operator"), operator, "not a valid selector operator"))
    errors += [
        fielderrors.invalid(where.child("key"), term.get("key", ""), text)
        for text in is_qualified_name(term.get("key", ""))
    ]
    if not allow_invalid_values:
        for position, value in enumerate(values):
            place = where.child("values").index(position)
            errors += [fielderrors.invalid(place, value, text) for text in is_valid_label_value(value)]
    return errors


def name_errors(value: str, where: Path, rule: Callable[[str], list[str]]) -> list[FieldError]:
    """A value under one of the name rules of machinery.validation."""
    return [fielderrors.invalid(where, value, text) for text in rule(value)]


_PATH = re.compile(r"[A-Za-z0-9/\-._~%!$&'()*+,;=:]+")


def domain_path_errors(value: str, where: Path) -> list[FieldError]:
    """A path under somebody's domain, as in acme.io/foo."""
    if not value:
        return [fielderrors.required(where)]
    domain, _, rest = value.partition("/")
    if not domain or not rest:
        return [fielderrors.invalid(where, value, 'must be a domain-prefixed path (such as "acme.io/foo")')]
    errors = name_errors(domain, where, is_dns1123_subdomain)
    if _PATH.fullmatch(rest) is None:
        errors.append(fielderrors.invalid(where, rest, regex_error("Invalid path", _PATH.pattern)))
    return errors


def labels_mismatch(template: Path, labels: dict[str, str]) -> FieldError:
    """A selector that the pods of its own template do not match."""
    shown = dict(sorted(labels.items())) or None
    detail = "`selector` does not match template `labels`"
    return fielderrors.invalid(template.child("metadata", "labels"), shown, detail)
