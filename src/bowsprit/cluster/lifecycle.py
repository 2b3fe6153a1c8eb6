"""Starting, stopping, deleting and describing clusters that run in the background.

``up`` may be called again at any time: a running cluster is left alone, a stopped one starts with its state.
"""

from __future__ import annotations

import contextlib
import os
import shutil
import signal
import socket
import subprocess
import sys
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from typing import Any

from bowsprit.cluster.config import ClusterConfig, parse_config
from bowsprit.cluster.errors import ClusterError
from bowsprit.cluster.paths import ClusterPaths, state_home
from bowsprit.cluster.supervisor import STOP_GRACE, lock_holder, read_status, write_atomically
from bowsprit.net.ports import free_port

_POLL = 0.02
_supervisors: dict[str, subprocess.Popen[bytes]] = {}  # started by this process, by cluster


@dataclass(frozen=True, slots=True)
class ClusterState:
    """What is known of one cluster without asking its API.

    ``phase`` is ``Running`` (every component is ready), ``Starting`` or ``Stopped``.
    """

    name: str
    phase: str
    server: str
    config: ClusterConfig
    paths: ClusterPaths
    supervisor_pid: int
    components: list[dict[str, Any]]


def list_clusters() -> list[ClusterState]:
    """Every cluster that has a folder, by name."""
    home = state_home()
    if not home.is_dir():
        return []
    names = sorted(folder.name for folder in home.iterdir() if (folder / "cluster.json").is_file())
    return [state for name in names if (state := find_cluster(name))]


def find_cluster(name: str) -> ClusterState | None:
    """One cluster's state, None when it was never created.

    Raises:
        ClusterError: its stored configuration is damaged.
    """
    paths = ClusterPaths.of(name)
    try:
        config = parse_config(paths.config.read_bytes(), origin=str(paths.config))
    except FileNotFoundError:
        return None
    pid = lock_holder(paths)
    components = read_status(paths).get("components", []) if pid else []
    ready = bool(components) and all(component["ready"] for component in components)
    phase = "Running" if ready else "Starting" if pid else "Stopped"
    return ClusterState(name, phase, f"https://127.0.0.1:{config.port}", config, paths, pid, components)


def get_cluster(name: str) -> ClusterState:
    """As `find_cluster`.

    Raises:
        ClusterError: there is no such cluster.
    """
    state = find_cluster(name)
    if state is None:
        known = ", ".join(cluster.name for cluster in list_clusters())
        raise ClusterError(
            f"there is no cluster {name!r}",
            reason="ClusterNotFound",
            hint=f"existing clusters: {known}" if known else f"start it with: bowsprit up --name {name}",
        )
    return state


def start_cluster(config: ClusterConfig) -> ClusterState:
    """Start a cluster's supervisor in the background unless it already runs; return without waiting for readiness.

    A port of 0 becomes a free one, kept for all later starts.

    Raises:
        ClusterError: the port is taken, or the configuration cannot be combined with the stored state.
    """
    paths = ClusterPaths.of(config.name)
    existing = find_cluster(config.name)
    if existing is not None and existing.supervisor_pid:
        return existing
    paths.make()
    config = config.with_ports(_claim_port, existing.config if existing is not None else None)
    write_atomically(paths.config, config.dump())
    with contextlib.suppress(FileNotFoundError):
        paths.status.unlink()
    log = os.open(paths.logs / "supervisor.log", os.O_WRONLY | os.O_CREAT | os.O_TRUNC, 0o600)
    try:
        _supervisors[config.name] = subprocess.Popen(
            [sys.executable, "-m", "bowsprit.cluster", config.name],
            stdin=subprocess.DEVNULL,
            stdout=log,
            stderr=log,
            start_new_session=True,
            cwd="/",
        )
    finally:
        os.close(log)
    return get_cluster(config.name)


