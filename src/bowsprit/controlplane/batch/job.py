"""Jobs: the selector and labels that tie pods to a job, columns (upstream pkg/registry/batch/job)."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.request import RequestContext
from bowsprit.controlplane.batch.jobrules import job_errors, job_update_errors
from bowsprit.controlplane.core.podspec import default_template
from bowsprit.controlplane.printing import age_of, containers_text, name_of, selector_text
from bowsprit.controlplane.statused import StatusedStrategy
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.humanduration import human_duration
from bowsprit.machinery.objects import Obj, find_condition
from bowsprit.machinery.time import parse_time

_LABELS = ("controller-uid", "job-name", "batch.kubernetes.io/controller-uid", "batch.kubernetes.io/job-name")
UNBOUNDED = 2**31 - 1


def default_job_spec(spec: Obj) -> None:
    """A JobSpec, of a job or of a cron job's template."""
    default_template(spec.get("template"))
    if spec.get("completions") is None and spec.get("parallelism") is None:
        spec["completions"] = spec["parallelism"] = 1
    if spec.get("parallelism") is None:
        spec["parallelism"] = 1
    if spec.get("backoffLimit") is None:
        spec["backoffLimit"] = UNBOUNDED if spec.get("backoffLimitPerIndex") is not None else 6
    spec["completionMode"] = spec.get("completionMode") or "NonIndexed"
    if spec.get("suspend") is None:
        spec["suspend"] = False
    if not spec.get("podReplacementPolicy"):
        spec["podReplacementPolicy"] = "Failed" if spec.get("podFailurePolicy") else "TerminatingOrFailed"
    for rule in (spec.get("podFailurePolicy") or {}).get("rules") or ():
        for pattern in rule.get("onPodConditions") or ():
            pattern["status"] = pattern.get("status") or "True"


class JobStrategy(StatusedStrategy):
    """The main endpoint."""

    orphans_by_default = True
    orphan_warning = (
        "child pods are preserved by default when jobs are deleted; set propagationPolicy=Background to remove them or set "
        "propagationPolicy=Orphan to suppress this warning"
    )

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        default_job_spec(spec)
        labels = ((spec.get("template") or {}).get("metadata") or {}).get("labels")
        if labels and not obj["metadata"].get("labels"):
            # One map for both, as upstream has it: what is added to the template's labels is added to the job's.
            obj["metadata"]["labels"] = labels
        if spec.get("manualSelector") is None:
            spec["manualSelector"] = False

    def prepare_for_create(self, obj: Obj, ctx: RequestContext) -> None:
        obj["status"] = {}
        if not obj["spec"].get("manualSelector"):
            obj["spec"]["manualSelector"] = False
            self._tie_pods(obj)

    @staticmethod
    def _tie_pods(obj: Obj) -> None:
        """Upstream generateSelector: the job's uid as label and selector of its pods."""
        meta, spec = obj["metadata"], obj["spec"]
        labels = spec["template"].setdefault("metadata", {}).setdefault("labels", {})
        uid, name = meta.get("uid", ""), meta.get("name", "")
        for key, value in zip(_LABELS, (uid, name, uid, name), strict=True):
            labels.setdefault(key, value)
        selector = spec.get("selector") or {}
        selector.setdefault("matchLabels", {}).setdefault("batch.kubernetes.io/controller-uid", uid)
        spec["selector"] = selector

    def canonicalize(self, obj: Obj) -> None:
        # Upstream's defaults run once more when the stored object is read: the generated labels become the job's own.
        labels = (obj["spec"].get("template") or {}).get("metadata", {}).get("labels")
        if labels and not obj["metadata"].get("labels"):
            obj["metadata"]["labels"] = dict(labels)

    field_refusal = "field label {quoted} not supported for Job"

    def selectable_field_names(self) -> frozenset[str]:
        return frozenset({"status.successful"})

    def selectable_fields(self, obj: Obj) -> dict[str, str]:
        return {"status.successful": str((obj.get("status") or {}).get("succeeded", 0))}

    def validate(self, obj: Obj) -> list[FieldError]:
        return job_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return job_update_errors(new, old)


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Status, Completions, Duration, Age, Containers, Images, Selector."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    names, images = containers_text(((spec.get("template") or {}).get("spec") or {}).get("containers"))
    return [
        name_of(obj),
        _state(obj),
        _completions(spec, status),
        _duration(status, now),
        age_of(obj, now),
        names,
        images,
        selector_text(spec.get("selector")),
    ]


def _state(obj: Obj) -> str:
    def holds(kind: str) -> bool:
        return (find_condition(obj, kind) or {}).get("status") == "True"

    if holds("Complete"):
        return "Complete"
    if holds("Failed"):
        return "Failed"
    if obj["metadata"].get("deletionTimestamp"):
        return "Terminating"
    if holds("Suspended"):
        return "Suspended"
    if holds("FailureTarget"):
        return "FailureTarget"
    if holds("SuccessCriteriaMet"):
        return "SuccessCriteriaMet"
    return "Running"


def _completions(spec: Obj, status: Obj) -> str:
    done = status.get("succeeded", 0)
    if spec.get("completions") is not None:
        return f"{done}/{spec['completions']}"
    parallelism = spec.get("parallelism") or 0
    return f"{done}/1 of {parallelism}" if parallelism > 1 else f"{done}/1"


def _duration(status: Obj, now: datetime) -> str:
    start, end = status.get("startTime"), status.get("completionTime")
    if not start:
        return ""
    finish = parse_time(end) if end else now
    return human_duration((finish - parse_time(start)).total_seconds())
