"""Rules for Events (upstream pkg/apis/core/validation/events.go); the newer API is stricter."""

from __future__ import annotations

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_qualified_name

_LONGEST = 128
_LONGEST_NOTE = 1024


def event_errors(obj: Obj, *, new_api: bool = False) -> list[FieldError]:
    """An event in core form.

    Args:
        obj: the event.
        new_api: it came through events.k8s.io.
    """
    errors: list[FieldError] = []
    about, namespace = obj.get("involvedObject") or {}, obj["metadata"].get("namespace", "")
    where = path("involvedObject", "namespace")
    given = about.get("namespace", "")
    # Cluster-scoped objects have their events in "default".
    if given and given != namespace:
        errors.append(fielderrors.invalid(where, given, "does not match event.namespace"))
    if new_api or obj.get("eventTime"):
        errors += _strict(obj, new_api=new_api)
    return errors


def _strict(obj: Obj, *, new_api: bool) -> list[FieldError]:
    errors: list[FieldError] = []
    if new_api and not obj.get("eventTime"):
        errors.append(fielderrors.required(path("eventTime")))
    if new_api and obj.get("type") not in ("Normal", "Warning"):
        errors.append(fielderrors.invalid(path("type"), "", f"has invalid value: {obj.get('type', '')}"))
    if not new_api or obj.get("eventTime"):
        reporter = obj.get("reportingComponent", "")
        place = path("reportingController")
        if not reporter:
            errors.append(fielderrors.required(place))
        errors += [fielderrors.invalid(place, reporter, text) for text in is_qualified_name(reporter)]
        for field, value, most in (
            ("reportingInstance", obj.get("reportingInstance", ""), _LONGEST),
            ("action", obj.get("action", ""), _LONGEST),
            ("reason", obj.get("reason", ""), _LONGEST),
        ):
            if not value:
                errors.append(fielderrors.required(path(field)))
            elif len(value) > most:
                errors.append(fielderrors.invalid(path(field), "", f"can have at most {most} characters"))
        if len(obj.get("message", "")) > _LONGEST_NOTE:
            errors.append(fielderrors.invalid(path("message"), "", f"can have at most {_LONGEST_NOTE} characters"))
    return errors
