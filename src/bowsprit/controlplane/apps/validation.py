"""Rules for the apps kinds (upstream pkg/apis/apps/validation)."""

from __future__ import annotations

from bowsprit.controlplane.core.podvalidation import template_errors
from bowsprit.controlplane.core.storagevalidation import claim_spec_errors
from bowsprit.controlplane.countrules import at_most_all, count_or_percent, is_zero, not_negative
from bowsprit.controlplane.gostructs import go_value
from bowsprit.controlplane.labelrules import labels_mismatch, selector_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.selectors import LabelSelector, SelectorError


def _with_claims(template: Obj, spec: Obj) -> Obj:
    """The template with a volume for each claim template of a StatefulSet: containers mount them by their names."""
    named = [(claim.get("metadata") or {}).get("name", "") for claim in spec.get("volumeClaimTemplates") or ()]
    claims = [name for name in dict.fromkeys(named) if name]
    pod = template.get("spec") or {}
    others = [volume for volume in pod.get("volumes") or () if volume.get("name") not in claims]
    volumes = [*({"name": name, "emptyDir": {}} for name in claims), *others]
    return template | {"spec": pod | {"volumes": volumes}} if claims else template


def selector_and_template(spec: Obj, where: Path, kind: str) -> list[FieldError]:
    """The selector is there and matches the template's labels; pods restart always and have no deadline."""
    errors: list[FieldError] = []
    given = spec.get("selector")
    selector: LabelSelector | None = None
    if given is None:
        if kind != "DaemonSet":
            errors.append(fielderrors.required(where.child("selector")))
    else:
        errors += selector_errors(given, where.child("selector"))
        shown = go_value("LabelSelector", given)
        empty = not given.get("matchLabels") and not given.get("matchExpressions")
        if empty:
            noun = "statefulset" if kind == "StatefulSet" else "daemonset" if kind == "DaemonSet" else "deployment"
            errors.append(fielderrors.invalid(where.child("selector"), shown, f"empty selector is invalid for {noun}"))
        try:
            selector = LabelSelector.from_obj(given)
        except SelectorError:
            detail = "" if kind == "StatefulSet" else "invalid label selector"
            errors.append(fielderrors.invalid(where.child("selector"), shown, detail))
            return errors
    template, place = spec.get("template"), where.child("template")
    if template is None:
        return [*errors, fielderrors.required(place)]
    labels = (template.get("metadata") or {}).get("labels") or {}
    if selector is None or (not selector.is_empty() and not selector.matches(labels)):
        errors.append(labels_mismatch(place, labels))
    errors += template_errors(_with_claims(template, spec), place)
    pod = template.get("spec") or {}
    if pod.get("restartPolicy") != "Always":
        spot = place.child("spec", "restartPolicy")
        errors.append(fielderrors.not_supported(spot, pod.get("restartPolicy", ""), ["Always"]))
    if pod.get("activeDeadlineSeconds") is not None:
        noun = "ReplicaSet" if kind == "Deployment" else kind
        detail = f"activeDeadlineSeconds in {noun} is not Supported"
        errors.append(fielderrors.forbidden(place.child("spec", "activeDeadlineSeconds"), detail))
    return errors


def deployment_errors(obj: Obj) -> list[FieldError]:
    """A Deployment."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = not_negative(spec.get("replicas"), where.child("replicas"))
    errors += selector_and_template(spec, where, "Deployment")
    errors += _deployment_strategy(spec.get("strategy") or {}, where.child("strategy"))
    errors += not_negative(spec.get("minReadySeconds"), where.child("minReadySeconds"))
    errors += not_negative(spec.get("revisionHistoryLimit"), where.child("revisionHistoryLimit"))
    deadline, ready = spec.get("progressDeadlineSeconds"), spec.get("minReadySeconds") or 0
    if deadline is not None:
        errors += not_negative(deadline, where.child("progressDeadlineSeconds"))
        if deadline <= ready:
            detail = "must be greater than minReadySeconds"
            errors.append(fielderrors.invalid(where.child("progressDeadlineSeconds"), deadline, detail))
    return errors


def _deployment_strategy(strategy: Obj, where: Path) -> list[FieldError]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "Recreate":
        if rolling is None:
            return []
        detail = "may not be specified when strategy `type` is 'Recreate'"
        return [fielderrors.forbidden(where.child("rollingUpdate"), detail)]
    if kind != "RollingUpdate":
        shown = go_value("DeploymentStrategy", strategy)
        return [fielderrors.not_supported(where, shown, ["Recreate", "RollingUpdate"])]
    place = where.child("rollingUpdate")
    if rolling is None:
        return [fielderrors.required(place, "this should be defaulted and never be nil")]
    unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
    errors = count_or_percent(unavailable, place.child("maxUnavailable"))
    errors += count_or_percent(surge, place.child("maxSurge"))
    if is_zero(unavailable) and is_zero(surge):
        errors.append(
            fielderrors.invalid(place.child("maxUnavailable"), unavailable, "may not be 0 when `maxSurge` is 0")
        )
    return errors + at_most_all(unavailable, place.child("maxUnavailable"))


def counted_status_errors(obj: Obj, fields: tuple[str, ...]) -> list[FieldError]:
    """Counts are not negative, and parts not larger than the whole (``replicas``)."""
    status, where = obj.get("status") or {}, path("status")
    errors: list[FieldError] = []
    total = status.get("replicas", 0)
    for field in ("replicas", "observedGeneration", *fields):
        errors += not_negative(status.get(field, 0), where.child(field))
        if field in fields and status.get(field, 0) > total:
            detail = "cannot be greater than status.replicas"
            errors.append(fielderrors.invalid(where.child(field), status.get(field, 0), detail))
    ready, available = status.get("readyReplicas", 0), status.get("availableReplicas", 0)
    if available > ready:
        detail = "cannot be greater than readyReplicas"
        errors.append(fielderrors.invalid(where.child("availableReplicas"), available, detail))
    return errors


def replica_set_errors(obj: Obj) -> list[FieldError]:
    """A ReplicaSet."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = not_negative(spec.get("replicas"), where.child("replicas"))
    errors += not_negative(spec.get("minReadySeconds"), where.child("minReadySeconds"))
    return errors + selector_and_template(spec, where, "ReplicaSet")


