"""Two networks, as network namespaces: ``near`` with the user, ``far`` with an SSH server and a cluster.

    near  10.77.0.2 ---veth--- 10.77.0.1  far: sshd on port 22
          knows kubernetes-remote-server.example        API server on 127.0.0.1:6443, called api.far.test only there

Nothing of the machine is changed: host names are files bound over /etc/hosts inside each process's own mounts.
"""

from __future__ import annotations

import contextlib
import os
import signal
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterator, Mapping
from pathlib import Path
from typing import Any

import yaml
from commands import Running

REMOTE = "kubernetes-remote-server.example"
_CLUSTER = """
import signal, sys, threading
from pathlib import Path
from bowsprit.cluster.config import ClusterConfig, NodeGroup
from bowsprit.cluster.embedded import Cluster
with Cluster(ClusterConfig(name="far", store="memory", port=6443, nodes=[NodeGroup(count=1)])) as cluster:
    Path(sys.argv[1]).write_bytes(cluster.kubeconfig.read_bytes())
    print("ready", flush=True)
    done = threading.Event()
    signal.signal(signal.SIGTERM, lambda *_: done.set())
    done.wait()
"""


def sh(*command: object) -> None:
    subprocess.run([str(part) for part in command], check=True, capture_output=True)


class Lab:
    """Both networks; see the module."""

    def __init__(self, folder: Path) -> None:
        self.folder = folder
        self._tag = f"bw{os.getpid()}"
        self.home = folder / "home"
        self.kubeconfig = folder / "kubeconfig"
        self._processes: list[subprocess.Popen[bytes]] = []
        self._sshd: subprocess.Popen[bytes] | None = None

    def start(self) -> None:
        """Make the networks, start the cluster and sshd."""
        (self.home / ".ssh").mkdir(parents=True, mode=0o700)
        self._make_networks()
        self._make_keys()
        self.start_sshd()
        cluster = self._spawn("far", [sys.executable, "-c", _CLUSTER, str(self.kubeconfig)], stdout=subprocess.PIPE)
        assert cluster.stdout is not None
        assert cluster.stdout.readline() == b"ready\n"
        admin = yaml.safe_load(self.kubeconfig.read_text())
        (cluster_entry,) = admin["clusters"]
        direct = cluster_entry["cluster"] | {"server": "https://localhost:6443"}
        admin["clusters"] = [
            {"name": "prod", "cluster": direct},
            {"name": "socks", "cluster": direct | {"proxy-url": "socks5://localhost:1080"}},
            {
                "name": "named",
                "cluster": direct
                | {
                    "server": "https://api.far.test:6443",
                    "tls-server-name": "localhost",
                    "proxy-url": "socks5://localhost:1080",
                },
            },
        ]
        user = admin["users"][0]["name"]
        admin["contexts"] = [
            {"name": name, "context": {"cluster": name, "user": user}} for name in ("prod", "socks", "named")
        ]
        admin["current-context"] = "prod"
        self.kubeconfig.write_text(yaml.safe_dump(admin))

    def stop(self) -> None:
        """End everything and remove the networks."""
        self.stop_sshd()
        for process in self._processes:
            process.terminate()
        for process in self._processes:
            process.wait(30)
        for name in ("near", "far"):
            subprocess.run(["ip", "netns", "delete", f"{self._tag}-{name}"], check=False, capture_output=True)

    def start_sshd(self) -> None:
        """Start sshd in the far network."""
        os.makedirs("/run/sshd", exist_ok=True)
        with (self.folder / "sshd.log").open("ab") as log:
            self._sshd = self._popen(
                "far", ["/usr/sbin/sshd", "-D", "-e", "-f", str(self.folder / "sshd_config")], stderr=log
            )

    def stop_sshd(self) -> None:
        """SIGKILL to sshd and all its children, which live in a process group of their own."""
        if self._sshd is not None:
            with contextlib.suppress(ProcessLookupError):
                os.killpg(self._sshd.pid, signal.SIGKILL)
            _kill_children_of_namespace_sshd(self._tag)
            self._sshd.wait()
            self._sshd = None

    def link(self, state: str) -> None:
        """Plug the near end of the cable in (``up``) or out (``down``)."""
        sh("ip", "-n", f"{self._tag}-near", "link", "set", "veth0", state)

    def near(self, *command: str, seconds: float = 60.0, **environ: str) -> subprocess.CompletedProcess[str]:
        """Run a command to its end in the near network."""
        return subprocess.run(
            self._inside("near", list(command)),
            env=self.environ(environ),
            stdin=subprocess.DEVNULL,
            capture_output=True,
            text=True,
            timeout=seconds,
            check=False,
        )

    @contextlib.contextmanager
    def near_running(self, *command: str, **environ: str) -> Iterator[Running]:
        """A command that stays, in the near network."""
        process = subprocess.Popen(
            self._inside("near", list(command)),
            env=self.environ(environ),
            stdin=subprocess.DEVNULL,
            stdout=subprocess.PIPE,
            stderr=subprocess.PIPE,
            start_new_session=True,
        )
        running = Running(process)
        try:
            yield running
        finally:
            running.end()

    def environ(self, changes: Mapping[str, str] | None = None) -> dict[str, str]:
        """The user's environment; HOME is for programs that ask for it, OpenSSH gets it as /root, see `_inside`."""
        kept = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and not name.startswith(("BOWSPRIT", "SSH_", "XDG_"))
        }
        return (
            kept
            | {"HOME": str(self.home), "BOWSPRIT_HOME": str(self.home / "state"), "KUBECONFIG": str(self.kubeconfig)}
            | dict(changes or {})
        )

    def _make_networks(self) -> None:
        near, far = f"{self._tag}-near", f"{self._tag}-far"
        for name in (near, far):
            sh("ip", "netns", "add", name)
            sh("ip", "-n", name, "link", "set", "lo", "up")
        sh("ip", "-n", near, "link", "add", "veth0", "type", "veth", "peer", "name", "veth1", "netns", far)
        sh("ip", "-n", near, "address", "add", "10.77.0.2/24", "dev", "veth0")
        sh("ip", "-n", far, "address", "add", "10.77.0.1/24", "dev", "veth1")
        sh("ip", "-n", near, "link", "set", "veth0", "up")
        sh("ip", "-n", far, "link", "set", "veth1", "up")
        (self.folder / "hosts-near").write_text(f"127.0.0.1 localhost\n::1 localhost\n10.77.0.1 {REMOTE}\n")
        (self.folder / "hosts-far").write_text("127.0.0.1 localhost\n::1 localhost\n127.0.0.1 api.far.test\n")

    def _make_keys(self) -> None:
        ssh = self.home / ".ssh"
        for path in (self.folder / "host_key", ssh / "id_ed25519"):
            sh("ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", path)
        (ssh / "known_hosts").write_text(f"{REMOTE} {(self.folder / 'host_key.pub').read_text()}")
        (self.folder / "sshd_config").write_text(
            f"Port 22\nListenAddress 10.77.0.1\nHostKey {self.folder}/host_key\nPidFile none\nUsePAM no\n"
            f"AuthorizedKeysFile {ssh}/id_ed25519.pub\nStrictModes no\nPermitRootLogin yes\nPasswordAuthentication no\n"
        )

    def _inside(self, network: str, command: list[str]) -> list[str]:
        """A command in a network, with its hosts file. OpenSSH's client reads the home of the user database: bound over it."""
        binds = f"mount --bind {self.folder}/hosts-{network} /etc/hosts"
        if command[0] == "ssh":
            binds += f" && mount --bind {self.home} /root"
        script = f'{binds} && exec "$@"'
        return ["ip", "netns", "exec", f"{self._tag}-{network}", "sh", "-c", script, "sh", *command]

    def _popen(self, network: str, command: list[str], **changes: Any) -> subprocess.Popen[bytes]:
        return subprocess.Popen(self._inside(network, command), env=self.environ(), start_new_session=True, **changes)

    def _spawn(self, network: str, command: list[str], **changes: Any) -> subprocess.Popen[bytes]:
        process = self._popen(network, command, **changes)
        self._processes.append(process)
        return process


def _kill_children_of_namespace_sshd(tag: str) -> None:
    """The processes that serve connections have left sshd's process group."""
    pids = subprocess.run(
        ["ip", "netns", "pids", f"{tag}-far"], capture_output=True, text=True, check=False
    ).stdout.split()
    for pid in pids:
        with contextlib.suppress(OSError):
            if Path(f"/proc/{pid}/comm").read_text().strip() == "sshd":
                os.kill(int(pid), signal.SIGKILL)


@contextlib.contextmanager
def lab() -> Iterator[Lab]:
    """The lab, started and removed."""
    with tempfile.TemporaryDirectory(prefix="bowsprit-lab-") as folder:
        made = Lab(Path(folder))
        try:
            made.start()
            yield made
        finally:
            made.stop()


def eventually(condition: Any, seconds: float = 30.0) -> None:
    """Wait for something to become true."""
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, "it did not happen"
        time.sleep(0.05)
