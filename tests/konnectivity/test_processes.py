"""The programs as processes: signals, exit codes, status, manifests."""

from __future__ import annotations

import asyncio
import json
import os
import signal
import stat
import subprocess
import sys
import time
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from konnectivity_transcripts import until

from bowsprit.cli.errors import CommandError
from bowsprit.cli.konnectivity import konnectivity
from bowsprit.net.ports import free_port
from bowsprit.pki.authority import Authority

PROGRAM = [
    sys.executable,
    "-c",
    "import sys; from bowsprit.cli.konnectivity import *; sys.exit(globals()[sys.argv.pop(1)]())",
]


class Pair:
    def __init__(self, certificates: Path, directory: Path, *extra: str) -> None:
        self.uds = str(directory / "k.sock")
        agent_port, self.admin = free_port(), free_port()
        self.ready = free_port()
        tls = [f"--cluster-cert={certificates}/srv.crt", f"--cluster-key={certificates}/srv.key"]
        self.server = subprocess.Popen([
            *PROGRAM, "proxy_server", f"--uds-name={self.uds}", "--server-port=0", "--mode=http-connect", *tls,
            f"--cluster-ca-cert={certificates}/ca.crt", f"--agent-port={agent_port}", f"--admin-port={self.admin}",
            f"--health-port={free_port()}", "--logtostderr=true",
        ], stderr=subprocess.DEVNULL)  # fmt: skip
        self.agent = subprocess.Popen([
            *PROGRAM, "proxy_agent", f"--ca-cert={certificates}/ca.crt", f"--agent-cert={certificates}/ag.crt",
            f"--agent-key={certificates}/ag.key", f"--proxy-server-port={agent_port}", f"--health-server-port={self.ready}",
            f"--admin-server-port={free_port()}", "--sync-interval-cap=1s", "--graceful-shutdown-timeout=300ms", *extra,
        ], stderr=subprocess.DEVNULL)  # fmt: skip

    def stop(self) -> None:
        for process in (self.agent, self.server):
            process.kill()
            process.wait()


async def exit_code(process: subprocess.Popen[bytes], deadline: float) -> int:
    await until(lambda: process.poll() is not None, lambda: "the process does not end", deadline)
    return process.wait()


async def test_a_pair_of_processes_serves_and_ends_on_sigterm(certificates: Path, tmp_path: Path) -> None:
    async def echo(reader: asyncio.StreamReader, writer: asyncio.StreamWriter) -> None:
        while chunk := await reader.read(1000):
            writer.write(chunk)

    service = await asyncio.start_server(echo, "127.0.0.1", 0)
    port = service.sockets[0].getsockname()[1]
    pair = Pair(certificates, tmp_path)
    try:
        await until(lambda: _status(pair.admin).get("ready") is True, lambda: "no agent connects", 15)
        assert stat.S_IMODE(os.stat(pair.uds).st_mode) == 0o770
        reader, writer = await asyncio.open_unix_connection(pair.uds)
        writer.write(f"CONNECT 127.0.0.1:{port} HTTP/1.1\r\nHost: x\r\n\r\nhello".encode())
        assert (await reader.readuntil(b"\r\n\r\n")).startswith(b"HTTP/1.1 200")
        assert await reader.readexactly(5) == b"hello"
        result = CliRunner().invoke(konnectivity, ["status", "--address", f"127.0.0.1:{pair.admin}"])
        assert result.exit_code == 0
        assert "connections 1" in result.output
        start = time.monotonic()
        pair.agent.send_signal(signal.SIGTERM)
        assert await exit_code(pair.agent, 5) == 0  # upstream's waits for a second signal
        assert time.monotonic() - start > 0.25
        assert await asyncio.wait_for(reader.read(), 5) == b""
        pair.server.send_signal(signal.SIGTERM)
        assert await exit_code(pair.server, 5) == 0
        assert not os.path.exists(pair.uds)
    finally:
        pair.stop()
        service.close()


def _status(port: int) -> dict[str, Any]:
    result = CliRunner().invoke(konnectivity, ["status", "--address", f"127.0.0.1:{port}", "-o", "json"])
    found: dict[str, Any] = json.loads(result.output) if result.exit_code == 0 else {}
    return found


async def test_a_second_signal_ends_the_agent_at_once(certificates: Path, tmp_path: Path) -> None:
    pair = Pair(certificates, tmp_path, "--graceful-shutdown-timeout=60s")
    try:
        await until(lambda: _status(pair.admin).get("ready") is True, lambda: "no agent connects", 15)
        pair.agent.send_signal(signal.SIGTERM)
        await until(lambda: _status(pair.admin)["agents"][0]["draining"], lambda: "no drain", 5)
        assert pair.agent.poll() is None
        pair.agent.send_signal(signal.SIGINT)
        assert await exit_code(pair.agent, 5) == 0
    finally:
        pair.stop()


def test_no_server_is_an_error_with_a_hint() -> None:
    result = CliRunner().invoke(konnectivity, ["status", "--address", f"127.0.0.1:{free_port()}"])
    assert isinstance(result.exception, CommandError)
    assert result.exception.reason == "Unreachable"
    assert "bowsprit konnectivity server" in result.exception.hint


