"""CronJobs: a Job at each time of a schedule (upstream pkg/controller/cronjob, cronjob_controllerv2.go)."""

from __future__ import annotations

from contextlib import suppress
from dataclasses import dataclass
from datetime import datetime, timedelta

from bowsprit.client.resources import CRON_JOBS, JOBS
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.cron_schedule import Schedule, ScheduleError
from bowsprit.controllers.pod_control import namespace_is_terminating
from bowsprit.controllers.pods import POD_INDEXERS, is_deleting
from bowsprit.machinery.errors import AlreadyExistsError, NotFoundError, StatusError
from bowsprit.machinery.objects import Obj, controller_of, deep_copy, find_condition, new_controller_ref
from bowsprit.machinery.time import format_time, parse_time

_GVK = CRON_JOBS.gv.with_kind("CronJob")
_TOO_MANY = 100


@dataclass(frozen=True, slots=True)
class Due:
    """The most recent missed time (None: nothing to start), how many were missed, and the next time."""

    time: datetime | None
    missed: int
    next: datetime | None


def due(cron_job: Obj, schedule: Schedule, now: datetime) -> Due:
    """Look from the last start (or the creation, or the starting deadline) to now (upstream mostRecentScheduleTime)."""
    since = parse_time(cron_job["metadata"]["creationTimestamp"])
    if last := (cron_job.get("status") or {}).get("lastScheduleTime"):
        since = parse_time(last)
    deadline = cron_job["spec"].get("startingDeadlineSeconds")
    if deadline is not None:
        since = max(since, now - timedelta(seconds=int(deadline)))
    recent, missed = None, 0
    moment = schedule.next(since)
    while moment is not None and moment <= now:
        recent, missed = moment, missed + 1
        if missed > _TOO_MANY:  # far behind: step over the rest
            step = schedule.next(moment)
            gap = (step - moment) if step else timedelta(minutes=1)
            behind = int((now - moment) / gap)
            moment = schedule.next(moment + gap * max(0, behind - 1))
            missed += max(0, behind - 1)
            continue
        moment = schedule.next(moment)
    return Due(recent, missed, moment)


def finished_as(job: Obj) -> str:
    """``Complete``, ``Failed``, or "" while the Job runs."""
    for type_ in ("Complete", "Failed"):
        if (find_condition(job, type_) or {}).get("status") == "True":
            return type_
    return ""


def surplus(cron_job: Obj, jobs: list[Obj]) -> list[Obj]:
    """Finished Jobs beyond the history limits, oldest first."""
    result: list[Obj] = []
    for type_, field, default in (
        ("Complete", "successfulJobsHistoryLimit", 3),
        ("Failed", "failedJobsHistoryLimit", 1),
    ):
        limit = cron_job["spec"].get(field)
        limit = default if limit is None else int(limit)
        done = sorted(
            (job for job in jobs if finished_as(job) == type_),
            key=lambda job: (job.get("status") or {}).get("startTime") or "",
        )
        result += done[: max(0, len(done) - limit)]
    return result


def job_from(cron_job: Obj, when: datetime) -> Obj:
    """The Job of a scheduled time; its name is the same whoever makes it."""
    template = cron_job["spec"]["jobTemplate"]
    meta = template.get("metadata") or {}
    annotations = {
        **(meta.get("annotations") or {}),
        "batch.kubernetes.io/cronjob-scheduled-timestamp": format_time(when),
    }
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "metadata": {
            "name": f"{cron_job['metadata']['name']}-{int(when.timestamp()) // 60}",
            "namespace": cron_job["metadata"]["namespace"],
            "labels": dict(meta.get("labels") or {}),
            "annotations": annotations,
            "ownerReferences": [new_controller_ref(cron_job, _GVK)],
        },
        "spec": deep_copy(template["spec"]),
    }


