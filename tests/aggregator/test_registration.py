"""APIServices of what this server serves itself: as Kubernetes v1.36 keeps them, or does not."""

from __future__ import annotations

import asyncio
from typing import Any

API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
CRD = {
    "metadata": {"name": "cars.own.example.com"},
    "spec": {
        "group": "own.example.com",
        "scope": "Cluster",
        "names": {"plural": "cars", "kind": "Car"},
        "versions": [
            {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": {"type": "object"}}}
        ],
    },
}


class Client:
    def __init__(self, server: Any, session: Any) -> None:
        self.server, self.session = server, session

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        headers = {"Authorization": "Bearer admin-token"}
        async with self.session.request(method, self.server.url + path, json=body, headers=headers) as answer:
            return answer.status, await answer.json(content_type=None)

    async def groups(self) -> list[str]:
        return [item["name"] for item in (await self.ask("GET", "/apis"))[1]["groups"]]

    async def until(self, path: str, status: int) -> Any:
        async with asyncio.timeout(10):
            while (answer := await self.ask("GET", path))[0] != status:
                await asyncio.sleep(0.05)
        return answer[1]


async def test_a_custom_kind_is_registered_again_and_reset(server, session):
    client, path = Client(server, session), f"{API_SERVICES}/v1.own.example.com"
    await client.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
    item = await client.until(path, 200)
    assert item["metadata"]["labels"] == {"kube-aggregator.kubernetes.io/automanaged": "true"}
    assert "own.example.com" in await client.groups()
    assert (await client.ask("DELETE", path))[0] == 200
    again = await client.until(path, 200)
    again["spec"]["versionPriority"] = 7
    assert (await client.ask("PUT", path, again))[0] == 200
    async with asyncio.timeout(10):
        while (await client.ask("GET", path))[1]["spec"]["versionPriority"] != 100:
            await asyncio.sleep(0.05)
    await client.ask("DELETE", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/cars.own.example.com")
    await client.until(path, 404)
    assert "own.example.com" not in await client.groups()


async def test_built_in_groups_are_registered_at_start_and_then_left_alone(server, session):
    client = Client(server, session)
    assert (await client.ask("DELETE", f"{API_SERVICES}/v1.batch"))[0] == 200
    _, apps = await client.ask("GET", f"{API_SERVICES}/v1.apps")
    apps["spec"]["versionPriority"] = 99
    await client.ask("PUT", f"{API_SERVICES}/v1.apps", apps)
    # A kind of ours comes: by then what was to be done about the others has been done.
    await client.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
    await client.until(f"{API_SERVICES}/v1.own.example.com", 200)
    assert (await client.ask("GET", f"{API_SERVICES}/v1.batch"))[0] == 404
    assert (await client.ask("GET", f"{API_SERVICES}/v1.apps"))[1]["spec"]["versionPriority"] == 99
    assert "batch" not in await client.groups()
    assert (await client.ask("GET", "/apis/batch"))[1]["versions"] == [{"groupVersion": "batch/v1", "version": "v1"}]
    assert (await client.ask("GET", "/apis/batch/v1/jobs"))[0] == 200


async def test_groups_are_in_the_order_of_their_priorities(server, session):
    client = Client(server, session)
    spec = {"service": {"namespace": "default", "name": "nowhere"}, "version": "v1", "versionPriority": 1}
    for group, priority in (("low.example.com", 1), ("high.example.com", 20000), ("also.example.com", 20000)):
        item = {
            "metadata": {"name": f"v1.{group}"},
            "spec": {**spec, "group": group, "groupPriorityMinimum": priority},
        }
        assert (await client.ask("POST", API_SERVICES, item))[0] == 201
    async with asyncio.timeout(10):
        while "also.example.com" not in (groups := await client.groups()) or groups[-1] != "low.example.com":
            await asyncio.sleep(0.05)
    assert groups[:4] == ["apiregistration.k8s.io", "also.example.com", "high.example.com", "apps"]


async def test_an_apiservice_of_ones_own_wins_over_a_definition(server, session):
    client, path = Client(server, session), f"{API_SERVICES}/v1.own.example.com"
    await client.ask("POST", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions", CRD)
    item = await client.until(path, 200)
    del item["metadata"]["labels"]
    item["spec"]["service"] = {"namespace": "default", "name": "nowhere"}
    item["spec"]["insecureSkipTLSVerify"] = True
    assert (await client.ask("PUT", path, item))[0] == 200
    headers = {"Authorization": "Bearer admin-token"}
    async with session.get(server.url + "/apis/own.example.com/v1/cars", headers=headers) as answer:
        assert (answer.status, await answer.text()) == (503, "service unavailable\n")
    assert (await client.ask("DELETE", path))[0] == 200
    await client.until("/apis/own.example.com/v1/cars", 200)
