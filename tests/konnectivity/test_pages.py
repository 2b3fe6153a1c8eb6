"""Health and admin endpoints as recorded: status, headers, bodies; metric names, types, HELP texts, labels."""

from __future__ import annotations

import asyncio
import re
from typing import Any

import aiohttp
import pytest
from konnectivity_transcripts import load, until

SCENARIOS = {scenario["id"]: scenario for scenario in load("health")}
_PROCESS = re.compile(r"(go_|process_|promhttp_|scrape_)")
_UNSTABLE = {"Date", "Connection", "Keep-Alive"}


async def get(port: int, path: str) -> tuple[int, dict[str, str], str]:
    async with (
        aiohttp.ClientSession() as session,
        session.get(f"http://127.0.0.1:{port}{path}", allow_redirects=False) as answer,
    ):
        return answer.status, dict(answer.headers), await answer.text()


def families(text: str) -> dict[str, tuple[str, str]]:
    helps = dict(re.findall(r"^# HELP (\S+) (.*)$", text, re.M))
    kinds = dict(re.findall(r"^# TYPE (\S+) (.*)$", text, re.M))
    assert helps.keys() == kinds.keys()
    return {name: (kinds[name], helps[name]) for name in helps}


def check(step: dict[str, Any], found: tuple[int, dict[str, str], str], health_port: int) -> None:
    status, headers, body = found
    assert status == step["status"], step
    for name, value in step["headers"].items():
        if name == "Location":
            value = re.sub(r":\d+/", f":{health_port}/", value)
        if name not in ("Content-Length", "Transfer-Encoding"):
            assert headers[name] == value, step
    if "body" in step:
        assert body == re.sub(r":\d+/metrics", f":{health_port}/metrics", step["body"])
    for name, metric in step.get("metrics", {}).items():
        if not _PROCESS.match(name):
            assert families(body)[name] == (metric["type"], metric["help"])
            for labels in metric["labels"]:
                names = set(re.findall(r'(\w+)="', labels))
                ours = [set(re.findall(r'(\w+)="', line)) for line in body.splitlines() if line.startswith(name)]
                assert names in ours, (name, labels)


def gets(scenario: str, target: str, part: int) -> list[dict[str, Any]]:
    """The GETs before the first remark, between it and the second, after it."""
    parts: list[list[dict[str, Any]]] = [[]]
    for step in SCENARIOS[scenario]["steps"]:
        if step["event"] == "GET":
            parts[-1].append(step)
        else:
            parts.append([])
    return [step for step in parts[part] if step["target"] == target and step["status"] is not None]


async def one_good_and_one_refused_dial(path: str) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        writer.write(await reader.read(100))
        await writer.drain()
        await reader.read(1)
        writer.close()

    listener = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = listener.sockets[0].getsockname()[1]
    from bowsprit.net.dial import DialError
    from bowsprit.net.egress.tunnel import GrpcDialer

    sock = await GrpcDialer(path).open("127.0.0.1", port)
    reader, writer = await asyncio.open_connection(sock=sock)
    writer.write(b"x")
    assert await reader.read(1) == b"x"
    writer.close()
    await writer.wait_closed()
    listener.close()
    with pytest.raises(DialError, match="connection refused"):
        await GrpcDialer(path).open("127.0.0.1", port)
    await asyncio.sleep(0.05)


async def test_servers_pages(start_server: Any, start_agent: Any) -> None:
    server = await start_server()
    ports = {"server-health": lambda: server.health_port, "server-admin": lambda: server.admin_port}
    for target, port in ports.items():
        for step in gets("health-server", target, 0):
            check(step, await get(port(), step["path"]), server.health_port)
    agent = await start_agent(server.agent_port)
    await until(lambda: server.backends.ready, lambda: "no agent")
    await one_good_and_one_refused_dial(server.options.uds_name)
    for step in gets("health-server", "server-health", 1):
        check(step, await get(server.health_port, step["path"]), server.health_port)
    await agent.stop()
    await until(lambda: not server.backends.ready, lambda: "the agent stays")
    for step in gets("health-server", "server-health", 2):
        check(step, await get(server.health_port, step["path"]), server.health_port)


async def test_agents_pages(start_server: Any, start_agent: Any) -> None:
    server = await start_server()
    port = server.agent_port
    await server.stop(force=True)
    agent = await start_agent(port)
    for target, number in (("agent-health", agent.health_port), ("agent-admin", agent.admin_port)):
        for step in gets("health-agent", target, 0):
            check(step, await get(number, step["path"]), agent.health_port)
    server = await start_server(agent_port=port)
    await until(lambda: agent.ready, lambda: "no server")
    await one_good_and_one_refused_dial(server.options.uds_name)
    for step in gets("health-agent", "agent-health", 1):
        check(step, await get(agent.health_port, step["path"]), agent.health_port)
    await server.stop(force=True)
    await until(lambda: not agent.ready, lambda: "the server stays")
    for step in gets("health-agent", "agent-health", 2):
        check(step, await get(agent.health_port, step["path"]), agent.health_port)


async def test_profiling_pages(start_server: Any, start_agent: Any) -> None:
    server = await start_server(enable_profiling=True)
    agent = await start_agent(server.agent_port, enable_profiling=True)
    for step in SCENARIOS["profiling"]["steps"]:
        if step["event"] == "GET" and step["status"] is not None:
            one = server if step["target"].startswith("server") else agent
            check(step, await get(one.admin_port, step["path"]), one.health_port)
    _, _, text = await get(agent.admin_port, "/debug/pprof/goroutine")
    assert "server-sync" in text
    assert "profiling for" in (await get(agent.admin_port, "/debug/pprof/profile?seconds=0"))[2]
    assert "function calls" in (await get(agent.admin_port, "/debug/pprof/profile"))[2]


async def test_metrics_beside_upstreams(start_server: Any, start_agent: Any) -> None:
    server = await start_server()
    await start_agent(server.agent_port)
    await until(lambda: server.backends.ready, lambda: "no agent")
    await one_good_and_one_refused_dial(server.options.uds_name)
    text = server.metrics.registry.render()
    assert 'bowsprit_konnectivity_server_bytes_total{agent="agent-a",direction="to_agent"} 1' in text
    assert 'dial_failure_count{reason="error_response"} 1' in text
    assert "konnectivity_network_proxy_server_established_connections 0" in text
    status, _, body = await get(server.admin_port, "/status")
    assert status == 200
    assert '"agentID": "agent-a"' in body
    assert "connection refused" in body
