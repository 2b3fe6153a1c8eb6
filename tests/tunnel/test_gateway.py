"""The gateway with OpenSSH's client and with our own link."""

from __future__ import annotations

import asyncio
import contextlib
import logging
import socket
import stat
import subprocess
import time

import pytest
from commands import Shell
from socks_client import connect as socks_connect

from bowsprit.net.ports import free_port
from bowsprit.tunnel.errors import TunnelError
from bowsprit.tunnel.gateway import FailureDelays, Gateway, GatewayOptions, _source
from bowsprit.tunnel.link import SshLink
from bowsprit.tunnel.listener import SocksListener
from bowsprit.tunnel.login import LinkOptions
from bowsprit.tunnel.rules import Rule
from bowsprit.tunnel.socks5 import Reply
from bowsprit.tunnel.target import SshTarget


class Setup:
    def __init__(self, gateway, key, known_hosts):
        self.gateway, self.key, self.known_hosts = gateway, key, known_hosts

    def link(self) -> SshLink:
        return SshLink(
            LinkOptions(
                target=SshTarget("127.0.0.1", "dev", self.gateway.port),
                config_files=[],
                known_hosts=self.known_hosts,
                identities=[self.key],
                open_timeout=5,
            )
        )

    async def ssh(self, *arguments: str) -> tuple[int, str]:
        process = await self.start_ssh(*arguments)
        async with asyncio.timeout(20):
            out, _ = await process.communicate()
        return process.returncode or 0, out.decode()

    async def quiet(self) -> None:
        """Wait until the gateway has seen every connection end."""
        async with asyncio.timeout(10):
            while self.gateway._sessions:
                await asyncio.sleep(0.01)

    async def start_ssh(self, *arguments: str) -> asyncio.subprocess.Process:
        if not any("@" in argument for argument in arguments):
            arguments = (*arguments, "dev@127.0.0.1")
        return await asyncio.create_subprocess_exec(
            "ssh", "-F", "none", "-p", str(self.gateway.port), "-i", str(self.key), "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "IdentitiesOnly=yes", *arguments,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip


async def listening(port):
    async with asyncio.timeout(20):
        while True:
            with contextlib.suppress(OSError):
                _, writer = await asyncio.open_connection("127.0.0.1", port)
                writer.close()
                return
            await asyncio.sleep(0.02)


async def closed_code(port, target):
    code, _, writer = await socks_connect(port, "localhost", target)
    writer.close()
    return code


@pytest.fixture
async def setup(tmp_path, echo):
    made = await gateway_setup(tmp_path, echo)
    yield made
    await made.gateway.stop()


async def gateway_setup(tmp_path, echo, **limits):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (tmp_path / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    options = GatewayOptions(
        allow=[Rule("localhost", echo.port)],
        authorized_keys=tmp_path / "authorized_keys",
        host_key=tmp_path / "keys" / "host",
        host="127.0.0.1",
        port=0,
        **limits,
    )
    gateway = Gateway(options)
    await gateway.start()
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{gateway.port} {(tmp_path / 'keys' / 'host.pub').read_text()}")
    return Setup(gateway, key, known_hosts)


async def test_it_forwards_to_the_allowed_destination_and_nowhere_else(setup, echo):
    link = setup.link()
    await link.start()
    listener = SocksListener(link, port=0)
    await listener.start()
    reader, writer = await asyncio.open_connection("127.0.0.1", listener.port)
    writer.write(b"\x05\x01\x00\x05\x01\x00\x03\x09localhost" + echo.port.to_bytes(2, "big"))
    assert await reader.readexactly(12) == b"\x05\x00\x05\x00\x00\x01" + bytes(6)
    assert await reader.readexactly(6) == b"hello "
    writer.close()
    code, _, writer = await socks_connect(listener.port, "127.0.0.1", echo.port)
    assert code == Reply.NOT_ALLOWED
    writer.close()
    await listener.stop()
    await link.stop()


async def test_openssh_gets_neither_a_shell_nor_a_command_nor_a_reverse_forward(setup):
    code, output = await setup.ssh("dev@127.0.0.1", "id")
    assert code != 0
    assert "uid=" not in output
    code, output = await setup.ssh("-o", "ExitOnForwardFailure=yes", "-N", "-R", "0:localhost:1", "dev@127.0.0.1")
    assert code == 255
    assert "remote port forwarding failed" in output


async def test_a_removed_key_stops_working(setup):
    other = setup.key.with_name("other")
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(other)], check=True)
    setup.key.with_name("authorized_keys").write_text(other.with_suffix(".pub").read_text())
    with pytest.raises(TunnelError) as caught:
        await setup.link().start()
    assert caught.value.reason == "PermissionDenied"


