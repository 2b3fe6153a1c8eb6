"""Rules for CustomResourceDefinitions (upstream pkg/apis/apiextensions/validation)."""

from __future__ import annotations

from typing import Any

from bowsprit.controlplane.apiextensions.fieldpaths import FieldPathError, follow
from bowsprit.controlplane.apiextensions.openapischema import schema_errors, unknown_formats
from bowsprit.controlplane.immutable import immutable_field
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.jsonpath import JSONPath, JSONPathError, is_simple
from bowsprit.machinery.objects import Obj, find_condition, name
from bowsprit.machinery.validation import is_dns1035_label, is_dns1123_subdomain

_SPEC = path("spec")
_SCOPES = ["Cluster", "Namespaced"]
_STRATEGIES = ["None", "Webhook"]
_COLUMN_TYPES = ["boolean", "date", "integer", "number", "string"]
_MOST_SELECTABLE = 8
_LONGEST_WARNING = 256  # bytes
_SELECTABLE_TYPES = (
    "must point to a field of type string, boolean or integer. Enum string fields and strings with formats are allowed."
)


def definition_errors(obj: Obj) -> list[FieldError]:
    """A definition to be created."""
    spec = obj.get("spec") or {}
    errors: list[FieldError] = []
    plural, group = (spec.get("names") or {}).get("plural", ""), spec.get("group", "")
    if name(obj) != f"{plural}.{group}":
        detail = 'must be spec.names.plural+"."+spec.group'
        errors.append(fielderrors.invalid(path("metadata", "name"), name(obj), detail))
    return errors + _spec_errors(spec) + stored_errors(obj)


def definition_update_errors(new: Obj, old: Obj) -> list[FieldError]:
    """A changed definition: the group and the resource's name never change, scope and kind not once they are in use."""
    spec, before = new.get("spec") or {}, old.get("spec") or {}
    errors = _spec_errors(spec)
    established = (find_condition(old, "Established") or {}).get("status") == "True"
    names, names_before = spec.get("names") or {}, before.get("names") or {}
    if established:
        errors += immutable_field(spec.get("scope"), before.get("scope"), _SPEC.child("scope"))
        errors += immutable_field(names.get("kind"), names_before.get("kind"), _SPEC.child("names", "kind"))
    errors += immutable_field(spec.get("group"), before.get("group"), _SPEC.child("group"))
    errors += immutable_field(names.get("plural"), names_before.get("plural"), _SPEC.child("names", "plural"))
    return errors + stored_errors(new)


def definition_warnings(new: Obj, old: Obj | None) -> list[str]:
    """Formats that nobody checks, unless they were there before."""
    before = set(_unknown_formats(old)) if old is not None else set()
    return [f"unrecognized format {quote(name)}" for name in _unknown_formats(new) if name not in before]


def _unknown_formats(obj: Obj) -> list[str]:
    schemas = [(version.get("schema") or {}).get("openAPIV3Schema") for version in obj["spec"].get("versions") or ()]
    return [name for schema in schemas if schema is not None for name in unknown_formats(schema)]


def stored_errors(obj: Obj) -> list[FieldError]:
    """status.storedVersions: at least the storage version, and nothing that the spec no longer has."""
    where = path("status", "storedVersions")
    stored: list[str] = (obj.get("status") or {}).get("storedVersions") or []
    if not stored:
        return [fielderrors.invalid(where, None, "must have at least one stored version")]
    versions = (obj.get("spec") or {}).get("versions") or []
    names = {version.get("name") for version in versions}
    errors: list[FieldError] = []
    for index, version in enumerate(stored):
        if version not in names:
            detail = (
                f"missing from spec.versions; {version} was previously a storage version, and must remain in spec.versions "
                f"until a storage migration ensures no data remains persisted in {version} and removes {version} "
                "from status.storedVersions"
            )
            errors.append(fielderrors.invalid(where.index(index), version, detail))
    storage = [version.get("name", "") for version in versions if version.get("storage")]
    if (storage and storage[-1] not in stored) or len(storage) > 1:
        errors.append(fielderrors.invalid(where, stored, f"must have the storage version {storage[-1]}"))
    return errors


def _spec_errors(spec: Obj) -> list[FieldError]:
    errors = _group_errors(spec.get("group", ""))
    scope = spec.get("scope", "")
    if not scope:
        errors.append(fielderrors.required(_SPEC.child("scope")))
    elif scope not in _SCOPES:
        errors.append(fielderrors.not_supported(_SPEC.child("scope"), scope, _SCOPES))
    errors += _versions_errors(spec.get("versions") or [])
    if spec.get("preserveUnknownFields"):
        detail = (
            "cannot set to true, set x-kubernetes-preserve-unknown-fields to true in spec.versions[*].schema instead"
        )
        errors.append(fielderrors.invalid(_SPEC.child("preserveUnknownFields"), True, detail))
    errors += _names_errors(spec.get("names") or {}, _SPEC.child("names"))
    errors += _conversion_errors(spec.get("conversion") or {}, _SPEC.child("conversion"))
    return errors + _serving_errors(spec.get("versions") or [])


