"""StatefulSets, CronJobs, quotas and disruption budgets."""

from __future__ import annotations

import base64
from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.apiserver.authentication.jwt import unverified_claims
from bowsprit.client.resources import (
    CRON_JOBS,
    JOBS,
    PERSISTENT_VOLUME_CLAIMS,
    PERSISTENT_VOLUMES,
    POD_DISRUPTION_BUDGETS,
    PODS,
    RESOURCE_QUOTAS,
    SECRETS,
    SERVICE_ACCOUNTS,
    STATEFUL_SETS,
    STORAGE_CLASSES,
)
from bowsprit.controllers.cron_schedule import Schedule, ScheduleError
from bowsprit.controllers.cronjob import due
from bowsprit.controllers.statefulset_claims import owners
from bowsprit.machinery.objects import find_condition, nested

Obj = dict[str, Any]


def stateful_set(replicas: int = 3, image: str = "db:1", **spec: Any) -> Obj:
    return {
        "metadata": {"name": "db", "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "serviceName": "db",
            "selector": {"matchLabels": {"app": "db"}},
            "template": {
                "metadata": {"labels": {"app": "db"}},
                "spec": {"containers": [{"name": "db", "image": image}]},
            },
            "updateStrategy": {"type": "RollingUpdate", "rollingUpdate": {"partition": 0}},
            "podManagementPolicy": "OrderedReady",
            "revisionHistoryLimit": 10,
            **spec,
        },
    }


def settled(cluster: Any, replicas: int) -> bool:
    found = cluster.find(STATEFUL_SETS, "db")
    status = found.get("status") or {}
    return bool(
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("availableReplicas") == status.get("replicas") == replicas
        and (not replicas or status.get("currentRevision") == status.get("updateRevision"))
    )


def order(cluster: Any, start: int, type_: str) -> list[str]:
    return [
        obj["metadata"]["name"] for _, kind, event, obj in cluster.log[start:] if (kind, event) == (("", "pods"), type_)
    ]


async def test_a_stateful_set_starts_and_stops_in_order(cluster: Any) -> None:
    claim = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    await cluster.create(STATEFUL_SETS, stateful_set(volumeClaimTemplates=[claim]))
    await cluster.eventually(lambda: settled(cluster, 3))
    assert order(cluster, 0, "ADDED") == ["db-0", "db-1", "db-2"]
    pod = cluster.find(PODS, "db-1")
    assert pod["metadata"]["labels"]["apps.kubernetes.io/pod-index"] == "1"
    assert (pod["spec"]["hostname"], pod["spec"]["subdomain"]) == ("db-1", "db")
    claims = {item["metadata"]["name"] for item in cluster.all(PERSISTENT_VOLUME_CLAIMS)}
    assert claims == {"data-db-0", "data-db-1", "data-db-2"}
    start = len(cluster.log)
    await cluster.patch(STATEFUL_SETS, "db", {"spec": {"replicas": 0}}, namespace="default")
    await cluster.eventually(lambda: settled(cluster, 0))
    assert order(cluster, start, "DELETED") == ["db-2", "db-1", "db-0"]


async def test_a_stateful_set_rolls_from_the_top_down_to_its_partition(cluster: Any) -> None:
    await cluster.create(STATEFUL_SETS, stateful_set())
    await cluster.eventually(lambda: settled(cluster, 3))
    start = len(cluster.log)
    template = {"spec": {"containers": [{"name": "db", "image": "db:2"}]}}
    strategy = {"rollingUpdate": {"partition": 1}}
    change = {"spec": {"template": template, "updateStrategy": strategy}}
    await cluster.patch(STATEFUL_SETS, "db", change, namespace="default")

    def images() -> list[str]:
        pods = sorted(cluster.all(PODS), key=lambda pod: pod["metadata"]["name"])
        return [pod["spec"]["containers"][0]["image"] for pod in pods]

    await cluster.eventually(lambda: images() == ["db:1", "db:2", "db:2"])
    assert order(cluster, start, "DELETED") == ["db-2", "db-1"]
    await cluster.settle()
    await cluster.delete(PODS, "db-0", namespace="default")
    await cluster.eventually(
        lambda: (
            images() == ["db:1", "db:2", "db:2"] and nested(cluster.find(PODS, "db-0"), "status", "phase") == "Running"
        )
    )
    change = {"spec": {"updateStrategy": {"rollingUpdate": {"partition": 0}}}}
    await cluster.patch(STATEFUL_SETS, "db", change, namespace="default")
    await cluster.eventually(lambda: images() == ["db:2"] * 3 and settled(cluster, 3))


