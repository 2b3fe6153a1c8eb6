"""Jobs: what a Job's pods mean for its status, and which pods to create or delete. No I/O.

A finished pod counts once: its uid is first written into ``status.uncountedTerminatedPods``, then its finalizer is taken
off, then the counter goes up (KEP-2307). With ``backoffLimitPerIndex`` the last failed pod of an index keeps its
finalizer until its replacement is there, which carries the index's number of failures on. Upstream: pkg/controller/job
(job_controller.go, indexed_job_utils.go, backoff_utils.go, pod_failure_policy.go, success_policy.go).
"""

from __future__ import annotations

import itertools
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
INDEX_FAILURES = "batch.kubernetes.io/job-index-failure-count"
INDEX_IGNORED_FAILURES = "batch.kubernetes.io/job-index-ignored-failure-count"
_BACKOFF_BASE, _BACKOFF_MAX = 10.0, 600.0


@dataclass(slots=True)
class Verdict:
    """How the Job ends: the type of the final condition, with reason and message."""

    type: str
    reason: str
    message: str


@dataclass(slots=True)
class Plan:
    """The outcome of one look at a Job; ``replaced`` has the failed pods of indexes whose turn it is again."""

    status: Obj
    replaced: dict[int, Obj] = field(default_factory=dict)
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


def has_failed(job: Obj, pod: Obj) -> bool:
    """Failed; or deleted before it could succeed, unless only pods that have ended are replaced."""
    if phase(pod) == "Failed" or job["spec"].get("podReplacementPolicy") == "Failed":
        return phase(pod) == "Failed"
    return is_deleting(pod) and phase(pod) != "Succeeded"


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
    _settle(plan, pods)
    if is_indexed(job):
        _note_indexes(job, pods, plan)
    fresh = _uncounted(plan, pods)
    active = [pod for pod in pods if phase(pod) not in ("Succeeded", "Failed") and not is_deleting(pod)]
    verdict = _decided(status) or _policy_verdict(job, pods)
    if verdict is None:
        verdict = _verdict(job, plan, pods, fresh, active=len(active), now=now)
    if verdict is None and job["spec"].get("backoffLimitPerIndex") is not None:
        plan.replaced = _replaced(job, plan, fresh, active)
    _take(job, plan, pods, fresh, failing=verdict is not None and verdict.type == "Failed")
    succeeded, failed = _totals(job, plan, [pod for pod in fresh if pod in plan.replaced.values()])
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


def _settle(plan: Plan, pods: list[Obj]) -> None:
    """Count the noted pods that have lost their finalizer."""
    tracked = {pod["metadata"]["uid"] for pod in pods if _tracked(pod)}
    noted = plan.status.get("uncountedTerminatedPods") or {}
    plan.status["uncountedTerminatedPods"] = {}
    for name, uids in noted.items():
        kept = [uid for uid in uids if uid in tracked]
        if len(kept) < len(uids):
            plan.status[name] = int(plan.status.get(name, 0)) + len(uids) - len(kept)
        if kept:
            plan.status["uncountedTerminatedPods"][name] = kept


def _uncounted(plan: Plan, pods: list[Obj]) -> list[Obj]:
    """The Job's pods that are neither counted nor noted for it."""
    noted = {uid for uids in plan.status["uncountedTerminatedPods"].values() for uid in uids}
    return [pod for pod in pods if _tracked(pod) and pod["metadata"]["uid"] not in noted]


def _note_indexes(job: Obj, pods: list[Obj], plan: Plan) -> None:
    """Add what has come to its end since to ``completedIndexes`` and ``failedIndexes``."""
    status, spec = plan.status, job["spec"]
    completed = parse_indexes(status.get("completedIndexes") or "")
    failed = parse_indexes(status.get("failedIndexes") or "")
    for pod in pods:
        index = completion_index(pod)
        if not _tracked(pod) or index is None or index >= int(spec.get("completions") or 0):
            continue
        if phase(pod) == "Succeeded":
            completed.add(index)
        elif spec.get("backoffLimitPerIndex") is not None and has_failed(job, pod):
            action, _ = policy_action(job, pod)
            used_up = _number(pod, INDEX_FAILURES) >= int(spec["backoffLimitPerIndex"])
            if action == "FailIndex" or (action != "Ignore" and used_up):
                failed.add(index)
    status["completedIndexes"] = format_indexes(completed)
    if spec.get("backoffLimitPerIndex") is not None:
        status["failedIndexes"] = format_indexes(failed - completed)


