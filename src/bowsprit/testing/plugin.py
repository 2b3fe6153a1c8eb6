"""Pytest fixtures: an in-process cluster per worker, a namespace per test, and kubectl.

    def test_web(ns, kubectl):
        kubectl("create", "deployment", "web", "--image=nginx", "-n", ns)
        kubectl("rollout", "status", "deployment/web", "-n", ns)

``@pytest.mark.cluster(nodes=5)`` gives a test (or module) a cluster of its own. ``--bowsprit-url KUBECONFIG`` runs the same
tests against another cluster; ``--bowsprit-keep`` leaves namespaces for a look after the tests.
"""

from __future__ import annotations

import contextlib
import subprocess
import uuid
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import TYPE_CHECKING, Any, Protocol

import pytest

if TYPE_CHECKING:
    from bowsprit.cluster.embedded import Cluster
    from bowsprit.extension.app import App
    from bowsprit.testing.extension import ServedApps


class RunningCluster(Protocol):
    """What the fixtures ask of a cluster."""

    @property
    def kubeconfig(self) -> Path:
        """The admin's kubeconfig file."""
        ...

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> Any:
        """Run kubectl as the admin; see bowsprit.cluster.embedded.Cluster."""
        ...


class Foreign:
    """A cluster that somebody else runs."""

    def __init__(self, kubeconfig: Path) -> None:
        self.kubeconfig = kubeconfig

    def kubectl(self, *arguments: str, stdin: str | None = None, timeout: float = 60.0) -> Any:
        from bowsprit.cluster.embedded import run_kubectl

        return run_kubectl(self.kubeconfig, *arguments, stdin=stdin, timeout=timeout)


def pytest_addoption(parser: pytest.Parser) -> None:
    """The plugin's options."""
    group = parser.getgroup("bowsprit")
    group.addoption("--bowsprit-url", metavar="KUBECONFIG", help="Test against the cluster of this kubeconfig file.")
    group.addoption("--bowsprit-keep", action="store_true", help="Leave the tests' namespaces in the cluster.")


def pytest_configure(config: pytest.Config) -> None:
    """The plugin's marker."""
    config.addinivalue_line("markers", "cluster(nodes=3): a cluster of its own with so many simulated nodes")


def _start(nodes: int) -> Cluster:
    from bowsprit.cluster.config import ClusterConfig, NodeGroup
    from bowsprit.cluster.embedded import Cluster

    return Cluster(ClusterConfig(name="test", store="memory", nodes=[NodeGroup(count=nodes)])).start()


@pytest.fixture(scope="session")
def _shared_cluster(request: pytest.FixtureRequest) -> Iterator[Callable[[], RunningCluster]]:
    """Starts the worker's cluster when a test first asks for it."""
    started: list[Cluster] = []

    def cluster() -> RunningCluster:
        if given := request.config.getoption("--bowsprit-url"):
            return Foreign(Path(given))
        if not started:
            started.append(_start(3))
        return started[0]

    yield cluster
    for running in started:
        running.stop()


@pytest.fixture
def cluster(request: pytest.FixtureRequest, _shared_cluster: Callable[[], RunningCluster]) -> Iterator[RunningCluster]:
    """A running cluster: the worker's shared one, or one of its own for a test with the marker."""
    marker = request.node.get_closest_marker("cluster")
    if marker is None or request.config.getoption("--bowsprit-url"):
        yield _shared_cluster()
        return
    own = _start(int(marker.kwargs.get("nodes", 3)))
    yield own
    own.stop()


@pytest.fixture
def kubeconfig(cluster: RunningCluster) -> Path:
    """The admin's kubeconfig file."""
    return cluster.kubeconfig


@pytest.fixture
def kubectl(cluster: RunningCluster) -> Callable[..., Any]:
    """Runs the real kubectl: ``kubectl("get", "pods", "-o", "json")`` gives the parsed answer."""
    return cluster.kubectl


@pytest.fixture
def ns(cluster: RunningCluster, request: pytest.FixtureRequest) -> Iterator[str]:
    """The name of a new namespace, deleted after the test."""
    name = f"test-{uuid.uuid4().hex[:10]}"
    cluster.kubectl("create", "namespace", name)
    yield name
    if not request.config.getoption("--bowsprit-keep"):
        with contextlib.suppress(subprocess.SubprocessError):
            cluster.kubectl("delete", "namespace", name, "--wait=false")


@pytest.fixture(scope="session")
def _served_apps(_shared_cluster: Callable[[], RunningCluster]) -> Iterator[ServedApps]:
    """Extension apps that tests have asked for, served to the end of the session, which the cluster outlives."""
    from bowsprit.testing.extension import ServedApps

    apps = ServedApps()
    yield apps
    apps.close()


@pytest.fixture
def extension(cluster: RunningCluster, _served_apps: ServedApps) -> Callable[[App], Any]:
    """Serves an extension app in the cluster: ``extension(app)`` returns when kubectl finds its kinds."""
    return lambda app: _served_apps.serve(app, cluster.kubeconfig)
