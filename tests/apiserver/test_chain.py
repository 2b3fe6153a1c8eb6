"""The chain around every request: identities, limits, failures, paths, health, the end."""

from __future__ import annotations

import asyncio
import json
import logging
from collections.abc import AsyncIterator
from types import SimpleNamespace
from typing import Any, cast

import aiohttp
import pytest
from apiserver_toys import ADMIN, CRATES, WIDGETS, Client, crates, widget, widgets

from bowsprit.apiserver.access import AllowAlways, Attributes, Authenticated, Credentials, Decision, FixedUser
from bowsprit.apiserver.admission.chain import AdmissionChain
from bowsprit.apiserver.admit import Operation
from bowsprit.apiserver.answer import Answer
from bowsprit.apiserver.server import Server, ServerOptions, warning_values
from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.errors import StatusError, forbidden, unauthorized
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.store.memory import MemoryStore


class ByHeader:
    async def authenticate(self, credentials: Credentials) -> Authenticated | None:
        name = credentials.headers.get("X-Test-User")
        if not name:
            raise unauthorized()
        return Authenticated(UserInfo(name, groups=("system:masters",) if name == "root" else ()))


class Reads:
    def __init__(self) -> None:
        self.asked: list[Attributes] = []

    async def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        self.asked.append(attributes)
        if attributes.user.name == "root" or attributes.verb in ("get", "list"):
            return Decision.ALLOW, ""
        return Decision.NO_OPINION, "no rule"


@pytest.fixture
async def guarded() -> AsyncIterator[tuple[Server, Client, Reads]]:
    reads = Reads()
    options = ServerOptions(
        max_requests_in_flight=2, max_mutating_requests_in_flight=1, request_timeout=0.3, write_timeout=0.2
    )
    server = Server(MemoryStore(), authenticator=ByHeader(), authorizer=reads, options=options)
    await server.registry.add(widgets())
    await server.registry.add(crates())
    host, port = await server.start("127.0.0.1", 0)
    async with aiohttp.ClientSession(auto_decompress=False) as session:
        yield server, Client(f"http://{host}:{port}", session), reads
    await server.stop()


async def test_nobody_is_turned_away_with_401(guarded: tuple[Server, Client, Reads]) -> None:
    _, client, _ = guarded
    reply = await client.get(WIDGETS)
    assert reply.status == 401
    assert reply.body == {
        "kind": "Status",
        "apiVersion": "v1",
        "metadata": {},
        "status": "Failure",
        "message": "Unauthorized",
        "reason": "Unauthorized",
        "code": 401,
    }
    assert "X-Kubernetes-Pf-Flowschema-Uid" not in reply.headers


async def test_what_is_forbidden_is_said_as_upstream_says_it(guarded: tuple[Server, Client, Reads]) -> None:
    _, client, reads = guarded
    user = {"X-Test-User": "eve"}
    reply = await client.call("POST", WIDGETS, widget("a"), headers=user)
    assert reply.status == 403
    assert reply.body["message"] == (
        'widgets.toys.example is forbidden: User "eve" cannot create resource "widgets" in API group "toys.example" in the '
        'namespace "ns": no rule'
    )
    assert reply.body["details"] == {"group": "toys.example", "kind": "widgets"}
    assert reply.headers["X-Content-Type-Options"] == "nosniff"
    assert reply.headers["X-Kubernetes-Pf-Flowschema-Uid"]
    cluster = await client.call("DELETE", f"{CRATES}/c", headers=user)
    assert 'cannot delete resource "crates" in API group "toys.example" at the cluster scope' in cluster.body["message"]
    path = await client.call("POST", "/healthz", headers=user)
    assert path.body["message"] == 'forbidden: User "eve" cannot post path "/healthz": no rule'
    asked = reads.asked[0]
    assert (asked.verb, asked.group, asked.version, asked.resource, asked.namespace) == (
        "create",
        "toys.example",
        "v1",
        "widgets",
        "ns",
    )


