"""Clusters whose API server reaches the nodes through konnectivity agents."""

from __future__ import annotations

import json
import re
import subprocess
import urllib.request
from pathlib import Path

import pytest

from bowsprit.cluster.config import ClusterConfig, Konnectivity, NodeGroup, parse_config
from bowsprit.cluster.embedded import Cluster
from bowsprit.cluster.errors import ClusterError

POD = '{"apiVersion":"v1","kind":"Pod","metadata":{"name":"web"},"spec":{"containers":[{"name":"c","image":"nginx"}]}}'
FILE = "apiVersion: bowsprit.dev/v1alpha1\nkind: Cluster\n"
UDS = "egressSelector: {egressSelections: [{name: cluster, connection: {proxyProtocol: %s, transport: {uds: {udsName: %s}}}}]}\n"


def _metric(cluster: Cluster, name: str) -> dict[str, float]:
    """The values of the server's metric, by agent."""
    port = cluster.config.konnectivity.admin_port
    with urllib.request.urlopen(f"http://127.0.0.1:{port}/metrics", timeout=10) as answer:
        text = answer.read().decode()
    return {agent: float(value) for agent, value in re.findall(rf'^{name}{{agent="([^"]+)".*}} (\S+)$', text, re.M)}


@pytest.mark.parametrize("mode", ["grpc", "http-connect"])
def test_logs_and_exec_travel_through_agents(mode: str) -> None:
    konnectivity = Konnectivity.model_validate({"enabled": True, "agents": 2, "mode": mode})
    with Cluster(ClusterConfig(store="memory", nodes=[NodeGroup(count=1)], konnectivity=konnectivity)) as cluster:
        assert set(_metric(cluster, "bowsprit_konnectivity_server_agent_connections")) == {
            "konnectivity-agent-1",
            "konnectivity-agent-2",
        }
        cluster.kubectl("create", "-f", "-", stdin=POD)
        cluster.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=20s")
        before = sum(_metric(cluster, "bowsprit_konnectivity_server_bytes_total").values())
        assert "container c started" in cluster.kubectl("logs", "web")
        assert cluster.kubectl("exec", "web", "--", "echo", "hello") == "hello\n"
        assert sum(_metric(cluster, "bowsprit_konnectivity_server_bytes_total").values()) > before + 1000


def test_without_agents_the_nodes_are_out_of_reach(tmp_path: Path) -> None:
    """The way of the cluster file is taken, whether or not anybody is there."""
    config = parse_config(FILE + "store: memory\n" + UDS % ("GRPC", tmp_path / "nobody.sock"), origin="cluster.yaml")
    with Cluster(config.model_copy(update={"nodes": [NodeGroup(count=1)]})) as cluster:
        cluster.kubectl("create", "-f", "-", stdin=POD)
        cluster.kubectl("wait", "--for=condition=Ready", "pod/web", "--timeout=20s")
        with pytest.raises(subprocess.CalledProcessError) as caught:
            cluster.kubectl("logs", "web")
        assert "nobody.sock" in caught.value.stderr


@pytest.mark.parametrize(
    ("text", "message"),
    [
        (UDS % ("GRPC", "unix:///x"), "egressSelector: .*udsName"),
        (UDS % ("Grpc", "/x"), "egressSelector: .*Grpc"),
        ("egressSelector: {egressSelection: []}\n", 'unknown field "egressSelection"'),
        (UDS % ("GRPC", "/x") + "konnectivity: {enabled: true}\n", "exclude each other"),
        ("konnectivity: {enabled: true, agents: 0}\n", "konnectivity.agents: .*greater than or equal to 1"),
        ("konnectivity: {enabled: true, mode: socks}\n", "konnectivity.mode: .*'grpc' or 'http-connect'"),
    ],
)
def test_wrong_files_say_what_is_wrong(text: str, message: str) -> None:
    with pytest.raises(ClusterError) as caught:
        parse_config(FILE + text, origin="cluster.yaml")
    assert re.search(message, caught.value.message), caught.value.message


def test_a_folder_with_a_path_too_long_for_a_socket(tmp_path: Path) -> None:
    cluster = Cluster(
        ClusterConfig(store="memory", konnectivity=Konnectivity(enabled=True)), folder=tmp_path / ("x" * 100)
    )
    with pytest.raises(ClusterError, match="longer than 107 bytes") as caught:
        cluster.start()
    assert "BOWSPRIT_HOME" in caught.value.hint


def test_webhooks_of_urls_take_the_way_of_the_control_plane(tmp_path: Path) -> None:
    selector = (UDS % ("HTTPConnect", tmp_path / "nobody.sock")).replace("name: cluster", "name: controlplane")
    config = parse_config(FILE + "store: memory\nnodes: []\n" + selector, origin="cluster.yaml")
    hook = {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "ValidatingWebhookConfiguration",
        "metadata": {"name": "hook"},
        "webhooks": [
            {
                "name": "hook.example.com",
                "sideEffects": "None",
                "admissionReviewVersions": ["v1"],
                "clientConfig": {"url": "https://127.0.0.1:1/validate"},
                "rules": [
                    {"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["configmaps"]}
                ],
            }
        ],
    }
    with Cluster(config, components=("apiserver",)) as cluster:
        cluster.kubectl("create", "-f", "-", stdin=json.dumps(hook))
        with pytest.raises(subprocess.CalledProcessError) as caught:
            cluster.kubectl("create", "configmap", "x")
        assert "nobody.sock" in caught.value.stderr
