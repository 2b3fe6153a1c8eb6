"""The embedded cluster as a whole: start, memory and processor time when nothing happens."""

from __future__ import annotations

import json
import os
import subprocess
import sys
import tempfile
import time
from collections.abc import Iterable
from pathlib import Path

from bench import Row

_IDLE_SECONDS = 20.0
_IMPORTS = (
    "import uvloop, bowsprit.controlplane.server, bowsprit.controllers.manager, "
    "bowsprit.kubelet.kubelet, bowsprit.scheduler.process"
)


def run() -> Iterable[Row]:
    """Floors: importing the components' code alone; one bare aiohttp process; 2 % of one core."""
    with tempfile.TemporaryDirectory() as folder:
        environment = os.environ | {"BOWSPRIT_HOME": folder, "KUBECONFIG": str(Path(folder) / "config")}
        imports = min(_seconds([sys.executable, "-c", _IMPORTS], environment) for _ in range(3))
        first, again = [], []
        for _ in range(3):
            first.append(_until_nodes_ready(environment))
            _bowsprit(environment, "down")
            again.append(_until_nodes_ready(environment))
            if len(first) < 3:
                _bowsprit(environment, "delete", "--yes")
        try:
            yield Row(
                "up to nodes Ready, first time", min(first), imports, "s", min(first) / imports, note="meant: <= 4 s"
            )
            yield Row("up to nodes Ready, warm", min(again), imports, "s", min(again) / imports, note="meant: <= 2 s")
            pids = _pids(environment)
            before = _ticks(pids)
            time.sleep(_IDLE_SECONDS)
            cores = (_ticks(pids) - before) / os.sysconf("SC_CLK_TCK") / _IDLE_SECONDS
            memory, bare = _pss(pids), _bare_pss(environment)
            yield Row("memory when idle (PSS)", memory, bare, "MB", memory / bare, note="meant: <= 300 MB")
            yield Row("processor when idle", cores * 100, 2.0, "% of a core", cores * 50, "<= 1")
        finally:
            _bowsprit(environment, "delete", "--yes")


def _until_nodes_ready(environment: dict[str, str]) -> float:
    began = time.perf_counter()
    _bowsprit(environment, "up")
    path = "jsonpath={.items[*].status.conditions[?(@.type=='Ready')].status}"
    said = subprocess.run(
        ["kubectl", "get", "nodes", "-o", path], env=environment, capture_output=True, text=True, check=True, timeout=60
    )
    taken = time.perf_counter() - began
    assert said.stdout == "True True True", said
    return taken


def _bowsprit(environment: dict[str, str], *arguments: str) -> str:
    command = [sys.executable, "-m", "bowsprit", *arguments]
    return subprocess.run(command, env=environment, capture_output=True, text=True, check=True, timeout=60).stdout


def _seconds(command: list[str], environment: dict[str, str]) -> float:
    began = time.perf_counter()
    subprocess.run(command, env=environment, check=True, timeout=60)
    return time.perf_counter() - began


def _pids(environment: dict[str, str]) -> list[int]:
    (state,) = json.loads(_bowsprit(environment, "status", "-o", "json"))
    return [state["supervisorPID"], *(component["pid"] for component in state["components"])]


def _ticks(pids: list[int]) -> int:
    fields = [Path(f"/proc/{pid}/stat").read_text().rpartition(")")[2].split() for pid in pids]
    return sum(int(found[11]) + int(found[12]) for found in fields)


def _pss(pids: list[int]) -> float:
    total = 0
    for pid in pids:
        for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
            total += int(line.split()[1]) if line.startswith("Pss:") else 0
    return total / 1024


def _bare_pss(environment: dict[str, str]) -> float:
    code = "import sys, uvloop, aiohttp.web; print(flush=True); sys.stdin.read()"
    with subprocess.Popen(
        [sys.executable, "-c", code], env=environment, stdin=subprocess.PIPE, stdout=subprocess.PIPE
    ) as process:
        assert process.stdout is not None
        process.stdout.readline()
        found = _pss([process.pid])
        process.communicate()
    return found
