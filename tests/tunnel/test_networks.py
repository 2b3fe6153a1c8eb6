"""The documented way, word for word, between two networks: with OpenSSH's ``ssh -D`` and with ours in its place.

The API server listens on the far network's loopback only and its second name resolves only there, so whatever arrives has
gone through the tunnel, its names included.
"""

from __future__ import annotations

import contextlib
import json
import os
import re
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from commands import BOWSPRIT
from lab import REMOTE, eventually, lab

OLD_KUBECTL = "build/kubectl-1.20/usr/bin/kubectl"
STREAMS_OVER_SOCKS = 24  # kubectl's first minor version whose exec and port-forward take the way of a SOCKS proxy
CURL = ("curl", "-k", "-v", "https://localhost:6443/api")
FILE_SIZE = 1 << 31
PAGE = (Path(__file__).parents[2] / "docs" / "tunnel.md").read_text()
BLOCKS = [re.findall(r"^\$ (.+)$", block, re.M) for block in re.findall(r"```console\n(.*?)```", PAGE, re.S)]

pytestmark = pytest.mark.skipif(os.geteuid() != 0, reason="network namespaces need root")


@pytest.fixture(scope="module")
def networks():
    with lab() as made:
        yield made


@pytest.fixture(params=["openssh", "ours"])
def way(request, networks):
    """The tunnel is open: by ``ssh -D 1080 -q -N`` or by ours."""
    ours = [*BOWSPRIT, "tunnel", "open", f"root@{REMOTE}"]
    theirs = ["ssh", "-D", "1080", "-q", "-N", f"root@{REMOTE}"]
    with networks.near_running(*(ours if request.param == "ours" else theirs)) as running:
        eventually(lambda: networks.near("curl", "-s", "telnet://localhost:1080", "-m", "0.1").returncode in (0, 28))
        yield running


@pytest.fixture
def ours(networks):
    with networks.near_running(*BOWSPRIT, "tunnel", "open", "--name", "ours", f"root@{REMOTE}") as running:
        running.expect("SOCKS5 on")
        yield running


def kubectl(networks, *arguments: str, program: str = "kubectl", context: str = "socks") -> str:
    result = networks.near(program, "--context", context, *arguments)
    assert result.returncode == 0, result.stderr
    return result.stdout


def test_without_the_tunnel_there_is_no_way(networks):
    assert networks.near(*CURL).returncode == 7
    assert networks.near("kubectl", "get", "nodes").returncode == 1
    assert networks.near("getent", "hosts", "api.far.test").returncode == 2


def test_the_documented_way(networks, way):
    answer = networks.near(*CURL, https_proxy="socks5h://localhost:1080")
    assert answer.returncode == 0, answer.stderr
    assert "SOCKS5 connect to localhost:6443 (remotely resolved)" in answer.stderr
    assert json.loads(answer.stdout)["apiVersion"] == "v1"
    named = networks.near(
        "curl", "-k", "-sS", "https://api.far.test:6443/version", https_proxy="socks5h://localhost:1080"
    )
    assert json.loads(named.stdout)["major"] == "1"
    for program in ("kubectl", OLD_KUBECTL):
        for context in ("socks", "named"):
            assert "node-1" in kubectl(networks, "get", "nodes", program=program, context=context)


def test_kubectl_does_everything_through_it(networks, way, request):
    name = "web-" + request.node.callspec.params["way"]
    manifest = networks.folder / "web.yaml"
    manifest.write_text(
        kubectl(networks, "create", "deployment", name, "--image=nginx", "--port=80", "--dry-run=client", "-o", "yaml")
    )
    with networks.near_running("kubectl", "--context", "socks", "get", "pods", "-w") as watch:
        kubectl(networks, "apply", "-f", str(manifest), program=OLD_KUBECTL)
        kubectl(networks, "rollout", "status", f"deployment/{name}", "--timeout=60s")
        watch.expect("Running")
        assert "started" in kubectl(networks, "logs", f"deployment/{name}")
    version = json.loads(kubectl(networks, "version", "-o", "json"))["clientVersion"]
    if int(version["minor"].rstrip("+")) >= STREAMS_OVER_SOCKS:
        streams(networks, name)
    kubectl(networks, "delete", "deployment", name)


def streams(networks, name: str) -> None:
    told = kubectl(networks, "exec", f"deployment/{name}", "--", "echo", "over", "websocket")
    assert told == "over websocket\n"
    forwarding = ["kubectl", "--context", "named", "port-forward", f"deployment/{name}", "18080:80"]
    with networks.near_running(*forwarding) as forward:
        forward.expect("Forwarding from 127.0.0.1:18080")
        assert f"{name}-" in networks.near("curl", "-sS", "http://127.0.0.1:18080/").stdout  # the pod tells its name


def test_ctrl_c_leaves_nothing_behind(networks, ours):
    assert ours.end(signal.SIGINT) == 0
    assert "Connection refused" in networks.near(*CURL, https_proxy="socks5h://localhost:1080").stderr
    assert not (networks.home / "state" / "tunnels" / "ours.json").exists()