def _take(job: Obj, plan: Plan, pods: list[Obj], fresh: list[Obj], *, failing: bool) -> None:
    """Note finished pods as to be counted, and let their finalizers go; when the Job fails, what still runs has failed."""
    noted = plan.status["uncountedTerminatedPods"]
    for pod in fresh:
        if pod in plan.replaced.values():
            continue
        if phase(pod) == "Succeeded":
            noted.setdefault("succeeded", []).append(pod["metadata"]["uid"])
        elif failing or has_failed(job, pod):
            if policy_action(job, pod)[0] == "Ignore":
                plan.unfinalize.append(pod)
            else:
                noted.setdefault("failed", []).append(pod["metadata"]["uid"])
    known = {uid for uids in noted.values() for uid in uids}
    plan.unfinalize += [pod for pod in pods if _tracked(pod) and pod["metadata"]["uid"] in known]


def _totals(job: Obj, plan: Plan, fresh: list[Obj]) -> tuple[int, int]:
    """How many pods (indexes) have succeeded and how many have failed, with those that are not noted yet."""
    status, noted = plan.status, plan.status["uncountedTerminatedPods"]
    succeeded = int(status.get("succeeded", 0)) + len(noted.get("succeeded") or ())
    succeeded += sum(1 for pod in fresh if phase(pod) == "Succeeded")
    if is_indexed(job):
        succeeded = len(parse_indexes(status.get("completedIndexes") or ""))
    failed = int(status.get("failed", 0)) + len(noted.get("failed") or ())
    failed += sum(1 for pod in fresh if has_failed(job, pod) and policy_action(job, pod)[0] != "Ignore")
    return succeeded, failed


def _number(pod: Obj, annotation: str) -> int:
    value = objects.annotations(pod).get(annotation, "")
    return int(value) if value.isdigit() else 0


def _failures(pod: Obj) -> int:
    """How often a pod's index had failed before, for whatever reason."""
    return _number(pod, INDEX_FAILURES) + _number(pod, INDEX_IGNORED_FAILURES)


def _replaced(job: Obj, plan: Plan, fresh: list[Obj], active: list[Obj]) -> dict[int, Obj]:
    """The last failed pod of each index that waits for a new one (upstream getPodsWithDelayedDeletionPerIndex)."""
    settled = parse_indexes(plan.status["completedIndexes"]) | parse_indexes(plan.status["failedIndexes"])
    settled |= {index for pod in active if (index := completion_index(pod)) is not None}
    last: dict[int, Obj] = {}
    for pod in fresh:
        index = completion_index(pod)
        if index is None or index in settled or index >= int(job["spec"]["completions"]) or not has_failed(job, pod):
            continue
        if index not in last or _failures(pod) >= _failures(last[index]):
            last[index] = pod
    return last


def failure_annotations(job: Obj, replaced: Obj | None) -> dict[str, str]:
    """The number of failures that the pod of an index begins with (upstream addIndexFailureCountAnnotation)."""
    counted = ignored = 0
    if replaced is not None:
        counted, ignored = _number(replaced, INDEX_FAILURES), _number(replaced, INDEX_IGNORED_FAILURES)
        if policy_action(job, replaced)[0] == "Ignore":
            ignored += 1
        else:
            counted += 1
    return {INDEX_FAILURES: str(counted), **({INDEX_IGNORED_FAILURES: str(ignored)} if ignored else {})}


def _decided(status: Obj) -> Verdict | None:
    """What an earlier look has decided on, and a later one does not take back."""
    for interim, final in (("SuccessCriteriaMet", "Complete"), ("FailureTarget", "Failed")):
        found = conditions.find(status.get("conditions") or [], interim)
        if found is not None and found.get("status") == "True":
            return Verdict(final, found.get("reason", ""), found.get("message", ""))
    return None


