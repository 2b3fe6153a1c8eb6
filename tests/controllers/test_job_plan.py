"""What a Job's pods mean for it: verdicts, and the pods to come."""

from __future__ import annotations

from datetime import UTC, datetime, timedelta
from typing import Any

import pytest

from bowsprit.controllers.job_plan import FINALIZER, INDEX, INDEX_FAILURES, failure_annotations, look

Obj = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)


def job(status: Obj | None = None, restarts: str = "Never", **spec: Any) -> Obj:
    template = {"spec": {"restartPolicy": restarts}}
    defaults = {"completions": 1, "parallelism": 1, "backoffLimit": 6, "template": template}
    return {"metadata": {"name": "j", "namespace": "d"}, "spec": {**defaults, **spec}, "status": status or {}}


def pod(name: str, phase: str, index: int | None = None, failures: int = 0, **status: Any) -> Obj:
    annotations = {} if index is None else {INDEX: str(index), INDEX_FAILURES: str(failures)}
    meta = {"name": name, "namespace": "d", "uid": name, "finalizers": [FINALIZER], "annotations": annotations}
    return {"metadata": meta, "status": {"phase": phase, **status}}


def ended(code: int, seconds_ago: float = 0) -> Obj:
    at = (NOW - timedelta(seconds=seconds_ago)).strftime("%Y-%m-%dT%H:%M:%SZ")
    return {"containerStatuses": [{"name": "c", "state": {"terminated": {"exitCode": code, "finishedAt": at}}}]}


def reasons(status: Obj) -> list[tuple[str, str]]:
    return [(item["type"], item["reason"]) for item in status.get("conditions", ())]


def test_a_decision_outlives_the_pod_that_led_to_it() -> None:
    rules = [{"action": "FailJob", "onExitCodes": {"operator": "In", "values": [42]}}]
    fields: Obj = {"podFailurePolicy": {"rules": rules}, "podReplacementPolicy": "Failed"}
    first = look(job(**fields), [pod("a", "Failed", **ended(42))], NOW)
    assert reasons(first.status) == [("FailureTarget", "PodFailurePolicy")]
    gone = look(job(first.status, **fields), [], NOW)
    assert reasons(gone.status) == [("FailureTarget", "PodFailurePolicy"), ("Failed", "PodFailurePolicy")]
    assert (gone.create, gone.status["failed"]) == ([], 1)


@pytest.mark.parametrize(("limit", "restarts", "fails"), [(0, 0, False), (0, 1, True), (3, 2, False), (3, 3, True)])
def test_restarts_count_where_pods_are_not_replaced(limit: int, restarts: int, fails: bool) -> None:
    running = pod("a", "Running", containerStatuses=[{"name": "c", "restartCount": restarts}])
    plan = look(job(backoffLimit=limit, restarts="OnFailure"), [running], NOW)
    assert reasons(plan.status) == ([("FailureTarget", "BackoffLimitExceeded")] if fails else [])
    assert not reasons(look(job(backoffLimit=limit), [running], NOW).status)


def indexed(status: Obj | None = None, **spec: Any) -> Obj:
    return job(status, completionMode="Indexed", completions=3, parallelism=3, **spec)


def test_an_index_waits_for_its_own_back_off_and_carries_its_failures_on() -> None:
    made = indexed(backoffLimitPerIndex=3, backoffLimit=100)
    pods = [pod("a", "Failed", 0, 1, **ended(1, 5)), pod("b", "Failed", 1, 0, **ended(1, 11)), pod("c", "Running", 2)]
    plan = look(made, pods, NOW)
    assert plan.create == [1]  # index 0 has failed twice: 20 seconds
    assert plan.wake == pytest.approx(15)
    assert plan.unfinalize == []  # held until the replacement is there
    assert failure_annotations(made, plan.replaced[1]) == {INDEX_FAILURES: "1"}
    later = look(
        indexed(plan.status, backoffLimitPerIndex=3, backoffLimit=100), [*pods, pod("d", "Running", 1, 1)], NOW
    )
    assert [item["metadata"]["name"] for item in later.unfinalize] == ["b"]
    assert later.create == []


def test_an_index_beyond_its_limit_fails_alone() -> None:
    pods = [pod("a", "Failed", 0, 1, **ended(1)), pod("b", "Running", 1), pod("c", "Running", 2)]
    plan = look(indexed(backoffLimitPerIndex=1, backoffLimit=100), pods, NOW)
    assert plan.status["failedIndexes"] == "0"
    assert (plan.create, plan.delete, reasons(plan.status)) == ([], [], [])
    plan = look(indexed(backoffLimitPerIndex=1, backoffLimit=100, maxFailedIndexes=0), pods, NOW)
    assert reasons(plan.status) == [("FailureTarget", "MaxFailedIndexesExceeded")]
    assert len(plan.delete) == 2


@pytest.mark.parametrize(
    ("rule", "met"),
    [
        ({"succeededIndexes": "0,2"}, True),
        ({"succeededIndexes": "0-1"}, False),
        ({"succeededIndexes": "0-1", "succeededCount": 1}, True),
        ({"succeededCount": 2}, True),
        ({"succeededCount": 3}, False),
    ],
)
def test_success_policies(rule: Obj, met: bool) -> None:
    pods = [pod("a", "Succeeded", 0), pod("b", "Running", 1), pod("c", "Succeeded", 2)]
    plan = look(indexed(successPolicy={"rules": [{"succeededCount": 3}, rule]}), pods, NOW)
    assert reasons(plan.status) == ([("SuccessCriteriaMet", "SuccessPolicy")] if met else [])
    assert [item["metadata"]["name"] for item in plan.delete] == (["b"] if met else [])


def test_a_deleted_pod_is_replaced_at_once_or_when_it_has_ended() -> None:
    going = pod("a", "Running")
    going["metadata"]["deletionTimestamp"] = "2026-01-01T12:00:00Z"
    assert look(job(), [going], NOW).status["uncountedTerminatedPods"] == {"failed": ["a"]}
    held = look(job(podReplacementPolicy="Failed"), [going], NOW)
    assert (held.status["uncountedTerminatedPods"], held.create) == ({}, [])


def test_what_still_runs_when_the_job_fails_has_failed() -> None:
    began = {"startTime": (NOW - timedelta(seconds=5)).strftime("%Y-%m-%dT%H:%M:%SZ")}
    plan = look(job(began, activeDeadlineSeconds=3), [pod("a", "Running")], NOW)
    assert plan.status["uncountedTerminatedPods"] == {"failed": ["a"]}
    assert plan.delete == plan.unfinalize == [pod("a", "Running")]
    going = {**pod("a", "Succeeded"), "metadata": {"name": "a", "namespace": "d", "uid": "a"}}
    ended_now = look(job(plan.status, activeDeadlineSeconds=3), [going], NOW)
    assert reasons(ended_now.status)[-1] == ("Failed", "DeadlineExceeded")
    assert (ended_now.status["failed"], ended_now.status.get("succeeded")) == (1, None)