@contextlib.contextmanager
def download(networks):
    """A transfer that goes on for long, from a web server of the far network."""
    folder = networks.folder / "www"
    folder.mkdir(exist_ok=True)
    with (folder / "big").open("wb") as file:
        file.truncate(FILE_SIZE)
    server = networks._popen(
        "far",
        [sys.executable, "-m", "http.server", "7000", "--bind", "127.0.0.1", "--directory", str(folder)],
        stdout=subprocess.DEVNULL,
        stderr=subprocess.DEVNULL,
    )
    command = ["curl", "-sS", "--limit-rate", "20M", "--socks5-hostname", "localhost:1080", "--retry", "20",
               "--retry-delay", "1", "--retry-all-errors", "-m", "1", "-o", "/dev/null", "http://api.far.test:7000/"]  # fmt: skip
    try:
        assert networks.near(*command).returncode == 0
        target = networks.folder / "downloaded"
        target.unlink(missing_ok=True)
        with networks.near_running(
            "curl", "-sS", "--limit-rate", "20M", "--socks5-hostname", "localhost:1080", "-o", str(target),
            "http://api.far.test:7000/big",
        ) as curl:  # fmt: skip
            eventually(lambda: target.exists() and target.stat().st_size > 1 << 20)
            yield curl
    finally:
        server.terminate()
        server.wait()


def answers(networks) -> bool:
    return (
        networks.near("kubectl", "--context", "named", "get", "--raw", "/readyz", "--request-timeout=20s").stdout
        == "ok"
    )


def test_a_killed_sshd_cuts_transfers_at_once_and_is_found_again(networks, ours):
    with download(networks) as curl:
        networks.stop_sshd()
        assert curl.process.wait(5) in (18, 56)  # partial file, or reset: not taken for the end
    listed = networks.near(*BOWSPRIT, "tunnel", "list")
    assert "Reconnecting" in listed.stdout or "Connected" in listed.stdout
    networks.start_sshd()
    assert answers(networks)
    assert ours.process.poll() is None


def test_an_unplugged_cable_cuts_transfers_and_the_way_is_back_with_it(networks, ours):
    with download(networks) as curl:
        networks.link("down")
        try:
            assert curl.process.wait(10) in (18, 56)
            with networks.near_running("kubectl", "--context", "named", "get", "--raw", "/readyz") as waiting:
                eventually(lambda: "Reconnecting" in networks.near(*BOWSPRIT, "tunnel", "list").stdout)
                assert waiting.process.poll() is None  # it waits: the listener has never been closed
                networks.link("up")
                assert waiting.expect("ok") == "ok"
        finally:
            networks.link("up")
    assert ours.process.poll() is None


def test_our_own_commands_go_the_same_way(networks, ours):
    check = networks.near(*BOWSPRIT, "tunnel", "check", "named", "-o", "json")
    steps = {step["step"]: step["outcome"] for step in json.loads(check.stdout)["steps"]}
    assert steps == {
        "kubeconfig": "ok", "dns": "ok", "tcp": "ok", "hostkey": "ok", "auth": "ok", "proxy": "ok", "socks": "ok",
        "tls": "ok", "readyz": "ok", "login": "ok", "watch": "ok", "exec": steps["exec"],
    }  # fmt: skip
    assert steps["exec"] in ("ok", "skip")  # skip: no pod is running
    assert check.returncode == 0


def test_the_tools_are_there():
    for tool in ("ip", "curl", "ssh", "kubectl"):
        assert shutil.which(tool), f"{tool} is missing: tools/system.sh test"


def test_the_page_s_commands_work_as_written(networks, tmp_path):
    programs = tmp_path / "bin"
    programs.mkdir()
    (programs / "bowsprit").write_text(f'#!/bin/sh\nexec {" ".join(BOWSPRIT)} "$@"\n')
    (programs / "bowsprit").chmod(0o755)
    path = f"{programs}:{os.environ['PATH']}"
    ran = 0
    (tmp_path / "keys.pub").write_text((networks.home / ".ssh" / "id_ed25519.pub").read_text())
    for block in BLOCKS:
        with contextlib.ExitStack() as stack:
            script = []
            for line in block:
                ran += 1
                command = f"cd {tmp_path} && {line.replace('username@', 'root@')}"
                if "--detach" not in line and ("tunnel open" in line or "tunnel gateway" in line):
                    before, _, program = command.partition("bowsprit")
                    running = networks.near_running("sh", "-c", f"{before} exec bowsprit{program}", PATH=path)
                    stack.enter_context(running).expect("SOCKS5 on" if "open" in line else "SSH gateway on")
                else:
                    script.append(command)
            result = networks.near("bash", "-ec", "\n".join(script), PATH=path)
            assert result.returncode == 0, f"{script}\n{result.stdout}\n{result.stderr}"
            if any("curl" in line for line in block):
                assert '"apiVersion": "v1"' in result.stdout
            if any("get nodes" in line for line in block):
                assert "node-1" in result.stdout
                assert "The whole way works." in result.stdout
    eventually(lambda: networks.near(*BOWSPRIT, "tunnel", "list").stdout == "")
    assert ran >= 9