@pytest.mark.parametrize(
    ("when_scaled", "when_deleted", "live", "condemned"),
    [
        ("Retain", "Retain", [], []),
        ("Retain", "Delete", ["StatefulSet"], ["StatefulSet"]),
        ("Delete", "Retain", [], ["Pod"]),
        ("Delete", "Delete", ["StatefulSet"], ["Pod"]),
    ],
)
def test_who_owns_the_claims_of_a_set(
    when_scaled: str, when_deleted: str, live: list[str], condemned: list[str]
) -> None:
    policy = {"whenScaled": when_scaled, "whenDeleted": when_deleted}
    the_set = stateful_set(1, persistentVolumeClaimRetentionPolicy=policy)
    the_set = {
        **the_set,
        "apiVersion": "apps/v1",
        "kind": "StatefulSet",
        "metadata": {**the_set["metadata"], "uid": "s"},
    }

    def owned(number: int, *before: Obj) -> list[Obj]:
        pod = {"metadata": {"name": f"db-{number}", "uid": f"p{number}"}}
        return owners({"metadata": {"name": "c", "ownerReferences": list(before)}}, the_set, pod)

    assert [reference["kind"] for reference in owned(0)] == live
    assert [reference["kind"] for reference in owned(1)] == condemned
    assert owned(1, *owned(0)) == owned(1)  # scaled down
    assert owned(0, *owned(1)) == owned(0) or condemned == ["Pod"]
    other = {"apiVersion": "v1", "kind": "ConfigMap", "name": "o", "uid": "o"}
    assert owned(0, other)[0] == other
    foreign = {**other, "controller": True}
    assert owned(0, foreign) == [foreign]
    stale = {"apiVersion": "apps/v1", "kind": "StatefulSet", "name": "db", "uid": "earlier"}
    assert owned(0, stale) == [stale]


