"""Rules for jobs (upstream pkg/apis/batch/validation)."""

from __future__ import annotations

from bowsprit.controlplane.core.podvalidation import template_errors
from bowsprit.controlplane.countrules import NOT_NEGATIVE, not_negative
from bowsprit.controlplane.immutable import FIELD_IS_IMMUTABLE, immutable_field, immutable_struct
from bowsprit.controlplane.labelrules import domain_path_errors, labels_mismatch, name_errors, selector_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import OMIT, FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.selectors import LabelSelector, SelectorError
from bowsprit.machinery.validation import is_dns1123_label, is_qualified_name

_UID_LABEL = "batch.kubernetes.io/controller-uid"
_NAME_LABEL = "batch.kubernetes.io/job-name"
_LONGEST_MANAGER = 63
_MOST_INDEXES = 100_000
_MOST_OF_MANY = 10_000
_MOST_RULES = 20
_MOST_EXIT_CODES = 255
_LONGEST_INDEXES = 64 << 10
_ACTIONS = ["Count", "FailIndex", "FailJob", "Ignore"]
_INDEXED_ONLY = "requires indexed completion mode"
_COUNTS = (
    "parallelism",
    "completions",
    "activeDeadlineSeconds",
    "backoffLimit",
    "ttlSecondsAfterFinished",
    "backoffLimitPerIndex",
    "maxFailedIndexes",
)


