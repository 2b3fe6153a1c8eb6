"""The REST client at the edges of the protocol."""

from __future__ import annotations

import asyncio
import ssl
import sys
from contextlib import aclosing
from pathlib import Path
from typing import Any

import orjson
import pytest
import trustme
from aiohttp import web

from bowsprit.client.config import Impersonation, RestConfig, in_cluster_config
from bowsprit.client.errors import ConfigError, ConnectionFailed, ResponseTooLarge
from bowsprit.client.resources import CONFIG_MAPS
from bowsprit.client.rest import PatchType, RestClient
from bowsprit.machinery.errors import ConflictError, NotFoundError, StatusError


def conflict() -> web.Response:
    body = {"kind": "Status", "status": "Failure", "code": 409, "reason": "Conflict", "message": "changed"}
    return web.json_response(body, status=409)


async def test_a_status_becomes_its_exception(server: Any, client: RestClient) -> None:
    server.answers = [conflict()]
    with pytest.raises(ConflictError, match="changed"):
        await client.update(CONFIG_MAPS, {"metadata": {"name": "a", "namespace": "default"}})


async def test_an_answer_without_a_status_still_has_a_reason(server: Any, client: RestClient) -> None:
    server.answers = [web.Response(status=404, text="no such page"), web.Response(status=502, text="bad gateway")]
    with pytest.raises(NotFoundError):
        await client.get(CONFIG_MAPS, "a", namespace="default")
    with pytest.raises(StatusError) as caught:
        await client.get(CONFIG_MAPS, "a", namespace="default")
    assert caught.value.code == 502


async def test_all_pages_are_joined(server: Any, client: RestClient) -> None:
    for number in range(7):
        server.put(f"c{number}")
    result = await client.list(CONFIG_MAPS, namespace="default", limit=3, resource_version="0")
    assert [item["metadata"]["name"] for item in result["items"]] == [f"c{number}" for number in range(7)]
    assert "continue" not in result["metadata"]
    assert [request.query.get("resourceVersion") for request in server.requests] == ["0", None, None]


async def test_busy_servers_are_asked_again(server: Any, client: RestClient) -> None:
    server.answers = [web.Response(status=429, headers={"Retry-After": "0"}) for _ in range(2)]
    assert (await client.list(CONFIG_MAPS))["items"] == []
    assert len(server.requests) == 3


async def test_the_size_of_an_answer_is_bounded(server: Any) -> None:
    server.answers = [web.Response(body=b"x" * 5000)]
    async with RestClient(RestConfig(server=server.url, max_response_bytes=4096)) as client:
        with pytest.raises(ResponseTooLarge):
            await client.raw("GET", "/big")


async def test_a_server_that_is_not_there_is_a_connection_failure() -> None:
    async with RestClient(RestConfig(server="http://127.0.0.1:1")) as client:
        with pytest.raises(ConnectionFailed, match="refused"):
            await client.get(CONFIG_MAPS, "a", namespace="default")


async def test_a_silent_server_is_given_up(server: Any) -> None:
    async with RestClient(RestConfig(server=server.url, timeout=0.2)) as client:
        with pytest.raises(ConnectionFailed, match=r"0\.2s"):
            await client.raw("GET", "/configmaps", params={"watch": "true"})


async def test_what_each_verb_sends(server: Any, client: RestClient) -> None:
    seen: list[tuple[str, str, dict[str, str], Any, str]] = []

    async def record(request: web.BaseRequest) -> web.Response:
        body = await request.read()
        seen.append(
            (
                request.method,
                request.path,
                dict(request.query),
                orjson.loads(body) if body else None,
                request.headers.get("Content-Type", ""),
            )
        )
        return web.json_response({"kind": "ConfigMap", "metadata": {"name": "a"}})

    server.handle = record
    runner = web.ServerRunner(web.Server(record))
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    obj = {"metadata": {"name": "a", "namespace": "ns"}}
    async with RestClient(RestConfig(server=f"http://127.0.0.1:{runner.addresses[0][1]}")) as recorded:
        await recorded.create(CONFIG_MAPS, obj, dry_run=True, field_manager="me", field_validation="Strict")
        await recorded.apply(CONFIG_MAPS, obj, field_manager="me", force=True)
        await recorded.patch(CONFIG_MAPS, "a", [], patch_type=PatchType.JSON, namespace="ns", subresource="status")
        await recorded.delete(
            CONFIG_MAPS, "a", namespace="ns", grace_period_seconds=0, uid="u", propagation_policy="Orphan"
        )
        await recorded.delete_collection(CONFIG_MAPS, namespace="ns", label_selector="a=b")
    await runner.cleanup()
    path = "/api/v1/namespaces/ns/configmaps"
    params = {"dryRun": "All", "fieldManager": "me", "fieldValidation": "Strict"}
    options = {"kind": "DeleteOptions", "apiVersion": "v1"}
    assert seen == [
        ("POST", path, params, obj, "application/json"),
        ("PATCH", f"{path}/a", {"fieldManager": "me", "force": "true"}, obj, "application/apply-patch+yaml"),
        ("PATCH", f"{path}/a/status", {}, [], "application/json-patch+json"),
        (
            "DELETE",
            f"{path}/a",
            {},
            {**options, "gracePeriodSeconds": 0, "propagationPolicy": "Orphan", "preconditions": {"uid": "u"}},
            "application/json",
        ),
        ("DELETE", path, {"labelSelector": "a=b"}, options, "application/json"),
    ]