async def test_the_host_key_is_kept_and_private(setup, tmp_path):
    path = tmp_path / "keys" / "host"
    assert stat.S_IMODE(path.stat().st_mode) == 0o600
    again = Gateway(setup.gateway.options)
    await again.start()
    await again.stop()
    assert path.read_text().startswith("-----BEGIN OPENSSH PRIVATE KEY-----")
    path.chmod(0o644)
    with pytest.raises(TunnelError) as caught:
        await Gateway(setup.gateway.options).start()
    assert caught.value.reason == "UnsafeKey"


def test_repeated_failures_wait_longer_and_are_forgotten():
    delays = FailureDelays()
    assert delays.delay("a", 0.0) == 0.0
    waits = []
    for _ in range(8):
        delays.failed("a", 0.0)
        waits.append(delays.delay("a", 0.0))
    assert waits == [0.0, 0.0, 8.0, 16.0, 32.0, 60.0, 60.0, 60.0]
    assert delays.delay("b", 0.0) == 0.0
    assert delays.delay("a", 180.0) == 0.0
    delays.failed("a", 180.0)
    delays.succeeded("a")
    assert delays.delay("a", 180.0) == 0.0


def test_remembered_addresses_are_bounded():
    delays = FailureDelays()
    for number in range(10_500):
        delays.failed(str(number), 0.0)
    assert len(delays.scores) <= 10_000


# What OpenSSH's client may do here, and what not.


async def test_openssh_s_own_socks_goes_through_and_the_audit_tells(setup, echo, caplog):
    caplog.set_level(logging.INFO, "bowsprit.tunnel.audit")
    port = free_port()
    ssh = await setup.start_ssh("-N", "-D", str(port))
    try:
        await listening(port)
        code, reader, writer = await socks_connect(port, "localhost", echo.port)
        assert (code, await reader.readexactly(6)) == (Reply.SUCCEEDED, b"hello ")
        writer.write_eof()
        assert await reader.read() == b" bye"
        writer.close()
        # ssh -D closes the connection where a destination is refused, and has no reply for it
        code, _, writer = await socks_connect(port, "127.0.0.1", echo.port, anything=True)
        assert code != Reply.SUCCEEDED
        writer.close()
    finally:
        ssh.terminate()
        await ssh.wait()
    await setup.quiet()
    told = [record.getMessage().split(" address=")[0] for record in caplog.records]
    assert told == ["login", "open", "refused", "logout"]
    assert f"destination='localhost:{echo.port}'" in caplog.text
    assert "user='dev'" in caplog.text


@pytest.mark.parametrize(
    "arguments",
    [
        ("-tt", "dev@127.0.0.1"),
        ("dev@127.0.0.1", "id"),
        ("-s", "dev@127.0.0.1", "sftp"),
        ("-A", "dev@127.0.0.1", "id"),
        ("-X", "dev@127.0.0.1", "id"),
        ("-o", "ExitOnForwardFailure=yes", "-N", "-R", "0:localhost:1", "dev@127.0.0.1"),
        ("-o", "ExitOnForwardFailure=yes", "-N", "-R", "/tmp/never.sock:localhost:1", "dev@127.0.0.1"),
        ("-W", "127.0.0.1:22", "dev@127.0.0.1"),
        ("-o", "Tunnel=point-to-point", "-w", "0:0", "-o", "ExitOnForwardFailure=yes", "-N", "dev@127.0.0.1"),
        ("-o", "PreferredAuthentications=password,keyboard-interactive", "dev@127.0.0.1"),
    ],
)
async def test_nothing_else_is_served(setup, arguments):
    code, output = await setup.ssh(*arguments)
    assert code != 0
    assert "uid=" not in output


