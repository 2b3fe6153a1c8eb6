"""A node as far as an extension server needs one: it runs an app's pods inside the test.

What a kubelet does is done with the cluster's own objects: the Secret that the pod mounts becomes files, which follow its
changes; the server speaks to the core with a token of the pod's ServiceAccount and has no other rights than that.
"""

from __future__ import annotations

import asyncio
import contextlib
import uuid
from base64 import b64decode
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from dataclasses import replace
from pathlib import Path

from bowsprit.client.config import RestConfig
from bowsprit.client.resources import NODES, PODS, SECRETS, SERVICE_ACCOUNTS
from bowsprit.client.rest import PatchType, RestClient
from bowsprit.extension.app import App
from bowsprit.extension.options import ExtensionOptions
from bowsprit.extension.registration import host_address
from bowsprit.extension.server import ExtensionServer
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.objects import Obj, nested
from bowsprit.pki.files import write_private


class PlayedNode:
    """Runs the pods of an app; see the module's docstring."""

    def __init__(self, admin: RestClient, app: App, namespace: str, folder: Path) -> None:
        self._admin = admin
        self._app = app
        self._namespace = namespace
        self._folder = folder
        self._secret = ""
        self._node = f"played-{uuid.uuid4().hex[:6]}"
        self.servers: dict[str, ExtensionServer] = {}

    async def account(self, name: str) -> RestConfig:
        """The core as a ServiceAccount sees it."""
        request: Obj = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        made = await self._admin.create(
            SERVICE_ACCOUNTS, request, namespace=self._namespace, name=name, subresource="token"
        )
        plain = replace(self._admin.config, client_certificate_data=b"", client_key_data=b"")
        return replace(plain, token=made["status"]["token"], qps=0.0)

    async def run(self) -> None:
        """Until cancelled."""
        # Endpoints are made for pods of nodes that exist.
        node = {"apiVersion": "v1", "kind": "Node", "metadata": {"name": self._node}}
        await self._admin.create(NODES, node)
        try:
            while True:
                await self._look()
                await asyncio.sleep(0.05)
        finally:
            for server in self.servers.values():
                await server.stop()
            await self._admin.delete(NODES, self._node)

    async def _look(self) -> None:
        selector = f"app.kubernetes.io/name={self._app.name}"
        listed = await self._admin.list(PODS, namespace=self._namespace, label_selector=selector)
        alive = {
            pod["metadata"]["name"]: pod for pod in listed["items"] if not pod["metadata"].get("deletionTimestamp")
        }
        for name in self.servers.keys() - alive.keys():
            await self.servers.pop(name).stop()
        for name, pod in alive.items():
            if name not in self.servers:
                with contextlib.suppress(NotFoundError):
                    await self._start(pod)
        if self._secret:
            with contextlib.suppress(NotFoundError):
                await self._mount()

    async def _mount(self) -> None:
        secret = await self._admin.get(SECRETS, self._secret, namespace=self._namespace)
        for key, value in secret["data"].items():
            file, content = self._folder / key, b64decode(value)
            if not file.exists() or file.read_bytes() != content:
                write_private(file, content)

    async def _start(self, pod: Obj) -> None:
        container = pod["spec"]["containers"][0]
        flags = dict(arg.lstrip("-").split("=", 1) for arg in container["args"])
        self._secret = next(volume["secret"]["secretName"] for volume in pod["spec"]["volumes"] if "secret" in volume)
        await self._mount()
        mount = next(each["mountPath"] for each in container["volumeMounts"] if each["name"] == "serving")
        assert flags["tls-cert-file"].startswith(mount)
        options = ExtensionOptions(
            secure_port=int(flags["secure-port"]),
            tls_cert_file=self._folder / Path(flags["tls-cert-file"]).name,
            tls_private_key_file=self._folder / Path(flags["tls-private-key-file"]).name,
            core=await self.account(pod["spec"]["serviceAccountName"]),
            shutdown_timeout=1.0,
        )
        server = ExtensionServer(self._app, options)
        await server.start()
        name = pod["metadata"]["name"]
        self.servers[name] = server
        target = {"apiVersion": "v1", "kind": "Node", "name": self._node}
        binding = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": name}, "target": target}
        await self._admin.create(PODS, binding, namespace=self._namespace, name=name, subresource="binding")
        address = host_address(self._admin.config.server)
        status = {
            "phase": "Running",
            "podIP": address,
            "podIPs": [{"ip": address}],
            "conditions": [{"type": kind, "status": "True"} for kind in ("Ready", "ContainersReady", "Initialized")],
        }
        await self._admin.patch(
            PODS,
            name,
            {"status": status},
            namespace=self._namespace,
            subresource="status",
            patch_type=PatchType.STRATEGIC,
        )
        assert nested(pod, "spec", "securityContext", "runAsNonRoot") is True


@asynccontextmanager
async def played(admin: RestClient, app: App, namespace: str, folder: Path) -> AsyncIterator[PlayedNode]:
    """A node that runs the app's pods until the end of the block."""
    node = PlayedNode(admin, app, namespace, folder)
    task = asyncio.create_task(node.run())
    try:
        yield node
        if task.done():
            task.result()
    finally:
        task.cancel()
        await asyncio.gather(task, return_exceptions=True)
