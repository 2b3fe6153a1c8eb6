"""``bowsprit tunnel open``, ``list`` and ``close`` as a user runs them, with OpenSSH's sshd at the far end."""

from __future__ import annotations

import json
import os
import pty
import select
import signal
import socket
import subprocess
import time

import pytest
import yaml
from commands import BOWSPRIT, SECONDS, Shell

from bowsprit.cli.main import main
from bowsprit.net.ports import free_port

KUBECONFIG = {
    "apiVersion": "v1",
    "kind": "Config",
    "current-context": "prod",
    "clusters": [{"name": "prod-cluster", "cluster": {"server": "https://api.internal:6443"}}],
    "contexts": [{"name": "prod", "context": {"cluster": "prod-cluster", "user": "ana", "namespace": "web"}}],
    "users": [{"name": "ana", "user": {"token": "t"}}, {"name": "prod-tunnel", "user": {"token": "other"}}],
}


@pytest.fixture
def shell(tmp_path):
    home = tmp_path / "home"
    home.mkdir()
    kubeconfig = home / "config"
    kubeconfig.write_text(yaml.safe_dump(KUBECONFIG))
    return Shell(home, kubeconfig)


@pytest.fixture
def reach(sshd):
    """The options and address that lead to the test's sshd."""
    return ["-i", str(sshd.client_key), "--known-hosts", str(sshd.known_hosts), str(sshd.target)]


def config(shell):
    return yaml.safe_load((shell.home / "config").read_text())


def greets(port: int) -> bool:
    with socket.create_connection(("127.0.0.1", port), timeout=5) as client:
        client.sendall(b"\x05\x01\x00")
        return client.recv(2) == b"\x05\x00"


def listens(port: int) -> bool:
    try:
        socket.create_connection(("127.0.0.1", port), timeout=5).close()
    except ConnectionRefusedError:
        return False
    return True


def eventually(condition):
    deadline = time.monotonic() + SECONDS
    while not condition():
        assert time.monotonic() < deadline
        time.sleep(0.02)


def test_in_the_foreground_until_ctrl_c(shell, reach):
    with shell.running("tunnel", "open", "--port", "0", "--context", "prod", "--name", "one", *reach) as opened:
        port = opened.port()
        opened.expect("Added context 'prod-tunnel'")
        assert greets(port)
        with socket.create_connection(("::1", port), timeout=5):
            pass  # nobody else can answer for localhost
        found = config(shell)
        (cluster,) = [entry["cluster"] for entry in found["clusters"] if entry["name"] == "prod-tunnel"]
        assert cluster == {"server": "https://api.internal:6443", "proxy-url": f"socks5://localhost:{port}"}
        (context,) = [entry["context"] for entry in found["contexts"] if entry["name"] == "prod-tunnel"]
        assert context == {"cluster": "prod-tunnel", "user": "ana", "namespace": "web"}
        assert found["current-context"] == "prod"
        listed = json.loads(shell.bowsprit("tunnel", "list", "-o", "json").stdout)
        assert [(entry["name"], entry["connected"], entry["context"]) for entry in listed] == [
            ("one", True, "prod-tunnel")
        ]
        again = shell.bowsprit("tunnel", "open", "--port", "0", "--name", "one", *reach)
        assert (again.returncode, "reason: AlreadyOpen" in again.stderr) == (1, True)
        assert opened.end(signal.SIGINT) == 0
    assert not listens(port)
    assert config(shell) == KUBECONFIG
    assert os.listdir(shell.home / "state" / "tunnels") == []


def test_detached_listed_and_closed(shell, reach):
    opened = shell.bowsprit("tunnel", "open", "--port", "0", "--detach", "--env", "--name", "bg", *reach)
    assert opened.returncode == 0, opened.stderr
    assert "bowsprit tunnel close bg" in opened.stderr
    told = shell.run("bash", "-c", f"{opened.stdout}\necho $https_proxy $HTTPS_PROXY").stdout.split()
    port = int(told[0].rpartition(":")[2])
    assert told == [f"socks5h://localhost:{port}"] * 2
    assert greets(port)
    (row,) = shell.bowsprit("tunnel", "list").stdout.splitlines()[1:]
    assert row.split()[:3] == ["bg", "Connected", f"localhost:{port}"]
    closed = shell.bowsprit("tunnel", "close", "bg", "--env")
    assert (closed.returncode, closed.stdout) == (0, "unset https_proxy HTTPS_PROXY\n")
    assert not listens(port)
    assert shell.bowsprit("tunnel", "list").stdout == ""


