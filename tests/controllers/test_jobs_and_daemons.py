"""Jobs, DaemonSets and what happens when nodes come, go, or fall silent."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bowsprit.client.resources import CONTROLLER_REVISIONS, DAEMON_SETS, JOBS, NODES, PODS
from bowsprit.machinery import objects
from bowsprit.machinery.objects import deep_copy, find_condition, nested

Obj = dict[str, Any]


def job(name: str = "j", annotations: dict[str, str] | None = None, **spec: Any) -> Obj:
    meta = {"annotations": {"bowsprit.dev/run-duration": "50ms", **(annotations or {})}}
    pod_spec = {"restartPolicy": "Never", "containers": [{"name": "main", "image": "busybox"}]}
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "completions": 1,
            "parallelism": 1,
            "backoffLimit": 6,
            "template": {"metadata": meta, "spec": pod_spec},
            **spec,
        },
    }


async def finished(cluster: Any, type_: str, name: str = "j") -> Obj:
    def look() -> Obj | None:
        found: Obj = cluster.find(JOBS, name)
        condition = find_condition(found, type_)
        return found if condition and condition["status"] == "True" else None

    result: Obj = await cluster.eventually(look)
    return result


async def test_a_job_completes_and_counts_each_pod_once(cluster: Any) -> None:
    await cluster.create(JOBS, job(completions=5, parallelism=2))
    done = await finished(cluster, "Complete")
    status = done["status"]
    assert status["succeeded"] == 5
    assert status["uncountedTerminatedPods"] == {}
    assert "active" not in status
    assert [item["type"] for item in status["conditions"]] == ["SuccessCriteriaMet", "Complete"]
    assert status["conditions"][1]["reason"] == "CompletionsReached"
    assert status["startTime"]
    assert status["completionTime"]
    pods = cluster.all(PODS)
    assert len(pods) == 5
    assert not any(pod["metadata"].get("finalizers") for pod in pods)
    await cluster.delete(JOBS, "j", namespace="default", propagation_policy="Background")  # the default orphans
    await cluster.eventually(lambda: not cluster.all(PODS))


async def test_a_job_fails_beyond_its_backoff_limit(cluster: Any) -> None:
    await cluster.create(JOBS, job(backoffLimit=0, annotations={"bowsprit.dev/exit-code": "3"}))
    failed = await finished(cluster, "Failed")
    assert [item["type"] for item in failed["status"]["conditions"]] == ["FailureTarget", "Failed"]
    assert failed["status"]["conditions"][1]["reason"] == "BackoffLimitExceeded"
    assert failed["status"]["failed"] == 1


async def test_an_indexed_job_runs_every_index(cluster: Any) -> None:
    await cluster.create(JOBS, job(completions=4, parallelism=2, completionMode="Indexed"))
    done = await finished(cluster, "Complete")
    assert done["status"]["completedIndexes"] == "0-3"
    indexes = {pod["metadata"]["labels"]["batch.kubernetes.io/job-completion-index"] for pod in cluster.all(PODS)}
    assert indexes == {"0", "1", "2", "3"}
    pod = cluster.all(PODS)[0]
    assert pod["spec"]["hostname"] == pod["metadata"]["generateName"].rstrip("-")
    assert pod["spec"]["containers"][0]["env"][0]["name"] == "JOB_COMPLETION_INDEX"


async def test_a_success_policy_ends_an_indexed_job_early(cluster: Any) -> None:
    rules = [{"succeededIndexes": "0-2"}, {"succeededIndexes": "1-3", "succeededCount": 1}]
    made = job(completions=4, completionMode="Indexed", successPolicy={"rules": rules})
    await cluster.create(JOBS, made)
    done = await finished(cluster, "Complete")
    assert {(item["reason"], item["message"]) for item in done["status"]["conditions"]} == {
        ("SuccessPolicy", "Matched rules at index 1")
    }
    assert done["status"]["completedIndexes"] == "0,1"
    assert "active" not in done["status"]
    await cluster.eventually(lambda: all(not pod["metadata"].get("finalizers") for pod in cluster.all(PODS)))


async def test_an_index_fails_on_its_own(cluster: Any) -> None:
    made = job(
        completions=2,
        parallelism=2,
        completionMode="Indexed",
        backoffLimit=2**31 - 1,
        backoffLimitPerIndex=0,
        annotations={"bowsprit.dev/exit-code": "3"},
    )
    await cluster.create(JOBS, made)
    done = await finished(cluster, "Failed")
    assert done["status"]["failedIndexes"] == "0,1"
    assert done["status"]["failed"] == 2
    assert {item["reason"] for item in done["status"]["conditions"]} == {"FailedIndexes"}
    counts = [objects.annotations(pod)["batch.kubernetes.io/job-index-failure-count"] for pod in cluster.all(PODS)]
    assert counts == ["0", "0"]


async def test_a_suspended_job_has_no_pods_until_it_is_resumed(cluster: Any) -> None:
    await cluster.create(JOBS, job(suspend=True))
    await cluster.settle()
    assert not cluster.all(PODS)
    await cluster.patch(JOBS, "j", {"spec": {"suspend": False}}, namespace="default")
    done = await finished(cluster, "Complete")
    suspended = find_condition(done, "Suspended")
    assert suspended is not None
    assert suspended["status"] == "False"


async def test_a_deadline_ends_a_job_and_its_pods(cluster: Any) -> None:
    await cluster.create(JOBS, job(activeDeadlineSeconds=1, annotations={"bowsprit.dev/run-duration": "forever"}))
    failed = await finished(cluster, "Failed")
    assert failed["status"]["conditions"][1]["reason"] == "DeadlineExceeded"
    await cluster.eventually(lambda: not cluster.all(PODS))


async def test_a_finished_job_goes_when_its_time_is_up(cluster: Any) -> None:
    await cluster.create(JOBS, job(ttlSecondsAfterFinished=1))
    await finished(cluster, "Complete")
    await cluster.eventually(lambda: not cluster.find(JOBS, "j") and not cluster.all(PODS))


async def test_deleting_a_running_job_leaves_no_pod_behind(cluster: Any) -> None:
    await cluster.create(JOBS, job(annotations={"bowsprit.dev/run-duration": "forever"}))
    await cluster.eventually(lambda: nested((cluster.all(PODS) or [{}])[0], "status", "phase") == "Running")
    await cluster.delete(JOBS, "j", namespace="default", propagation_policy="Background")
    await cluster.eventually(lambda: not cluster.all(PODS))


def daemon_set(image: str = "agent:1", **template_spec: Any) -> Obj:
    pod_spec = {"containers": [{"name": "agent", "image": image}], **template_spec}
    return {
        "metadata": {"name": "d", "namespace": "default"},
        "spec": {
            "selector": {"matchLabels": {"app": "d"}},
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"maxUnavailable": 1, "maxSurge": 0}},
            "template": {"metadata": {"labels": {"app": "d"}}, "spec": pod_spec},
            "revisionHistoryLimit": 10,
        },
    }


def nodes_with_pods(cluster: Any) -> list[str]:
    return sorted(nested(pod, "spec", "nodeName", default="") for pod in cluster.all(PODS))


def ready(cluster: Any, count: int) -> bool:
    found = cluster.find(DAEMON_SETS, "d")
    status = found.get("status") or {}
    seen = status.get("observedGeneration") == found["metadata"]["generation"]
    return bool(seen and status.get("numberAvailable", 0) == status.get("updatedNumberScheduled", 0) == count)


async def test_a_daemon_runs_on_every_node_also_on_new_ones(cluster: Any) -> None:
    await cluster.create(DAEMON_SETS, daemon_set())
    await cluster.eventually(lambda: ready(cluster, 2))
    assert nodes_with_pods(cluster) == ["node-0", "node-1"]
    extra = deep_copy(cluster.find(NODES, "node-0"))
    extra["metadata"] = {"name": "extra", "labels": {"kubernetes.io/hostname": "extra"}}
    await cluster.create(NODES, extra)
    await cluster.eventually(lambda: nodes_with_pods(cluster) == ["extra", "node-0", "node-1"])
    await cluster.eventually(lambda: cluster.find(DAEMON_SETS, "d")["status"]["desiredNumberScheduled"] == 3)
    taint = {"key": "dedicated", "value": "x", "effect": "NoExecute"}
    await cluster.patch(NODES, "node-1", {"spec": {"taints": [taint]}})
    await cluster.eventually(lambda: "node-1" not in nodes_with_pods(cluster))


async def test_a_daemon_rolls_one_node_at_a_time(cluster: Any) -> None:
    await cluster.create(DAEMON_SETS, daemon_set())
    await cluster.eventually(lambda: ready(cluster, 2))
    start = len(cluster.log)
    template = {"spec": {"containers": [{"name": "agent", "image": "agent:2"}]}}
    await cluster.patch(DAEMON_SETS, "d", {"spec": {"template": template}}, namespace="default")
    await cluster.eventually(lambda: ready(cluster, 2))
    assert {pod["spec"]["containers"][0]["image"] for pod in cluster.all(PODS)} == {"agent:2"}
    available = [
        nested(obj, "status", "numberAvailable", default=0)
        for _, kind, _, obj in cluster.log[start:]
        if kind == ("apps", "daemonsets")
    ]
    assert min(available) >= 1
    assert [item["revision"] for item in cluster.all(CONTROLLER_REVISIONS)] == [1, 2]


async def test_a_silent_node_is_tainted_and_its_pods_are_evicted(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bowsprit.controllers.nodelifecycle.NodeLifecycleController.grace", 0.3)
    monkeypatch.setattr("bowsprit.controllers.nodelifecycle.NodeLifecycleController.period", 0.1)
    node = {
        "metadata": {"name": "silent"},
        "status": {"conditions": [{"type": "Ready", "status": "True", "lastHeartbeatTime": "2026-01-01T00:00:00Z"}]},
    }
    await cluster.create(NODES, node)
    spec = {"nodeName": "silent", "containers": [{"name": "c", "image": "i"}]}
    for name, seconds in (("now", 0), ("later", 1)):
        toleration = {"key": "node.kubernetes.io/unreachable", "operator": "Exists", "effect": "NoExecute"}
        tolerations = [{**toleration, "tolerationSeconds": seconds}]
        await cluster.create(
            PODS, {"metadata": {"name": name, "namespace": "default"}, "spec": {**spec, "tolerations": tolerations}}
        )
    await cluster.eventually(lambda: cluster.find(PODS, "now")["metadata"].get("deletionTimestamp"))
    ready_condition = find_condition(cluster.find(NODES, "silent"), "Ready")
    assert ready_condition is not None
    assert (ready_condition["status"], ready_condition["reason"]) == ("Unknown", "NodeStatusUnknown")
    taints = {(taint["key"], taint["effect"]) for taint in cluster.find(NODES, "silent")["spec"]["taints"]}
    assert taints == {
        ("node.kubernetes.io/unreachable", "NoSchedule"),
        ("node.kubernetes.io/unreachable", "NoExecute"),
    }
    assert not cluster.find(PODS, "later")["metadata"].get("deletionTimestamp")
    await cluster.eventually(lambda: cluster.find(PODS, "later")["metadata"].get("deletionTimestamp"))
    disrupted = find_condition(cluster.find(PODS, "later"), "DisruptionTarget")
    assert disrupted is not None
    assert disrupted["reason"] == "DeletionByTaintManager"


async def test_pods_of_a_node_that_is_gone_are_removed(cluster: Any, monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bowsprit.controllers.nodelifecycle.PodGarbageCollector.period", 0.05)
    monkeypatch.setattr("bowsprit.controllers.nodelifecycle.PodGarbageCollector.quarantine", 0.1)
    spec = {"nodeName": "never-was", "containers": [{"name": "c", "image": "i"}]}
    await asyncio.sleep(0)
    await cluster.create(PODS, {"metadata": {"name": "lost", "namespace": "default"}, "spec": spec})
    # the first look at the start of the controllers has happened; the class attribute counts from the next one on
    from bowsprit.controllers.nodelifecycle import PodGarbageCollector

    collector = next(item for item in cluster.manager.controllers if isinstance(item, PodGarbageCollector))
    collector.queue.add("all")
    await cluster.eventually(lambda: not cluster.find(PODS, "lost"))
