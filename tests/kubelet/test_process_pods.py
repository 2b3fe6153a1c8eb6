"""Pods that run as processes of this host: what they see, how they end, what becomes of their logs and probes."""

from __future__ import annotations

import json
import subprocess
import sys
import time
import urllib.request
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest

from bowsprit.cluster.config import ClusterConfig, Kubelet, NodeGroup
from bowsprit.cluster.embedded import Cluster
from bowsprit.machinery.objects import Obj
from bowsprit.net.ports import free_port


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    """A cluster with one node that runs processes."""
    config = ClusterConfig(
        name="processes", store="memory", nodes=[NodeGroup(count=1)], kubelet=Kubelet(processes=True)
    )
    with Cluster(config) as running:
        eventually(lambda: running.kubectl("get", "serviceaccount", "default", "--ignore-not-found", "-o", "name"))
        yield running


def eventually(met: Callable[[], Any], seconds: float = 30.0) -> Any:
    deadline = time.monotonic() + seconds
    while not (found := met()):
        assert time.monotonic() < deadline, "not met in time"
        time.sleep(0.05)
    return found


def pod(name: str, *command: str, **spec: Any) -> Obj:
    container = {"name": "main", "image": "none", "command": list(command), **spec.pop("container", {})}
    return {
        "apiVersion": "v1",
        "kind": "Pod",
        "metadata": {"name": name, "annotations": spec.pop("annotations", {})},
        "spec": {"containers": [container], "restartPolicy": "Never", "terminationGracePeriodSeconds": 20, **spec},
    }


def create(cluster: Cluster, *made: Obj) -> None:
    for obj in made:
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(obj))


def status(cluster: Cluster, name: str) -> Obj:
    found: Obj = cluster.kubectl("get", "pod", name, "-o", "json")["status"]
    return found


def ended(cluster: Cluster, name: str) -> Obj:
    def look() -> Obj | None:
        found = status(cluster, name)
        return found if found.get("phase") in ("Succeeded", "Failed") else None

    done: Obj = eventually(look)
    return done


def test_a_process_sees_its_environment_volumes_and_token(cluster: Cluster) -> None:
    secret = {"apiVersion": "v1", "kind": "Secret", "metadata": {"name": "word"}, "stringData": {"word": "sesame"}}
    config = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "conf"}, "data": {"colour": "red"}}
    script = (
        "cat /etc/nowhere/deep/word; cat /etc/word.txt; echo; echo $COLOUR $WHO $(ls /var/run/secrets/kubernetes.io/serviceaccount);"
        "echo kept > /scratch/file; cat /scratch/file; touch /etc/nowhere/deep/x 2>&1; touch /usr/oops 2>&1; touch /etc/oops;"
        "curl -s --cacert /var/run/secrets/kubernetes.io/serviceaccount/ca.crt -H"
        ' "Authorization: Bearer $(cat /var/run/secrets/kubernetes.io/serviceaccount/token)"'
        " https://$KUBERNETES_SERVICE_HOST:$KUBERNETES_SERVICE_PORT/api/v1/namespaces/default/pods | grep message"
    )
    made = pod(
        "sees",
        "sh",
        "-c",
        script,
        container={
            "env": [
                {"name": "COLOUR", "valueFrom": {"configMapKeyRef": {"name": "conf", "key": "colour"}}},
                {"name": "WHO", "valueFrom": {"fieldRef": {"fieldPath": "metadata.name"}}},
            ],
            "volumeMounts": [
                {"name": "word", "mountPath": "/etc/nowhere/deep", "readOnly": True},
                {"name": "word", "mountPath": "/etc/word.txt", "subPath": "word"},
                {"name": "scratch", "mountPath": "/scratch"},
            ],
        },
        volumes=[{"name": "word", "secret": {"secretName": "word"}}, {"name": "scratch", "emptyDir": {}}],
    )
    create(cluster, secret, config, made)
    assert ended(cluster, "sees")["phase"] in ("Succeeded", "Failed")
    told = cluster.kubectl("logs", "sees").splitlines()
    assert told[:3] == ["sesamesesame", "red sees ca.crt namespace token", "kept"]
    assert "Read-only file system" in told[3]
    assert "Read-only file system" in told[4]
    assert 'User \\"system:serviceaccount:default:default\\" cannot list resource \\"pods\\"' in told[5]
    assert not Path("/etc/nowhere").exists()
    assert not Path("/etc/oops").exists()  # what is written beside the volumes is the process's own


def test_a_volume_over_this_interpreter_does_not_hide_it(cluster: Cluster) -> None:
    over = {"volumeMounts": [{"name": "over", "mountPath": str(Path(sys.prefix).parent)}]}
    script = "import bowsprit, pathlib; pathlib.Path(bowsprit.__file__).read_bytes(); print('here')"
    create(cluster, pod("over", "python", "-c", script, container=over, volumes=[{"name": "over", "emptyDir": {}}]))
    assert ended(cluster, "over")["phase"] == "Succeeded", cluster.kubectl("logs", "over")