def test_in_place_is_restored_even_after_a_kill(shell, reach):
    arguments = ["tunnel", "open", "--port", "0", "--detach", "--context", "prod", "--in-place", "-o", "json", *reach]
    facts = json.loads(shell.bowsprit(*arguments).stdout)
    assert config(shell)["clusters"][0]["cluster"]["proxy-url"].startswith("socks5://localhost:")
    os.kill(facts["pid"], signal.SIGKILL)
    eventually(lambda: not os.path.exists(f"/proc/{facts['pid']}"))
    listed = shell.bowsprit("tunnel", "list")
    assert (listed.stdout, "had died" in listed.stderr) == ("", True)
    assert config(shell) == KUBECONFIG
    facts = json.loads(shell.bowsprit(*arguments).stdout)
    os.kill(facts["pid"], signal.SIGKILL)
    eventually(lambda: not os.path.exists(f"/proc/{facts['pid']}"))
    assert json.loads(shell.bowsprit(*arguments).stdout)["name"] == facts["name"]  # a new one repairs, too
    assert shell.bowsprit("tunnel", "close", facts["name"]).returncode == 0
    assert config(shell) == KUBECONFIG


def test_what_somebody_else_changed_meanwhile_stays(shell, reach):
    with shell.running("tunnel", "open", "--port", "0", "--context", "prod", "--in-place", *reach) as opened:
        opened.expect("Changed context 'prod'")
        changed = config(shell)
        changed["clusters"][0]["cluster"]["proxy-url"] = "http://other:1"
        (shell.home / "config").write_text(yaml.safe_dump(changed))
        assert opened.end() == 0
    assert config(shell) == changed


def test_status_as_json_lines_and_password_in_the_address(shell, reach, tmp_path):
    (tmp_path / "up").write_text("ana:p@ss\n")
    arguments = ["--port", "0", "-o", "json", "--user-password", str(tmp_path / "up"), "--context", "prod", *reach]
    with shell.running("tunnel", "open", *arguments) as opened:
        facts = opened.first_facts()
        assert facts["connected"]
        assert facts["error"] == ""
        port = int(facts["listen"].rpartition(":")[2])
        assert not greets(port)
        (url,) = [c["cluster"].get("proxy-url") for c in config(shell)["clusters"] if c["name"] == "prod-tunnel"]
        assert url == f"socks5://ana:p%40ss@localhost:{port}"


def test_a_terminal_shows_one_status_line(shell, reach):
    leader, follower = pty.openpty()
    process = subprocess.Popen(
        [*BOWSPRIT, "tunnel", "open", "--port", "0", *reach], env=shell.environ, stdin=follower, stdout=follower,
        stderr=follower, start_new_session=True,
    )  # fmt: skip
    os.close(follower)
    shown = b""
    deadline = time.monotonic() + SECONDS
    while b"connections, " not in shown and time.monotonic() < deadline:
        if select.select([leader], [], [], 0.5)[0]:
            shown += os.read(leader, 4096)
    os.write(leader, b"")
    process.send_signal(signal.SIGINT)
    assert process.wait(SECONDS) == 0
    os.close(leader)
    line = shown.decode().rpartition("\033[K")[2]
    assert line.startswith("connected since ")
    assert "0 connections, 0 B up, 0 B down" in line


def test_only_the_api_server(shell, reach):
    with shell.running("tunnel", "open", "--port", "0", "--api-only", "--allow", "[::1]:9", *reach) as opened:
        port = opened.port()
        replies = []
        for address in (
            b"\x03\x0capi.internal\x19\x2b",
            b"\x03\x0capi.internal\x00\x16",
            b"\x04" + bytes(15) + b"\x01\x00\x09",
        ):
            with socket.create_connection(("127.0.0.1", port), timeout=SECONDS) as client:
                client.sendall(b"\x05\x01\x00\x05\x01\x00" + address)
                client.recv(2)
                replies.append(client.recv(10)[1])
    # The first is allowed and fails at the far end, where the name does not resolve; so is the third, where nobody listens.
    assert replies == [4, 2, 5]


