"""A hello-world extension server: how long it takes to serve, what it weighs, what a write through its model costs."""

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

WRITES = 300
_HELLO = '''
from bowsprit.extension import App, Kind, Model

app = App("hello.example.com")


class GreetingSpec(Model):
    text: str = "hello"
    """What to say."""


@app.kind(short_names=["gr"], columns={"Text": ".spec.text"})
class Greeting(Kind):
    """A greeting."""

    spec: GreetingSpec = GreetingSpec()
'''
_CRD = {
    "apiVersion": "apiextensions.k8s.io/v1",
    "kind": "CustomResourceDefinition",
    "metadata": {"name": "greetings.crd.example.com"},
    "spec": {
        "group": "crd.example.com",
        "names": {"kind": "Greeting", "plural": "greetings", "singular": "greeting"},
        "scope": "Namespaced",
        "versions": [
            {
                "name": "v1",
                "served": True,
                "storage": True,
                "schema": {
                    "openAPIV3Schema": {
                        "type": "object",
                        "properties": {
                            "spec": {"type": "object", "properties": {"text": {"type": "string", "default": "hello"}}}
                        },
                    }
                },
            }
        ],
    },
}
_BARE = "import aiohttp.web, pydantic, cryptography.x509, uvloop, orjson; print('ready', flush=True); input()"


def run() -> Iterable[Row]:
    """Floors: a process that has only imported the same libraries; the same kind as a CustomResourceDefinition."""
    from bowsprit.cluster.config import ClusterConfig
    from bowsprit.cluster.embedded import Cluster

    config = ClusterConfig(name="bench", store="memory", nodes=[])
    with tempfile.TemporaryDirectory() as name, Cluster(config, components=("apiserver", "controller-manager")) as core:
        folder = Path(name)
        (folder / "hello.py").write_text(_HELLO)
        imports = min(_seconds_to([sys.executable, "-c", _BARE], "ready", folder, core.kubeconfig) for _ in range(3))
        command = [sys.executable, "-m", "bowsprit", "extension", "run", "hello:app", "--dev"]
        serve = [*command[:-1], "--secure-port", "0", "--bind-address", "127.0.0.1"]
        starts = [_seconds_to(serve, "serving hello", folder, core.kubeconfig) for _ in range(3)]
        yield Row("start until it serves", min(starts), imports, "s", min(starts) / imports, note="meant: <= 1.5 s")
        bare = _Process([sys.executable, "-c", _BARE], "ready", folder, core.kubeconfig)
        floor = _pss(bare.process.pid)
        bare.end()
        developed = _Process(command, "is served from this host", folder, core.kubeconfig)
        try:
            own = _rate(core, "hello.example.com")
            memory = _pss(_child(developed.process.pid))
            yield Row(
                "memory after writes (PSS)", memory, floor, "MB", memory / 90, "<= 1", "ratio: to the aim of 90 MB"
            )
            core.kubectl("apply", "-f", "-", stdin=json.dumps(_CRD))
            core.kubectl("wait", "crd/greetings.crd.example.com", "--for=condition=Established")
            custom = _rate(core, "crd.example.com")
            yield Row(
                "creates per second, through the aggregator", own, custom, "1/s", own / custom, note="floor: a CRD"
            )
        finally:
            developed.end()


class _Process:
    """A process that has said on stdout or stderr that it is ready."""

    def __init__(self, command: list[str], word: str, folder: Path, kubeconfig: Path) -> None:
        environment = os.environ | {"KUBECONFIG": str(kubeconfig)}
        self.process = subprocess.Popen(
            command,
            cwd=folder,
            env=environment,
            stdin=subprocess.PIPE,
            stdout=subprocess.PIPE,
            stderr=subprocess.STDOUT,
            text=True,
        )
        assert self.process.stdout is not None
        said = ""
        for line in self.process.stdout:
            said += line
            if word in line:
                return
        raise RuntimeError(said)

    def end(self) -> None:
        self.process.terminate()
        self.process.communicate(timeout=60)


def _seconds_to(command: list[str], word: str, folder: Path, kubeconfig: Path) -> float:
    began = time.perf_counter()
    process = _Process(command, word, folder, kubeconfig)
    taken = time.perf_counter() - began
    process.end()
    return taken


def _rate(core: object, group: str) -> float:
    """Objects created one after the other by one client."""
    import asyncio

    from bowsprit.client.kubeconfig import Kubeconfig
    from bowsprit.client.rest import RestClient
    from bowsprit.machinery.names import GroupVersionResource

    gvr = GroupVersionResource(group, "v1", "greetings")

    async def create() -> float:
        from dataclasses import replace

        config = replace(Kubeconfig.load(core.kubeconfig).rest_config(), qps=0.0)  # type: ignore[attr-defined]
        async with RestClient(config) as client:
            obj = {
                "apiVersion": f"{group}/v1",
                "kind": "Greeting",
                "metadata": {"generateName": "a-", "namespace": "default"},
            }
            for _ in range(20):
                await client.create(gvr, obj)
            began = time.perf_counter()
            for _ in range(WRITES):
                await client.create(gvr, obj)
            return WRITES / (time.perf_counter() - began)

    return asyncio.run(create())


def _child(pid: int) -> int:
    return int(Path(f"/proc/{pid}/task/{pid}/children").read_text().split()[0])


def _pss(pid: int) -> float:
    """Megabytes: memory of its own, and its share of what is shared."""
    for line in Path(f"/proc/{pid}/smaps_rollup").read_text().splitlines():
        if line.startswith("Pss:"):
            return int(line.split()[1]) / 1024
    raise RuntimeError("the kernel tells no PSS")
