"""Rules for jobs and cron jobs (upstream pkg/apis/batch/validation)."""

from __future__ import annotations

import re
import zoneinfo

from bowsprit.controlplane.core.podvalidation import template_errors
from bowsprit.controlplane.countrules import not_negative, one_of
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.selectors import LabelSelector, SelectorError
from bowsprit.machinery.validation import is_dns1123_label

_NEVER_ENDS = '"OnFailure", "Never"'
_MOST_INDEXES = 100_000
_LONGEST_CRON_NAME = 52
_SHORTCUTS = {"@yearly", "@annually", "@monthly", "@weekly", "@daily", "@midnight", "@hourly"}
# Field, smallest and largest value, names.
_FIELDS: tuple[tuple[int, int, tuple[str, ...]], ...] = (
    (0, 59, ()),
    (0, 23, ()),
    (1, 31, ()),
    (1, 12, ("jan", "feb", "mar", "apr", "may", "jun", "jul", "aug", "sep", "oct", "nov", "dec")),
    (0, 6, ("sun", "mon", "tue", "wed", "thu", "fri", "sat")),
)
_UID_LABEL = "batch.kubernetes.io/controller-uid"


def job_errors(obj: Obj) -> list[FieldError]:
    """A Job."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = _generated_selector(obj, spec, where) + job_spec_errors(spec, where, template_only=False)
    if spec.get("completionMode") == "Indexed" and (spec.get("completions") or 0) > 0:
        name = obj["metadata"].get("name", "")
        last = f"{name}-{spec['completions'] - 1}"
        if is_dns1123_label(last):
            detail = f"will not able to create pod with invalid DNS label: {last}"
            errors.append(fielderrors.invalid(path("metadata", "name"), name, detail))
    return errors


def _generated_selector(obj: Obj, spec: Obj, where: Path) -> list[FieldError]:
    if spec.get("manualSelector"):
        return []
    selector, uid = spec.get("selector") or {}, obj["metadata"].get("uid", "")
    if selector.get("matchExpressions") or set(selector.get("matchLabels") or ()) - {_UID_LABEL, "controller-uid"}:
        return [fielderrors.invalid(where.child("selector"), selector, "`selector` not auto-generated")]
    errors: list[FieldError] = []
    labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels") or {}
    expected = {_UID_LABEL: uid, "controller-uid": uid}
    for key, value in expected.items():
        if labels.get(key) != value:
            errors.append(
                fielderrors.invalid(where.child("template", "metadata", "labels"), labels, f"must be '{value}'")
            )
    return errors


def job_spec_errors(spec: Obj, where: Path, *, template_only: bool) -> list[FieldError]:
    """A JobSpec.

    Args:
        spec: the spec.
        where: its path.
        template_only: it stands in a CronJob, where no selector is set.
    """
    errors: list[FieldError] = []
    for field in (
        "parallelism",
        "completions",
        "activeDeadlineSeconds",
        "backoffLimit",
        "ttlSecondsAfterFinished",
        "backoffLimitPerIndex",
        "maxFailedIndexes",
    ):
        errors += not_negative(spec.get(field), where.child(field))
    mode = spec.get("completionMode")
    if mode is not None:
        if mode not in ("NonIndexed", "Indexed"):
            errors.append(fielderrors.not_supported(where.child("completionMode"), mode, ["Indexed", "NonIndexed"]))
        if mode == "Indexed":
            errors += _indexed(spec, where)
        elif spec.get("backoffLimitPerIndex") is not None:
            detail = "requires indexed completion mode"
            errors.append(
                fielderrors.invalid(where.child("backoffLimitPerIndex"), spec["backoffLimitPerIndex"], detail)
            )
    errors += one_of(
        spec.get("podReplacementPolicy"),
        ["Failed", "TerminatingOrFailed"],
        where.child("podReplacementPolicy"),
        required=False,
    )
    errors += _failure_policy(spec, where.child("podFailurePolicy"))
    template = spec.get("template") or {}
    errors += template_errors(template, where.child("template"))
    if not template_only:
        errors += _selects_template(spec, template, where)
    policy, place = (
        (template.get("spec") or {}).get("restartPolicy", ""),
        where.child("template", "spec", "restartPolicy"),
    )
    if policy == "Always":
        errors.append(fielderrors.required(place, f"valid values: {_NEVER_ENDS}"))
    elif policy not in ("OnFailure", "Never"):
        errors.append(fielderrors.not_supported(place, policy, ["Never", "OnFailure"]))
    elif spec.get("podFailurePolicy") is not None and policy != "Never":
        detail = 'only "Never" is supported when podFailurePolicy is specified'
        errors.append(fielderrors.invalid(place, policy, detail))
    return errors


def _indexed(spec: Obj, where: Path) -> list[FieldError]:
    completions = spec.get("completions")
    if completions is None:
        return [fielderrors.required(where.child("completions"), "when completion mode is Indexed")]
    parallelism = spec.get("parallelism")
    if parallelism is not None and parallelism > _MOST_INDEXES:
        detail = f"must be less than or equal to {_MOST_INDEXES} when completion mode is Indexed"
        return [fielderrors.invalid(where.child("parallelism"), parallelism, detail)]
    return []


def _failure_policy(spec: Obj, where: Path) -> list[FieldError]:
    policy = spec.get("podFailurePolicy")
    if policy is None:
        return []
    errors: list[FieldError] = []
    containers = {
        item.get("name")
        for kind in ("containers", "initContainers")
        for item in ((spec.get("template") or {}).get("spec") or {}).get(kind) or ()
    }
    for index, rule in enumerate(policy.get("rules") or ()):
        place = where.child("rules").index(index)
        errors += one_of(rule.get("action"), ["Count", "FailIndex", "FailJob", "Ignore"], place.child("action"))
        codes, patterns = rule.get("onExitCodes"), rule.get("onPodConditions") or []
        if codes is not None and patterns:
            detail = "specifying both OnExitCodes and OnPodConditions is not supported"
            errors.append(fielderrors.invalid(place, rule, detail))
        elif codes is None and not patterns:
            detail = "specifying one of OnExitCodes and OnPodConditions is required"
            errors.append(fielderrors.invalid(place, rule, detail))
        if codes is not None:
            errors += one_of(codes.get("operator"), ["In", "NotIn"], place.child("onExitCodes", "operator"))
            name = codes.get("containerName")
            if name is not None and name not in containers:
                detail = "must be one of the container or initContainer names in the pod template"
                errors.append(fielderrors.invalid(place.child("onExitCodes", "containerName"), name, detail))
            if not codes.get("values"):
                detail = "at least one value is required"
                errors.append(
                    fielderrors.invalid(place.child("onExitCodes", "values"), codes.get("values") or [], detail)
                )
    return errors


def _selects_template(spec: Obj, template: Obj, where: Path) -> list[FieldError]:
    if spec.get("selector") is None:
        return [fielderrors.required(where.child("selector"))]
    labels = (template.get("metadata") or {}).get("labels") or {}
    try:
        matches = LabelSelector.from_obj(spec["selector"]).matches(labels)
    except SelectorError:
        return []
    if matches or not spec.get("manualSelector"):
        return []
    detail = "`selector` does not match template `labels`"
    return [fielderrors.invalid(where.child("template", "metadata", "labels"), labels, detail)]


def job_update_errors(new: Obj, old: Obj) -> list[FieldError]:
    """What a Job may change: parallelism, limits, suspension; its template's scheduling while suspended."""
    after, before, where = new.get("spec") or {}, old.get("spec") or {}, path("spec")
    errors = job_spec_errors(after, where, template_only=False)
    fixed = ["selector", "completionMode", "podFailurePolicy", "backoffLimitPerIndex", "managedBy", "successPolicy"]
    if not (after.get("completionMode") == "Indexed" and after.get("completions") == after.get("parallelism")):
        fixed.append("completions")
    for field in fixed:
        if after.get(field) != before.get(field):
            errors.append(fielderrors.invalid(where.child(field), after.get(field), "field is immutable"))
    suspended = before.get("suspend") and not (old.get("status") or {}).get("startTime")
    if _template_for_comparison(after, suspended) != _template_for_comparison(before, suspended):
        errors.append(fielderrors.invalid(where.child("template"), after.get("template"), "field is immutable"))
    return errors


