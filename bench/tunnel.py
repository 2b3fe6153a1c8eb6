"""The tunnel against OpenSSH's own ``ssh -D``, on the same sshd, in the same run."""

from __future__ import annotations

import contextlib
import getpass
import os
import shutil
import signal
import socket
import statistics
import subprocess
import sys
import tempfile
import threading
import time
from collections.abc import Iterable, Iterator
from pathlib import Path

from bench import Row

TRANSFER = 256 << 20
ROUNDS = 5
PARALLEL = 200
PAUSE = 0.003  # long enough for both ends to have torn the connection down
CHUNK = bytes(1 << 18)


def run() -> Iterable[Row]:
    """Throughput, time to the first byte of a new connection, 200 parallel connections, memory."""
    with (
        tempfile.TemporaryDirectory() as folder,
        _sshd(Path(folder)) as bed,
        _source() as source,
        bed.openssh() as theirs,
        bed.ours() as ours,
    ):
        for name, aim, measure in (
            ("throughput, one download", ">= 0.8", _download),
            ("throughput, one upload", ">= 0.8", _upload),
            ("200 parallel connections", ">= 0.8", _parallel),
        ):
            mine, floor = _alternate(lambda port, m=measure: m(port, source), ours.port, theirs.port)
            yield Row(name, mine, floor, "MB/s", mine / floor, aim)
        mine, floor = _alternate(lambda port: _first_byte(port, source, PAUSE), ours.port, theirs.port, rounds=12)
        yield Row("time to first byte", mine * 1e3, floor * 1e3, "ms", mine / floor, "<= 1.3")
        mine, floor = _alternate(lambda port: _first_byte(port, source, 0.0), ours.port, theirs.port, rounds=12)
        note = "each begins while the one before is being torn down"
        yield Row("first byte, one after another", mine * 1e3, floor * 1e3, "ms", mine / floor, note=note)
        yield Row("memory (PSS)", _pss(ours.pid), _pss(theirs.pid), "MB", _pss(ours.pid) / _pss(theirs.pid))
        gone = _reconnect(bed, ours.port, source)
        yield Row("back after sshd is", gone, 2.0, "s", gone / 2.0, "<= 1", note="the floor is what is promised")


class Proxy:
    """A SOCKS5 listener of another process."""

    def __init__(self, port: int, pid: int) -> None:
        self.port, self.pid = port, pid


class Bed:
    """An sshd and two ways through it."""

    def __init__(self, folder: Path, port: int) -> None:
        self.folder, self.port = folder, port
        self._sshd: subprocess.Popen[bytes] | None = None

    def start_sshd(self) -> None:
        """Start sshd and wait for its port."""
        os.makedirs("/run/sshd", exist_ok=True)
        program = shutil.which("sshd") or "/usr/sbin/sshd"
        self._sshd = subprocess.Popen([program, "-D", "-q", "-f", str(self.folder / "config")])
        _wait_port(self.port)

    def kill_sshd(self) -> None:
        """End sshd and the processes that serve its connections."""
        assert self._sshd is not None
        for pid in [*_descendants(self._sshd.pid), self._sshd.pid]:
            with contextlib.suppress(ProcessLookupError):
                os.kill(pid, signal.SIGKILL)
        self._sshd.wait(10)

    @contextlib.contextmanager
    def openssh(self) -> Iterator[Proxy]:
        port = _free_port()
        command = [
            "ssh",
            "-F",
            "none",
            "-N",
            "-q",
            "-D",
            str(port),
            "-p",
            str(self.port),
            "-i",
            str(self.folder / "key"),
        ]
        command += ["-o", f"UserKnownHostsFile={self.folder / 'known_hosts'}", f"{getpass.getuser()}@127.0.0.1"]
        with _process(command, port) as proxy:
            yield proxy

    @contextlib.contextmanager
    def ours(self) -> Iterator[Proxy]:
        port = _free_port()
        command = [sys.executable, "-m", "bowsprit", "-q", "tunnel", "open", "--port", str(port)]
        command += ["--known-hosts", str(self.folder / "known_hosts"), "-i", str(self.folder / "key")]
        command += [f"ssh://{getpass.getuser()}@127.0.0.1:{self.port}"]
        os.environ["BOWSPRIT_HOME"] = str(self.folder / "home")
        with _process(command, port) as proxy:
            yield proxy


@contextlib.contextmanager
def _process(command: list[str], port: int) -> Iterator[Proxy]:
    process = subprocess.Popen(command, stdin=subprocess.DEVNULL)
    try:
        _wait_port(port)
        yield Proxy(port, process.pid)
    finally:
        process.terminate()
        process.wait(10)