def stateful_set_errors(obj: Obj, *, created: bool) -> list[FieldError]:
    """A StatefulSet; its claim templates are judged when it is `created`, as they cannot change."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    policy = spec.get("podManagementPolicy")
    if not policy:
        errors.append(fielderrors.required(where.child("podManagementPolicy")))
    elif policy not in ("OrderedReady", "Parallel"):
        detail = "must be 'OrderedReady' or 'Parallel'"
        errors.append(fielderrors.invalid(where.child("podManagementPolicy"), policy, detail))
    errors += _stateful_strategy(spec.get("updateStrategy") or {}, where.child("updateStrategy"))
    for field in ("whenDeleted", "whenScaled"):
        value = (spec.get("persistentVolumeClaimRetentionPolicy") or {}).get(field)
        if value not in (None, "Retain", "Delete"):
            place = where.child("persistentVolumeClaimRetentionPolicy", field)
            errors.append(fielderrors.not_supported(place, value, ["Retain", "Delete"]))
    for index, claim in enumerate(spec.get("volumeClaimTemplates") or () if created else ()):
        place = where.child("volumeClaimTemplates").index(index).child("spec")
        errors += claim_spec_errors(claim.get("spec") or {}, place)
    for field in ("replicas", "minReadySeconds", "revisionHistoryLimit"):
        errors += not_negative(spec.get(field), where.child(field))
    start = (spec.get("ordinals") or {}).get("start")
    errors += not_negative(start, where.child("ordinals", "start"))
    return errors + selector_and_template(spec, where, "StatefulSet")


def _stateful_strategy(strategy: Obj, where: Path) -> list[FieldError]:
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if not kind:
        return [fielderrors.required(where)]
    if kind == "OnDelete":
        if rolling is None:
            return []
        shown = go_value("RollingUpdateStatefulSetStrategy", rolling)
        return [
            fielderrors.invalid(where.child("rollingUpdate"), shown, "only allowed for updateStrategy 'RollingUpdate'")
        ]
    if kind != "RollingUpdate":
        shown = go_value("StatefulSetUpdateStrategy", strategy)
        return [fielderrors.invalid(where, shown, "must be 'RollingUpdate' or 'OnDelete'")]
    errors: list[FieldError] = []
    if rolling is not None:
        errors += not_negative(rolling.get("partition"), where.child("rollingUpdate", "partition"))
        place, most = where.child("rollingUpdate", "maxUnavailable"), rolling.get("maxUnavailable")
        errors += count_or_percent(most, place)
        if most is not None and is_zero(most):
            errors.append(fielderrors.invalid(place, most, "cannot be 0"))
        errors += at_most_all(most, place)
    return errors


def daemon_set_errors(obj: Obj) -> list[FieldError]:
    """A DaemonSet."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors = selector_and_template(spec, where, "DaemonSet")
    errors += not_negative(spec.get("minReadySeconds"), where.child("minReadySeconds"))
    strategy, place = spec.get("updateStrategy") or {}, where.child("updateStrategy")
    kind, rolling = strategy.get("type"), strategy.get("rollingUpdate")
    if kind == "RollingUpdate":
        if rolling is None:
            errors.append(fielderrors.required(place.child("rollingUpdate")))
        else:
            unavailable, surge = rolling.get("maxUnavailable"), rolling.get("maxSurge")
            spot = place.child("rollingUpdate")
            errors += count_or_percent(unavailable, spot.child("maxUnavailable"))
            errors += at_most_all(unavailable, spot.child("maxUnavailable"))
            errors += count_or_percent(surge, spot.child("maxSurge")) + at_most_all(surge, spot.child("maxSurge"))
            if is_zero(unavailable) and is_zero(surge):
                errors.append(fielderrors.required(spot.child("maxUnavailable"), "cannot be 0 when maxSurge is 0"))
            elif not is_zero(unavailable) and not is_zero(surge) and surge is not None:
                detail = "may not be set when maxUnavailable is non-zero"
                errors.append(fielderrors.invalid(spot.child("maxSurge"), surge, detail))
    elif kind != "OnDelete":
        errors.append(fielderrors.not_supported(place, kind, ["RollingUpdate", "OnDelete"]))
    return errors + not_negative(spec.get("revisionHistoryLimit"), where.child("revisionHistoryLimit"))


def controller_revision_errors(obj: Obj) -> list[FieldError]:
    """A ControllerRevision."""
    return not_negative(obj.get("revision"), path("revision"))


def new_revision_errors(obj: Obj) -> list[FieldError]:
    """A ControllerRevision to be created: it has data."""
    errors, data = controller_revision_errors(obj), obj.get("data")
    if data is None:
        errors.append(fielderrors.required(path("data"), "data is mandatory"))
    elif not isinstance(data, dict):
        errors.append(fielderrors.required(path("data"), "data must be a valid JSON object"))
    return errors
