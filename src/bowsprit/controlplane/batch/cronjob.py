"""CronJobs."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.controlplane.batch.cronrules import cron_job_errors
from bowsprit.controlplane.batch.job import default_job_spec
from bowsprit.controlplane.printing import NONE, age_of, containers_text, name_of, selector_text
from bowsprit.controlplane.statused import StatusedStrategy
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.humanduration import age
from bowsprit.machinery.objects import Obj


class CronJobStrategy(StatusedStrategy):
    """The main endpoint."""

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        spec["concurrencyPolicy"] = spec.get("concurrencyPolicy") or "Allow"
        for field, value in (("suspend", False), ("successfulJobsHistoryLimit", 3), ("failedJobsHistoryLimit", 1)):
            if spec.get(field) is None:
                spec[field] = value
        job = spec.setdefault("jobTemplate", {}).setdefault("spec", {})
        # Upstream defaults only the pod template here; the job's own defaults come when a job is made.
        pod = {"template": job.get("template")}
        default_job_spec(pod)

    def validate(self, obj: Obj) -> list[FieldError]:
        return cron_job_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return cron_job_errors(new)


def cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Schedule, Timezone, Suspend, Active, Last Schedule, Age, Containers, Images, Selector."""
    spec, status = obj.get("spec") or {}, obj.get("status") or {}
    job = (spec.get("jobTemplate") or {}).get("spec") or {}
    names, images = containers_text(((job.get("template") or {}).get("spec") or {}).get("containers"))
    last = status.get("lastScheduleTime")
    return [
        name_of(obj),
        spec.get("schedule", ""),
        spec.get("timeZone") or NONE,
        "True" if spec.get("suspend") else "False",
        len(status.get("active") or ()),
        age(last, now) if last else NONE,
        age_of(obj, now),
        names,
        images,
        selector_text(job.get("selector")),
    ]