def _template_for_comparison(spec: Obj, suspended: object) -> Obj:
    template: Obj = deep_copy(spec.get("template") or {})
    if suspended:
        pod = template.get("spec") or {}
        for field in ("nodeSelector", "tolerations", "affinity", "schedulingGates"):
            pod.pop(field, None)
        for field in ("labels", "annotations"):
            (template.get("metadata") or {}).pop(field, None)
    return template


def cron_job_errors(obj: Obj) -> list[FieldError]:
    """A CronJob."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    schedule = spec.get("schedule", "")
    if not schedule:
        errors.append(fielderrors.required(where.child("schedule")))
    else:
        errors += _schedule(schedule, spec, where)
    if (zone := spec.get("timeZone")) is not None:
        errors += _time_zone(zone, where.child("timeZone"))
    for field in ("startingDeadlineSeconds", "successfulJobsHistoryLimit", "failedJobsHistoryLimit"):
        errors += not_negative(spec.get(field), where.child(field))
    errors += one_of(spec.get("concurrencyPolicy"), ["Allow", "Forbid", "Replace"], where.child("concurrencyPolicy"))
    template = (spec.get("jobTemplate") or {}).get("spec") or {}
    place = where.child("jobTemplate", "spec")
    if template.get("manualSelector"):
        supported = "nil, false"
        errors.append(fielderrors.not_supported(place.child("manualSelector"), True, supported.split(", ")))
    errors += job_spec_errors(template, place, template_only=True)
    name = obj["metadata"].get("name", "")
    if len(name) > _LONGEST_CRON_NAME:
        detail = f"must be no more than {_LONGEST_CRON_NAME} characters"
        errors.append(fielderrors.invalid(path("metadata", "name"), name, detail))
    return errors


def _schedule(schedule: str, spec: Obj, where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    if problem := cron_problem(schedule):
        errors.append(fielderrors.invalid(where.child("schedule"), schedule, problem))
    if "TZ" in schedule:
        detail = "cannot use TZ or CRON_TZ in schedule, use timeZone field instead"
        if spec.get("timeZone") is not None:
            detail = "cannot use both timeZone field and TZ or CRON_TZ in schedule"
        errors.append(fielderrors.invalid(where.child("schedule"), schedule, detail))
    return errors


def _time_zone(zone: str, where: Path) -> list[FieldError]:
    if not zone:
        return [fielderrors.invalid(where, zone, "timeZone must be nil or non-empty string")]
    if zone.lower() == "local":
        return [
            fielderrors.invalid(
                where, zone, "timeZone must be an explicit time zone as defined in https://www.iana.org/time-zones"
            )
        ]
    try:
        zoneinfo.ZoneInfo(zone)
    except (zoneinfo.ZoneInfoNotFoundError, ValueError, OSError):
        return [fielderrors.invalid(where, zone, f"unknown time zone {zone}")]
    return []


def cron_problem(schedule: str) -> str:
    """What is wrong with a schedule, in the words of upstream's parser (robfig/cron); "" for a good one."""
    text = schedule
    if text.startswith(("TZ=", "CRON_TZ=")):
        text = text.partition(" ")[2].strip()
    if text.startswith("@"):
        if text in _SHORTCUTS or re.fullmatch(r"@every (\d+(\.\d+)?(ns|us|ms|s|m|h))+", text):
            return ""
        return f"unrecognized descriptor: {text}"
    fields = text.split()
    if len(fields) != len(_FIELDS):
        return f"expected exactly 5 fields, found {len(fields)}: [{' '.join(fields)}]"
    for field, (low, high, names) in zip(fields, _FIELDS, strict=True):
        for part in field.split(","):
            if problem := _part_problem(part, low, high, names):
                return problem
    return ""


