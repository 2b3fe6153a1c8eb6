"""Deployments and what follows from them, with all controllers and two simulated nodes."""

from __future__ import annotations

from typing import Any

from bowsprit.client.resources import DEPLOYMENTS, ENDPOINT_SLICES, ENDPOINTS, EVENTS, PODS, REPLICA_SETS, SERVICES
from bowsprit.machinery.objects import find_condition, nested

Obj = dict[str, Any]


def deployment(name: str = "web", replicas: int = 3, image: str = "nginx:1", **spec: Any) -> Obj:
    return {
        "metadata": {"name": name, "namespace": "default"},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": {"app": name}},
            "strategy": {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": "25%", "maxUnavailable": "25%"}},
            "template": {
                "metadata": {"labels": {"app": name}},
                "spec": {"containers": [{"name": "c", "image": image}]},
            },
            "progressDeadlineSeconds": 600,
            "revisionHistoryLimit": 10,
            **spec,
        },
    }


def complete(cluster: Any, name: str = "web") -> bool:
    found = cluster.find(DEPLOYMENTS, name)
    status, wanted = found.get("status") or {}, found["spec"]["replicas"]
    return bool(
        status.get("observedGeneration") == found["metadata"]["generation"]
        and status.get("updatedReplicas", 0) == wanted
        and status.get("availableReplicas", 0) == wanted
        and status.get("replicas", 0) == wanted
        and (find_condition(found, "Progressing") or {}).get("reason") == "NewReplicaSetAvailable"
    )


def images(cluster: Any) -> list[str]:
    return sorted(
        pod["spec"]["containers"][0]["image"]
        for pod in cluster.all(PODS)
        if not pod["metadata"].get("deletionTimestamp")
    )


async def change(cluster: Any, name: str = "web", **spec: Any) -> None:
    await cluster.patch(DEPLOYMENTS, name, {"spec": spec}, namespace="default")


def template(image: str) -> Obj:
    return {"spec": {"containers": [{"name": "c", "image": image}]}}


async def test_a_deployment_comes_up_and_says_so(cluster: Any) -> None:
    await cluster.create(DEPLOYMENTS, deployment())
    await cluster.eventually(lambda: complete(cluster))
    web = cluster.find(DEPLOYMENTS, "web")
    assert web["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    available, progressing = find_condition(web, "Available"), find_condition(web, "Progressing")
    assert available is not None
    assert progressing is not None
    assert (available["reason"], available["message"]) == (
        "MinimumReplicasAvailable",
        "Deployment has minimum availability.",
    )
    [replica_set] = cluster.all(REPLICA_SETS)
    assert progressing["message"] == f'ReplicaSet "{replica_set["metadata"]["name"]}" has successfully progressed.'
    hashed = replica_set["metadata"]["labels"]["pod-template-hash"]
    assert replica_set["metadata"]["name"] == f"web-{hashed}"
    pods = cluster.all(PODS)
    assert len(pods) == 3
    assert all(pod["metadata"]["labels"]["pod-template-hash"] == hashed for pod in pods)
    assert {pod["spec"]["nodeName"] for pod in pods} == {"node-0", "node-1"}
    await cluster.eventually(lambda: len(cluster.all(EVENTS)) >= 13)
    messages = {event["message"] for event in cluster.all(EVENTS)}
    assert f"Scaled up replica set web-{hashed} from 0 to 3" in messages
    await cluster.settle()
    assert replica_set["metadata"]["uid"] == cluster.all(REPLICA_SETS)[0]["metadata"]["uid"]


async def test_a_rolling_update_stays_within_its_bounds_and_can_be_undone(cluster: Any) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=4))
    await cluster.eventually(lambda: complete(cluster))
    seen_total: list[int] = []
    start = len(cluster.log)
    await change(cluster, template=template("nginx:2"))
    await cluster.eventually(lambda: complete(cluster) and images(cluster) == ["nginx:2"] * 4)
    for _, kind, _, obj in cluster.log[start:]:
        if kind == ("apps", "deployments"):
            seen_total.append(nested(obj, "status", "replicas", default=0))
            assert nested(obj, "status", "availableReplicas", default=0) >= 3
    assert max(seen_total) <= 5
    old = next(item for item in cluster.all(REPLICA_SETS) if item["spec"]["replicas"] == 0)
    assert old["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "1"
    await change(cluster, template=template("nginx:1"))  # what kubectl rollout undo does
    await cluster.eventually(lambda: complete(cluster) and images(cluster) == ["nginx:1"] * 4)
    again = cluster.find(REPLICA_SETS, old["metadata"]["name"])
    assert again["metadata"]["annotations"]["deployment.kubernetes.io/revision"] == "3"
    assert again["metadata"]["annotations"]["deployment.kubernetes.io/revision-history"] == "1"
    assert len(cluster.all(REPLICA_SETS)) == 2


async def test_scaling_up_and_down(cluster: Any) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=1))
    await cluster.eventually(lambda: complete(cluster))
    await change(cluster, replicas=6)
    await cluster.eventually(lambda: complete(cluster) and len(images(cluster)) == 6)
    await change(cluster, replicas=0)
    await cluster.eventually(lambda: complete(cluster) and not cluster.all(PODS))