class CronJobController(Controller):
    """Keys are CronJobs."""

    name = "cronjob-controller"
    account = "cronjob-controller"
    component = "cronjob-controller"
    workers = 2

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._cron_jobs = context.informers.informer(CRON_JOBS)
        self._jobs = context.informers.informer(JOBS, indexers={"owner": POD_INDEXERS["owner"]})
        self.watch(self._cron_jobs)
        self.watch(self._jobs, self._job_changed)

    def _job_changed(self, job: Obj) -> None:
        reference = controller_of(job)
        if reference is not None and reference.get("kind") == "CronJob":
            self.queue.add(f"{job['metadata']['namespace']}/{reference['name']}")

    async def sync(self, key: str) -> None:
        """See Controller."""
        cached = self._cron_jobs.get(key)
        if cached is None or is_deleting(cached):
            return
        cron_job = {
            **cached,
            "apiVersion": "batch/v1",
            "kind": "CronJob",
            "status": deep_copy(cached.get("status") or {}),
        }
        jobs = self._jobs.by_index("owner", cron_job["metadata"]["uid"])
        await self._reconcile_active(cron_job, jobs)
        for job in surplus(cron_job, jobs):
            await self._delete(cron_job, job)
        try:
            schedule = Schedule.parse(cron_job["spec"]["schedule"], cron_job["spec"].get("timeZone"))
        except ScheduleError as exc:
            self.event(
                cron_job,
                "Warning",
                "UnparseableSchedule",
                f"unparseable schedule: {cron_job['spec']['schedule']!r} : {exc}",
            )
            await self._write_status(cached, cron_job)
            return
        await self._start_if_due(key, cron_job, jobs, schedule)
        await self._write_status(cached, cron_job)

    async def _reconcile_active(self, cron_job: Obj, jobs: list[Obj]) -> None:
        """Jobs that ended or are gone leave the active ones; those that others made never join them."""
        status = cron_job["status"]
        active = {reference["uid"]: reference for reference in status.get("active") or ()}
        for job in sorted(jobs, key=lambda item: item["metadata"]["name"]):
            name, uid = job["metadata"]["name"], job["metadata"]["uid"]
            outcome = finished_as(job)
            if not outcome:
                if uid not in active and not await self._is_active_now(cron_job, active, uid):
                    text = f"Saw a job that the controller did not create or forgot: {name}"
                    self.event(cron_job, "Warning", "UnexpectedJob", text)
                continue
            if active.pop(uid, None) is not None:
                text = f"Saw completed job: {name}, condition: {outcome}"
                self.event(cron_job, "Normal", "SawCompletedJob", text)
            ended = (job.get("status") or {}).get("completionTime")
            if outcome == "Complete" and ended and ended > (status.get("lastSuccessfulTime") or ""):
                status["lastSuccessfulTime"] = ended
        for uid in active.keys() - {job["metadata"]["uid"] for job in jobs}:
            name = active[uid]["name"]
            try:  # the informer may not have seen it yet
                await self.client.get(JOBS, name, namespace=cron_job["metadata"]["namespace"])
            except NotFoundError:
                self.event(cron_job, "Normal", "MissingJob", f"Active job went missing: {name}")
                del active[uid]
        status["active"] = list(active.values())
        if not active:
            status.pop("active")

    async def _is_active_now(self, cron_job: Obj, active: dict[str, Obj], uid: str) -> bool:
        """Whether the server's CronJob, newer than the informer's, knows the Job; takes its active ones over if so."""
        meta = cron_job["metadata"]
        fresh = await self.client.get(CRON_JOBS, meta["name"], namespace=meta["namespace"])
        listed = {reference["uid"]: reference for reference in (fresh.get("status") or {}).get("active") or ()}
        if uid not in listed:
            return False
        active.update(listed)
        cron_job["metadata"] = fresh["metadata"]
        return True

    async def _start_if_due(self, key: str, cron_job: Obj, jobs: list[Obj], schedule: Schedule) -> None:
        now = self.now()
        if cron_job["spec"].get("suspend"):
            return
        found = due(cron_job, schedule, now)
        if found.next is not None:
            self.queue.add_after(key, (found.next - now).total_seconds() + 0.1)
        if found.missed > _TOO_MANY:
            text = f"too many missed start times: {found.missed}. Set or decrease .spec.startingDeadlineSeconds or check clock skew"
            self.event(cron_job, "Warning", "TooManyMissedTimes", text)
        if found.time is None:
            return
        job = job_from(cron_job, found.time)
        if any(item["metadata"]["name"] == job["metadata"]["name"] for item in jobs):
            return
        policy = cron_job["spec"].get("concurrencyPolicy") or "Allow"
        if cron_job["status"].get("active") and policy == "Forbid":
            text = "Not starting job because prior execution is running and concurrency policy is Forbid"
            self.event(cron_job, "Normal", "JobAlreadyActive", text)
            return
        if policy == "Replace":
            active = {reference["uid"] for reference in cron_job["status"].get("active") or ()}
            for running in [item for item in jobs if item["metadata"]["uid"] in active]:
                await self._delete(cron_job, running)
        await self._create(cron_job, job, found.time)

    async def _create(self, cron_job: Obj, job: Obj, when: datetime) -> None:
        try:
            created = await self.client.create(JOBS, job)
        except AlreadyExistsError:
            return
        except StatusError as exc:
            if namespace_is_terminating(exc):
                return
            self.event(cron_job, "Warning", "FailedCreate", f"Error creating job: {exc.message}")
            raise
        self.event(cron_job, "Normal", "SuccessfulCreate", f"Created job {created['metadata']['name']}")
        status = cron_job["status"]
        status["active"] = [*(status.get("active") or ()), _reference(created)]
        status["lastScheduleTime"] = format_time(when)

    async def _delete(self, cron_job: Obj, job: Obj) -> None:
        meta = job["metadata"]
        with suppress(NotFoundError):
            await self.client.delete(
                JOBS, meta["name"], namespace=meta["namespace"], uid=meta["uid"], propagation_policy="Background"
            )
            self.event(cron_job, "Normal", "SuccessfulDelete", f"Deleted job {meta['name']}")

    async def _write_status(self, cached: Obj, cron_job: Obj) -> None:
        if cron_job["status"] != (cached.get("status") or {}):
            with suppress(NotFoundError):
                await self.client.update(CRON_JOBS, cron_job, subresource="status")


def _reference(job: Obj) -> Obj:
    meta = job["metadata"]
    return {
        "apiVersion": "batch/v1",
        "kind": "Job",
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
        "resourceVersion": meta.get("resourceVersion", ""),
    }