def job_errors(obj: Obj) -> list[FieldError]:
    """A Job."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = _generated_errors(obj, spec) + job_spec_errors(spec, where)
    errors += _selector_errors(spec, where)
    if spec.get("completionMode") == "Indexed" and (spec.get("completions") or 0) > 0:
        name = obj["metadata"].get("name", "")
        last = f"{name}-{spec['completions'] - 1}"
        if is_dns1123_label(last):
            detail = f"will not able to create pod with invalid DNS label: {last}"
            errors.append(fielderrors.invalid(path("metadata", "name"), name, detail))
    return errors


def _generated_errors(obj: Obj, spec: Obj) -> list[FieldError]:
    """A selector that was not written by hand, and the labels that go with it."""
    if spec.get("manualSelector") or spec.get("selector") is None:
        return []
    uid, name = obj["metadata"].get("uid", ""), obj["metadata"].get("name", "")
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    expected = {"controller-uid": uid, "job-name": name, _UID_LABEL: uid, _NAME_LABEL: name}
    errors: list[FieldError] = []
    for key, value in expected.items():
        place = path("spec", "template", "metadata", "labels").key(key)
        if key not in labels:
            errors.append(fielderrors.required(place, f"must be '{value}'"))
        elif labels[key] != value:
            errors.append(fielderrors.invalid(place, dict(sorted(labels.items())), f"must be '{value}'"))
    if not _matches(spec["selector"], expected):
        errors.append(fielderrors.invalid(path("spec", "selector"), spec["selector"], "`selector` not auto-generated"))
    return errors


def _matches(selector: Obj, labels: dict[str, str]) -> bool:
    try:
        return LabelSelector.from_obj(selector).matches(labels)
    except SelectorError:
        return True  # what is wrong with it is told elsewhere


def _selector_errors(spec: Obj, where: Path) -> list[FieldError]:
    selector, place = spec.get("selector"), where.child("selector")
    errors = selector_errors(selector, place) if selector is not None else [fielderrors.required(place)]
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    if selector is None or not _matches(selector, labels):
        errors.append(labels_mismatch(where.child("template"), labels))
    return errors


def job_spec_errors(spec: Obj, where: Path) -> list[FieldError]:
    """A JobSpec without its selector, which CronJobs do not have."""
    errors: list[FieldError] = []
    for field in _COUNTS:
        errors += not_negative(spec.get(field), where.child(field))
    if spec.get("maxFailedIndexes") is not None and spec.get("backoffLimitPerIndex") is None:
        errors.append(fielderrors.required(where.child("backoffLimitPerIndex"), "when maxFailedIndexes is specified"))
    if (manager := spec.get("managedBy")) is not None:
        errors += domain_path_errors(manager, where.child("managedBy"))
        if len(manager) > _LONGEST_MANAGER:
            errors.append(fielderrors.too_long(where.child("managedBy"), _LONGEST_MANAGER))
    mode = spec.get("completionMode")
    if mode not in (None, "NonIndexed", "Indexed"):
        errors.append(fielderrors.not_supported(where.child("completionMode"), mode, ["NonIndexed", "Indexed"]))
    if mode == "Indexed":
        errors += _indexed_errors(spec, where)
    elif mode in (None, "NonIndexed"):
        for field in ("backoffLimitPerIndex", "maxFailedIndexes"):
            if spec.get(field) is not None:
                errors.append(fielderrors.invalid(where.child(field), spec[field], _INDEXED_ONLY))
    errors += _failure_policy_errors(spec, where.child("podFailurePolicy"))
    errors += _success_policy_errors(spec, where.child("successPolicy"))
    policy = spec.get("podReplacementPolicy")
    allowed = ["Failed"] if spec.get("podFailurePolicy") is not None else ["Failed", "TerminatingOrFailed"]
    if policy is not None and policy not in allowed:
        errors.append(fielderrors.not_supported(where.child("podReplacementPolicy"), policy, allowed))
    template = spec.get("template") or {}
    errors += template_errors(template, where.child("template"))
    return errors + _restart_errors(spec, template, where.child("template", "spec", "restartPolicy"))


def _restart_errors(spec: Obj, template: Obj, where: Path) -> list[FieldError]:
    policy = (template.get("spec") or {}).get("restartPolicy", "")
    if policy in ("", "Always"):
        return [fielderrors.required(where, 'valid values: "OnFailure", "Never"')]
    if policy not in ("OnFailure", "Never"):
        return [fielderrors.not_supported(where, policy, ["OnFailure", "Never"])]
    if spec.get("podFailurePolicy") is not None and policy != "Never":
        detail = 'only "Never" is supported when podFailurePolicy is specified'
        return [fielderrors.invalid(where, policy, detail)]
    return []


def _indexed_errors(spec: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    completions, parallelism, failed = (spec.get(field) for field in ("completions", "parallelism", "maxFailedIndexes"))

    def at_most(field: str, value: int | None, most: int, detail: str = "") -> None:
        if value is not None and value > most:
            text = f"must be less than or equal to {most}{detail}"
            errors.append(fielderrors.invalid(where.child(field), value, text))

    if completions is None:
        errors.append(fielderrors.required(where.child("completions"), "when completion mode is Indexed"))
    at_most("parallelism", parallelism, _MOST_INDEXES, " when completion mode is Indexed")
    if completions is not None and failed is not None and failed > completions:
        detail = "must be less than or equal to completions"
        errors.append(fielderrors.invalid(where.child("maxFailedIndexes"), failed, detail))
    at_most("maxFailedIndexes", failed, _MOST_INDEXES)
    if (completions or 0) > _MOST_INDEXES and spec.get("backoffLimitPerIndex") is not None:
        if failed is None:
            detail = f"must be specified when completions is above {_MOST_INDEXES}"
            errors.append(fielderrors.required(where.child("maxFailedIndexes"), detail))
        detail = f" when completions are above {_MOST_INDEXES} and used with backoff limit per index"
        at_most("parallelism", parallelism, _MOST_OF_MANY, detail)
        at_most("maxFailedIndexes", failed, _MOST_OF_MANY, detail)
    return errors


# -- policies --------------------------------------------------------------------------------------------------------------


def _choice_errors(value: str, supported: list[str], where: Path) -> list[FieldError]:
    """An enumeration whose values are told when there is none, too."""
    if not value:
        shown = " ".join(f'"{each}"' for each in supported)
        return [fielderrors.required(where, f"valid values: [{shown}]")]
    return [] if value in supported else [fielderrors.not_supported(where, value, supported)]


def _failure_policy_errors(spec: Obj, where: Path) -> list[FieldError]:
    policy = spec.get("podFailurePolicy")
    if policy is None:
        return []
    rules, place = policy.get("rules") or [], where.child("rules")
    errors = [fielderrors.too_many(place, len(rules), _MOST_RULES)] if len(rules) > _MOST_RULES else []
    pod = (spec.get("template") or {}).get("spec") or {}
    containers = {item.get("name") for kind in ("containers", "initContainers") for item in pod.get(kind) or ()}
    for index, rule in enumerate(rules):
        errors += _failure_rule_errors(rule, place.index(index), containers, spec.get("backoffLimitPerIndex"))
    return errors


def _failure_rule_errors(rule: Obj, where: Path, containers: set[str], limit: int | None) -> list[FieldError]:
    action, codes, patterns = rule.get("action", ""), rule.get("onExitCodes"), rule.get("onPodConditions") or []
    if action == "FailIndex" and limit is None:
        detail = "requires the backoffLimitPerIndex to be set"
        errors = [fielderrors.invalid(where.child("action"), action, detail)]
    else:
        errors = _choice_errors(action, _ACTIONS, where.child("action"))
    if codes is not None:
        errors += _exit_codes_errors(codes, where.child("onExitCodes"), containers)
    if len(patterns) > _MOST_RULES:
        errors.append(fielderrors.too_many(where.child("onPodConditions"), len(patterns), _MOST_RULES))
    for index, pattern in enumerate(patterns):
        place = where.child("onPodConditions").index(index)
        errors += name_errors(pattern.get("type", ""), place.child("type"), is_qualified_name)
        errors += _choice_errors(pattern.get("status", ""), ["False", "True", "Unknown"], place.child("status"))
    if codes is not None and patterns:
        detail = "specifying both OnExitCodes and OnPodConditions is not supported"
        errors.append(fielderrors.invalid(where, OMIT, detail))
    elif codes is None and not patterns:
        detail = "specifying one of OnExitCodes and OnPodConditions is required"
        errors.append(fielderrors.invalid(where, OMIT, detail))
    return errors


def _exit_codes_errors(codes: Obj, where: Path, containers: set[str]) -> list[FieldError]:
    operator, name, values = codes.get("operator", ""), codes.get("containerName"), codes.get("values") or []
    errors = _choice_errors(operator, ["In", "NotIn"], where.child("operator"))
    if name is not None and name not in containers:
        detail = "must be one of the container or initContainer names in the pod template"
        errors.append(fielderrors.invalid(where.child("containerName"), name, detail))
    place = where.child("values")
    if not values:
        errors.append(fielderrors.invalid(place, codes.get("values"), "at least one value is required"))
    elif len(values) > _MOST_EXIT_CODES:
        errors.append(fielderrors.too_many(place, len(values), _MOST_EXIT_CODES))
    for index, value in enumerate(values):
        if operator == "In" and value == 0:
            errors.append(fielderrors.invalid(place.index(index), value, "must not be 0 for the In operator"))
        if value in values[:index]:
            errors.append(fielderrors.duplicate(place.index(index), value))
    if values != sorted(values):
        errors.append(fielderrors.invalid(place, values, "must be ordered"))
    return errors


def _success_policy_errors(spec: Obj, where: Path) -> list[FieldError]:
    policy = spec.get("successPolicy")
    if policy is None:
        return []
    rules, place = policy.get("rules"), where.child("rules")
    if spec.get("completionMode") != "Indexed":
        shown = [
            {"SucceededIndexes": rule.get("succeededIndexes"), "SucceededCount": rule.get("succeededCount")}
            for rule in rules or ()
        ]
        return [fielderrors.invalid(where, {"Rules": None if rules is None else shown}, _INDEXED_ONLY)]
    errors: list[FieldError] = []
    if not rules:
        detail = "at least one rules must be specified when the successPolicy is specified"
        errors.append(fielderrors.required(place, detail))
    elif len(rules) > _MOST_RULES:
        errors.append(fielderrors.too_many(place, len(rules), _MOST_RULES))
    for index, rule in enumerate(rules or ()):
        errors += _success_rule_errors(rule, place.index(index), spec.get("completions") or 0)
    return errors


def _success_rule_errors(rule: Obj, where: Path, completions: int) -> list[FieldError]:
    indexes, count = rule.get("succeededIndexes"), rule.get("succeededCount")
    if indexes is None and count is None:
        return [fielderrors.required(where, "at least one of succeededCount or succeededIndexes must be specified")]
    errors: list[FieldError] = []
    total = 0
    if indexes is not None:
        place = where.child("succeededIndexes")
        if len(indexes) > _LONGEST_INDEXES:
            errors.append(fielderrors.too_long(place, _LONGEST_INDEXES))
        try:
            total = _count_indexes(indexes, completions)
        except ValueError as problem:
            errors.append(fielderrors.invalid(place, indexes, f"error parsing succeededIndexes: {problem}"))
    if count is not None:
        place = where.child("succeededCount")
        errors += [fielderrors.invalid(place, count, NOT_NEGATIVE)] if count < 0 else []
        for most, what in (
            (completions, "specified completions"),
            (total, "indexes in the specified succeededIndexes field"),
        ):
            if count > most and (most is completions or indexes is not None):
                detail = f"must be less than or equal to {most} (the number of {what})"
                errors.append(fielderrors.invalid(place, count, detail))
    return errors


def _count_indexes(text: str, completions: int) -> int:
    """How many indexes "0,2-4" names. Raises ValueError in upstream's words."""
    total, last = 0, -1
    for interval in text.split(",") if text else ():
        limits = interval.split("-")
        if len(limits) > 2:
            rule = "an index interval can have at most two parts separated by '-'"
            raise ValueError(f'the fragment "{interval}" violates the requirement that {rule}')
        first, end = _index(limits[0], completions), _index(limits[-1], completions)
        if len(limits) == 2 and first >= end:
            raise ValueError(f"non-increasing order, previous: {first}, current: {end}")
        if last >= first:
            raise ValueError(f"non-increasing order, previous: {last}, current: {first}")
        total, last = total + end - first + 1, end
    return total