@contextlib.contextmanager
def _sshd(folder: Path) -> Iterator[Bed]:
    port = _free_port()
    for name in ("host", "key"):
        subprocess.run(["ssh-keygen", "-q", "-t", "ed25519", "-N", "", "-f", str(folder / name)], check=True)
    public = (folder / "host.pub").read_text()
    (folder / "known_hosts").write_text(f"[127.0.0.1]:{port} {public}")
    (folder / "config").write_text(
        f"Port {port}\nListenAddress 127.0.0.1\nHostKey {folder}/host\nPidFile none\nAuthorizedKeysFile {folder}/key.pub\n"
        "StrictModes no\nUsePAM no\nPermitRootLogin yes\n"
    )
    bed = Bed(folder, port)
    bed.start_sshd()
    try:
        yield bed
    finally:
        bed.kill_sshd()


@contextlib.contextmanager
def _source() -> Iterator[int]:
    """A server: ``D<8 bytes>`` sends that many bytes, ``U`` swallows until the end and answers one byte."""
    listener = socket.create_server(("127.0.0.1", 0), backlog=512)

    def serve(connection: socket.socket) -> None:
        with contextlib.suppress(OSError), connection:
            if connection.recv(1) == b"D":
                left = int.from_bytes(_exactly(connection, 8))
                while left > 0:
                    connection.sendall(CHUNK[: min(left, len(CHUNK))])
                    left -= len(CHUNK)
            else:
                buffer = bytearray(1 << 18)
                while connection.recv_into(buffer):
                    pass
                connection.sendall(b"!")

    def accept() -> None:
        with contextlib.suppress(OSError):
            while True:
                connection, _ = listener.accept()
                threading.Thread(target=serve, args=(connection,), daemon=True).start()

    threading.Thread(target=accept, daemon=True).start()
    yield listener.getsockname()[1]
    listener.close()


def _alternate(measure: object, ours: int, theirs: int, rounds: int = ROUNDS) -> tuple[float, float]:
    """Both in turn; the medians."""
    assert callable(measure)
    mine, floor = [], []
    for _ in range(rounds):
        mine.append(measure(ours))
        floor.append(measure(theirs))
    return statistics.median(mine), statistics.median(floor)


def _connect(port: int, target: int) -> socket.socket:
    connection = socket.create_connection(("127.0.0.1", port))
    connection.sendall(b"\x05\x01\x00")
    assert _exactly(connection, 2) == b"\x05\x00"
    connection.sendall(b"\x05\x01\x00\x01\x7f\x00\x00\x01" + target.to_bytes(2, "big"))
    assert _exactly(connection, 10)[1] == 0
    return connection


def _download(port: int, source: int, size: int = TRANSFER) -> float:
    started = time.perf_counter()
    with _connect(port, source) as connection:
        connection.sendall(b"D" + size.to_bytes(8, "big"))
        buffer, left = bytearray(1 << 18), size
        while left:
            received = connection.recv_into(buffer)
            assert received
            left -= received
    return size / (time.perf_counter() - started) / 1e6


def _upload(port: int, source: int) -> float:
    started = time.perf_counter()
    with _connect(port, source) as connection:
        connection.sendall(b"U")
        for _ in range(TRANSFER // len(CHUNK)):
            connection.sendall(CHUNK)
        connection.shutdown(socket.SHUT_WR)
        assert _exactly(connection, 1) == b"!"
    return TRANSFER / (time.perf_counter() - started) / 1e6


def _parallel(port: int, source: int) -> float:
    size = TRANSFER // PARALLEL
    started = time.perf_counter()
    threads = [threading.Thread(target=_download, args=(port, source, size)) for _ in range(PARALLEL)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    return size * PARALLEL / (time.perf_counter() - started) / 1e6


def _first_byte(port: int, source: int, pause: float) -> float:
    times = []
    for _ in range(25):
        started = time.perf_counter()
        with _connect(port, source) as connection:
            connection.sendall(b"D" + (1).to_bytes(8, "big"))
            _exactly(connection, 1)
            times.append(time.perf_counter() - started)
        time.sleep(pause)
    return statistics.median(times)


def _reconnect(bed: Bed, port: int, source: int) -> float:
    """Kill sshd and all it serves, leave it away for two seconds, and time from its return to a byte through the tunnel."""
    bed.kill_sshd()
    time.sleep(2.0)
    bed.start_sshd()
    started = time.perf_counter()
    _download(port, source, 1)
    return time.perf_counter() - started


def _exactly(connection: socket.socket, count: int) -> bytes:
    data = b""
    while len(data) < count:
        part = connection.recv(count - len(data))
        if not part:
            raise ConnectionError("connection ended early")
        data += part
    return data


def _free_port() -> int:
    with socket.socket() as probe:
        probe.bind(("127.0.0.1", 0))
        port: int = probe.getsockname()[1]
        return port


def _wait_port(port: int) -> None:
    deadline = time.monotonic() + 20
    while time.monotonic() < deadline:
        with contextlib.suppress(OSError), socket.create_connection(("127.0.0.1", port), timeout=1):
            return
        time.sleep(0.05)
    raise TimeoutError(f"nothing listens on port {port}")


def _descendants(pid: int) -> list[int]:
    children = [int(name) for name in Path(f"/proc/{pid}/task/{pid}/children").read_text().split()]
    return children + [deeper for child in children for deeper in _descendants(child)]


def _pss(pid: int) -> float:
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    return 0.0
