"""Jobs: what a Job's pods mean for its status, and which pods to create or delete. No I/O.

A finished pod counts once: its uid is first written into ``status.uncountedTerminatedPods``, then its finalizer is taken
off, then the counter goes up (KEP-2307). Upstream: pkg/controller/job (job_controller.go, indexed_job_utils.go,
pod_failure_policy.go).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from datetime import datetime, timedelta

from bowsprit.controllers import conditions
from bowsprit.controllers.pods import is_deleting, is_ready, phase
from bowsprit.machinery import objects
from bowsprit.machinery.objects import Obj, find_condition, nested
from bowsprit.machinery.time import format_time, parse_time

FINALIZER = "batch.kubernetes.io/job-tracking"
INDEX = "batch.kubernetes.io/job-completion-index"
_BACKOFF_BASE, _BACKOFF_MAX = 10.0, 600.0


@dataclass(slots=True)
class Verdict:
    """How the Job ends: the type of the final condition, with reason and message."""

    type: str
    reason: str
    message: str


@dataclass(slots=True)
class Plan:
    """The outcome of one look at a Job."""

    status: Obj
    create: list[int | None] = field(default_factory=list)
    delete: list[Obj] = field(default_factory=list)
    unfinalize: list[Obj] = field(default_factory=list)
    wake: float | None = None
    events: list[tuple[str, str, str]] = field(default_factory=list)

    def wake_in(self, seconds: float) -> None:
        """Look again in so many seconds, or earlier."""
        self.wake = seconds if self.wake is None else min(self.wake, seconds)


def is_indexed(job: Obj) -> bool:
    """Whether each completion has an index of its own."""
    return bool(job["spec"].get("completionMode") == "Indexed")


def is_finished(job: Obj) -> bool:
    """Whether the Job has its Complete or Failed condition."""
    return any((find_condition(job, type_) or {}).get("status") == "True" for type_ in ("Complete", "Failed"))


def completion_index(pod: Obj) -> int | None:
    """The pod's index, None if it has none."""
    value = objects.annotations(pod).get(INDEX, "")
    return int(value) if value.isdigit() else None


def parse_indexes(text: str) -> set[int]:
    """``1,3-5`` as a set."""
    result: set[int] = set()
    for part in filter(None, text.split(",")):
        first, dash, last = part.partition("-")
        result |= set(range(int(first), int(last if dash else first) + 1))
    return result


def format_indexes(indexes: Iterable[int]) -> str:
    """A set as ``1,3-5``; two in a row are written ``3,4``."""
    runs: list[list[int]] = []
    for index in sorted(indexes):
        if runs and index == runs[-1][-1] + 1:
            runs[-1].append(index)
        else:
            runs.append([index])
    return ",".join(f"{run[0]}-{run[-1]}" if len(run) > 2 else ",".join(str(index) for index in run) for run in runs)


def has_failed(pod: Obj) -> bool:
    """Failed, or deleted before it could succeed."""
    return phase(pod) == "Failed" or (is_deleting(pod) and phase(pod) != "Succeeded")


def policy_action(job: Obj, pod: Obj) -> tuple[str, str]:
    """What the pod failure policy says about a failed pod: ``(action, message)``, Count without a matching rule."""
    statuses = [
        *nested(pod, "status", "containerStatuses", default=()),
        *nested(pod, "status", "initContainerStatuses", default=()),
    ]
    for number, rule in enumerate(nested(job, "spec", "podFailurePolicy", "rules", default=())):
        where = f"Pod {pod['metadata']['namespace']}/{pod['metadata']['name']}"
        if codes := rule.get("onExitCodes"):
            for status in statuses:
                code = nested(status, "state", "terminated", "exitCode", default=0)
                named = codes.get("containerName") in (None, status["name"])
                listed = code in codes["values"]
                if named and code and (listed if codes["operator"] == "In" else not listed):
                    text = f"Container {status['name']} for pod {where[4:]} failed with exit code {code}"
                    return rule["action"], f"{text} matching {rule['action']} rule at index {number}"
        for pattern in rule.get("onPodConditions") or ():
            found = find_condition(pod, pattern["type"])
            if found and found.get("status") == (pattern.get("status") or "True"):
                return rule[
                    "action"
                ], f"{where} has condition {pattern['type']} matching {rule['action']} rule at index {number}"
    return "Count", ""


