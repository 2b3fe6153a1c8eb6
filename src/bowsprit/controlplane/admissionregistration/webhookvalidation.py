"""Rules for webhook configurations (upstream pkg/apis/admissionregistration/validation)."""

from __future__ import annotations

from urllib.parse import urlsplit

from bowsprit.apiserver.admission.conditions import expression_errors
from bowsprit.controlplane.countrules import one_of
from bowsprit.controlplane.labelrules import name_errors, selector_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1035_label, is_dns1123_subdomain, is_qualified_name, is_valid_port_num

_REVIEW_VERSIONS = ("v1", "v1beta1")
_OPERATIONS = ["*", "CONNECT", "CREATE", "DELETE", "UPDATE"]
_SCOPES = ["*", "Cluster", "Namespaced"]
_LONGEST_TIMEOUT = 30
_FEWEST_SEGMENTS = 3
_MOST_CONDITIONS = 64
_FORM = "; desired format: https://host[/path]"


def webhook_configuration_errors(obj: Obj) -> list[FieldError]:
    """A MutatingWebhookConfiguration or ValidatingWebhookConfiguration."""
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, hook in enumerate(obj.get("webhooks") or ()):
        where = path("webhooks").index(index)
        errors += _hook(hook, where)
        if obj.get("kind") == "MutatingWebhookConfiguration":
            supported = ["IfNeeded", "Never"]
            errors += one_of(
                hook.get("reinvocationPolicy"), supported, where.child("reinvocationPolicy"), required=False
            )
        name = hook.get("name", "")
        if name and name in names:
            errors.append(fielderrors.duplicate(where.child("name"), name))
        names.add(name)
    return errors


def _hook(hook: Obj, where: Path) -> list[FieldError]:
    errors = _full_name(hook.get("name", ""), where.child("name"))
    errors += _review_versions(hook.get("admissionReviewVersions") or [], where.child("admissionReviewVersions"))
    for index, rule in enumerate(hook.get("rules") or ()):
        errors += rule_errors(rule, where.child("rules").index(index))
    errors += one_of(hook.get("failurePolicy"), ["Fail", "Ignore"], where.child("failurePolicy"), required=False)
    errors += one_of(hook.get("matchPolicy"), ["Equivalent", "Exact"], where.child("matchPolicy"), required=False)
    effects = hook.get("sideEffects")
    if effects is None:
        errors.append(fielderrors.required(where.child("sideEffects"), "must specify one of None, NoneOnDryRun"))
    else:
        errors += one_of(effects, ["None", "NoneOnDryRun"], where.child("sideEffects"))
    timeout = hook.get("timeoutSeconds")
    if timeout is not None and not 1 <= timeout <= _LONGEST_TIMEOUT:
        detail = "the timeout value must be between 1 and 30 seconds"
        errors.append(fielderrors.invalid(where.child("timeoutSeconds"), timeout, detail))
    for field in ("namespaceSelector", "objectSelector"):
        errors += selector_errors(hook.get(field), where.child(field))
    errors += _client_config(hook.get("clientConfig") or {}, where.child("clientConfig"))
    return errors + condition_errors(hook.get("matchConditions") or [], where.child("matchConditions"))


def _full_name(name: str, where: Path) -> list[FieldError]:
    if not name:
        return [fielderrors.required(where)]
    if problems := is_dns1123_subdomain(name):
        return [fielderrors.invalid(where, name, ",".join(problems))]
    if len(name.split(".")) < _FEWEST_SEGMENTS:
        detail = "should be a domain with at least three segments separated by dots"
        return [fielderrors.invalid(where, name, detail)]
    return []


def _review_versions(versions: list[str], where: Path) -> list[FieldError]:
    if not versions:
        return [fielderrors.required(where, f"must specify one of {', '.join(_REVIEW_VERSIONS)}")]
    errors: list[FieldError] = []
    for index, version in enumerate(versions):
        if version in versions[:index]:
            errors.append(fielderrors.invalid(where.index(index), version, "duplicate version"))
        else:
            errors += name_errors(version, where.index(index), is_dns1035_label)
    if not set(versions) & set(_REVIEW_VERSIONS):
        detail = f"must include at least one of {', '.join(_REVIEW_VERSIONS)}"
        errors.append(fielderrors.invalid(where, versions, detail))
    return errors


def rule_errors(rule: Obj, where: Path) -> list[FieldError]:
    """A RuleWithOperations."""
    errors: list[FieldError] = []
    for field, words in (("operations", "operations"), ("apiGroups", "API groups"), ("apiVersions", "API versions")):
        values, place = rule.get(field) or [], where.child(field)
        if not values:
            errors.append(fielderrors.required(place))
        elif len(values) > 1 and "*" in values:
            errors.append(fielderrors.invalid(place, values, f"if '*' is present, must not specify other {words}"))
        for index, value in enumerate(values):
            if field == "operations" and value not in _OPERATIONS:
                errors.append(fielderrors.not_supported(place.index(index), value, _OPERATIONS))
            elif field == "apiVersions" and not value:
                errors.append(fielderrors.required(place.index(index)))
    if not rule.get("resources"):
        errors.append(fielderrors.required(where.child("resources")))
    errors += _resources(rule.get("resources") or [], where.child("resources"))
    scope = rule.get("scope")
    if scope is not None and scope not in _SCOPES:
        errors.append(fielderrors.not_supported(where.child("scope"), scope, _SCOPES))
    return errors


