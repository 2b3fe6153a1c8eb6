"""Webhooks of the core see what is written to an extension server, by URL and by Service."""

from __future__ import annotations

import json
import ssl
import uuid
from base64 import b64encode
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from aiohttp import web
from serving_apps import eventually, greetings
from standalone_core import as_admin, serving

from bowsprit.client.rest import RestClient
from bowsprit.extension.certificates import Certificates
from bowsprit.extension.registration import host_address
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj
from bowsprit.testing.plugin import RunningCluster

GROUP = "hooked.example.com"
GREETINGS = GroupVersionResource(GROUP, "v1", "greetings")
HOOKS = GroupVersionResource("admissionregistration.k8s.io", "v1", "mutatingwebhookconfigurations")


class Hook:
    """A webhook that labels objects, and refuses those called "bad"."""

    def __init__(self) -> None:
        self.asked: list[Obj] = []
        self.name = f"hook-{uuid.uuid4().hex[:8]}"
        address = host_address("https://127.0.0.1")
        self.certificates = Certificates.make(self.name, "default", addresses=[address])
        self.address = address
        self.port = 0

    async def answer(self, request: web.Request) -> web.Response:
        review = (await request.json())["request"]
        self.asked.append(review)
        response: Obj = {"uid": review["uid"], "allowed": review["object"]["metadata"]["name"] != "bad"}
        if response["allowed"]:
            patch = [{"op": "add", "path": "/metadata/labels", "value": {"hooked": "yes"}}]
            response |= {"patchType": "JSONPatch", "patch": b64encode(json.dumps(patch).encode()).decode()}
        else:
            response["status"] = {"message": "it is bad", "code": 403}
        return web.json_response({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response})


@pytest.fixture
async def hook(tmp_path: Path) -> AsyncIterator[Hook]:
    made = Hook()
    made.certificates.serving.save(tmp_path / "hook.crt", tmp_path / "hook.key")
    context = ssl.create_default_context(ssl.Purpose.CLIENT_AUTH)
    context.load_cert_chain(tmp_path / "hook.crt", tmp_path / "hook.key")
    app = web.Application()
    app.router.add_post("/admit", made.answer)
    runner = web.AppRunner(app)
    await runner.setup()
    site = web.TCPSite(runner, made.address, 0, ssl_context=context)
    await site.start()
    made.port = runner.addresses[0][1]
    yield made
    await runner.cleanup()


def configuration(hook: Hook, client_config: Obj) -> Obj:
    return {
        "apiVersion": "admissionregistration.k8s.io/v1",
        "kind": "MutatingWebhookConfiguration",
        "metadata": {"name": hook.name},
        "webhooks": [
            {
                "name": "hook.example.com",
                "admissionReviewVersions": ["v1"],
                "sideEffects": "None",
                "timeoutSeconds": 5,
                "clientConfig": {"caBundle": b64encode(hook.certificates.bundle).decode(), **client_config},
                "rules": [{"apiGroups": [GROUP], "apiVersions": ["*"], "operations": ["CREATE"], "resources": ["*"]}],
            }
        ],
    }


async def by_service(hook: Hook, admin: RestClient) -> Obj:
    """A Service without selector, and the endpoint behind it."""
    services = GroupVersionResource("", "v1", "services")
    slices = GroupVersionResource("discovery.k8s.io", "v1", "endpointslices")
    metadata: Obj = {"name": hook.name, "namespace": "default"}
    ports: list[Any] = [{"name": "https", "port": 443, "targetPort": hook.port}]
    await admin.create(
        services, {"apiVersion": "v1", "kind": "Service", "metadata": metadata, "spec": {"ports": ports}}
    )
    labels = {"kubernetes.io/service-name": hook.name}
    await admin.create(
        slices,
        {
            "apiVersion": "discovery.k8s.io/v1",
            "kind": "EndpointSlice",
            "metadata": {**metadata, "labels": labels},
            "addressType": "IPv6" if ":" in hook.address else "IPv4",
            "ports": [{"name": "https", "port": hook.port}],
            "endpoints": [{"addresses": [hook.address], "conditions": {"ready": True}}],
        },
    )
    return {"service": {"name": hook.name, "namespace": "default", "path": "/admit"}}


@pytest.mark.parametrize("way", ["url", "service"])
async def test_webhooks_change_and_refuse_objects(
    core: RunningCluster, admin: RestClient, hook: Hook, way: str
) -> None:
    host = f"[{hook.address}]" if ":" in hook.address else hook.address
    where = {"url": f"https://{host}:{hook.port}/admit"} if way == "url" else await by_service(hook, admin)
    async with serving(greetings(GROUP), kubeconfig=core.kubeconfig) as (server, config):
        await admin.create(HOOKS, configuration(hook, where))
        try:
            admission = server.core_admission

            async def known() -> bool:
                informers = admission.states["MutatingAdmissionWebhook"].informers
                return len(informers) > 1 and informers[1].get(hook.name) is not None

            await eventually(known)
            async with RestClient(as_admin(core, config)) as client:
                body: Obj = {
                    "apiVersion": f"{GROUP}/v1",
                    "kind": "Greeting",
                    "metadata": {"name": "a", "namespace": "default"},
                }
                made = await client.create(GREETINGS, body)
                assert made["metadata"]["labels"] == {"hooked": "yes"}
                assert hook.asked[0]["kind"] == {"group": GROUP, "version": "v1", "kind": "Greeting"}
                assert hook.asked[0]["object"]["spec"] == {"text": "hello"}
                with pytest.raises(StatusError, match=r'webhook "hook\.example\.com" denied the request: it is bad'):
                    await client.create(GREETINGS, {**body, "metadata": {"name": "bad", "namespace": "default"}})
        finally:
            await admin.delete(HOOKS, hook.name)