def _group_errors(group: str) -> list[FieldError]:
    where = _SPEC.child("group")
    if not group:
        return [fielderrors.required(where)]
    problems = is_dns1123_subdomain(group)
    if problems:
        return [fielderrors.invalid(where, group, text) for text in problems]
    if "." not in group:
        return [fielderrors.invalid(where, group, "should be a domain with at least one dot")]
    return []


def _go_version(version: Obj) -> Obj:
    """A version as upstream shows it, its schema hoisted away."""
    return {
        "Name": version.get("name", ""),
        "Served": bool(version.get("served")),
        "Storage": bool(version.get("storage")),
        "Deprecated": bool(version.get("deprecated")),
        "DeprecationWarning": version.get("deprecationWarning"),
        "Schema": None,
        "Subresources": None,
        "AdditionalPrinterColumns": None,
        "SelectableFields": None,
    }


def _versions_errors(versions: list[Obj]) -> list[FieldError]:
    where = _SPEC.child("versions")
    errors: list[FieldError] = []
    names = [version.get("name", "") for version in versions]
    for index, named in enumerate(names):
        errors += [
            fielderrors.invalid(where.index(index).child("name"), named, text) for text in is_dns1035_label(named)
        ]
    for index, version in enumerate(versions):
        errors += _deprecation_errors(version, where.index(index).child("deprecationWarning"))
    shown: Any = [_go_version(version) for version in versions] or None
    if len(set(names)) != len(names):
        errors.append(fielderrors.invalid(where, shown, "must contain unique version names"))
    if sum(bool(version.get("storage")) for version in versions) != 1:
        errors.append(fielderrors.invalid(where, shown, "must have exactly one version marked as storage version"))
    return errors


def _deprecation_errors(version: Obj, where: Path) -> list[FieldError]:
    text = version.get("deprecationWarning")
    if text is None:
        return []
    if not version.get("deprecated"):
        return [fielderrors.invalid(where, text, "can only be set for deprecated versions")]
    problems = ["must be <= 256 characters long"] if len(text.encode()) > _LONGEST_WARNING else []
    if not text:
        problems.append("must not be an empty string")
    odd = next((index for index, letter in enumerate(text) if not letter.isprintable()), None)
    if odd is not None:
        at = len(text[:odd].encode())
        problems.append(f"must only contain printable UTF-8 characters; non-printable character found at index {at}")
    return [fielderrors.invalid(where, text, problem) for problem in problems]


