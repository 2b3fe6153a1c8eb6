"""Keys, agents, configuration and trust, judged by OpenSSH's sshd."""

from __future__ import annotations

import contextlib
import getpass
import os
import pty
import select
import signal
import subprocess
import time

import pytest
from commands import BOWSPRIT, SECONDS, Shell
from openssh import Sshd

from bowsprit.net.ports import free_port
from bowsprit.tunnel.errors import TunnelError
from bowsprit.tunnel.link import SshLink
from bowsprit.tunnel.login import LinkOptions
from bowsprit.tunnel.target import SshTarget


def keygen(*arguments: object) -> str:
    return subprocess.run(["ssh-keygen", *map(str, arguments)], check=True, capture_output=True, text=True).stdout


def lock(key, passphrase="secret"):
    keygen("-q", "-p", "-P", "", "-N", passphrase, "-f", key)


async def log_in(options: LinkOptions) -> None:
    link = SshLink(options)
    await link.start()
    await link.stop()


async def refusal(options: LinkOptions) -> TunnelError:
    with pytest.raises(TunnelError) as caught:
        await log_in(options)
    return caught.value


@pytest.fixture
def home(tmp_path, monkeypatch):
    """A home of one's own: ``~/.ssh`` is read as ssh reads it."""
    folder = tmp_path / "home"
    (folder / ".ssh").mkdir(parents=True)
    monkeypatch.setenv("HOME", str(folder))
    monkeypatch.delenv("SSH_AUTH_SOCK", raising=False)
    return folder


@pytest.fixture
def agent(tmp_path, monkeypatch):
    """OpenSSH's agent."""
    path = tmp_path / "agent"
    process = subprocess.Popen(["ssh-agent", "-D", "-a", str(path)], stdout=subprocess.DEVNULL)
    deadline = time.monotonic() + 10
    while not path.exists() and time.monotonic() < deadline:
        time.sleep(0.01)
    monkeypatch.setenv("SSH_AUTH_SOCK", str(path))
    yield path
    process.terminate()
    process.wait()


# Keys.


async def test_a_passphrase_is_asked_once_and_again_when_wrong(sshd, home, monkeypatch):
    lock(sshd.client_key)
    asked = []
    answers = iter(["wrong", "secret"])

    def ask(file):
        asked.append(file)
        return next(answers)

    link = SshLink(sshd.options(passphrase=ask))
    await link.start()
    link._connection.abort()  # a reconnect must not ask again
    while link.reconnects < 1 or not link.connected:
        await link._network.wait(0.05)
    await link.stop()
    assert asked == [str(sshd.client_key)] * 2


async def test_three_wrong_passphrases_end_it(sshd, home):
    lock(sshd.client_key)
    error = await refusal(sshd.options(passphrase=lambda file: "wrong"))
    assert error.reason == "InvalidKey"


async def test_without_a_terminal_a_locked_key_is_left_out_and_named(sshd, home):
    lock(sshd.client_key)
    error = await refusal(sshd.options())
    assert error.reason == "PermissionDenied"
    assert str(sshd.client_key) in error.hint
    assert "ssh-add" in error.hint


async def test_the_agent_s_key_needs_no_file_and_no_passphrase(sshd, home, agent):
    subprocess.run(["ssh-add", "-q", str(sshd.client_key)], check=True, capture_output=True)
    lock(sshd.client_key)

    def never(file):
        raise AssertionError("asked for a passphrase although the agent has the key")

    await log_in(sshd.options(passphrase=never))
    await log_in(sshd.options(identities=[]))


async def test_with_identities_only_the_agent_s_other_keys_are_not_offered(sshd, home, agent):
    other = sshd.folder / "other"
    keygen("-q", "-t", "ed25519", "-N", "", "-f", other)
    subprocess.run(["ssh-add", "-q", str(sshd.client_key)], check=True, capture_output=True)
    config = home / ".ssh" / "config"
    config.write_text(f"Host *\n  IdentitiesOnly yes\n  IdentityFile {other}\n")
    assert (await refusal(sshd.options(identities=[], config_files=None))).reason == "PermissionDenied"
    config.write_text(f"Host *\n  IdentitiesOnly yes\n  IdentityFile {sshd.client_key}.pub\n")
    await log_in(sshd.options(identities=[], config_files=None))


