"""The gateway with OpenSSH's client and with our own link."""

from __future__ import annotations

import asyncio
import stat
import subprocess

import pytest
from socks_client import connect as socks_connect

from bowsprit.tunnel.errors import TunnelError
from bowsprit.tunnel.gateway import FailureDelays, Gateway, GatewayOptions
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
        process = await asyncio.create_subprocess_exec(
            "ssh", "-F", "none", "-p", str(self.gateway.port), "-i", str(self.key), "-o", "BatchMode=yes",
            "-o", f"UserKnownHostsFile={self.known_hosts}", "-o", "IdentitiesOnly=yes", *arguments,
            stdin=subprocess.DEVNULL, stdout=subprocess.PIPE, stderr=subprocess.STDOUT,
        )  # fmt: skip
        async with asyncio.timeout(20):
            out, _ = await process.communicate()
        return process.returncode or 0, out.decode()


@pytest.fixture
async def setup(tmp_path, echo):
    key = tmp_path / "key"
    subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
    (tmp_path / "authorized_keys").write_text(key.with_suffix(".pub").read_text())
    options = GatewayOptions(
        allow=[Rule("localhost", echo.port)],
        authorized_keys=tmp_path / "authorized_keys",
        host_key=tmp_path / "keys" / "host",
        host="127.0.0.1",
        port=0,
    )
    gateway = Gateway(options)
    await gateway.start()
    known_hosts = tmp_path / "known_hosts"
    known_hosts.write_text(f"[127.0.0.1]:{gateway.port} {(tmp_path / 'keys' / 'host.pub').read_text()}")
    yield Setup(gateway, key, known_hosts)
    await gateway.stop()


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