def test_exit_codes_and_restarts_are_those_of_the_process(cluster: Cluster) -> None:
    create(cluster, pod("fails", "sh", "-c", "echo going; exit 7"))
    done = ended(cluster, "fails")
    assert done["phase"] == "Failed"
    assert done["containerStatuses"][0]["state"]["terminated"]["exitCode"] == 7
    create(cluster, pod("again", "sh", "-c", "echo once; exit 3", restartPolicy="Always"))
    eventually(lambda: status(cluster, "again")["containerStatuses"][0].get("restartCount", 0) >= 1)
    state = eventually(
        lambda: status(cluster, "again")["containerStatuses"][0]["state"].get("waiting"),
    )
    assert state["reason"] == "CrashLoopBackOff"
    assert cluster.kubectl("logs", "again", "--previous") == "once\n"
    cluster.kubectl("delete", "pod", "again", "--wait=false")


def test_a_deleted_pod_is_asked_to_end_first(cluster: Cluster) -> None:
    script = "trap 'echo bye; sleep 0.2; exit 0' TERM; echo up; while true; do sleep 0.05; done"
    create(cluster, pod("polite", "sh", "-c", script))
    cluster.kubectl("wait", "--for=condition=Ready", "pod/polite", "--timeout=30s")
    command = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), "logs", "-f", "polite"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as following:
        assert following.stdout is not None
        assert following.stdout.readline() == "up\n"
        before = time.monotonic()
        cluster.kubectl("delete", "pod", "polite")
        assert time.monotonic() - before < 15.0  # not the whole grace period
        following.communicate(timeout=30)


def test_a_pod_whose_deadline_is_over_is_ended(cluster: Cluster) -> None:
    create(cluster, pod("late", "sh", "-c", "echo $$$$; while true; do sleep 0.05; done", activeDeadlineSeconds=3))
    assert ended(cluster, "late")["reason"] == "DeadlineExceeded"
    number = int(cluster.kubectl("logs", "late"))
    eventually(lambda: not Path(f"/proc/{number}").exists())


def test_probes_decide_over_ready_and_alive(cluster: Cluster) -> None:
    port = free_port()
    probe = {"httpGet": {"path": "/ready", "port": "web"}, "periodSeconds": 1, "failureThreshold": 1}
    script = f"mkdir -p /srv/www && cd /srv/www && exec python3 -m http.server {port}"
    made = pod(
        "probed",
        "sh",
        "-c",
        script,
        container={
            "ports": [{"name": "web", "containerPort": port}],
            "readinessProbe": probe,
            "volumeMounts": [{"name": "www", "mountPath": "/srv/www"}],
        },
        volumes=[{"name": "www", "configMap": {"name": "www", "optional": True}}],
    )
    create(cluster, made)
    eventually(lambda: status(cluster, "probed").get("phase") == "Running")
    assert status(cluster, "probed")["containerStatuses"][0]["ready"] is False
    create(cluster, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "www"}, "data": {"ready": "yes"}})
    cluster.kubectl("wait", "--for=condition=Ready", "pod/probed", "--timeout=30s")
    command = ["kubectl", "--kubeconfig", str(cluster.kubeconfig), "port-forward", "pod/probed", f":{port}"]
    with subprocess.Popen(command, stdout=subprocess.PIPE, text=True) as forwarding:
        assert forwarding.stdout is not None
        line = forwarding.stdout.readline()
        here = line.partition("127.0.0.1:")[2].split()[0]
        with urllib.request.urlopen(f"http://127.0.0.1:{here}/ready", timeout=10) as answer:
            assert answer.read() == b"yes"
        forwarding.kill()
    cluster.kubectl("delete", "pod", "probed", "--wait=false")


def test_what_cannot_be_mounted_is_told_in_an_event(cluster: Cluster) -> None:
    create(
        cluster,
        pod("missing", "sleep", "60", volumes=[{"name": "none", "secret": {"secretName": "not-there"}}]),
    )

    def told() -> bool:
        events = cluster.kubectl("get", "events", "--field-selector=involvedObject.name=missing", "-o", "json")
        return any('secrets "not-there" not found' in item["message"] for item in events["items"])

    eventually(told)
    assert status(cluster, "missing")["phase"] == "Pending"
    cluster.kubectl("delete", "pod", "missing", "--wait=false")


def test_pods_of_which_nothing_is_here_stay_simulated(cluster: Cluster) -> None:
    create(cluster, pod("web", "no-such-command-anywhere"))
    create(cluster, pod("kept", "false", annotations={"bowsprit.dev/run": "simulated"}))
    for name in ("web", "kept"):
        cluster.kubectl("wait", "--for=condition=Ready", f"pod/{name}", "--timeout=30s")
        assert "simulated" in cluster.kubectl("logs", name)