def _part_problem(part: str, low: int, high: int, names: tuple[str, ...]) -> str:
    span, slash, step = part.partition("/")
    if slash and "/" in step:
        return f"too many slashes: {part}"
    if slash and (not step.isdigit() or int(step) == 0):
        if step.isdigit():
            return f"step of range should be a positive number: {part}"
        return f'failed to parse int from {step}: strconv.Atoi: parsing "{step}": invalid syntax'
    if span in ("*", "?"):
        return ""
    bounds = span.split("-")
    if len(bounds) > 2:
        return f"too many hyphens: {part}"
    numbers = []
    for bound in bounds:
        if bound.lower() in names:
            numbers.append(names.index(bound.lower()) + (1 if low == 1 else 0))
        elif bound.isdigit():
            numbers.append(int(bound))
        else:
            return f'failed to parse int from {bound}: strconv.Atoi: parsing "{bound}": invalid syntax'
    if numbers[0] < low:
        return f"beginning of range ({numbers[0]}) below minimum ({low}): {part}"
    if numbers[-1] > high:
        return f"end of range ({numbers[-1]}) above maximum ({high}): {part}"
    if numbers[0] > numbers[-1]:
        return f"beginning of range ({numbers[0]}) beyond end of range ({numbers[-1]}): {part}"
    return ""