@pytest.mark.parametrize(
    ("arguments", "code", "reason"),
    [
        (["open", "http://bastion"], 2, "InvalidTarget"),
        (["open", "ssh://ana:secret@bastion"], 2, "InvalidTarget"),
        (["open", "ssh://bastion:99999"], 2, "InvalidTarget"),
        (["open", "bastion", "--port", "70000"], 2, ""),
        (["open", "bastion", "--in-place"], 2, ""),
        (["open", "bastion", "--allow", "nowhere"], 2, "InvalidRule"),
        (["open", "bastion", "--name", "../x"], 2, "InvalidName"),
        (["open", "bastion", "--api-only", "--context", "nope"], 1, "InvalidKubeconfig"),
        (["open", "localhost", "-i", "/nonexistent/key", "--port", "0"], 1, "FileUnreadable"),
        (["open", "does-not-exist.invalid", "--port", "0"], 1, "UnknownHost"),
        (["list", "-o", "xml"], 2, ""),
        (["list", "extra"], 2, ""),
        (["list", "--all"], 2, ""),
        (["close"], 2, ""),
        (["close", "nope"], 1, "TunnelNotFound"),
        (["close", "../../etc/passwd"], 2, "InvalidName"),
        (["gateway", "--port", "0"], 2, ""),
        (["gateway", "--authorized-keys", "/nonexistent", "--host-key", "{tmp}/k", "--port", "0"], 1, "InvalidKeys"),
        (["gateway", "--authorized-keys", "/dev/null", "--host-key", "{tmp}/k", "--allow", "a:b"], 2, "InvalidRule"),
        (["check", "--ssh", "ftp://x"], 2, "InvalidTarget"),
        (["check", "a", "b"], 2, ""),
        (["check", "-o", "yaml"], 2, ""),
    ],
)
def test_wrong_input_is_told_what_why_and_what_to_do(shell, tmp_path, arguments, code, reason, monkeypatch, capfd):
    for name in ("HOME", "BOWSPRIT_HOME", "KUBECONFIG"):
        monkeypatch.setenv(name, shell.environ[name])
    with pytest.raises(SystemExit) as caught:
        main(["tunnel", *(argument.replace("{tmp}", str(tmp_path)) for argument in arguments)])
    out, err = capfd.readouterr()
    assert caught.value.code == code, err
    assert out == ""
    assert "Traceback" not in err
    if reason:
        assert err.startswith("error: ")
        assert f"reason: {reason}\n" in err
        assert "\nhint: " in err


def test_a_taken_port_costs_no_login(shell, reach):
    with socket.create_server(("127.0.0.1", 0)) as taken:
        port = taken.getsockname()[1]
        result = shell.bowsprit("tunnel", "open", "--port", str(port), *reach)
    assert result.returncode == 1
    assert "reason: PortInUse" in result.stderr
    assert "--port" in result.stderr


def test_detached_failures_are_told_before_going_to_the_background(shell, reach, sshd):
    sshd.known_hosts.write_text("")
    result = shell.bowsprit("tunnel", "open", "--port", "0", "--detach", *reach)
    assert result.returncode == 1
    assert "reason: HostKeyUnknown" in result.stderr
    unreachable = shell.bowsprit("tunnel", "open", "--port", "0", "--detach", f"ssh://127.0.0.1:{free_port()}")
    assert unreachable.returncode == 1
    assert "reason: Unreachable" in unreachable.stderr


def test_ctrl_c_while_connecting(shell):
    with socket.create_server(("127.0.0.1", 0)) as silent:
        target = f"ssh://127.0.0.1:{silent.getsockname()[1]}"
        with shell.running("tunnel", "open", "--port", "0", target) as opened:
            client, _ = silent.accept()
            assert client.recv(8).startswith(b"SSH-2.0")  # it is connecting, and we never answer
            assert opened.end(signal.SIGINT) == 130
            assert "reason: Interrupted" in opened.err
            client.close()
    assert os.listdir(shell.home / "state" / "tunnels") == []


def test_a_kubeconfig_that_cannot_be_restored_is_tried_again(shell, reach):
    with shell.running("tunnel", "open", "--port", "0", "--context", "prod", "--name", "stuck", *reach) as opened:
        opened.expect("Added context 'prod-tunnel'")
        (shell.home / "config.lock").write_text("")  # another program holds the file
        assert opened.end() == 1
        assert "reason: KubeconfigNotRestored" in opened.err
    assert config(shell) != KUBECONFIG
    (shell.home / "config.lock").unlink()
    assert "stuck had died; what it had changed is restored" in shell.bowsprit("tunnel", "list").stderr
    assert config(shell) == KUBECONFIG