def _resources(resources: list[str], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    all_of_resource: set[str] = set()
    all_of_subresource: set[str] = set()
    for index, text in enumerate(resources):
        resource, slash, sub = text.partition("/")
        if not text:
            errors.append(fielderrors.required(where.index(index)))
        if not slash:
            continue
        if resource in all_of_resource:
            detail = f"if '{resource}/*' is present, must not specify {text}"
            errors.append(fielderrors.invalid(where.index(index), text, detail))
        if sub in all_of_subresource:
            detail = f"if '*/{sub}' is present, must not specify {text}"
            errors.append(fielderrors.invalid(where.index(index), text, detail))
        if sub == "*":
            all_of_resource.add(resource)
        if resource == "*":
            all_of_subresource.add(sub)
    if len(resources) > 1 and "*/*" in resources:
        errors.append(fielderrors.invalid(where, resources, "if '*/*' is present, must not specify other resources"))
    if "*" in resources and any(text and text != "*" and "/" not in text for text in resources):
        detail = "if '*' is present, must not specify other resources without subresources"
        errors.append(fielderrors.invalid(where, resources, detail))
    return errors


def _client_config(config: Obj, where: Path) -> list[FieldError]:
    url, service = config.get("url"), config.get("service")
    if (url is None) == (service is None):
        return [fielderrors.required(where, "exactly one of url or service is required")]
    if service is None:
        return _url(str(url), where.child("url"))
    errors: list[FieldError] = []
    place = where.child("service")
    for field, told in (("namespace", "name"), ("name", "namespace")):  # upstream mixes them up
        if not service.get(field):
            errors.append(fielderrors.required(place.child(told)))
    port = service.get("port")
    if port is not None and (problems := is_valid_port_num(port)):
        errors.append(fielderrors.invalid(place.child("port"), port, "port is not valid: " + ",".join(problems)))
    return errors + _service_path(service.get("path") or "/", place.child("path"))


def _service_path(target: str, where: Path) -> list[FieldError]:
    if target == "/":
        return []
    problems = [] if target.startswith("/") else ["must start with a '/'"]
    for index, segment in enumerate(target[1:].removesuffix("/").split("/")):
        if not segment:
            problems.append(f"segment[{index}] may not be empty")
        else:
            problems += [f"segment[{index}]: {text}" for text in is_dns1123_subdomain(segment)]
    return [fielderrors.invalid(where, target, problem) for problem in problems]


def _url(url: str, where: Path) -> list[FieldError]:
    """Upstream webhook.ValidateWebhookURL."""
    try:
        parts = urlsplit(url)
    except ValueError as exc:
        return [fielderrors.required(where, f"url must be a valid URL: {exc}{_FORM}")]
    errors: list[FieldError] = []
    if parts.scheme != "https":
        errors.append(fielderrors.invalid(where, parts.scheme, f"'https' is the only allowed URL scheme{_FORM}"))
    user, at, host = parts.netloc.rpartition("@")
    if not host:
        errors.append(fielderrors.invalid(where, host, f"host must be specified{_FORM}"))
    if at:
        errors.append(fielderrors.invalid(where, user, "user information is not permitted in the URL"))
    if parts.fragment:
        errors.append(fielderrors.invalid(where, parts.fragment, "fragments are not permitted in the URL"))
    if parts.query:
        errors.append(fielderrors.invalid(where, parts.query, "query parameters are not permitted in the URL"))
    return errors


def condition_errors(conditions: list[Obj], where: Path) -> list[FieldError]:
    """The matchConditions of a webhook or policy."""
    errors: list[FieldError] = []
    if len(conditions) > _MOST_CONDITIONS:
        errors.append(fielderrors.too_many(where, len(conditions), _MOST_CONDITIONS))
    seen: set[str] = set()
    for index, condition in enumerate(conditions):
        place, name = where.index(index), condition.get("name", "")
        expression = condition.get("expression", "").strip()
        if expression:
            errors += expression_errors(expression, place.child("expression"), "BOOL")
        else:
            errors.append(fielderrors.required(place.child("expression")))
        if not name:
            errors.append(fielderrors.required(place.child("name")))
        else:
            errors += [fielderrors.invalid(place.child("name"), name, text) for text in is_qualified_name(name)]
            if name in seen:
                errors.append(fielderrors.duplicate(place.child("name"), name))
        seen.add(name)
    return errors