@pytest.mark.parametrize("content", ["", "not a key\n", "-----BEGIN OPENSSH PRIVATE KEY-----\nAAAA\n"])
async def test_a_file_that_is_no_key_is_told(sshd, home, content):
    bad = sshd.folder / "bad"
    bad.write_text(content)
    error = await refusal(sshd.options(identities=[bad]))
    assert error.reason == "InvalidKey"


def test_the_passphrase_prompt_is_for_terminals_only(sshd, tmp_path):
    lock(sshd.client_key)
    shell = Shell(tmp_path)
    command = ["tunnel", "open", "--port", "0", "-i", str(sshd.client_key), "--known-hosts", str(sshd.known_hosts)]
    command.append(str(sshd.target))
    without = shell.bowsprit(*command)
    assert without.returncode == 1
    assert "no terminal" in without.stderr
    pid, leader = pty.fork()
    if pid == 0:
        os.execve(BOWSPRIT[0], [*BOWSPRIT, *command], shell.environ)
    shown = b""
    answered = False
    deadline = time.monotonic() + SECONDS
    while b"connected since" not in shown and time.monotonic() < deadline:
        if select.select([leader], [], [], 0.5)[0]:
            shown += os.read(leader, 4096)
        if b"Enter passphrase" in shown and not answered:
            answered = True
            os.write(leader, b"secret\n")
    os.kill(pid, signal.SIGINT)
    with contextlib.suppress(OSError):  # the terminal is gone when its last user is
        while os.read(leader, 4096):
            pass
    assert os.waitpid(pid, 0)[1] == 0
    os.close(leader)
    assert b"connected since" in shown
    assert b"secret" not in shown


# ~/.ssh/config.


async def test_the_configuration_names_host_port_user_and_key(sshd, home):
    (home / ".ssh" / "config").write_text(
        f"Host bastion\n  HostName 127.0.0.1\n  Port {sshd.port}\n  User {getpass.getuser()}\n"
        f"  IdentityFile {sshd.client_key}\n  IdentityFile ~/.ssh/missing\n  UserKnownHostsFile {sshd.known_hosts}\n"
    )
    await log_in(LinkOptions(SshTarget.parse("bastion")))


async def test_a_jump_host_is_logged_in_to_and_trusted_like_any_other(sshd, home, tmp_path, echo):
    folder = tmp_path / "inner"
    folder.mkdir()
    inner = Sshd(folder)
    inner.start()
    known = home / ".ssh" / "known_hosts"
    try:
        config = (
            f"Host outer\n  HostName 127.0.0.1\n  Port {sshd.port}\n  IdentityFile {sshd.client_key}\n"
            f"Host inner\n  HostName 127.0.0.1\n  Port {inner.port}\n  IdentityFile {inner.client_key}\n  ProxyJump outer\n"
            f"Host *\n  User {getpass.getuser()}\n"
        )
        (home / ".ssh" / "config").write_text(config)
        known.write_text(sshd.known_hosts.read_text() + inner.known_hosts.read_text())
        await log_in(LinkOptions(SshTarget.parse("inner")))
        assert "Accepted publickey" in (sshd.folder / "sshd.log").read_text()
        known.write_text(inner.known_hosts.read_text())
        error = await refusal(LinkOptions(SshTarget.parse("inner")))
        assert (error.reason, "outer" in error.message) == ("HostKeyUnknown", True)
    finally:
        inner.kill()


async def test_a_configuration_that_cannot_be_read_is_told(sshd, home):
    (home / ".ssh" / "config").write_text("Host *\n  Port many\n")
    error = await refusal(sshd.options(config_files=None))
    assert error.reason == "InvalidConfig"


# Trust.


async def test_hashed_names_are_known(sshd, home):
    keygen("-q", "-H", "-f", sshd.known_hosts)
    assert "127.0.0.1" not in sshd.known_hosts.read_text()
    await log_in(sshd.options())