async def test_kubectl_like_tools_get_the_reason_of_the_far_end(setup, echo, caplog):
    link = setup.link()
    await link.start()
    listener = SocksListener(link, port=0)
    await listener.start()
    setup.gateway.options.allow.append(Rule("127.0.0.1", 1))
    code, _, writer = await socks_connect(listener.port, "127.0.0.1", 1)
    assert code == Reply.CONNECTION_REFUSED
    writer.close()
    await listener.stop()
    await link.stop()


# Limits.


async def test_connections_of_one_address_and_channels_of_one_connection_are_limited(tmp_path, echo):
    made = await gateway_setup(tmp_path, echo, max_connections_per_address=2, max_channels=1)
    try:
        first, second = made.link(), made.link()
        await first.start()
        await second.start()
        with pytest.raises(TunnelError):
            await made.link().start()
        listener = SocksListener(first, port=0)
        await listener.start()
        code, reader, writer = await socks_connect(listener.port, "localhost", echo.port)
        assert code == Reply.SUCCEEDED
        refused, _, other = await socks_connect(listener.port, "localhost", echo.port)
        assert refused == Reply.GENERAL_FAILURE
        other.close()
        writer.write_eof()
        assert (await reader.read()).endswith(b"bye")
        writer.close()
        async with asyncio.timeout(10):  # the place is free again when the far end has gone
            while (await closed_code(listener.port, echo.port)) != Reply.SUCCEEDED:
                await asyncio.sleep(0.02)
        await listener.stop()
        await first.stop()
        await second.stop()
    finally:
        await made.gateway.stop()


async def test_too_many_tries_end_the_connection_and_offenders_wait(setup, tmp_path, caplog):
    caplog.set_level(logging.INFO, "bowsprit.tunnel.audit")
    agent_keys = []
    for number in range(8):
        key = tmp_path / f"wrong{number}"
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        agent_keys += ["-i", str(key)]
    good, setup.key = setup.key, tmp_path / "wrong0"
    code, output = await setup.ssh(*agent_keys, "dev@127.0.0.1", "id")
    assert code == 255
    assert "Too many authentication failures" in output or "too many authentication failures" in output
    for _ in range(2):
        await setup.ssh("dev@127.0.0.1", "id")
    await setup.quiet()
    assert setup.gateway.delays.delay("127.0.0.1", time.monotonic()) >= 4
    assert caplog.text.count("login failed address=127.0.0.1 user='dev'") == 3
    setup.key = good
    waiting = asyncio.create_task(setup.link().start())
    async with asyncio.timeout(10):
        while "delayed address=127.0.0.1 seconds=" not in caplog.text:
            await asyncio.sleep(0.02)
    assert not waiting.done()  # the server has not said its first word
    waiting.cancel()
    await asyncio.wait({waiting})


def test_an_ipv6_host_is_its_network():
    assert _source("2001:db8::1:2") == _source("2001:db8::ffff") == "2001:db8::/64"
    assert _source("::ffff:10.0.0.1") == _source("10.0.0.1") == "10.0.0.1"


async def test_keys_that_others_could_add_are_not_used(setup):
    setup.gateway.options.authorized_keys.chmod(0o664)
    with pytest.raises(TunnelError) as caught:
        await Gateway(setup.gateway.options).start()
    assert caught.value.reason == "UnsafeKey"


def test_the_command_serves_and_ends(tmp_path):
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(tmp_path / "key")], check=True)
    shell = Shell(tmp_path)
    arguments = [
        "--port",
        "0",
        "--bind",
        "127.0.0.1",
        "--allow",
        "localhost:6443",
        "--host-key",
        str(tmp_path / "host"),
    ]
    with shell.running("tunnel", "gateway", "--authorized-keys", str(tmp_path / "key.pub"), *arguments) as gateway:
        line = gateway.expect("SSH gateway on 127.0.0.1:")
        assert line.endswith(", leading to localhost:6443")
        port = int(line.split(":")[1].split(",")[0])
        with socket.create_connection(("127.0.0.1", port), timeout=10) as client:
            assert client.recv(64).startswith(b"SSH-2.0-bowsprit")
        assert gateway.end() == 0
