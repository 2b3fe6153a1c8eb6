"""Modules that tests share lie beside them; one embedded core serves the tests that need one."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from dataclasses import replace
from pathlib import Path

import pytest

from bowsprit.client.rest import RestClient
from bowsprit.cluster.config import ClusterConfig
from bowsprit.cluster.embedded import Cluster
from bowsprit.testing.plugin import Foreign, RunningCluster

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def core(request: pytest.FixtureRequest) -> Iterator[RunningCluster]:
    """An API server with its controllers, without nodes; or the cluster that --bowsprit-url names."""
    if given := request.config.getoption("--bowsprit-url"):
        yield Foreign(Path(given))
        return
    config = ClusterConfig(name="extension", store="memory", nodes=[])
    with Cluster(config, components=("apiserver", "controller-manager")) as running:
        yield running


@pytest.fixture
async def admin(core: RunningCluster) -> AsyncIterator[RestClient]:
    """A client with the administrator's rights."""
    from bowsprit.client.kubeconfig import Kubeconfig

    async with RestClient(replace(Kubeconfig.load(core.kubeconfig).rest_config(), qps=0.0)) as client:
        yield client