def _policy_verdict(job: Obj, pods: list[Obj]) -> Verdict | None:
    for pod in pods if job["spec"].get("podFailurePolicy") else ():
        if has_failed(job, pod):
            action, message = policy_action(job, pod)
            if action == "FailJob":
                return Verdict("Failed", "PodFailurePolicy", message)
    return None


def _verdict(job: Obj, plan: Plan, pods: list[Obj], fresh: list[Obj], *, active: int, now: datetime) -> Verdict | None:
    """Failures first, then the success policy, then the number of completions."""
    spec, status = job["spec"], plan.status
    succeeded, failed = _totals(job, plan, fresh)
    limit = 6 if spec.get("backoffLimit") is None else int(spec["backoffLimit"])
    if failed > limit or _restarted_too_often(job, pods, limit):
        return Verdict("Failed", "BackoffLimitExceeded", "Job has reached the specified backoff limit")
    deadline = spec.get("activeDeadlineSeconds")
    if deadline is not None and status.get("startTime") and not spec.get("suspend"):
        left = (parse_time(status["startTime"]) + timedelta(seconds=int(deadline)) - now).total_seconds()
        if left <= 0:
            return Verdict("Failed", "DeadlineExceeded", "Job was active longer than specified deadline")
        plan.wake_in(left)
    completions = spec.get("completions")
    if is_indexed(job) and (found := _index_verdict(job, status)) is not None:
        return found
    if succeeded >= int(completions) if completions is not None else succeeded > 0 and active == 0:
        return Verdict("Complete", "CompletionsReached", "Reached expected number of succeeded pods")
    return None


def _restarted_too_often(job: Obj, pods: list[Obj], limit: int) -> bool:
    """Upstream pastBackoffLimitOnFailure: restarts of containers count where pods are not replaced."""
    if nested(job, "spec", "template", "spec", "restartPolicy") != "OnFailure":
        return False
    restarts = sum(
        int(status.get("restartCount") or 0)
        for pod in pods
        if phase(pod) in ("Running", "Pending")
        for name in ("initContainerStatuses", "containerStatuses")
        for status in nested(pod, "status", name, default=())
    )
    return restarts >= max(limit, 1)


def _index_verdict(job: Obj, status: Obj) -> Verdict | None:
    spec = job["spec"]
    succeeded = parse_indexes(status.get("completedIndexes") or "")
    failed = parse_indexes(status.get("failedIndexes") or "")
    most = spec.get("maxFailedIndexes")
    if most is not None and len(failed) > int(most):
        text = "Job has exceeded the specified maximal number of failed indexes"
        return Verdict("Failed", "MaxFailedIndexesExceeded", text)
    if failed and len(succeeded) + len(failed) >= int(spec["completions"]):
        return Verdict("Failed", "FailedIndexes", "Job has failed indexes")
    for number, rule in enumerate(nested(spec, "successPolicy", "rules", default=()) if succeeded else ()):
        wanted = parse_indexes(rule.get("succeededIndexes") or "")
        there = len(succeeded & wanted) if wanted else len(succeeded)
        enough = rule.get("succeededCount")
        if (wanted and there == len(wanted)) or (enough is not None and there >= int(enough)):
            return Verdict("Complete", "SuccessPolicy", f"Matched rules at index {number}")
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
    per_index = spec.get("backoffLimitPerIndex") is not None
    if not per_index and (pause := _backoff(pods, failed, now)) > 0:
        plan.wake_in(pause)
        return
    if not is_indexed(job):
        plan.create = [None] * count
        return
    taken = parse_indexes(plan.status.get("completedIndexes") or "") | parse_indexes(
        plan.status.get("failedIndexes") or ""
    )
    held = [pod for pod in pods if is_deleting(pod)] if spec.get("podReplacementPolicy") == "Failed" else []
    taken |= {index for pod in (*active, *held) if (index := completion_index(pod)) is not None}
    free = (index for index in range(int(completions or 0)) if index not in taken)
    for index in itertools.islice(free, count):
        last = plan.replaced.get(index)
        if last is not None and (pause := _backoff([last], _failures(last) + 1, now)) > 0:
            plan.wake_in(pause)
        else:
            plan.create.append(index)


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
