"""This project's commands as processes of their own, as a user starts them."""

from __future__ import annotations

import json
import os
import select
import signal
import subprocess
import sys
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

BOWSPRIT = [sys.executable, "-m", "bowsprit"]
SECONDS = 30


class Shell:
    """A user's environment: a home, a kubeconfig, nothing inherited that could lead elsewhere."""

    def __init__(self, home: Path, kubeconfig: Path | None = None) -> None:
        self.home = home
        self.environ = {
            name: value
            for name, value in os.environ.items()
            if not name.lower().endswith("_proxy") and not name.startswith(("BOWSPRIT", "SSH_", "XDG_"))
        }
        self.environ |= {"HOME": str(home), "BOWSPRIT_HOME": str(home / "state")}
        if kubeconfig:
            self.environ["KUBECONFIG"] = str(kubeconfig)

    def run(self, *command: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        """Run a command to its end, without a terminal."""
        settings: dict[str, Any] = {"stdin": subprocess.DEVNULL, "start_new_session": True} | changes
        return subprocess.run(
            command, env=self.environ, capture_output=True, text=True, timeout=SECONDS, check=False, **settings
        )

    def bowsprit(self, *arguments: str, **changes: Any) -> subprocess.CompletedProcess[str]:
        """Run one of this project's commands to its end."""
        return self.run(*BOWSPRIT, *arguments, **changes)

    @contextmanager
    def running(self, *arguments: str, **environ: str) -> Iterator[Running]:
        """A command that stays, ended with SIGINT, or SIGKILL if that does not help."""
        process = subprocess.Popen(
            [*BOWSPRIT, *arguments],
            env=self.environ | environ,
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


class Running:
    """A process that stays; its output is read as it comes."""

    def __init__(self, process: subprocess.Popen[bytes]) -> None:
        self.process = process
        self.out = self.err = ""

    def expect(self, text: str) -> str:
        """Wait for text on stdout or stderr; answers the line that has it."""
        deadline = time.monotonic() + SECONDS
        while time.monotonic() < deadline:
            if text in self.out + self.err:
                while self._read(0.1):  # the rest of the line
                    pass
                return next(line for line in (self.out + "\n" + self.err).splitlines() if text in line)
            if not self._read(0.5) and self.process.poll() is not None:
                break
        raise AssertionError(f"{text!r} did not come; stdout:\n{self.out}\nstderr:\n{self.err}")

    def until(self, condition: Callable[[], bool]) -> None:
        """Wait for something that the process brings about."""
        deadline = time.monotonic() + SECONDS
        while not condition():
            if time.monotonic() > deadline or self.process.poll() is not None:
                raise AssertionError(f"it did not happen; stdout:\n{self.out}\nstderr:\n{self.err}")
            self._read(0.05)

    def first_facts(self) -> dict[str, Any]:
        """The first line of ``-o json``."""
        facts: dict[str, Any] = json.loads(self.expect('{"name"'))
        return facts

    def port(self) -> int:
        """The SOCKS port that an opened tunnel tells."""
        return int(self.expect("SOCKS5 on").partition("SOCKS5 on ")[2].split()[0].rpartition(":")[2])

    def end(self, signum: int = signal.SIGINT) -> int:
        """End the process; answers its exit code."""
        if self.process.poll() is None:
            self.process.send_signal(signum)
        try:
            self.process.wait(15)
        except subprocess.TimeoutExpired:
            self.process.kill()
            self.process.wait()
            raise
        while self._read(0):
            pass
        return self.process.returncode

    def _read(self, seconds: float) -> bool:
        assert self.process.stdout is not None
        assert self.process.stderr is not None
        streams = [stream for stream in (self.process.stdout, self.process.stderr) if not stream.closed]
        ready, _, _ = select.select(streams, [], [], seconds)
        for stream in ready:
            data = os.read(stream.fileno(), 65536)
            if not data:
                stream.close()
            elif stream is self.process.stdout:
                self.out += data.decode()
            else:
                self.err += data.decode()
        return bool(ready)