def look(job: Obj, pods: list[Obj], now: datetime) -> Plan:
    """One look: count what has finished, decide whether the Job is done, and otherwise what it still needs."""
    status: Obj = objects.deep_copy(job.get("status") or {})
    plan = Plan(status)
    if is_finished(job):
        plan.unfinalize = [pod for pod in pods if _tracked(pod)]
        return plan
    suspended = bool(job["spec"].get("suspend"))
    _note_suspension(plan, suspended, now)
    if not suspended and not status.get("startTime"):
        status["startTime"] = format_time(now)
    failed_action = _count(job, pods, plan)
    active = [pod for pod in pods if phase(pod) not in ("Succeeded", "Failed") and not is_deleting(pod)]
    uncounted = status.get("uncountedTerminatedPods") or {}
    succeeded = int(status.get("succeeded", 0)) + len(uncounted.get("succeeded") or ())
    failed = int(status.get("failed", 0)) + len(uncounted.get("failed") or ())
    if is_indexed(job):
        succeeded = len(parse_indexes(status.get("completedIndexes") or ""))
    verdict = failed_action or _verdict(
        job, status, succeeded=succeeded, failed=failed, active=len(active), now=now, plan=plan
    )
    if verdict is not None:
        _conclude(plan, verdict, pods, active, now)
        active = []
    elif suspended:
        plan.delete = active
    else:
        _adjust(job, plan, active, pods, succeeded=succeeded, failed=failed, now=now)
    _describe(job, plan, pods, active)
    return plan


def _tracked(pod: Obj) -> bool:
    return FINALIZER in (pod["metadata"].get("finalizers") or ())


def _note_suspension(plan: Plan, suspended: bool, now: datetime) -> None:
    listed = list(plan.status.get("conditions") or [])
    current = conditions.find(listed, "Suspended")
    was = current is not None and current["status"] == "True"
    if suspended == was:
        return
    if suspended:
        new = conditions.condition(
            "Suspended", "True", "JobSuspended", "Job suspended", now, lastProbeTime=format_time(now)
        )
        plan.events.append(("Normal", "Suspended", "Job suspended"))
        plan.status.pop("startTime", None)
    else:
        new = conditions.condition(
            "Suspended", "False", "JobResumed", "Job resumed", now, lastProbeTime=format_time(now)
        )
        plan.events.append(("Normal", "Resumed", "Job resumed"))
        plan.status["startTime"] = format_time(now)
    plan.status["conditions"] = conditions.with_condition(listed, new)


def _count(job: Obj, pods: list[Obj], plan: Plan) -> Verdict | None:
    """The three steps of counting; answers a verdict if the failure policy fails the Job."""
    status = plan.status
    present = {pod["metadata"]["uid"]: pod for pod in pods}
    uncounted = {
        name: list((status.get("uncountedTerminatedPods") or {}).get(name) or ()) for name in ("succeeded", "failed")
    }
    for name, uids in uncounted.items():
        released = [uid for uid in uids if uid not in present or not _tracked(present[uid])]
        if released:
            status[name] = int(status.get(name, 0)) + len(released)
            uncounted[name] = [uid for uid in uids if uid not in released]
    known = {*uncounted["succeeded"], *uncounted["failed"]}
    completed = parse_indexes(status.get("completedIndexes") or "")
    failed_indexes = parse_indexes(status.get("failedIndexes") or "")
    completions = job["spec"].get("completions")
    verdict = None
    for pod in pods:
        uid = pod["metadata"]["uid"]
        if not _tracked(pod) or uid in known:
            continue
        index = completion_index(pod)
        if phase(pod) == "Succeeded":
            uncounted["succeeded"].append(uid)
            if is_indexed(job) and index is not None and index < int(completions or 0):
                completed.add(index)
        elif has_failed(pod):
            action, message = policy_action(job, pod)
            if action == "Ignore":
                plan.unfinalize.append(pod)
                continue
            uncounted["failed"].append(uid)
            if action == "FailJob":
                verdict = verdict or Verdict("Failed", "PodFailurePolicy", message)
            per_index = job["spec"].get("backoffLimitPerIndex")
            if (
                index is not None
                and per_index is not None
                and (action == "FailIndex" or _index_failures(pods, index) > int(per_index))
            ):
                failed_indexes.add(index)
    known = {*uncounted["succeeded"], *uncounted["failed"]}
    plan.unfinalize += [pod for pod in pods if pod["metadata"]["uid"] in known and _tracked(pod)]
    status["uncountedTerminatedPods"] = {name: uids for name, uids in uncounted.items() if uids}
    if is_indexed(job):
        status["completedIndexes"] = format_indexes(completed)
        if job["spec"].get("backoffLimitPerIndex") is not None:
            status["failedIndexes"] = format_indexes(failed_indexes - completed)
    return verdict


def _index_failures(pods: list[Obj], index: int | None) -> int:
    return sum(1 for pod in pods if completion_index(pod) == index and has_failed(pod))