@pytest.mark.parametrize(
    "arguments", [[], ["--server-kind", "DaemonSet", "--agent-kind", "Deployment", "--count-leases"]]
)
def test_manifests_are_those_of_the_procedure(arguments: list[str]) -> None:
    result = CliRunner().invoke(konnectivity, ["manifests", "--server-host", "10.0.0.1", *arguments])
    assert result.exit_code == 0
    objects = list(yaml.safe_load_all(result.output))
    kinds = [obj["kind"] for obj in objects]
    assert kinds[0] == "EgressSelectorConfiguration"
    assert {"ServiceAccount", "ClusterRoleBinding"} <= set(kinds)
    binding = next(obj for obj in objects if obj["kind"] == "ClusterRoleBinding")
    assert binding["roleRef"]["name"] == "system:auth-delegator"
    assert binding["subjects"][0]["name"] == "system:konnectivity-server"
    server = objects[1]
    pod = server["spec"] if server["kind"] == "Pod" else server["spec"]["template"]["spec"]
    agent = objects[-1]["spec"]["template"]["spec"]
    from bowsprit.konnectivity import goflags
    from bowsprit.konnectivity.agentoptions import AGENT_FLAGS, AgentOptions
    from bowsprit.konnectivity.serveroptions import SERVER_FLAGS, ServerOptions

    parsed = ServerOptions.from_flags(goflags.parse(SERVER_FLAGS, pod["containers"][0]["args"], lambda line: None))
    assert parsed.uds_name == objects[0]["egressSelections"][0]["connection"]["transport"]["uds"]["udsName"]
    assert parsed.authentication_audience == "system:konnectivity-server"
    theirs = AgentOptions.from_flags(goflags.parse(AGENT_FLAGS, agent["containers"][0]["args"], lambda line: None))
    assert (theirs.proxy_server_host, theirs.proxy_server_port) == ("10.0.0.1", parsed.agent_port)


def test_the_published_manifests_flags_are_understood() -> None:
    """Those of the tutorial, image v0.0.16."""
    from bowsprit.konnectivity import goflags
    from bowsprit.konnectivity.serveroptions import SERVER_FLAGS, ServerOptions

    arguments = [
        "--logtostderr=true", "--uds-name=/etc/kubernetes/konnectivity-server/konnectivity-server.socket",
        "--cluster-cert=/etc/kubernetes/pki/apiserver.crt", "--cluster-key=/etc/kubernetes/pki/apiserver.key", "--mode=grpc",
        "--server-port=0", "--agent-port=8132", "--admin-port=8133", "--health-port=8134", "--agent-namespace=kube-system",
        "--agent-service-account=konnectivity-agent", "--kubeconfig=/etc/kubernetes/konnectivity-server.conf",
        "--authentication-audience=system:konnectivity-server",
    ]  # fmt: skip
    options = ServerOptions.from_flags(goflags.parse(SERVER_FLAGS, arguments, lambda line: None))
    assert options.token_authentication
    assert options.needs_client


def test_credentials_are_written_for_the_owner_only(tmp_path: Path) -> None:
    from cryptography import x509

    authority = Authority.create("kubernetes")
    authority.pair.save(tmp_path / "ca.crt", tmp_path / "ca.key")
    target = tmp_path / "konnectivity-server.conf"
    arguments = [
        "--ca-cert",
        str(tmp_path / "ca.crt"),
        "--ca-key",
        str(tmp_path / "ca.key"),
        "--server-conf",
        str(target),
    ]
    result = CliRunner().invoke(konnectivity, ["manifests", *arguments])
    assert result.exit_code == 0, result.output
    assert stat.S_IMODE(target.stat().st_mode) == 0o600
    document = yaml.safe_load(target.read_text())
    import base64

    pem = base64.b64decode(document["users"][0]["user"]["client-certificate-data"])
    certificate = x509.load_pem_x509_certificate(pem)
    assert certificate.subject.rfc4514_string() == "CN=system:konnectivity-server"
    lifetime = certificate.not_valid_after_utc - certificate.not_valid_before_utc
    assert 374 <= lifetime.days <= 376
    result = CliRunner().invoke(konnectivity, ["manifests", "--server-conf", str(target)])
    assert isinstance(result.exception, CommandError)
    assert result.exception.exit_code == 2


@pytest.mark.parametrize(
    ("arguments", "reason"),
    [
        (["status", "--address", "127.0.0.1:99999"], "InvalidAddress"),
        (["status", "--address", "http://127.0.0.1:8095"], "InvalidAddress"),
        (["status", "--address", "8095"], "InvalidAddress"),
        (["manifests", "--server-host", ""], "MissingHost"),
    ],
)
def test_arguments_that_mean_nothing_are_refused(arguments: list[str], reason: str) -> None:
    result = CliRunner().invoke(konnectivity, arguments)
    assert isinstance(result.exception, CommandError)
    assert (result.exception.reason, result.exception.exit_code, result.stdout) == (reason, 2, "")