def _claim_port(port: int) -> int:
    if not port:
        return free_port()
    with socket.socket() as probe:
        probe.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        try:
            probe.bind(("127.0.0.1", port))
        except OSError as exc:
            raise ClusterError(
                f"port {port} is taken: {exc.strerror}",
                reason="PortInUse",
                hint="choose another one with --port, or --port 0 for any free one",
            ) from exc
    return port


def wait_ready(name: str, seconds: float, *, on_ready: Callable[[str, float], None] | None = None) -> ClusterState:
    """Wait until every component has reported that it is ready.

    Args:
        name: the cluster.
        seconds: how long to wait at the most.
        on_ready: called once per component with its name and the seconds since the call.

    Raises:
        ClusterError: the supervisor ended or a component keeps failing (reason ``ComponentFailed``), or the time is over
            (``NotReady``).
    """
    started = time.monotonic()
    seen: set[str] = set()
    alive_since = 0.0
    while True:
        state = get_cluster(name)
        elapsed = time.monotonic() - started
        for component in state.components:
            if component["ready"] and component["name"] not in seen:
                seen.add(component["name"])
                if on_ready is not None:
                    on_ready(component["name"], elapsed)
            if component["restarts"] >= 3 and not component["ready"]:
                what = f"keeps failing ({component['lastExit']})"
                raise _failed(state, component["name"], what, reason="ComponentFailed")
        if state.phase == "Running":
            return state
        if state.supervisor_pid:
            alive_since = alive_since or elapsed
        elif alive_since or not _importing(name):
            what = "ended before the cluster was ready"
            raise _failed(state, "supervisor", what, reason="ComponentFailed")
        if elapsed > seconds:
            waiting = [component["name"] for component in state.components if not component["ready"]]
            raise _failed(state, waiting[0] if waiting else "supervisor", f"is not ready after {seconds:g} s")
        time.sleep(_POLL)


def _importing(name: str) -> bool:
    """Whether the supervisor that this process has started is there, though it may not hold the lock yet."""
    process = _supervisors.get(name)
    return process is not None and process.poll() is None


def _failed(state: ClusterState, component: str, what: str, reason: str = "NotReady") -> ClusterError:
    log = state.paths.logs / f"{component}.log"
    lines = [line for line in log.read_text(errors="replace").splitlines() if line.strip()] if log.exists() else []
    last = f": {lines[-1].strip()[:300]}" if lines else ""
    return ClusterError(
        f"{component} {what}{last}",
        reason=reason,
        hint=f"bowsprit logs {component} --name {state.name}",
    )


def stop_cluster(state: ClusterState) -> bool:
    """Stop a cluster and keep its state; False when it was not running.

    Raises:
        ClusterError: it did not stop in time.
    """
    pid = lock_holder(state.paths)
    if pid <= 0:
        return False
    os.kill(pid, signal.SIGTERM)
    deadline = time.monotonic() + 2 * STOP_GRACE * (len(state.components) + 1)
    while lock_holder(state.paths):
        if time.monotonic() > deadline:
            raise ClusterError(
                f"the supervisor (process {pid}) does not stop", reason="StopTimeout", hint=f"kill -9 {pid}"
            )
        time.sleep(_POLL)
    return True


def delete_cluster(state: ClusterState) -> None:
    """Stop a cluster and forget everything about it, except what it wrote outside its own folder."""
    stop_cluster(state)
    shutil.rmtree(state.paths.root)


def log_file(state: ClusterState, component: str) -> Path:
    """The log of a component.

    Raises:
        ClusterError: the cluster has no such component.
    """
    path = state.paths.logs / f"{component}.log"
    if path.parent != state.paths.logs or not path.is_file():
        names = ", ".join(sorted(file.stem for file in state.paths.logs.glob("*.log")))
        raise ClusterError(
            f"cluster {state.name!r} has no log of {component!r}",
            reason="ComponentNotFound",
            hint=f"components with a log: {names or 'none'}",
        )
    return path
