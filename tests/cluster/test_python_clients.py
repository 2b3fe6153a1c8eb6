"""The Python clients that people use, against a cluster of real processes whose API server dies under them."""

from __future__ import annotations

import json
import os
import signal
import subprocess
import sys
import threading
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import kubernetes
import kubernetes_asyncio
import pytest
from eventually import eventually
from kubernetes.client import ApiException, CoreV1Api, V1ConfigMap, V1ObjectMeta
from kubernetes.informer import SharedInformer

KOPF_HANDLER = """
import kopf

@kopf.on.create('', 'v1', 'configmaps', labels={'watched': 'yes'})
async def greet(name, patch, **_):
    patch.metadata.annotations['greeted'] = name
"""


@pytest.fixture(scope="module")
def running(tmp_path_factory: pytest.TempPathFactory) -> Iterator[dict[str, str]]:
    """The environment of a user with a running cluster."""
    folder = tmp_path_factory.mktemp("clients")
    environment = os.environ | {"BOWSPRIT_HOME": str(folder), "KUBECONFIG": str(folder / "kubeconfig")}
    _bowsprit(environment, "up", "--nodes", "1")
    yield environment
    _bowsprit(environment, "delete", "--yes")


def _bowsprit(environment: dict[str, str], *arguments: str) -> str:
    return subprocess.run(
        [sys.executable, "-m", "bowsprit", *arguments],
        env=environment, capture_output=True, text=True, check=True, timeout=60,
    ).stdout  # fmt: skip


def _api_server(environment: dict[str, str]) -> dict[str, Any]:
    (state,) = json.loads(_bowsprit(environment, "status", "-o", "json"))
    found: dict[str, Any] = state["components"][0]
    assert found["name"] == "apiserver"
    return found


def _kill_api_server(environment: dict[str, str]) -> None:
    """Return when another one is ready."""
    before = _api_server(environment)["pid"]
    os.kill(before, signal.SIGKILL)
    eventually(lambda: _api_server(environment)["ready"] and _api_server(environment)["pid"] != before)


def _config_map(name: str, **labels: str) -> V1ConfigMap:
    return V1ConfigMap(metadata=V1ObjectMeta(name=name, labels=labels), data={"a": "1"})


def test_an_informer_of_the_official_client_survives_a_killed_api_server(running: dict[str, str]) -> None:
    client = CoreV1Api(kubernetes.config.new_client_from_config(running["KUBECONFIG"]))
    added: dict[str, int] = {}
    lock = threading.Lock()

    def on_added(obj: Any) -> None:
        with lock:
            added[obj.metadata.name] = added.get(obj.metadata.name, 0) + 1

    informer = SharedInformer(client.list_namespaced_config_map, namespace="default", label_selector="kept=yes")
    informer.add_event_handler("ADDED", on_added)
    client.create_namespaced_config_map("default", _config_map("first", kept="yes"))
    informer.start()
    try:
        eventually(lambda: "first" in added)
        _kill_api_server(running)
        client.create_namespaced_config_map("default", _config_map("second", kept="yes"))
        eventually(lambda: "second" in added)
        assert {obj.metadata.name for obj in informer.cache.list()} == {"first", "second"}
        client.delete_namespaced_config_map("first", "default")
        eventually(lambda: {obj.metadata.name for obj in informer.cache.list()} == {"second"})
        assert added == {"first": 1, "second": 1}
    finally:
        informer.stop()


def test_the_official_client_reads_writes_and_is_told_of_errors(running: dict[str, str]) -> None:
    api = kubernetes.config.new_client_from_config(running["KUBECONFIG"])
    client = CoreV1Api(api)
    made = client.create_namespaced_config_map("default", _config_map("official"))
    made.data["a"] = "2"
    stale = made.metadata.resource_version
    client.replace_namespaced_config_map("official", "default", made)
    made.metadata.resource_version = stale
    with pytest.raises(ApiException) as conflict:
        client.replace_namespaced_config_map("official", "default", made)
    assert (conflict.value.status, json.loads(conflict.value.body)["reason"]) == (409, "Conflict")
    dynamic = kubernetes.dynamic.DynamicClient(api)
    resource = dynamic.resources.get(api_version="v1", kind="ConfigMap")
    body = {"apiVersion": "v1", "kind": "ConfigMap", "metadata": {"name": "official"}, "data": {"b": "3"}}
    applied = resource.server_side_apply(body=body, namespace="default", field_manager="tests")
    assert applied.data.to_dict() == {"a": "2", "b": "3"}
    with pytest.raises(ApiException) as missing:
        client.read_namespaced_pod("ghost", "default")
    assert missing.value.status == 404


async def test_the_asynchronous_client_watches(running: dict[str, str]) -> None:
    await kubernetes_asyncio.config.load_kube_config(running["KUBECONFIG"])
    async with kubernetes_asyncio.client.ApiClient() as api:
        client = kubernetes_asyncio.client.CoreV1Api(api)
        seen = []
        watch = kubernetes_asyncio.watch.Watch()
        await client.create_namespaced_config_map("default", {"metadata": {"name": "async", "labels": {"a": "b"}}})
        async for event in watch.stream(
            client.list_namespaced_config_map, "default", label_selector="a=b", timeout_seconds=20
        ):
            seen.append(event["type"])
            if event["type"] == "ADDED":
                await client.delete_namespaced_config_map("async", "default")
            else:
                break
        assert seen == ["ADDED", "DELETED"]


def test_an_operator_of_kopf_reacts(running: dict[str, str], tmp_path: Path) -> None:
    handler = tmp_path / "handler.py"
    handler.write_text(KOPF_HANDLER)
    client = CoreV1Api(kubernetes.config.new_client_from_config(running["KUBECONFIG"]))
    operator = subprocess.Popen(
        [sys.executable, "-m", "kopf", "run", "--namespace=default", "--standalone", str(handler)],
        env=running, stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL,
    )  # fmt: skip
    try:
        client.create_namespaced_config_map("default", _config_map("kopf", watched="yes"))

        def greeted() -> bool:
            found = client.read_namespaced_config_map("kopf", "default").metadata.annotations or {}
            return bool(found.get("greeted") == "kopf")

        eventually(greeted)
    finally:
        operator.terminate()
        operator.wait(20)