@pytest.mark.parametrize(
    ("method", "path", "expected"),
    [
        ("GET", f"{WIDGETS}", ("list", "ns", "", "")),
        ("GET", f"{WIDGETS}?watch=true", ("watch", "ns", "", "")),
        ("GET", f"{WIDGETS}?watch=0", ("list", "ns", "", "")),
        ("GET", f"{WIDGETS}?fieldSelector=metadata.name%3Dx", ("list", "ns", "x", "")),
        ("GET", f"{WIDGETS}/a/status", ("get", "ns", "a", "status")),
        ("DELETE", f"{WIDGETS}", ("deletecollection", "ns", "", "")),
        ("PATCH", f"{WIDGETS}/a%20b", ("patch", "ns", "a b", "")),
        ("PUT", f"{CRATES}/c", ("update", "", "c", "")),
    ],
)
async def test_what_the_authorizer_is_asked(
    guarded: tuple[Server, Client, Reads], method: str, path: str, expected: tuple[str, ...]
) -> None:
    _, client, reads = guarded
    url = client.base + path
    from yarl import URL

    async with client.session.request(method, URL(url, encoded=True), headers={"X-Test-User": "eve"}):
        asked = reads.asked[-1]
    assert (asked.verb, asked.namespace, asked.name, asked.subresource) == expected


async def test_paths_that_do_not_exist(client: Client) -> None:
    for path in (
        "/nope",
        "/apis/nope.example/v1",
        "/apis/nope.example/v1/x",
        "/livez/nope",
        "/livez/",
        "/apis/toys.example/v9",
    ):
        reply = await client.get(path)
        assert (reply.status, reply.raw, reply.headers["Content-Type"]) == (
            404,
            b"404 page not found\n",
            "text/plain; charset=utf-8",
        )
    unknown = await client.get("/apis/toys.example/v1/namespaces/ns/nopes")
    assert (unknown.status, unknown.body["message"]) == (404, "the server could not find the requested resource")
    for method, path in (
        ("PUT", WIDGETS),
        ("POST", f"{WIDGETS}/a"),
        ("OPTIONS", WIDGETS),
        ("POST", f"{WIDGETS}/a/status"),
    ):
        reply = await client.call(method, path, {})
        assert (reply.status, reply.body["reason"]) == (405, "MethodNotAllowed")
    assert (await client.call("HEAD", WIDGETS)).status == 405
    assert (await client.get(f"{WIDGETS}/a/nope")).status == 404


async def test_a_crash_is_an_answer(server: Server, client: Client, caplog: pytest.LogCaptureFixture) -> None:
    async def broken(ctx: Any, request: Any) -> Answer:
        raise ZeroDivisionError("oops")

    server.mount("/broken", broken)
    with caplog.at_level(logging.ERROR):
        reply = await client.get("/broken")
    assert (reply.status, reply.body["reason"]) == (500, "InternalError")
    assert "oops" not in reply.raw.decode()
    assert "ZeroDivisionError" in caplog.text
    assert (await client.get("/version")).status == 200


async def test_slow_requests_time_out(guarded: tuple[Server, Client, Reads]) -> None:
    server, client, _ = guarded

    async def slow(ctx: Any, request: Any) -> Answer:
        await asyncio.sleep(30)
        return Answer(200)

    server.mount("/slow", slow)
    reply = await client.get("/slow", X_Test_User="root")
    assert (reply.status, reply.body["reason"]) == (504, "Timeout")


async def test_a_body_that_never_ends_times_out(guarded: tuple[Server, Client, Reads]) -> None:
    _, client, _ = guarded
    host, port = client.base.removeprefix("http://").split(":")
    reader, writer = await asyncio.open_connection(host, int(port))
    writer.write(f"POST {WIDGETS} HTTP/1.1\r\nHost: x\r\nX-Test-User: root\r\nContent-Length: 100\r\n\r\n{{".encode())
    async with asyncio.timeout(5):
        assert b"504" in await reader.readline()
    writer.close()


async def test_too_many_requests_are_refused_but_not_those_of_masters(guarded: tuple[Server, Client, Reads]) -> None:
    server, client, _ = guarded
    server.in_flight.counts["read"] = 2
    refused = await client.get(WIDGETS, X_Test_User="eve")
    assert (refused.status, refused.headers["Retry-After"], refused.body["reason"]) == (429, "1", "TooManyRequests")
    assert (await client.get(WIDGETS, X_Test_User="root")).status == 200
    server.in_flight.counts["read"] = 0
    assert (await client.get(WIDGETS, X_Test_User="eve")).status == 200
    assert server.in_flight.counts == {"read": 0, "write": 0, "long": 0}