def _index(text: str, completions: int) -> int:
    if not (text.isascii() and text.removeprefix("+").isdigit()):
        raise ValueError(f'cannot convert string to integer for index: "{text}"')
    if int(text) >= completions:
        raise ValueError(f'too large index: "{text}"')
    return int(text)


# -- changes ---------------------------------------------------------------------------------------------------------------


def job_update_errors(new: Obj, old: Obj) -> list[FieldError]:
    """What a Job may change: parallelism, limits, suspension; while suspended, where its pods go and what they need."""
    after, before, where = new.get("spec") or {}, old.get("spec") or {}, path("spec")
    # Upstream looks at the spec twice, and clients are told twice.
    errors = job_errors(new) + job_spec_errors(after, where) + _selector_errors(after, where)
    errors += _completions_errors(after, before, where.child("completions"))
    errors += immutable_field(after.get("selector"), before.get("selector"), where.child("selector"))
    template, held = (each.get("template") or {} for each in (after, before))
    if _is_at_rest(old):
        pod, place = template.get("spec") or {}, where.child("template", "spec")
        errors += immutable_struct("PodSpec", pod, _with_changeable(held.get("spec") or {}, pod), place)
    else:
        errors += immutable_struct("PodTemplateSpec", template, held, where.child("template"))
    for field, struct in (("podFailurePolicy", "PodFailurePolicy"), ("successPolicy", "SuccessPolicy")):
        errors += immutable_struct(struct, after.get(field), before.get(field), where.child(field))
    for field in ("completionMode", "backoffLimitPerIndex", "managedBy"):
        if after.get(field) != before.get(field):
            errors.append(fielderrors.invalid(where.child(field), after.get(field), FIELD_IS_IMMUTABLE))
    return errors


