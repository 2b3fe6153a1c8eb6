"""A namespace whose deletion cannot be completed because a dead extension server may have something in it."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from dataclasses import replace
from typing import Any

import pytest

from bowsprit.client.kubeconfig import Kubeconfig
from bowsprit.client.resources import NAMESPACES
from bowsprit.client.rest import RestClient
from bowsprit.cluster.config import ClusterConfig
from bowsprit.cluster.embedded import Cluster
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.names import GroupVersionResource

API_SERVICES = GroupVersionResource("apiregistration.k8s.io", "v1", "apiservices")
CONFIG_MAPS = GroupVersionResource("", "v1", "configmaps")


@pytest.fixture
async def client() -> AsyncIterator[RestClient]:
    config = ClusterConfig(name="deadgroup", store="memory", nodes=[])
    with Cluster(config, components=("apiserver", "controller-manager")) as running:
        async with RestClient(replace(Kubeconfig.load(running.kubeconfig).rest_config(), qps=0.0)) as made:
            yield made


async def _conditions(client: RestClient) -> dict[str, dict[str, Any]]:
    namespace = await client.get(NAMESPACES, "doomed")
    return {item["type"]: item for item in (namespace.get("status") or {}).get("conditions") or ()}


async def test_discovery_that_fails_keeps_a_namespace_and_says_so(client):
    about = {"group": "dead.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10}
    service = {"namespace": "default", "name": "nope"}
    spec = {**about, "insecureSkipTLSVerify": True, "service": service}
    kind = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService"}
    await client.create(API_SERVICES, {**kind, "metadata": {"name": "v1.dead.example.com"}, "spec": spec})
    await client.create(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": "doomed"}})
    meta = {"name": "a", "namespace": "doomed"}
    await client.create(CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta})
    await client.delete(NAMESPACES, "doomed")
    async with asyncio.timeout(30):
        while "NamespaceDeletionDiscoveryFailure" not in (found := await _conditions(client)):
            await asyncio.sleep(0.1)
    failure = found["NamespaceDeletionDiscoveryFailure"]
    assert (failure["status"], failure["reason"], failure["message"]) == (
        "True",
        "DiscoveryFailed",
        "Discovery failed for some groups, 1 failing: unable to retrieve the complete list of server APIs: "
        "dead.example.com/v1: stale GroupVersion discovery: dead.example.com/v1",
    )
    with pytest.raises(NotFoundError):  # what can be found goes at once
        async with asyncio.timeout(10):
            while True:
                await client.get(CONFIG_MAPS, "a", namespace="doomed")
                await asyncio.sleep(0.1)
    assert (await client.get(NAMESPACES, "doomed"))["status"]["phase"] == "Terminating"
    await client.delete(API_SERVICES, "v1.dead.example.com")
    with pytest.raises(NotFoundError):
        async with asyncio.timeout(40):
            while True:
                await client.get(NAMESPACES, "doomed")
                await asyncio.sleep(0.1)
