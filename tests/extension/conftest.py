"""Modules that tests share lie beside them; one embedded core serves the tests that need one."""

from __future__ import annotations

import sys
from collections.abc import AsyncIterator, Iterator
from pathlib import Path

import pytest

from bowsprit.client.rest import RestClient
from bowsprit.cluster.config import ClusterConfig
from bowsprit.cluster.embedded import Cluster

sys.path.insert(0, str(Path(__file__).parent))


@pytest.fixture(scope="session")
def core() -> Iterator[Cluster]:
    """An API server with its controllers; no nodes."""
    config = ClusterConfig(name="extension", store="memory", nodes=[])
    with Cluster(config, components=("apiserver", "controller-manager")) as running:
        yield running


@pytest.fixture
async def admin(core: Cluster) -> AsyncIterator[RestClient]:
    """A client with the administrator's rights."""
    from bowsprit.client.kubeconfig import Kubeconfig

    async with RestClient(Kubeconfig.load(core.kubeconfig).rest_config()) as client:
        yield client
