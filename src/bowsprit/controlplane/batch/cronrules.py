"""Rules for cron jobs (upstream pkg/apis/batch/validation)."""

from __future__ import annotations

import re
import zoneinfo

from bowsprit.controlplane.batch.jobrules import job_spec_errors
from bowsprit.controlplane.countrules import not_negative, one_of
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj

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
    errors += job_spec_errors(template, place)
    if template.get("selector") is not None:
        detail = "`selector` will be auto-generated"
        errors.append(fielderrors.invalid(place.child("selector"), template["selector"], detail))
    if template.get("manualSelector"):
        errors.append(fielderrors.not_supported(place.child("manualSelector"), True, ["nil", "false"]))
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