async def test_a_paused_deployment_does_not_roll(cluster: Any) -> None:
    await cluster.create(DEPLOYMENTS, deployment())
    await cluster.eventually(lambda: complete(cluster))
    await change(cluster, paused=True)
    await cluster.eventually(
        lambda: (
            (find_condition(cluster.find(DEPLOYMENTS, "web"), "Progressing") or {}).get("reason") == "DeploymentPaused"
        )
    )
    await change(cluster, template=template("nginx:2"))
    await cluster.settle()
    assert images(cluster) == ["nginx:1"] * 3
    await change(cluster, paused=False)
    await cluster.eventually(lambda: complete(cluster) and images(cluster) == ["nginx:2"] * 3)


async def test_recreate_stops_all_before_it_starts_any(cluster: Any) -> None:
    await cluster.create(DEPLOYMENTS, deployment(strategy={"type": "Recreate"}))
    await cluster.eventually(lambda: complete(cluster))
    start = len(cluster.log)
    await change(cluster, template=template("nginx:2"))
    await cluster.eventually(lambda: complete(cluster) and images(cluster) == ["nginx:2"] * 3)
    gone = 0
    for _, kind, type_, obj in cluster.log[start:]:
        if kind == ("", "pods"):
            image = obj["spec"]["containers"][0]["image"]
            gone += type_ == "DELETED" and image == "nginx:1"
            if type_ == "ADDED" and image == "nginx:2":
                assert gone == 3


async def test_a_rollout_that_cannot_succeed_is_reported(cluster: Any) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=2))
    await cluster.eventually(lambda: complete(cluster))
    bad = template("nginx:bad")
    bad["metadata"] = {"annotations": {"bowsprit.dev/image-pull-error": "no such image"}}
    await change(cluster, template=bad, progressDeadlineSeconds=1)
    condition = await cluster.eventually(
        lambda: (
            found
            if (found := find_condition(cluster.find(DEPLOYMENTS, "web"), "Progressing"))["reason"]
            == "ProgressDeadlineExceeded"
            else None
        )
    )
    assert condition["status"] == "False"
    assert "has timed out progressing." in condition["message"]
    assert images(cluster).count("nginx:1") == 2


async def test_old_replica_sets_beyond_the_limit_are_removed(cluster: Any) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=1, revisionHistoryLimit=1))
    for number in range(2, 5):
        await cluster.eventually(lambda: complete(cluster))
        await change(cluster, template=template(f"nginx:{number}"))
    await cluster.eventually(lambda: complete(cluster) and len(cluster.all(REPLICA_SETS)) == 2)


async def test_a_replica_set_replaces_adopts_and_releases_pods(cluster: Any) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=2))
    await cluster.eventually(lambda: complete(cluster))
    victim, moved = cluster.all(PODS)
    await cluster.delete(PODS, victim["metadata"]["name"], namespace="default")
    patch = {"metadata": {"labels": {"app": "other"}}}
    await cluster.patch(PODS, moved["metadata"]["name"], patch, namespace="default")
    await cluster.eventually(lambda: len(cluster.all(PODS)) == 3)
    released = await cluster.eventually(
        lambda: not (cluster.find(PODS, moved["metadata"]["name"])["metadata"].get("ownerReferences"))
    )
    assert released
    await cluster.patch(
        PODS, moved["metadata"]["name"], {"metadata": {"labels": moved["metadata"]["labels"]}}, namespace="default"
    )
    await cluster.eventually(lambda: len(images(cluster)) == 2)


async def test_a_service_follows_its_pods(cluster: Any) -> None:
    await cluster.create(DEPLOYMENTS, deployment(replicas=2))
    ports = [{"name": "http", "port": 80, "targetPort": 8080, "protocol": "TCP"}]
    spec = {"selector": {"app": "web"}, "ports": ports, "clusterIP": "10.96.0.9", "ipFamilies": ["IPv4"]}
    await cluster.create(SERVICES, {"metadata": {"name": "web", "namespace": "default"}, "spec": spec})

    def slices() -> list[Obj]:
        listed = cluster.all(ENDPOINT_SLICES)
        return [item for item in listed if item["metadata"]["labels"].get("kubernetes.io/service-name") == "web"]

    def ready() -> list[str]:
        endpoints = [item for found in slices() for item in found.get("endpoints") or ()]
        return sorted(item["addresses"][0] for item in endpoints if item["conditions"]["ready"])

    def addresses() -> list[str]:
        found = cluster.find(ENDPOINTS, "web") or {}
        return sorted(item["ip"] for subset in found.get("subsets") or () for item in subset.get("addresses") or ())

    def pod_ips() -> list[str]:
        return sorted(nested(pod, "status", "podIP") for pod in cluster.all(PODS))

    await cluster.eventually(lambda: len(ready()) == 2 and ready() == addresses() == pod_ips())
    [found] = slices()
    assert found["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    assert found["metadata"]["labels"]["kubernetes.io/service-name"] == "web"
    assert cluster.find(ENDPOINTS, "web")["subsets"][0]["ports"] == [{"name": "http", "port": 8080, "protocol": "TCP"}]
    await change(cluster, replicas=5)
    await cluster.eventually(lambda: len(ready()) == 5 and addresses() == ready())
    await change(cluster, replicas=0)
    await cluster.eventually(lambda: not ready() and not addresses())
    assert len(slices()) == 1
    await cluster.delete(SERVICES, "web", namespace="default")
    await cluster.eventually(lambda: not slices() and not cluster.find(ENDPOINTS, "web"))
