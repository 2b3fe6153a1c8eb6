"""The kubelet's HTTPS endpoint: logs, exec, and who may ask."""

from __future__ import annotations

import json
import ssl
from collections.abc import AsyncIterator
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import trustme

from bowsprit.kubelet.commands import run
from bowsprit.kubelet.logs import LogError, LogOptions, lines, render, selected
from bowsprit.kubelet.server import KubeletServer

Obj = dict[str, Any]
NOW = datetime(2026, 1, 1, 12, 1, 0, tzinfo=UTC)


def pod(state: Obj | None = None, last: Obj | None = None, **annotations: str) -> Obj:
    status = {
        "name": "web",
        "image": "nginx",
        "state": state or {"running": {"startedAt": "2026-01-01T12:00:00Z"}},
        "lastState": last or {},
    }
    spec = {"containers": [{"name": "web", "env": [{"name": "COLOUR", "value": "red"}]}]}
    meta = {
        "name": "p",
        "namespace": "default",
        "annotations": {f"bowsprit.dev/{k}": v for k, v in annotations.items()},
    }
    return {"metadata": meta, "spec": spec, "status": {"containerStatuses": [status]}}


def text(subject: Obj, **query: str) -> str:
    options = LogOptions.from_query(query, NOW)
    chosen = selected(list(lines(subject, "web", options, NOW)), options)
    return b"".join(render(*line, timestamps=options.timestamps) for line in chosen).decode()


def test_a_log_has_its_start_its_lines_and_its_end() -> None:
    started = "container web started (simulated, image nginx)\n"
    assert text(pod(log="hello\nworld")) == started + "hello\nworld\n"
    ticking = pod(**{"log-every": "20s"})
    assert text(ticking) == started + "line 1\nline 2\nline 3\n"
    assert text(ticking, tailLines="1") == "line 3\n"
    assert text(ticking, sinceSeconds="25") == "line 2\nline 3\n"
    assert text(ticking, tailLines="1", timestamps="true") == "2026-01-01T12:01:00.000000000Z line 3\n"
    ended = {"terminated": {"startedAt": "2026-01-01T12:00:00Z", "finishedAt": "2026-01-01T12:00:05Z", "exitCode": 3}}
    assert text(pod(ended)) == started + "container web exited with code 3\n"
    assert text(pod({"waiting": {"reason": "CrashLoopBackOff"}}, ended)).endswith("code 3\n")
    assert text(pod(last=ended), previous="true").endswith("code 3\n")


def test_logs_that_cannot_be_had_say_why() -> None:
    with pytest.raises(LogError, match="is waiting to start: ContainerCreating"):
        text(pod({"waiting": {"reason": "ContainerCreating"}}))
    with pytest.raises(LogError, match="previous terminated container"):
        text(pod(), previous="true")
    with pytest.raises(LogError, match="tailLines"):
        text(pod(), tailLines="x")
    with pytest.raises(LogError, match="not available"):
        lines(pod(), "other", LogOptions(), NOW)


@pytest.mark.parametrize(
    ("command", "stdout", "code"),
    [
        (["echo", "a", "b"], "a b\n", 0),
        (["echo", "-n", "a"], "a", 0),
        (["/bin/hostname"], "p\n", 0),
        (["printenv", "COLOUR"], "red\n", 0),
        (["printenv", "NOPE"], "", 1),
        (["false"], "", 1),
        (["cat", "/etc/hostname"], "p\n", 0),
        (["sh", "-c", "echo one; echo two && false && echo three"], "one\ntwo\n", 1),
        (["sh", "-c", "exit 7; echo no"], "", 7),
        (["sh", "-c", "echo a | cat"], "", 2),
        (["sh", "-c", "'"], "", 2),
        (["nginx", "-t"], "", 126),
        ([], "", 126),
    ],
)
def test_the_few_programs(command: list[str], stdout: str, code: int) -> None:
    result = run(command, pod(), "web", NOW)
    assert (result.stdout, result.code) == (stdout, code)
    assert bool(result.stderr) == (code in (2, 126))


@pytest.fixture
async def endpoint(tmp_path: Path) -> AsyncIterator[tuple[str, Any]]:
    authority = trustme.CA()
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    authority.issue_cert("127.0.0.1").configure_cert(context)
    authority.configure_trust(context)
    context.verify_mode = ssl.CERT_OPTIONAL
    known = pod(log="hello")
    server = KubeletServer(
        lambda ns, name: known if (ns, name) == ("default", "p") else None, lambda: [known], context, lambda: NOW
    )
    port = await server.start("127.0.0.1", 0)

    def session(organization: str | None) -> aiohttp.ClientSession:
        trust = ssl.create_default_context()
        authority.configure_trust(trust)
        if organization:
            authority.issue_cert("me", common_name="me", organization_name=organization).configure_cert(trust)
        return aiohttp.ClientSession(f"https://127.0.0.1:{port}", connector=aiohttp.TCPConnector(ssl=trust))

    yield "", session
    await server.stop()


async def test_only_the_control_plane_may_ask(endpoint: Any) -> None:
    _, session = endpoint
    for organization, code in ((None, 401), ("system:nodes", 401), ("kubeadm:cluster-admins", 200)):
        async with session(organization) as client:
            assert (await client.get("/containerLogs/default/p/web")).status == code
            assert (await client.get("/healthz")).status == 200


async def test_logs_over_https(endpoint: Any) -> None:
    _, session = endpoint
    async with session("system:masters") as client:
        answer = await client.get("/containerLogs/default/p/web", params={"tailLines": "1"})
        assert await answer.text() == "hello\n"
        limited = await client.get("/containerLogs/default/p/web", params={"limitBytes": "9"})
        assert await limited.text() == "container"
        assert (await client.get("/containerLogs/default/nope/web")).status == 404
        assert (await client.get("/containerLogs/default/p/nope")).status == 400
        assert (await client.get("/portForward/default/p")).status == 501
        assert (await (await client.get("/pods")).json())["items"][0]["metadata"]["name"] == "p"


async def test_exec_over_websocket(endpoint: Any) -> None:
    _, session = endpoint
    async with session("system:masters") as client:

        async def execute(*command: str, stdin: bytes | None = None) -> tuple[bytes, bytes, Obj]:
            params = [("command", word) for word in command] + ([("input", "1")] if stdin is not None else [])
            channels: dict[int, bytes] = {}
            async with client.ws_connect(
                "/exec/default/p/web", params=params, protocols=["v5.channel.k8s.io"]
            ) as socket:
                if stdin is not None:
                    await socket.send_bytes(b"\0" + stdin)
                    await socket.send_bytes(b"\xff\0")
                async for message in socket:
                    channels[message.data[0]] = channels.get(message.data[0], b"") + message.data[1:]
            return channels.get(1, b""), channels.get(2, b""), json.loads(channels[3])

        assert await execute("echo", "hi") == (b"hi\n", b"", {"metadata": {}, "status": "Success"})
        out, err, status = await execute("nginx")
        assert (out, err) == (b"", b'exec: "nginx": executable file not found in $PATH\n')
        assert status["details"]["causes"] == [{"reason": "ExitCode", "message": "126"}]
        assert (await execute("cat", stdin=b"typed"))[0] == b"typed"
