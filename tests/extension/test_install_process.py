"""The commands from install to uninstall on an embedded cluster, whose node runs the server as a process of this host."""

from __future__ import annotations

import shutil
import subprocess
import threading
import time
from collections.abc import Iterator
from pathlib import Path

import pytest
from click.testing import CliRunner, Result

from bowsprit.cli.extension_setup import doctor, install, rotate_certs, uninstall
from bowsprit.cluster.config import ClusterConfig, Kubelet, NodeGroup
from bowsprit.cluster.embedded import Cluster
from bowsprit.net.ports import free_port

WARDLE = Path(__file__).parents[2] / "examples" / "wardle" / "wardle.py"


@pytest.fixture(scope="module")
def cluster() -> Iterator[Cluster]:
    config = ClusterConfig(name="real", store="memory", nodes=[NodeGroup(count=1)], kubelet=Kubelet(processes=True))
    with Cluster(config) as running:
        yield running


def test_a_server_is_installed_used_rotated_checked_and_removed(cluster: Cluster, tmp_path: Path) -> None:
    shutil.copy(WARDLE, tmp_path)
    app, cluster_options = f"{tmp_path}/wardle.py:app", ["--kubeconfig", str(cluster.kubeconfig)]

    def run(command: object, *arguments: str) -> Result:
        result = CliRunner().invoke(command, [*arguments, *cluster_options])  # type: ignore[arg-type]
        assert result.exit_code == 0, (result.output, result.exception)
        return result

    run(install, app, "--process", "--port", str(free_port()), "--timeout", "60")
    flunder = "apiVersion: wardle.example.com/v1alpha1\nkind: Flunder\nmetadata: {name: a}\nspec: {reference: b}\n"
    cluster.kubectl("apply", "--server-side", "-f", "-", stdin=flunder)
    assert cluster.kubectl("get", "flunders", "-o", "name") == "flunder.wardle.example.com/a\n"
    assert "serving wardle.example.com" in cluster.kubectl("logs", "-n", "wardle-system", "deployment/wardle")

    stop, failures = threading.Event(), []

    def ask() -> None:
        while not stop.is_set():
            try:
                cluster.kubectl("get", "flunders", "-o", "name")
            except subprocess.CalledProcessError as failure:
                failures.append(failure.stderr)

    asking = threading.Thread(target=ask)
    asking.start()
    first = _served(cluster)
    run(rotate_certs, app, "--ca")
    deadline = time.monotonic() + 30
    while _served(cluster) == first:
        assert time.monotonic() < deadline, "the new certificate is not served"
        time.sleep(0.1)
    run(rotate_certs, app, "--drop-old")
    told = run(doctor, "wardle.example.com")
    stop.set()
    asking.join()
    assert failures == []
    assert " ✗ " not in told.stdout
    assert " ✓ permissions" in told.stdout
    assert told.stdout.count(" ✓ ready") == 2
    run(uninstall, app, "--yes")
    assert "wardle" not in cluster.kubectl("get", "apiservices,clusterroles,clusterrolebindings", "-o", "name")


def _served(cluster: Cluster) -> str:
    import ssl

    (item,) = cluster.kubectl(
        "get", "endpointslices", "-n", "wardle-system", "-l", "kubernetes.io/service-name=wardle", "-o", "json"
    )["items"]
    return ssl.get_server_certificate((item["endpoints"][0]["addresses"][0], item["ports"][0]["port"]))