def _is_at_rest(job: Obj) -> bool:
    """Whether a Job is suspended and has no pods."""
    status = job.get("status") or {}
    stopped = any(
        item.get("type") == "Suspended" and item.get("status") == "True" for item in status.get("conditions") or ()
    )
    never_started = status.get("startTime") is None
    return bool(job["spec"].get("suspend")) and (never_started or stopped) and not status.get("active")


def _with_changeable(held: Obj, pod: Obj) -> Obj:
    """The stored pod spec with what may change as in the new one."""
    result = held | {field: pod.get(field) for field in ("nodeSelector", "tolerations", "schedulingGates")}
    for kind in ("containers", "initContainers"):
        stored, wanted = held.get(kind) or [], pod.get(kind) or []
        if len(stored) == len(wanted):
            result[kind] = [
                {**was, "resources": now.get("resources")} if was.get("name") == now.get("name") else was
                for was, now in zip(stored, wanted, strict=True)
            ]
    others = {name: value for name, value in (held.get("affinity") or {}).items() if name != "nodeAffinity"}
    if pod.get("affinity") is not None:
        result["affinity"] = {**others, "nodeAffinity": pod["affinity"].get("nodeAffinity")}
    elif held.get("affinity") is not None:
        result["affinity"] = others or None
    return result


def _completions_errors(after: Obj, before: Obj, where: Path) -> list[FieldError]:
    wanted = after.get("completions")
    if wanted == before.get("completions"):
        return []
    if after.get("completionMode") != "Indexed":
        return [fielderrors.invalid(where, wanted, FIELD_IS_IMMUTABLE)]
    if wanted is None or wanted == after.get("parallelism"):
        return []
    return [fielderrors.invalid(where, wanted, "can only be modified in tandem with spec.parallelism")]
