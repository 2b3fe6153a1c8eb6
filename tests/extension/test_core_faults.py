"""A core API server that refuses, is away or changes its mind: what an extension server does then, and how it shows."""

from __future__ import annotations

import asyncio
import json
import ssl
import uuid
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import pytest
from serving_apps import greetings
from standalone_core import as_admin, serving

from bowsprit.client.config import RestConfig
from bowsprit.client.kubeconfig import Kubeconfig
from bowsprit.client.rest import RestClient
from bowsprit.extension import ExtensionError, coreadmission, reviews, trust
from bowsprit.extension.certificates import Certificates
from bowsprit.extension.options import ExtensionOptions
from bowsprit.extension.server import ExtensionServer
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj
from bowsprit.testing.plugin import RunningCluster

INFORMED = [
    {"apiGroups": [""], "resources": ["namespaces"], "verbs": ["get", "list", "watch"]},
    {
        "apiGroups": ["admissionregistration.k8s.io"],
        "resources": [
            "mutatingwebhookconfigurations",
            "validatingwebhookconfigurations",
            "validatingadmissionpolicies",
            "validatingadmissionpolicybindings",
            "mutatingadmissionpolicies",
            "mutatingadmissionpolicybindings",
        ],
        "verbs": ["get", "list", "watch"],
    },
]


class Account:
    """A ServiceAccount with the rights that a test gives it."""

    def __init__(self, core: RunningCluster) -> None:
        self.core = core
        self.name = f"ext-{uuid.uuid4().hex[:8]}"
        core.kubectl("create", "serviceaccount", self.name, "-n", "default")
        self.subject = f"--serviceaccount=default:{self.name}"

    def may_review(self) -> None:
        self.core.kubectl(
            "create", "clusterrolebinding", f"{self.name}-auth", "--clusterrole=system:auth-delegator", self.subject
        )

    def may_read_config(self) -> None:
        self.core.kubectl(
            "create", "rolebinding", self.name, "-n", "kube-system", f"--role={trust.READER_ROLE}", self.subject
        )

    def may(self, *rules: Obj) -> None:
        role = {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "ClusterRole",
            "metadata": {"name": f"{self.name}-more"},
            "rules": list(rules),
        }
        self.core.kubectl("apply", "-f", "-", stdin=json.dumps(role))
        binding = ("clusterrolebinding", f"{self.name}-more")
        if not self.core.kubectl("get", *binding, "--ignore-not-found", "-o", "name"):
            self.core.kubectl("create", *binding, f"--clusterrole={self.name}-more", self.subject)

    def config(self) -> RestConfig:
        request = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenRequest", "spec": {}}
        path = f"/api/v1/namespaces/default/serviceaccounts/{self.name}/token"  # `create token` came with v1.24
        made = self.core.kubectl("create", "--raw", path, "-f", "-", stdin=json.dumps(request))
        token = json.loads(made)["status"]["token"]
        admin = Kubeconfig.load(self.core.kubeconfig).rest_config()
        return RestConfig(server=admin.server, ca_data=admin.ca_data, token=token)


@pytest.fixture
def account(core: RunningCluster) -> Account:
    return Account(core)


async def ready(config: RestConfig, path: str = "/readyz") -> tuple[int, str]:
    async with RestClient(config) as client:
        answer = await client.raw("GET", path, params={"verbose": ""})
        return answer.status, answer.body.decode()


async def until_ready(config: RestConfig, line: str = "readyz check passed") -> str:
    async with asyncio.timeout(20):
        while line not in (told := (await ready(config))[1]):
            await asyncio.sleep(0.05)
    return told


def greeting(group: str, name: str = "a", namespace: str = "default") -> tuple[GroupVersionResource, Obj]:
    obj = {"apiVersion": f"{group}/v1", "kind": "Greeting", "metadata": {"name": name, "namespace": namespace}}
    return GroupVersionResource(group, "v1", "greetings"), obj


async def test_a_config_map_that_may_not_be_read_ends_the_start_with_a_hint(account: Account) -> None:
    account.may_review()
    server = ExtensionServer(greetings("f1.example.com"), ExtensionOptions(core=account.config(), secure_port=0))
    with pytest.raises(ExtensionError) as caught:
        await server.start()
    assert caught.value.reason == "AuthenticationConfigForbidden"
    assert trust.READER_ROLE in caught.value.hint