def _verdict(
    job: Obj, status: Obj, *, succeeded: int, failed: int, active: int, now: datetime, plan: Plan
) -> Verdict | None:
    spec = job["spec"]
    per_index = spec.get("backoffLimitPerIndex")
    limit = spec.get("backoffLimit")
    if failed > (6 if limit is None else int(limit)):
        return Verdict("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and status.get("startTime") and not spec.get("suspend"):
        left = (parse_time(status["startTime"]) + timedelta(seconds=int(deadline)) - now).total_seconds()
        if left <= 0:
            return Verdict("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
        plan.wake_in(left)
    completions = spec.get("completions")
    if completions is None:
        if succeeded > 0 and active == 0:
            return Verdict("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
        return None
    if succeeded >= int(completions):
        return Verdict("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    failed_indexes = parse_indexes(status.get("failedIndexes") or "")
    if per_index is not None and failed_indexes:
        most = spec.get("maxFailedIndexes")
        if most is not None and len(failed_indexes) > int(most):
            return Verdict(
                "Failed", "MaxFailedIndexesExceeded", "Job has exceeded the specified maximal number of failed indexes"
            )
        if active == 0 and succeeded + len(failed_indexes) >= int(completions):
            return Verdict("Failed", "FailedIndexes", "Job has failed indexes")
    return None


def _conclude(plan: Plan, verdict: Verdict, pods: list[Obj], active: list[Obj], now: datetime) -> None:
    """First the interim condition while pods still run or are uncounted, then the final one."""
    listed = list(plan.status.get("conditions") or [])
    interim = {"Complete": "SuccessCriteriaMet", "Failed": "FailureTarget"}[verdict.type]
    probe = {"lastProbeTime": format_time(now)}
    listed = conditions.with_condition(
        listed, conditions.condition(interim, "True", verdict.reason, verdict.message, now, **probe)
    )
    plan.delete = active
    going = [pod for pod in pods if phase(pod) not in ("Succeeded", "Failed") and pod not in active]
    if not active and not going and not plan.status.get("uncountedTerminatedPods"):
        listed = conditions.with_condition(
            listed, conditions.condition(verdict.type, "True", verdict.reason, verdict.message, now, **probe)
        )
        if verdict.type == "Complete":
            plan.status["completionTime"] = format_time(now)
            plan.events.append(("Normal", "Completed", "Job completed"))
        else:
            plan.events.append(("Warning", verdict.reason, verdict.message))
    plan.status["conditions"] = listed


def _adjust(
    job: Obj, plan: Plan, active: list[Obj], pods: list[Obj], *, succeeded: int, failed: int, now: datetime
) -> None:
    """Create or delete pods towards the parallelism (upstream manageJob)."""
    spec = job["spec"]
    parallelism = int(spec.get("parallelism") if spec.get("parallelism") is not None else 1)
    completions = spec.get("completions")
    if completions is None:
        wanted = len(active) if succeeded else parallelism
    else:
        wanted = min(parallelism, max(0, int(completions) - succeeded))
    if len(active) > wanted:
        ranked = sorted(active, key=lambda pod: (is_ready(pod), pod["metadata"].get("creationTimestamp") or ""))
        plan.delete = ranked[: len(active) - wanted]
        return
    count = wanted - len(active)
    if spec.get("podReplacementPolicy") == "Failed":
        count -= sum(1 for pod in pods if is_deleting(pod) and phase(pod) not in ("Succeeded", "Failed"))
    if count <= 0:
        return
    if (pause := _backoff(pods, failed, now)) > 0:
        plan.wake_in(pause)
        return
    if not is_indexed(job):
        plan.create = [None] * count
        return
    taken = parse_indexes(plan.status.get("completedIndexes") or "") | parse_indexes(
        plan.status.get("failedIndexes") or ""
    )
    taken |= {index for pod in active if (index := completion_index(pod)) is not None}
    free = (index for index in range(int(completions or 0)) if index not in taken)
    plan.create = [index for index, _ in zip(free, range(count), strict=False)]


def _backoff(pods: list[Obj], failed: int, now: datetime) -> float:
    """Seconds until failed pods may be replaced: 10 s after the first failure, doubling, at most 10 min."""
    if not failed:
        return 0.0
    last = max((end for pod in pods if phase(pod) == "Failed" and (end := _finished_at(pod))), default=None)
    if last is None:
        return 0.0
    pause: float = min(_BACKOFF_MAX, _BACKOFF_BASE * 2 ** min(failed - 1, 10))
    return pause - (now - last).total_seconds()


def _finished_at(pod: Obj) -> datetime | None:
    ends = [
        parse_time(stamp)
        for status in nested(pod, "status", "containerStatuses", default=())
        if (stamp := nested(status, "state", "terminated", "finishedAt"))
    ]
    return max(ends, default=None)


def _describe(job: Obj, plan: Plan, pods: list[Obj], active: list[Obj]) -> None:
    status = plan.status
    remaining = [pod for pod in active if pod not in plan.delete]
    status["active"] = len(remaining) + len(plan.create)
    status["ready"] = sum(1 for pod in remaining if is_ready(pod))
    status["terminating"] = sum(1 for pod in pods if is_deleting(pod) and phase(pod) not in ("Succeeded", "Failed"))
    for name in ("active", "completedIndexes"):
        if not status.get(name):
            status.pop(name, None)