async def test_claims_go_with_their_pods_when_the_set_says_so(cluster: Any) -> None:
    template = {
        "metadata": {"name": "data"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1Gi"}}},
    }
    policy = {"whenScaled": "Delete", "whenDeleted": "Retain"}
    await cluster.create(
        STATEFUL_SETS,
        stateful_set(2, volumeClaimTemplates=[template], persistentVolumeClaimRetentionPolicy=policy),
    )
    names = lambda: sorted(claim["metadata"]["name"] for claim in cluster.all(PERSISTENT_VOLUME_CLAIMS))  # noqa: E731
    await cluster.eventually(lambda: settled(cluster, 2) and names() == ["data-db-0", "data-db-1"])
    await cluster.patch(STATEFUL_SETS, "db", {"spec": {"replicas": 1}}, namespace="default")
    await cluster.eventually(lambda: names() == ["data-db-0"])


async def test_a_secret_for_an_account_is_filled_and_goes_with_it(cluster: Any) -> None:
    await cluster.create(SERVICE_ACCOUNTS, {"metadata": {"name": "bot", "namespace": "default"}})
    notes = {"kubernetes.io/service-account.name": "bot"}
    await cluster.create(
        SECRETS,
        {
            "metadata": {"name": "tok", "namespace": "default", "annotations": notes},
            "type": "kubernetes.io/service-account-token",
        },
    )
    await cluster.eventually(lambda: nested(cluster.find(SECRETS, "tok"), "data", "token"))
    secret = cluster.find(SECRETS, "tok")
    uid = cluster.find(SERVICE_ACCOUNTS, "bot")["metadata"]["uid"]
    claims = unverified_claims(base64.b64decode(secret["data"]["token"]).decode())
    assert claims["sub"] == "system:serviceaccount:default:bot"
    assert claims["kubernetes.io/serviceaccount/secret.name"] == "tok"
    assert secret["metadata"]["annotations"]["kubernetes.io/service-account.uid"] == uid
    assert base64.b64decode(secret["data"]["namespace"]) == b"default"
    await cluster.delete(SERVICE_ACCOUNTS, "bot", namespace="default")
    await cluster.eventually(lambda: cluster.find(SECRETS, "tok") is None)


async def test_a_cron_job_starts_jobs_and_keeps_a_history(cluster: Any) -> None:
    template = {
        "metadata": {"annotations": {"bowsprit.dev/run-duration": "50ms"}},
        "spec": {"restartPolicy": "Never", "containers": [{"name": "c", "image": "i"}]},
    }
    spec = {
        "schedule": "@every 1s",
        "concurrencyPolicy": "Allow",
        "successfulJobsHistoryLimit": 1,
        "jobTemplate": {
            "spec": {
                "template": template,
                "completions": 1,
                "parallelism": 1,
                "backoffLimit": 6,
            }
        },
    }
    await cluster.create(
        CRON_JOBS, {"metadata": {"name": "tick", "namespace": "default"}, "spec": {**spec, "suspend": True}}
    )
    await cluster.settle()
    assert not cluster.all(JOBS)
    await cluster.patch(CRON_JOBS, "tick", {"spec": {"suspend": False}}, namespace="default")
    job = (await cluster.eventually(lambda: cluster.all(JOBS)))[0]
    assert job["metadata"]["annotations"]["batch.kubernetes.io/cronjob-scheduled-timestamp"]
    await cluster.eventually(lambda: nested(cluster.find(CRON_JOBS, "tick"), "status", "lastSuccessfulTime"))


async def test_a_quota_counts_what_is_there_and_what_goes(cluster: Any) -> None:
    hard = {"pods": "5", "requests.cpu": "2", "count/secrets": "10"}
    await cluster.create(RESOURCE_QUOTAS, {"metadata": {"name": "q", "namespace": "default"}, "spec": {"hard": hard}})

    def used() -> Obj:
        return dict(nested(cluster.find(RESOURCE_QUOTAS, "q"), "status", "used", default={}))

    await cluster.eventually(lambda: used() == {"pods": "0", "requests.cpu": "0", "count/secrets": "0"})
    resources = {"requests": {"cpu": "250m"}}
    spec = {"containers": [{"name": "c", "image": "i", "resources": resources}]}
    await cluster.create(PODS, {"metadata": {"name": "p", "namespace": "default"}, "spec": spec})
    await cluster.create(SECRETS, {"metadata": {"name": "s", "namespace": "default"}})
    await cluster.eventually(lambda: nested(cluster.find(PODS, "p"), "status", "phase") == "Running")
    await cluster.eventually(lambda: used()["pods"] == "1" and used()["requests.cpu"] == "250m")
    await cluster.delete(PODS, "p", namespace="default")
    await cluster.eventually(lambda: used()["pods"] == "0" and used()["requests.cpu"] == "0")


async def test_a_budget_tells_how_many_pods_may_go(cluster: Any) -> None:
    await cluster.create(STATEFUL_SETS, stateful_set(podManagementPolicy="Parallel"))
    selector = {"matchLabels": {"app": "db"}}
    spec = {"maxUnavailable": "34%", "selector": selector}
    await cluster.create(POD_DISRUPTION_BUDGETS, {"metadata": {"name": "b", "namespace": "default"}, "spec": spec})

    def status() -> Obj:
        return cluster.find(POD_DISRUPTION_BUDGETS, "b").get("status") or {}

    await cluster.eventually(lambda: status().get("disruptionsAllowed") == 2)
    assert (status()["expectedPods"], status()["desiredHealthy"], status()["currentHealthy"]) == (3, 1, 3)
    allowed = find_condition(cluster.find(POD_DISRUPTION_BUDGETS, "b"), "DisruptionAllowed")
    assert allowed is not None
    assert (allowed["status"], allowed["reason"]) == ("True", "SufficientPods")
    await cluster.patch(POD_DISRUPTION_BUDGETS, "b", {"spec": {"maxUnavailable": 0}}, namespace="default")
    await cluster.eventually(lambda: status().get("disruptionsAllowed") == 0 and status()["desiredHealthy"] == 3)


async def test_claims_get_volumes_and_give_them_back(cluster: Any) -> None:
    await cluster.create(STORAGE_CLASSES, {"metadata": {"name": "standard"}, "provisioner": "bowsprit.dev/simulated"})

    async def claim(name: str, storage_class: str) -> None:
        resources = {"requests": {"storage": "1Gi"}}
        spec = {"storageClassName": storage_class, "accessModes": ["ReadWriteOnce"], "resources": resources}
        await cluster.create(
            PERSISTENT_VOLUME_CLAIMS, {"metadata": {"name": name, "namespace": "default"}, "spec": spec}
        )

    def volume_of(name: str) -> str:
        found = cluster.find(PERSISTENT_VOLUME_CLAIMS, name)
        bound = nested(found, "status", "phase") == "Bound"
        return str(found["spec"].get("volumeName", "")) if bound else ""

    for name, size in (("small", "500Mi"), ("fitting", "2Gi"), ("large", "9Gi")):
        spec = {
            "capacity": {"storage": size},
            "accessModes": ["ReadWriteOnce"],
            "storageClassName": "manual",
            "persistentVolumeReclaimPolicy": "Retain",
            "hostPath": {"path": f"/data/{name}"},
        }
        await cluster.create(PERSISTENT_VOLUMES, {"metadata": {"name": name}, "spec": spec})
    await claim("made", "standard")
    await claim("found", "manual")
    await claim("waits", "unknown")
    made = await cluster.eventually(lambda: volume_of("made"))
    assert made.startswith("pvc-")
    assert await cluster.eventually(lambda: volume_of("found")) == "fitting"
    assert volume_of("waits") == ""
    volumes = [{"name": "v", "persistentVolumeClaim": {"claimName": "found"}}]
    pod_spec = {"containers": [{"name": "c", "image": "i"}], "volumes": volumes}
    await cluster.create(PODS, {"metadata": {"name": "user", "namespace": "default"}, "spec": pod_spec})
    await cluster.eventually(lambda: nested(cluster.find(PODS, "user"), "status", "phase") == "Running")
    protected = {"metadata": {"finalizers": ["kubernetes.io/pvc-protection"]}}  # as admission does
    await cluster.patch(PERSISTENT_VOLUME_CLAIMS, "found", protected, namespace="default")
    await cluster.settle()
    for name in ("made", "found"):
        await cluster.delete(PERSISTENT_VOLUME_CLAIMS, name, namespace="default")
    await cluster.eventually(lambda: not cluster.find(PERSISTENT_VOLUME_CLAIMS, "made"))
    await cluster.eventually(lambda: not cluster.find(PERSISTENT_VOLUMES, made))
    await cluster.settle()
    assert cluster.find(PERSISTENT_VOLUME_CLAIMS, "found")
    await cluster.delete(PODS, "user", namespace="default")
    await cluster.eventually(lambda: not cluster.find(PERSISTENT_VOLUME_CLAIMS, "found"))
    await cluster.eventually(
        lambda: nested(cluster.find(PERSISTENT_VOLUMES, "fitting"), "status", "phase") == "Released"
    )


# Schedules


def at(text: str) -> datetime:
    return datetime.fromisoformat(text).replace(tzinfo=UTC)


@pytest.mark.parametrize(
    ("schedule", "after", "expected"),
    [
        ("*/5 * * * *", "2026-01-01T00:02:30", "2026-01-01T00:05:00"),
        ("0 0 * * *", "2026-01-01T00:00:00", "2026-01-02T00:00:00"),
        ("@hourly", "2026-01-01T00:59:59", "2026-01-01T01:00:00"),
        ("30 4 1,15 * 5", "2026-01-02T05:00:00", "2026-01-09T04:30:00"),
        ("0 12 * feb mon-fri", "2026-01-15T00:00:00", "2026-02-02T12:00:00"),
        ("0 0 29 2 *", "2026-01-01T00:00:00", "2028-02-29T00:00:00"),
        ("0 0 * * 7", "2026-01-01T00:00:00", "2026-01-04T00:00:00"),
        ("@every 90s", "2026-01-01T00:00:00", "2026-01-01T00:01:30"),
    ],
)
def test_the_next_time(schedule: str, after: str, expected: str) -> None:
    assert Schedule.parse(schedule).next(at(after)) == at(expected)


def test_schedules_know_time_zones() -> None:
    assert Schedule.parse("0 9 * * *", "Europe/Berlin").next(at("2026-07-01T00:00:00")) == at("2026-07-01T07:00:00")
    skipped = Schedule.parse("30 2 * * *", "Europe/Berlin").next(at("2026-03-28T12:00:00"))
    assert skipped == at("2026-03-30T00:30:00")  # 02:30 on the 29th does not exist


@pytest.mark.parametrize(
    "text", ["", "* * * *", "60 * * * *", "* * 0 * *", "a * * * *", "*/0 * * * *", "5-1 * * * *", "@often", "@every x"]
)
def test_what_is_no_schedule(text: str) -> None:
    with pytest.raises(ScheduleError):
        Schedule.parse(text)


def test_times_that_never_come() -> None:
    assert Schedule.parse("0 0 31 2 *").next(at("2026-01-01T00:00:00")) is None


@settings(max_examples=60, deadline=None)
@given(
    minute=st.integers(0, 59), hour=st.integers(0, 23), start=st.datetimes(datetime(2024, 1, 1), datetime(2030, 1, 1))
)
def test_daily_times_are_a_day_apart_and_in_the_future(minute: int, hour: int, start: datetime) -> None:
    schedule = Schedule.parse(f"{minute} {hour} * * *")
    after = start.replace(tzinfo=UTC)
    first = schedule.next(after)
    assert first is not None
    assert 0 < (first - after).total_seconds() <= 86400
    second = schedule.next(first)
    assert second is not None
    assert (second - first).total_seconds() == 86400


def test_missed_times_are_counted_and_the_latest_is_started() -> None:
    cron_job = {"metadata": {"creationTimestamp": "2026-01-01T00:00:00Z"}, "spec": {}, "status": {}}
    found = due(cron_job, Schedule.parse("*/10 * * * *"), at("2026-01-01T00:35:00"))
    assert (found.time, found.missed, found.next) == (at("2026-01-01T00:30:00"), 3, at("2026-01-01T00:40:00"))
    cron_job["spec"] = {"startingDeadlineSeconds": 60}
    assert due(cron_job, Schedule.parse("*/10 * * * *"), at("2026-01-01T00:35:00")).time is None
    cron_job["spec"] = {}
    years = due(cron_job, Schedule.parse("* * * * *"), at("2027-01-01T00:00:30"))
    assert years.time == at("2027-01-01T00:00:00")
    assert years.missed > 100