def _names_errors(names: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for field in ("plural", "singular", "kind", "listKind"):
        value, place = names.get(field, ""), where.child(field)
        if not value:
            errors.append(fielderrors.required(place))
        elif field in ("plural", "singular"):
            errors += [fielderrors.invalid(place, value, text) for text in is_dns1035_label(value)]
        else:
            prefix = "may have mixed case, but should otherwise match: "
            errors += [fielderrors.invalid(place, value, prefix + text) for text in is_dns1035_label(value.lower())]
    for field in ("shortNames", "categories"):
        for index, value in enumerate(names.get(field) or ()):
            place = where.child(field).index(index)
            errors += [fielderrors.invalid(place, value, text) for text in is_dns1035_label(value)]
    if names.get("kind") and names.get("kind") == names.get("listKind"):
        detail = "kind and listKind may not be the same"
        errors.append(fielderrors.invalid(where.child("listKind"), names["listKind"], detail))
    return errors


def _conversion_errors(conversion: Obj, where: Path) -> list[FieldError]:
    strategy: str = conversion.get("strategy", "")
    webhook: Obj = conversion.get("webhook") or {}
    errors: list[FieldError] = []
    if not strategy:
        return [fielderrors.required(where.child("strategy"))]
    if strategy not in _STRATEGIES:
        return [fielderrors.not_supported(where.child("strategy"), strategy, _STRATEGIES)]
    client: Obj | None = webhook.get("clientConfig")
    versions = webhook.get("conversionReviewVersions") or []
    if strategy == "None":
        if client is not None:
            detail = "should not be set when strategy is not set to Webhook"
            errors.append(fielderrors.forbidden(where.child("webhookClientConfig"), detail))
        return errors
    if client is None:
        detail = "required when strategy is set to Webhook"
        errors.append(fielderrors.required(where.child("webhookClientConfig"), detail))
    else:
        errors += _client_errors(client, where.child("webhookClientConfig"))
    place = where.child("conversionReviewVersions")
    if not versions:
        errors.append(fielderrors.required(place))
    elif not {"v1", "v1beta1"} & set(versions):
        errors.append(fielderrors.invalid(place, versions, "must include at least one of v1, v1beta1"))
    return errors


def _client_errors(client: Obj, where: Path) -> list[FieldError]:
    url, service = client.get("url"), client.get("service")
    if (url is None) == (service is None):
        return [fielderrors.required(where, "exactly one of url or service is required")]
    if url is not None:
        if not url.startswith("https://"):
            detail = "'https' is the only allowed URL scheme; desired format: https://host[/path]"
            return [fielderrors.invalid(where.child("url"), url, detail)]
        return []
    missing = [field for field in ("name", "namespace") if not (service or {}).get(field)]
    return [fielderrors.required(where.child("service", field)) for field in missing]


# --- what versions serve ------------------------------------------------------------------------------------------


def _common(versions: list[Obj], field: str) -> bool:
    """Whether all versions agree on a field: upstream then keeps (and reports) it once, at the spec."""
    values = [version.get(field) for version in versions]
    return bool(values) and values[0] is not None and all(value == values[0] for value in values)


def _serving_errors(versions: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    for field, check in (
        ("schema", _schema_errors),
        ("subresources", _subresource_errors),
        ("additionalPrinterColumns", _column_errors),
        ("selectableFields", _selectable_errors),
    ):
        if _common(versions, field):
            place = _SPEC.child("validation" if field == "schema" else field)
            errors += check(versions[0], place)
            continue
        for index, version in enumerate(versions):
            errors += check(version, _SPEC.child("versions").index(index).child(field))
    return errors


def _schema_errors(version: Obj, where: Path) -> list[FieldError]:
    schema = (version.get("schema") or {}).get("openAPIV3Schema")
    place = where.child("openAPIV3Schema")
    if schema is None:
        return [fielderrors.required(place)]
    status = (version.get("subresources") or {}).get("status")
    return schema_errors(schema, place, with_status=status is not None)


def _subresource_errors(version: Obj, where: Path) -> list[FieldError]:
    scale = (version.get("subresources") or {}).get("scale")
    if scale is None:
        return []
    errors: list[FieldError] = []
    place = where.child("scale")
    for field, roots in (
        ("specReplicasPath", (".spec",)),
        ("statusReplicasPath", (".status",)),
        ("labelSelectorPath", (".spec", ".status")),
    ):
        text, spot = scale.get(field) or "", place.child(field)
        if not text:
            if field != "labelSelectorPath":
                errors.append(fielderrors.required(spot))
        elif not is_simple(text):
            errors.append(fielderrors.invalid(spot, text, "must be a simple json path starting with ."))
        elif not text.startswith(tuple(f"{root}." for root in roots)):
            under = " or ".join(roots)
            detail = f"should be a json path under {'either ' if len(roots) > 1 else ''}{under}"
            errors.append(fielderrors.invalid(spot, text, detail))
    return errors


def _column_errors(version: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    for index, column in enumerate(version.get("additionalPrinterColumns") or ()):
        place, kind, text = where.index(index), column.get("type", ""), column.get("jsonPath", "")
        if not column.get("name"):
            errors.append(fielderrors.required(place.child("name")))
        if not kind:
            detail = f"must be one of {','.join(_COLUMN_TYPES)}"
            errors.append(fielderrors.required(place.child("type"), detail))
        elif kind not in _COLUMN_TYPES:
            detail = f"must be one of {','.join(_COLUMN_TYPES)}"
            errors.append(fielderrors.invalid(place.child("type"), kind, detail))
        if not text:
            errors.append(fielderrors.required(place.child("JSONPath")))
            continue
        try:
            if not text.startswith("."):
                raise JSONPathError("must be a simple json path starting with .")
            JSONPath.parse(text)
        except JSONPathError as problem:
            errors.append(fielderrors.invalid(place.child("JSONPath"), text, str(problem)))
    return errors


def _selectable_errors(version: Obj, where: Path) -> list[FieldError]:
    schema = (version.get("schema") or {}).get("openAPIV3Schema") or {}
    errors: list[FieldError] = []
    seen: set[tuple[str, ...]] = set()
    fields = version.get("selectableFields") or []
    for index, field in enumerate(fields):
        text, place = field.get("jsonPath") or "", where.index(index).child("jsonPath")
        if not text:
            errors.append(fielderrors.required(place))
            continue
        try:
            steps, found = follow(text, schema, arrays=False)
        except FieldPathError as problem:
            errors.append(fielderrors.invalid(place, text, f"is an invalid path: {problem}"))
            continue
        if steps[0] == "metadata":
            errors.append(fielderrors.invalid(place, text, "must not point to fields in metadata"))
        if found.get("type") not in ("string", "boolean", "integer"):
            errors.append(fielderrors.invalid(place, text, _SELECTABLE_TYPES))
        if steps in seen:
            errors.append(fielderrors.duplicate(place, text))
        seen.add(steps)
    if len(fields) > _MOST_SELECTABLE:
        errors.append(fielderrors.too_many(where, len(fields), _MOST_SELECTABLE))
    return errors