async def test_the_audit_id_is_the_clients_or_a_new_one(client: Client) -> None:
    assert (await client.get("/version", Audit_Id="mine")).headers["Audit-Id"] == "mine"
    ids = {(await client.get("/version")).headers["Audit-Id"] for _ in range(20)}
    assert len(ids) == 20


def test_warnings_are_bounded() -> None:
    values = warning_values(["x" * 3000, 'a "quoted" \\ text\n', "y" * 3000])
    assert sum(map(len, values)) < 5000
    assert values[1] == '299 - "a \\"quoted\\" \\\\ text "'


async def test_health(server: Server, client: Client) -> None:
    assert (await client.get("/livez")).raw == b"ok"
    verbose = (await client.get("/healthz?verbose")).raw.decode()
    assert verbose == "[+]ping ok\n[+]log ok\n[+]loopback-serving-certificate ok\n[+]etcd ok\nhealthz check passed\n"
    ready = server.health.add_post_start_hook("kinds")
    failing = await client.get("/readyz")
    assert failing.status == 500
    assert failing.raw.decode() == (
        "[+]ping ok\n[+]log ok\n[+]informer-sync ok\n"
        "[-]poststarthook/kinds failed: reason withheld\n[+]shutdown ok\nreadyz check failed\n"
    )
    assert (await client.get("/readyz/poststarthook/kinds")).raw == b"internal server error: not finished\n"
    excluded = await client.get("/readyz?verbose&exclude=poststarthook/kinds&exclude=nope")
    assert excluded.status == 200
    assert "[+]poststarthook/kinds excluded: ok\n" in excluded.raw.decode()
    assert 'warn: some health checks cannot be excluded: no matches for "nope"\n' in excluded.raw.decode()
    ready()
    assert (await client.get("/readyz")).status == 200
    assert (await client.get("/livez/ping")).raw == b"ok"


async def test_version_index_and_discovery(client: Client) -> None:
    assert (await client.get("/version")).body["gitVersion"] == "v1.36.0"
    assert "/apis/toys.example/v1" in (await client.get("/")).body["paths"]
    groups = (await client.get("/apis")).body["groups"]
    assert [(group["name"], [version["version"] for version in group["versions"]]) for group in groups] == [
        ("toys.example", ["v1", "v1beta1"])
    ]
    assert (await client.get("/apis/toys.example")).body["preferredVersion"]["version"] == "v1"
    names = [(entry["name"], entry["verbs"]) for entry in (await client.get("/apis/toys.example/v1")).body["resources"]]
    assert [name for name, _ in names] == ["crates", "widgets", "widgets/scale", "widgets/status"]
    assert names[1][1] == ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
    accept = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList,application/json"
    aggregated = await client.get("/apis", Accept=accept)
    assert aggregated.headers["Content-Type"] == "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
    assert (aggregated.headers["Cache-Control"], aggregated.headers["Vary"]) == ("public", "Accept")
    assert aggregated.body["items"][0]["versions"][0]["freshness"] == "Current"
    again = await client.get("/apis", Accept=accept, If_None_Match=aggregated.headers["Etag"])
    assert (again.status, again.raw) == (304, b"")


async def test_metrics_count_requests(client: Client) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    await client.post(WIDGETS, widget("a"))
    for _ in range(3):
        await client.get(f"{WIDGETS}/a")
    await client.get("/livez")
    text = (await client.get("/metrics")).raw.decode()
    families = {family.name: family for family in text_string_to_metric_families(text)}
    samples = {
        (sample.labels["verb"], sample.labels["code"]): sample.value for sample in families["apiserver_request"].samples
    }
    assert samples["GET", "200"] >= 3
    assert samples["POST", "201"] == 1
    stored = {sample.labels["resource"]: sample.value for sample in families["apiserver_storage_objects"].samples}
    assert stored["widgets.toys.example"] == 1
    allowed = {sample.labels["result"]: sample.value for sample in families["authorization_attempts"].samples}
    assert allowed["allowed"] >= 5
    assert families["process_resident_memory_bytes"].samples[0].value > 1e6
    durations = families["authorization_duration_seconds"].samples
    assert {s.labels["result"] for s in durations if s.name.endswith("_count")} == {"allowed"}


