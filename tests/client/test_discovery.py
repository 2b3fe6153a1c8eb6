"""Discovery in both forms says the same, and failures of single groups stay theirs."""

from __future__ import annotations

from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web

from bowsprit.client.config import RestConfig
from bowsprit.client.discovery import DiscoveryClient, RestMapper
from bowsprit.client.resources import CUSTOM_RESOURCE_DEFINITIONS, DEPLOYMENTS, PODS
from bowsprit.client.rest import RestClient
from bowsprit.controlplane.options import APIServerOptions
from bowsprit.controlplane.server import APIServer
from bowsprit.machinery.names import GroupVersion, GroupVersionKind


@pytest.fixture
async def real(tmp_path: Path) -> AsyncIterator[RestClient]:
    (tmp_path / "tokens").write_text('admin-token,admin,1,"system:masters"\n')
    server = APIServer(
        APIServerOptions(
            secure_port=0, cert_dir=tmp_path, token_auth_file=tmp_path / "tokens", advertise_address="192.0.2.1"
        )
    )
    await server.start()
    url = f"https://127.0.0.1:{server.port}"
    async with RestClient(RestConfig(server=url, ca_data=server.serving_ca, token="admin-token", qps=0)) as made:
        yield made
    await server.stop()


async def test_the_aggregated_and_the_older_form_agree(real: RestClient, monkeypatch: pytest.MonkeyPatch) -> None:
    aggregated = await DiscoveryClient(real).resources()
    monkeypatch.setattr("bowsprit.client.discovery._AGGREGATED", "application/json")
    older = await DiscoveryClient(real).resources()
    assert older.failed == aggregated.failed == {}

    def told(result: Any) -> dict[Any, Any]:
        return {
            (item.gvr, item.kind, item.namespaced, item.verbs, item.short_names, item.subresources): item.preferred
            for item in result.resources
            if item.verbs
        }

    assert told(aggregated) == told(older)
    found = {item.gvr: item for item in aggregated.preferred()}
    assert found[PODS].short_names == ("po",)
    assert "status" in found[DEPLOYMENTS].subresources
    assert found[DEPLOYMENTS].categories == ("all",)


async def test_the_mapper_asks_again_for_a_kind_it_does_not_know(real: RestClient) -> None:
    mapper = RestMapper(DiscoveryClient(real))
    pod = await mapper.resource_for(GroupVersionKind("", "v1", "Pod"))
    assert pod is not None
    assert pod.gvr == PODS
    assert mapper.known(GroupVersionKind("apps", "v1", "Deployment")) is not None
    widget = GroupVersionKind("example.com", "v1", "Widget")
    assert await mapper.resource_for(widget) is None
    schema = {"openAPIV3Schema": {"type": "object"}}
    body = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": "widgets.example.com"},
        "spec": {
            "group": "example.com",
            "scope": "Cluster",
            "names": {"plural": "widgets", "kind": "Widget"},
            "versions": [{"name": "v1", "served": True, "storage": True, "schema": schema}],
        },
    }
    await real.create(CUSTOM_RESOURCE_DEFINITIONS, body)
    found = None
    for _ in range(200):
        found = found or await mapper.resource_for(widget)
    assert found is not None
    assert not found.namespaced


async def test_a_dead_group_is_reported_and_keeps_its_mapping() -> None:
    group = {"name": "g", "versions": [{"groupVersion": "g/v1"}], "preferredVersion": {"groupVersion": "g/v1"}}
    resources = {"resources": [{"name": "things", "kind": "Thing", "namespaced": True, "verbs": ["get"]}]}
    alive = True

    async def answer(request: web.BaseRequest) -> web.Response:
        if request.path == "/api":
            return web.json_response({"kind": "APIVersions", "versions": []})
        if request.path == "/apis":
            return web.json_response({"kind": "APIGroupList", "groups": [group]})
        return web.json_response(resources) if alive else web.Response(status=503, text="down")

    runner = web.ServerRunner(web.Server(answer))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    async with RestClient(RestConfig(server=f"http://127.0.0.1:{runner.addresses[0][1]}")) as other:
        mapper = RestMapper(DiscoveryClient(other))
        thing = GroupVersionKind("g", "v1", "Thing")
        assert await mapper.resource_for(thing) is not None
        alive = False
        result = await mapper.refresh()
        assert list(result.failed) == [GroupVersion("g", "v1")]
        assert mapper.known(thing) is not None
    await runner.cleanup()