async def test_a_watch_delivers_events_and_raises_errors(server: Any, client: RestClient) -> None:
    server.put("a")
    server.put("b")
    async with aclosing(client.watch(CONFIG_MAPS, resource_version="10")) as events:
        first, second = await anext(events), await anext(events)
    assert [event.object["metadata"]["name"] for event in (first, second)] == ["a", "b"]
    server.compacted = 11
    with pytest.raises(StatusError) as caught:
        async for _ in client.watch(CONFIG_MAPS, resource_version="10"):
            pass
    assert caught.value.code == 410


async def test_credentials_and_impersonation(server: Any, tmp_path: Path) -> None:
    (tmp_path / "token").write_text("from-file\n")
    config = RestConfig(
        server=server.url,
        token="inline",
        token_file=tmp_path / "token",
        impersonate=Impersonation("jane", ("a", "b"), extra={"scopes/x": ("1",)}),
    )
    async with RestClient(config) as client:
        await client.list(CONFIG_MAPS)
    headers = server.requests[0].headers
    assert headers["Authorization"] == "Bearer from-file"
    assert headers["Impersonate-User"] == "jane"
    assert headers["Impersonate-Extra-scopes%2Fx"] == "1"
    assert headers["User-Agent"].startswith("bowsprit/")


async def test_an_exec_plugin_is_asked_once_and_again_when_refused(server: Any, tmp_path: Path) -> None:
    count = tmp_path / "count"
    script = tmp_path / "plugin"
    script.write_text(
        f"""#!{sys.executable}
import json, os, pathlib
count = pathlib.Path({str(count)!r})
number = int(count.read_text()) + 1 if count.exists() else 1
count.write_text(str(number))
info = json.loads(os.environ["KUBERNETES_EXEC_INFO"])
assert info["kind"] == "ExecCredential" and os.environ["EXTRA"] == "yes"
print(json.dumps({{"kind": "ExecCredential", "apiVersion": info["apiVersion"], "status": {{"token": f"t{{number}}"}}}}))
"""
    )
    script.chmod(0o700)
    plugin = {
        "apiVersion": "client.authentication.k8s.io/v1",
        "command": str(script),
        "env": [{"name": "EXTRA", "value": "yes"}],
        "interactiveMode": "Never",
    }
    async with RestClient(RestConfig(server=server.url, exec_config=plugin)) as client:
        await client.list(CONFIG_MAPS)
        await client.list(CONFIG_MAPS)
        server.answers = [web.Response(status=401)]
        await client.list(CONFIG_MAPS)
    tokens = [request.headers["Authorization"] for request in server.requests]
    assert tokens == ["Bearer t1", "Bearer t1", "Bearer t1", "Bearer t2"]


@pytest.mark.parametrize("version", ["client.authentication.k8s.io/v1alpha1", ""])
async def test_old_exec_versions_are_refused(version: str) -> None:
    with pytest.raises(ConfigError, match="apiVersion"):
        RestClient(RestConfig(server="http://h", exec_config={"apiVersion": version, "command": "x"}))


async def test_mutual_tls_and_tls_server_name() -> None:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("api.internal").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_REQUIRED

    async def who(request: web.BaseRequest) -> web.Response:
        assert request.transport is not None
        peer = request.transport.get_extra_info("peercert")
        return web.json_response({"subject": str(peer["subject"])})

    runner = web.ServerRunner(web.Server(who))
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=context).start()
    url = f"https://127.0.0.1:{runner.addresses[0][1]}"
    mine = authority.issue_cert("me@example.com", common_name="me")
    config = RestConfig(
        server=url,
        ca_data=authority.cert_pem.bytes(),
        tls_server_name="api.internal",
        client_certificate_data=mine.cert_chain_pems[0].bytes(),
        client_key_data=mine.private_key_pem.bytes(),
    )
    async with RestClient(config) as client:
        assert "'me'" in (await client.request_json("GET", "/"))["subject"]
    async with RestClient(RestConfig(server=url, ca_data=authority.cert_pem.bytes())) as client:
        with pytest.raises(ConnectionFailed, match=r"(?i)certificate"):
            await client.request_json("GET", "/")
    await runner.cleanup()


def test_in_cluster_configuration(tmp_path: Path) -> None:
    (tmp_path / "token").write_text("t")
    (tmp_path / "ca.crt").write_text("ca")
    config = in_cluster_config({"KUBERNETES_SERVICE_HOST": "fd00::1", "KUBERNETES_SERVICE_PORT": "443"}, tmp_path)
    assert (config.server, config.ca_data) == ("https://[fd00::1]:443", b"ca")
    with pytest.raises(ConfigError, match="in-cluster"):
        in_cluster_config({}, tmp_path)


async def test_requests_of_one_client_do_not_wait_for_each_other(server: Any, client: RestClient) -> None:
    async with aclosing(client.watch(CONFIG_MAPS, resource_version="10")) as events:
        pending = asyncio.ensure_future(anext(events))
        await asyncio.gather(*(client.list(CONFIG_MAPS) for _ in range(20)))
        server.put("late")
        await server.notify()
        assert (await pending).object["metadata"]["name"] == "late"