async def test_a_changed_key_is_refused_with_fingerprint_and_way_to_check(sshd, home):
    sshd.trust(sshd.client_key.with_suffix(".pub").read_text())
    error = await refusal(sshd.options())
    assert error.reason == "HostKeyChanged"
    assert keygen("-l", "-f", sshd.host_key).split()[1] in error.message
    assert f"ssh-keyscan -p {sshd.port} 127.0.0.1" in error.hint
    assert f"ssh-keygen -R '[127.0.0.1]:{sshd.port}'" in error.hint


async def test_a_key_of_another_type_is_a_changed_key(sshd, home, tmp_path):
    keygen("-q", "-t", "ecdsa", "-N", "", "-f", tmp_path / "ecdsa")
    sshd.trust((tmp_path / "ecdsa.pub").read_text())
    error = await refusal(sshd.options())
    assert error.reason == "HostKeyChanged", error.message


async def test_a_revoked_key_is_refused(sshd, home):
    line = sshd.known_hosts.read_text()
    sshd.known_hosts.write_text(f"{line}@revoked {line}")
    assert (await refusal(sshd.options())).reason == "HostKeyRevoked"


@pytest.mark.parametrize("setting", ["none", "/dev/null", "/nonexistent"])
async def test_no_configuration_switches_the_check_off(sshd, home, setting):
    (home / ".ssh" / "config").write_text(
        f"Host *\n  StrictHostKeyChecking no\n  UserKnownHostsFile {setting}\n  GlobalKnownHostsFile none\n"
    )
    error = await refusal(sshd.options(config_files=None, known_hosts=None))
    assert error.reason == "HostKeyUnknown"


async def test_a_host_is_known_by_its_name_and_not_by_its_address(sshd, home):
    target = SshTarget("localhost", getpass.getuser(), sshd.port)  # known_hosts has 127.0.0.1
    assert (await refusal(sshd.options(target=target))).reason == "HostKeyUnknown"


async def test_a_bad_line_does_not_hide_the_others(sshd, home):
    sshd.known_hosts.write_text("one-word\n@what is this\n" + sshd.known_hosts.read_text())
    await log_in(sshd.options())


async def test_a_certificate_of_a_known_authority_is_trusted(tmp_path, home):
    authority = tmp_path / "ca"
    keygen("-q", "-t", "ed25519", "-N", "", "-f", authority)
    server = Sshd(tmp_path, f"HostCertificate {tmp_path}/host_key-cert.pub")
    public = authority.with_suffix(".pub").read_text()
    keygen("-q", "-s", authority, "-I", "host", "-h", "-n", "127.0.0.1", server.host_key.with_suffix(".pub"))
    server.start()
    try:
        server.known_hosts.write_text(f"@cert-authority [127.0.0.1]:{server.port} {public}")
        await log_in(server.options())
        server.known_hosts.write_text(
            f"@cert-authority [127.0.0.1]:{server.port} {server.client_key.with_suffix('.pub').read_text()}"
        )
        assert (await refusal(server.options())).reason.startswith("HostKey")
        keygen("-q", "-s", authority, "-I", "host", "-h", "-n", "elsewhere", server.host_key.with_suffix(".pub"))
    finally:
        server.kill()
    server.known_hosts.write_text(f"@cert-authority [127.0.0.1]:{server.port} {public}")
    server.start()
    try:
        assert (await refusal(server.options())).reason.startswith("HostKey")
    finally:
        server.kill()


# Who is not reached or does not let us in.


async def test_unknown_hosts_and_closed_ports(sshd, home):
    assert (await refusal(sshd.options(target=SshTarget("no-such-host.invalid", "a", 22)))).reason == "UnknownHost"
    error = await refusal(sshd.options(target=SshTarget("127.0.0.1", "a", free_port())))
    assert error.reason == "Unreachable"


async def test_a_key_that_the_server_does_not_know(sshd, home):
    (sshd.folder / "authorized_keys").write_text("")
    error = await refusal(sshd.options())
    assert error.reason == "PermissionDenied"
    assert "ssh -v" in error.hint
