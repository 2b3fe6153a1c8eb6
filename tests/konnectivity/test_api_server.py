"""What servers and agents ask of an API server: TokenReviews and Leases."""

from __future__ import annotations

from collections.abc import AsyncIterator
from typing import Any

import pytest
from aiohttp import web
from konnectivity_transcripts import until

from bowsprit.client.config import RestConfig
from bowsprit.client.rest import RestClient
from bowsprit.konnectivity.leases import LeaseController, LeaseCounter, is_valid
from bowsprit.konnectivity.servermetrics import ServerMetrics
from bowsprit.konnectivity.tokens import TokenAuthenticator, TokenRejectedError
from bowsprit.machinery.time import format_micro_time

AUDIENCE = "system:konnectivity-server"
GOOD = {
    "authenticated": True,
    "user": {"username": "system:serviceaccount:kube-system:konnectivity-agent"},
    "audiences": [AUDIENCE],
}
LEASES = "/apis/coordination.k8s.io/v1/namespaces/kube-system/leases"


class FakeAPI:
    """Token reviews from a table, leases in a dict."""

    def __init__(self) -> None:
        self.reviews: list[dict[str, Any]] = []
        self.status: dict[str, Any] = GOOD
        self.leases: dict[str, dict[str, Any]] = {}
        self.version = 1
        self.watchers: list[web.StreamResponse] = []

    def app(self) -> web.Application:
        app = web.Application()
        app.router.add_post("/apis/authentication.k8s.io/v1/tokenreviews", self.review)
        app.router.add_route("*", LEASES, self.collection)
        app.router.add_route("*", LEASES + "/{name}", self.one)
        return app

    async def review(self, request: web.Request) -> web.Response:
        body = await request.json()
        self.reviews.append(body["spec"])
        return web.json_response({**body, "status": self.status}, status=201)

    async def collection(self, request: web.Request) -> web.StreamResponse:
        if request.method == "POST":
            lease = await request.json()
            return web.json_response(self.store(lease), status=201)
        if "watch" in request.query:
            answer = web.StreamResponse(headers={"Content-Type": "application/json"})
            await answer.prepare(request)
            self.watchers.append(answer)
            await until(lambda: False, lambda: "", 60)
        items = list(self.leases.values())
        return web.json_response(
            {"kind": "LeaseList", "metadata": {"resourceVersion": str(self.version)}, "items": items}
        )

    async def one(self, request: web.Request) -> web.Response:
        name = request.match_info["name"]
        if name not in self.leases:
            status = {
                "kind": "Status",
                "apiVersion": "v1",
                "status": "Failure",
                "reason": "NotFound",
                "code": 404,
                "message": "gone",
            }
            return web.json_response(status, status=404)
        if request.method == "PUT":
            return web.json_response(self.store(await request.json()))
        if request.method == "DELETE":
            body = await request.json()
            wanted = (body.get("preconditions") or {}).get("resourceVersion")
            if wanted and wanted != self.leases[name]["metadata"]["resourceVersion"]:
                status = {
                    "kind": "Status",
                    "apiVersion": "v1",
                    "status": "Failure",
                    "reason": "Conflict",
                    "code": 409,
                    "message": "no",
                }
                return web.json_response(status, status=409)
            return web.json_response(self.leases.pop(name))
        return web.json_response(self.leases[name])

    def store(self, lease: dict[str, Any]) -> dict[str, Any]:
        self.version += 1
        lease["metadata"]["resourceVersion"] = str(self.version)
        self.leases[lease["metadata"]["name"]] = lease
        return lease

    def lease(self, name: str, renewed: float) -> dict[str, Any]:
        spec = {"leaseDurationSeconds": 30, "renewTime": format_micro_time(renewed)}
        return self.store({"kind": "Lease", "metadata": {"name": name}, "spec": spec})