async def test_a_tolerated_failure_shows_in_readiness_until_it_is_mended(account: Account) -> None:
    account.may_review()
    account.may(*INFORMED)
    options = {"core": account.config(), "authentication_tolerate_lookup_failure": True}
    async with serving(greetings("f2.example.com"), **options) as (_, config):
        told = await until_ready(config, "[+]core-admission")
        assert "[-]authentication-config-sync failed" in told
        account.may_read_config()
        await until_ready(config)


async def test_a_core_that_is_away_is_named(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    away = RestConfig(server="https://127.0.0.1:1")
    with pytest.raises(ExtensionError) as caught:
        await ExtensionServer(greetings("f3.example.com"), ExtensionOptions(core=away, secure_port=0)).start()
    assert caught.value.reason == "CoreUnreachable"
    monkeypatch.delenv("KUBERNETES_SERVICE_HOST", raising=False)
    with pytest.raises(ExtensionError) as caught:
        await ExtensionServer(greetings("f3.example.com"), ExtensionOptions(secure_port=0)).start()
    assert caught.value.reason == "NoCore"


async def test_reviews_that_are_refused_are_a_401_or_500_and_show_in_health(
    account: Account, core: RunningCluster
) -> None:
    account.may_read_config()
    account.may(*INFORMED)
    async with serving(greetings("f4.example.com"), core=account.config()) as (_, config):
        await until_ready(config)
        gvr, _ = greeting("f4.example.com")
        stranger = RestConfig(server=config.server, ca_data=config.ca_data, token="whose")
        async with RestClient(stranger) as client:
            with pytest.raises(StatusError) as caught:
                await client.list(gvr)
        assert caught.value.code == 401
        async with RestClient(config) as anonymous:
            with pytest.raises(StatusError) as caught:
                await anonymous.list(gvr)
        assert caught.value.code == 500
        status, told = await ready(config, "/healthz")
        assert status == 500
        assert "[-]token-reviews failed" in told
        assert "[-]access-reviews failed" in told
        assert (await ready(config))[0] == 200


async def test_plugins_without_rights_are_off_and_writes_go_on_at_once(
    account: Account, core: RunningCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coreadmission, "PROBE_SECONDS", 0.2)
    account.may_review()
    account.may_read_config()
    account.may(INFORMED[0], {**INFORMED[1], "resources": INFORMED[1]["resources"][:4]})
    async with serving(greetings("f5.example.com"), core=account.config()) as (server, config):
        told = await until_ready(config)
        assert "[+]admission-off-MutatingAdmissionPolicy ok" in told
        states = {name: state.state for name, state in server.core_admission.states.items()}
        assert states == {
            "NamespaceLifecycle": "on",
            "MutatingAdmissionPolicy": "off",
            "MutatingAdmissionWebhook": "on",
            "ValidatingAdmissionPolicy": "on",
            "ValidatingAdmissionWebhook": "on",
        }
        assert "mutatingadmissionpolicies" in server.core_admission.states["MutatingAdmissionPolicy"].reason
        gvr, obj = greeting("f5.example.com")
        async with RestClient(as_admin(core, config)) as client, asyncio.timeout(5):
            await client.create(gvr, obj)
        account.may(*INFORMED)
        async with asyncio.timeout(20):
            while "admission-off" in await until_ready(config):
                await asyncio.sleep(0.05)
        assert server.core_admission.states["MutatingAdmissionPolicy"].state == "on"


async def test_writes_before_the_configuration_is_read_are_refused_in_time(
    account: Account, core: RunningCluster, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(coreadmission, "READY_SECONDS", 0.2)

    async def stuck(self: coreadmission.CoreAdmission) -> None:
        await asyncio.Event().wait()

    monkeypatch.setattr(coreadmission.CoreAdmission, "_probe", stuck)
    account.may_review()
    account.may_read_config()
    async with serving(greetings("f6.example.com"), core=account.config()) as (_, config):
        gvr, obj = greeting("f6.example.com")
        async with RestClient(as_admin(core, config)) as client:
            with pytest.raises(StatusError, match="not yet ready to handle request") as caught:
                await client.create(gvr, obj)
            assert caught.value.code == 403
            assert (await client.list(gvr))["items"] == []
        assert "[-]core-admission" in (await ready(config))[1]


async def test_without_admission_namespaces_need_not_exist(core: RunningCluster) -> None:
    options = {"kubeconfig": core.kubeconfig, "admission": False}
    async with serving(greetings("f7.example.com"), **options) as (_, config):
        assert "[+]admission-off-all ok" in (await ready(config))[1]
        gvr, obj = greeting("f7.example.com", namespace="nowhere")
        async with RestClient(as_admin(core, config)) as client:
            await client.create(gvr, obj)


async def test_a_namespace_of_a_moment_ago_takes_objects(core: RunningCluster, admin: RestClient) -> None:
    async with serving(greetings("f8.example.com"), kubeconfig=core.kubeconfig) as (server, config):
        await until_ready(config)
        namespaces = GroupVersionResource("", "v1", "namespaces")
        informer = server.core_admission.states["NamespaceLifecycle"].informers[0]
        await informer.stop()  # as far behind as can be
        made = await admin.create(
            namespaces, {"metadata": {"generateName": "new-"}, "kind": "Namespace", "apiVersion": "v1"}
        )
        gvr, obj = greeting("f8.example.com", namespace=made["metadata"]["name"])
        async with RestClient(as_admin(core, config)) as client:
            await client.create(gvr, obj)
        await admin.delete(namespaces, made["metadata"]["name"])


async def test_impersonation_needs_the_cores_consent(account: Account, core: RunningCluster) -> None:
    async with serving(greetings("f9.example.com"), kubeconfig=core.kubeconfig) as (_, config):
        gvr, _ = greeting("f9.example.com")
        path = f"/apis/{gvr.group}/v1/greetings"
        async with RestClient(as_admin(core, config)) as client:
            answer = await client.raw("GET", path, headers={"Impersonate-User": "nobody"})
        assert (answer.status, b'User \\"nobody\\" cannot list resource \\"greetings\\"' in answer.body) == (403, True)


async def test_the_serving_certificate_is_followed(core: RunningCluster, tmp_path: Path) -> None:
    first, second = (Certificates.make("hello", "default", addresses=["127.0.0.1"]) for _ in range(2))
    cert, key = tmp_path / "tls.crt", tmp_path / "tls.key"
    first.serving.save(cert, key)
    options = {"kubeconfig": core.kubeconfig, "tls_cert_file": cert, "tls_private_key_file": key, "admission": False}

    async def handshake(port: int, bundle: bytes) -> bool:
        context = ssl.create_default_context(cadata=bundle.decode())
        try:
            _, writer = await asyncio.open_connection("127.0.0.1", port, ssl=context)
        except ssl.SSLCertVerificationError:
            return False
        writer.close()
        return True

    async with serving(greetings("f10.example.com"), **options) as (server, _):
        port = server.address[1]
        assert await handshake(port, first.bundle)
        second.serving.save(cert, key)
        async with asyncio.timeout(10):
            while not await handshake(port, second.bundle):
                await asyncio.sleep(0.1)
        assert not await handshake(port, first.bundle)


async def test_watches_end_and_writes_finish_when_the_server_stops(core: RunningCluster) -> None:
    begun = asyncio.Event()
    app = greetings("f11.example.com")

    @app.mutate(app.declarations[0].hub.model)
    async def slowly(obj: Any, old: Any, ctx: Any) -> None:
        begun.set()
        await asyncio.sleep(0.2)

    options = {"kubeconfig": core.kubeconfig, "admission": False}
    gvr, obj = greeting("f11.example.com")
    async with serving(app, **options) as (server, config):
        server.server.options = type(server.server.options)(shutdown_timeout=5.0)
        async with RestClient(as_admin(core, config)) as client:
            watching = asyncio.ensure_future(_drain(client.watch(gvr, send_initial_events=True)))
            writing = asyncio.ensure_future(client.create(gvr, obj))
            async with asyncio.timeout(10):
                await begun.wait()
                await server.stop()
                assert (await writing)["metadata"]["name"] == "a"
                assert await watching >= 1


async def _drain(events: AsyncIterator[Any]) -> int:
    return len([event async for event in events])


def test_limits_are_upstreams() -> None:
    assert (reviews.REMEMBER_SECONDS, reviews.CALL_SECONDS, reviews.TRIES) == (10.0, 10.0, 5)
    assert (reviews.REMEMBERED_DECISIONS, reviews.LARGEST_REMEMBERED) == (8192, 10_000)