async def test_metrics_count_watches_while_they_last(client: Client) -> None:
    from prometheus_client.parser import text_string_to_metric_families

    async def family(name: str) -> list[Any]:
        text = (await client.get("/metrics")).raw.decode()
        return [s for each in text_string_to_metric_families(text) if each.name == name for s in each.samples]

    await client.post(WIDGETS, widget("a"))
    async with client.session.get(f"{client.base}{WIDGETS}?watch=1") as response:
        line = await response.content.readline()
        (running,) = await family("apiserver_longrunning_requests")
        assert running.labels == {
            "component": "apiserver", "group": "toys.example", "resource": "widgets", "scope": "namespace",
            "subresource": "", "verb": "WATCH", "version": "v1",
        }  # fmt: skip
        assert running.value == 1
        sizes = {s.name.rpartition("_")[2]: s.value for s in await family("apiserver_watch_events_sizes")}
        assert sizes["count"] == 1
        assert len(line) <= sizes["sum"] < len(line) + 16  # with its chunk
    async with asyncio.timeout(5):
        while await family("apiserver_longrunning_requests"):
            await asyncio.sleep(0.01)


async def test_admission_plugins_are_timed_one_by_one() -> None:
    class Refuses:
        name = "Refuses"

        def concerns(self, target: Any) -> bool:
            return True

        async def validate(self, attributes: Any) -> None:
            raise forbidden(attributes.gvr.gr, "a", "no")

    class Agrees(Refuses):
        name = "Agrees"

        async def validate(self, attributes: Any) -> None:
            """Fine."""

    chain = AdmissionChain([Agrees(), Refuses()])
    seen: list[tuple[str, str, str, bool]] = []
    chain.observer = lambda name, operation, sort, rejected, seconds: seen.append((name, operation, sort, rejected))
    gvr = GroupVersionResource("toys.example", "v1", "widgets")
    asked = SimpleNamespace(
        operation=Operation.CREATE, gvr=gvr, gvk=gvr.gv.with_kind("Widget"), subresource="", reinvocation={}
    )
    with pytest.raises(StatusError):
        await chain.validate(cast(Any, asked))
    assert seen == [
        ("Agrees", "CREATE", "validate", False),
        ("Refuses", "CREATE", "validate", True),
        ("", "CREATE", "validate", True),
    ]


async def test_stopping_fails_readiness_drains_and_ends_watches() -> None:
    server = Server(
        MemoryStore(),
        authenticator=FixedUser(ADMIN),
        authorizer=AllowAlways(),
        options=ServerOptions(shutdown_delay=0.05),
    )
    await server.registry.add(widgets())
    host, port = await server.start("127.0.0.1", 0)
    release = asyncio.Event()

    async def waiting(ctx: Any, request: Any) -> Answer:
        await release.wait()
        return Answer(200, b"done")

    server.mount("/waiting", waiting)
    async with aiohttp.ClientSession() as session:
        client = Client(f"http://{host}:{port}", session)
        async with session.get(f"{client.base}{WIDGETS}?watch=1") as stream:
            slow = asyncio.ensure_future(client.get("/waiting"))
            await asyncio.sleep(0.01)
            stopping = asyncio.ensure_future(server.stop())
            await asyncio.sleep(0.01)
            assert b"[-]shutdown failed" in (await client.get("/readyz")).raw
            await asyncio.sleep(0.08)
            assert not stopping.done()
            release.set()
            assert (await slow).raw == b"done"
            async with asyncio.timeout(5):
                assert await stream.content.read() == b""
                await stopping


async def test_mounted_group_versions_win(server: Server, client: Client) -> None:
    async def elsewhere(ctx: Any, request: Any) -> Answer:
        return Answer(200, json.dumps({"path": ctx.info.path, "user": ctx.user.name}).encode())

    server.mount_group_version("toys.example", "v1", elsewhere)
    assert (await client.get(WIDGETS)).body == {"path": WIDGETS, "user": "admin"}
    assert (await client.get("/apis/toys.example/v1")).body["path"] == "/apis/toys.example/v1"
    server.unmount_group_version("toys.example", "v1")
    assert (await client.get(WIDGETS)).body["kind"] == "WidgetList"