@pytest.fixture
async def api() -> AsyncIterator[tuple[FakeAPI, str]]:
    fake = FakeAPI()
    runner = web.AppRunner(fake.app(), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    assert site._server is not None
    yield fake, f"http://127.0.0.1:{site._server.sockets[0].getsockname()[1]}"  # type: ignore[attr-defined]
    await runner.cleanup()


@pytest.fixture
async def client(api: tuple[FakeAPI, str]) -> AsyncIterator[RestClient]:
    rest = RestClient(RestConfig(server=api[1], qps=0))
    yield rest
    await rest.close()


def authenticator(client: RestClient, clock: list[float]) -> TokenAuthenticator:
    return TokenAuthenticator(client, "kube-system", "konnectivity-agent", AUDIENCE, lambda: clock[0])


async def test_a_good_token_is_reviewed_once_in_ten_seconds(api: tuple[FakeAPI, str], client: RestClient) -> None:
    clock = [0.0]
    checker = authenticator(client, clock)
    for _ in range(3):
        await checker.authenticate(["Bearer abc"])
    assert api[0].reviews == [{"token": "abc", "audiences": [AUDIENCE]}]
    clock[0] = 11.0
    await checker.authenticate(["Bearer abc"])
    assert len(api[0].reviews) == 2


@pytest.mark.parametrize(
    ("status", "message"),
    [
        ({"error": "broken"}, "lookup failed: broken"),
        ({"authenticated": False}, "lookup failed: service account jwt not valid"),
        ({**GOOD, "audiences": ["other"]}, "lookup failed: service account jwt not valid"),
        ({**GOOD, "user": {"username": "kubernetes-admin"}}, "lookup failed: unexpected username format"),
        ({**GOOD, "user": {"username": "a:b:c:d"}}, "lookup failed: username returned is not a service account"),
        (
            {**GOOD, "user": {"username": "system:serviceaccount:default:konnectivity-agent"}},
            'lookup failed: incoming request from "default" namespace. Expected "kube-system"',
        ),
        (
            {**GOOD, "user": {"username": "system:serviceaccount:kube-system:other"}},
            'lookup failed: incoming request from "other" service account. Expected "konnectivity-agent"',
        ),
    ],
)
async def test_bad_tokens_are_refused_in_upstreams_words(
    status: dict[str, Any], message: str, api: tuple[FakeAPI, str], client: RestClient
) -> None:
    api[0].status = status
    checker = authenticator(client, [0.0])
    for _ in range(2):  # a refusal is not remembered
        with pytest.raises(TokenRejectedError) as raised:
            await checker.authenticate(["Bearer abc"])
        assert str(raised.value) == f"Failed to validate authentication token, err:{message}"
    assert len(api[0].reviews) == 2


async def test_agents_connect_with_a_token(
    api: tuple[FakeAPI, str], start_server: Any, start_agent: Any, tmp_path: Any
) -> None:
    fake, url = api
    kubeconfig = tmp_path / "kubeconfig"
    kubeconfig.write_text(
        f"apiVersion: v1\nkind: Config\ncurrent-context: x\nclusters: [{{name: c, cluster: {{server: '{url}'}}}}]\n"
        "users: [{name: u, user: {}}]\ncontexts: [{name: x, context: {cluster: c, user: u}}]\n"
    )
    server = await start_server(
        cluster_ca_cert="", agent_namespace="kube-system", agent_service_account="konnectivity-agent",
        authentication_audience=AUDIENCE, kubeconfig=str(kubeconfig), enable_lease_controller=True,
    )  # fmt: skip
    token = tmp_path / "token"
    token.write_text("secret-token\n")
    agent = await start_agent(
        server.agent_port, agent_cert="", agent_key="", service_account_token_path=str(token), count_server_leases=True,
        kubeconfig=str(kubeconfig),
    )  # fmt: skip
    await until(lambda: agent.ready, lambda: f"not admitted: {agent.status()}")
    assert fake.reviews[0]["token"] == "secret-token"
    await until(lambda: "konnectivity-proxy-server-server-1" in fake.leases, lambda: "no lease")
    lease = fake.leases["konnectivity-proxy-server-server-1"]
    assert lease["spec"]["holderIdentity"] == "server-1"
    assert lease["spec"]["leaseDurationSeconds"] == 30
    assert lease["metadata"]["labels"] == {"k8s-app": "konnectivity-server"}
    assert agent.server_count() == 1
    listed = 'lease_lists_total{http_response_code="200",reason=""}'
    await until(lambda: listed in agent.metrics.registry.render(), lambda: "the leases have not been listed")
    await server.stop(force=True)
    assert "konnectivity-proxy-server-server-1" not in fake.leases


async def test_expired_leases_are_collected(api: tuple[FakeAPI, str], client: RestClient) -> None:
    fake, now, metrics = api[0], 1_000_000.0, ServerMetrics()
    fake.lease("old", now - 31)
    fake.lease("fresh", now - 29)
    controller = LeaseController(client, "me", "kube-system", {"k8s-app": "x"}, metrics, now=lambda: now)
    await controller.collect()
    assert sorted(fake.leases) == ["fresh"]
    await controller.renew()
    await controller.renew()
    assert "konnectivity-proxy-server-me" in fake.leases
    text = metrics.registry.render()
    assert "konnectivity_network_proxy_server_culled_leases_count 1" in text
    assert 'lease_delete_total{http_status_code="200",reason=""} 1' in text
    assert 'lease_list_total{http_status_code="200",reason=""} 1' in text


async def test_agents_count_valid_leases_and_watch_them(api: tuple[FakeAPI, str], client: RestClient) -> None:
    from bowsprit.konnectivity.agentmetrics import AgentMetrics

    fake, now, metrics = api[0], [1_000_000.0], AgentMetrics()
    for number in range(3):
        fake.lease(f"server-{number}", now[0] - number * 20)
    counter = LeaseCounter(client, "kube-system", "k8s-app=x", metrics, now=lambda: now[0])
    counter.start()
    await until(counter.synced.is_set, lambda: "not listed")
    assert counter.count() == 2
    await until(lambda: bool(fake.watchers), lambda: "no watch")
    import orjson

    event = {"type": "ADDED", "object": fake.lease("server-9", now[0])}
    await fake.watchers[0].write(orjson.dumps(event) + b"\n")
    await until(lambda: counter.count() == 3, lambda: "the new lease is not counted")
    assert (
        'lease_watches_total{http_response_code="200",reason=""} 1' in metrics.registry.render()
    )  # upstream's never counts
    now[0] += 100
    assert counter.count() == 0
    await counter.stop()


def test_a_lease_without_times_is_not_valid() -> None:
    assert not is_valid({"spec": {}}, 0.0)
    assert is_valid({"spec": {"acquireTime": format_micro_time(100.0), "leaseDurationSeconds": 30}}, 129.0)
    assert not is_valid({"spec": {"renewTime": "rubbish", "leaseDurationSeconds": 30}}, 0.0)
