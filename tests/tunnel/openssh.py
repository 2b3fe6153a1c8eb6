"""OpenSSH's own server and client, each with files of its own."""

from __future__ import annotations

import contextlib
import getpass
import os
import signal
import socket
import subprocess
import time
from pathlib import Path

from bowsprit.net.ports import free_port
from bowsprit.tunnel.login import LinkOptions
from bowsprit.tunnel.target import SshTarget

SSHD = "/usr/sbin/sshd"


class Sshd:
    """OpenSSH's sshd on a port of its own; can be killed and started again."""

    def __init__(self, folder: Path, extra: str = "") -> None:
        self.folder = folder
        self.port = free_port()
        self.host_key = folder / "host_key"
        self.client_key = folder / "client_key"
        for key in (self.host_key, self.client_key):
            subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(key)], check=True)
        (folder / "authorized_keys").write_bytes(self.client_key.with_suffix(".pub").read_bytes())
        self.known_hosts = folder / "known_hosts"
        self.trust(self.host_key.with_suffix(".pub").read_text())
        self.config = folder / "sshd_config"
        self.config.write_text(
            f"Port {self.port}\nListenAddress 127.0.0.1\nHostKey {self.host_key}\nPidFile {folder}/pid\n"
            f"AuthorizedKeysFile {folder}/authorized_keys\nStrictModes no\nUsePAM no\nPasswordAuthentication no\n"
            f"PermitRootLogin yes\nMaxSessions 2000\nMaxStartups 1000\nAllowTcpForwarding yes\n{extra}\n"
        )
        self.process: subprocess.Popen[bytes] | None = None

    def trust(self, public_key: str) -> None:
        self.known_hosts.write_text(f"[127.0.0.1]:{self.port} {public_key}")

    def start(self) -> None:
        os.makedirs("/run/sshd", exist_ok=True)
        with (self.folder / "sshd.log").open("ab") as log:
            self.process = subprocess.Popen(
                [SSHD, "-D", "-e", "-f", str(self.config)], stderr=log, start_new_session=True
            )
        deadline = time.monotonic() + 10
        while time.monotonic() < deadline:
            with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", self.port), timeout=5) as probe:
                if probe.recv(8).startswith(b"SSH-2.0"):
                    return
            time.sleep(0.02)
        raise AssertionError((self.folder / "sshd.log").read_text())

    def kill(self) -> None:
        """SIGKILL to sshd and every process that serves a connection."""
        if self.process is None:
            return
        for pid in [self.process.pid, *_descendants(self.process.pid)]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self.process.wait()
        self.process = None

    def connections(self) -> list[int]:
        """The processes that serve connections."""
        assert self.process is not None
        return _descendants(self.process.pid)

    @property
    def target(self) -> SshTarget:
        return SshTarget("127.0.0.1", getpass.getuser(), self.port)

    def options(self, **changes: object) -> LinkOptions:
        settings: dict[str, object] = {
            "target": self.target,
            "config_files": [],
            "known_hosts": self.known_hosts,
            "identities": [self.client_key],
        }
        return LinkOptions(**(settings | changes))  # type: ignore[arg-type]


def _descendants(pid: int) -> list[int]:
    children: dict[int, list[int]] = {}
    for folder in Path("/proc").iterdir():
        if folder.name.isdigit():
            with contextlib.suppress(OSError):
                parent = int((folder / "stat").read_text().rpartition(")")[2].split()[1])
                children.setdefault(parent, []).append(int(folder.name))
    found = children.get(pid, [])
    for child in found:
        found = found + _descendants(child)
    return found
