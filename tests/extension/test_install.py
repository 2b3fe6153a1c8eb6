"""install, rotate-certs and uninstall against a running core; a played node runs the pods with their account's rights."""

from __future__ import annotations

import asyncio
import datetime
import uuid
from base64 import b64decode
from collections.abc import AsyncIterator
from dataclasses import dataclass, field
from pathlib import Path

import click
import pytest
from played_node import PlayedNode, played
from serving_apps import eventually, greetings

from bowsprit.cli.extension_setup import Seconds
from bowsprit.client.resources import CLUSTER_ROLES, CONFIG_MAPS, NAMESPACES, SECRETS
from bowsprit.client.rest import RestClient
from bowsprit.extension.apiservices import API_SERVICES, availability
from bowsprit.extension.app import App
from bowsprit.extension.certificates import Certificates
from bowsprit.extension.errors import ExtensionError
from bowsprit.extension.install import Installation, resource_of
from bowsprit.extension.manifests import LABEL, ManifestOptions, Manifests
from bowsprit.machinery.errors import NotFoundError, StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj
from bowsprit.net.ports import free_port


def now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


@dataclass
class Case:
    """One app, its installation, and what it has said."""

    app: App
    options: ManifestOptions
    installation: Installation
    node: PlayedNode
    admin: RestClient
    said: list[tuple[str, str]] = field(default_factory=list)

    @property
    def greetings(self) -> GroupVersionResource:
        return GroupVersionResource(self.app.group, "v1", "greetings")

    def lines(self, step: str) -> list[str]:
        return [line for name, line in self.said if name == step]

    async def stored(self) -> Certificates:
        found = await self.installation.stored()
        assert found is not None
        return found

    async def trusted(self) -> bytes:
        found = await self.admin.get(API_SERVICES, f"v1.{self.app.group}")
        return b64decode(found["spec"]["caBundle"])


@pytest.fixture
async def case(admin: RestClient, tmp_path: Path) -> AsyncIterator[Case]:
    app = greetings(f"g{uuid.uuid4().hex[:6]}.example.com", "v1", "v1alpha1")
    options = ManifestOptions(spec="hello:app", port=free_port()).checked(app)
    said: list[tuple[str, str]] = []
    installation = Installation(
        admin, app, options, now=now, say=lambda step, line: said.append((step, line)), timeout=20.0
    )
    async with played(admin, app, options.namespace, tmp_path) as node:
        yield Case(app, options, installation, node, admin, said)
        await installation.uninstall()


async def test_what_is_installed_serves_with_the_rights_of_its_account(case: Case) -> None:
    await case.installation.install()
    steps = list(dict.fromkeys(step for step, _ in case.said))
    assert steps == [
        "certificates", "permissions", "workload", "rollout", "endpoints", "register", "available", "discovery", "verify",
    ]  # fmt: skip
    greeting = {
        "apiVersion": f"{case.app.group}/v1",
        "kind": "Greeting",
        "metadata": {"name": "a", "namespace": "default"},
    }
    await case.admin.create(case.greetings, greeting)
    assert (await case.admin.list(case.greetings, namespace="default"))["items"][0]["metadata"]["name"] == "a"
    server = next(iter(case.node.servers.values()))
    await eventually(lambda: ready(case, server.address[1]))
    states = {name: state.state for name, state in server.core_admission.states.items()}
    assert set(states.values()) == {"on"}, states  # the account may list and watch all that admission goes by


async def ready(case: Case, port: int) -> bool:
    reader, writer = await asyncio.open_connection("127.0.0.1", port, ssl=_unverified())
    writer.write(b"GET /readyz HTTP/1.1\r\nHost: x\r\nConnection: close\r\n\r\n")
    answer = await reader.read()
    writer.close()
    return b" 200 " in answer.split(b"\r\n")[0]


def _unverified() -> object:
    import ssl

    context = ssl.create_default_context()
    context.check_hostname, context.verify_mode = False, ssl.CERT_NONE
    return context


async def test_a_second_run_keeps_certificates_and_changes_nothing(case: Case) -> None:
    await case.installation.install()
    before = await case.stored()
    version = (await case.admin.get(CLUSTER_ROLES, f"{case.app.group}:server"))["metadata"]["resourceVersion"]
    case.said.clear()
    await case.installation.install()
    assert await case.stored() == before
    assert case.lines("certificates") == ["The certificates in the cluster are valid and stay"]
    after = await case.admin.get(CLUSTER_ROLES, f"{case.app.group}:server")
    assert after["metadata"]["resourceVersion"] == version


async def test_certificates_for_another_name_or_near_their_end_are_replaced(case: Case) -> None:
    await case.installation.install()
    old = await case.stored()
    later = Installation(
        case.admin,
        case.app,
        case.options,
        now=lambda: now() + datetime.timedelta(days=300),
        say=lambda step, line: case.said.append((step, line)),
        timeout=20.0,
    )
    await later.install()
    renewed = await case.stored()
    assert renewed.ca_pem == old.ca_pem
    assert renewed.serving.cert_pem != old.serving.cert_pem
    assert any("Renewed the serving certificate: less than a third" in line for line in case.lines("certificates"))


async def test_uninstall_leaves_nothing_and_may_be_repeated(case: Case) -> None:
    await case.installation.install()
    await case.installation.uninstall()
    for obj in Manifests(case.app, case.options, Certificates.make("a", "b")).objects():
        assert await gone(case.admin, obj), obj["metadata"]["name"]
    case.said.clear()
    await case.installation.uninstall()
    assert not any(line.endswith(" deleted") and "namespace" not in line for line in case.lines("uninstall"))


async def gone(admin: RestClient, obj: Obj) -> bool:
    try:
        found = await admin.get(resource_of(obj), obj["metadata"]["name"], namespace=obj["metadata"].get("namespace"))
    except NotFoundError:
        return True
    return bool(found["metadata"].get("deletionTimestamp"))


async def test_a_namespace_with_something_of_others_in_it_stays(case: Case) -> None:
    await case.installation.install()
    other = {
        "apiVersion": "v1",
        "kind": "ConfigMap",
        "metadata": {"name": "mine", "namespace": case.options.namespace},
    }
    await case.admin.create(CONFIG_MAPS, other)
    await case.installation.uninstall()
    assert "deletionTimestamp" not in (await case.admin.get(NAMESPACES, case.options.namespace))["metadata"]
    assert any("stays: it holds configmaps/mine" in line for line in case.lines("uninstall"))
    await case.admin.delete(CONFIG_MAPS, "mine", namespace=case.options.namespace)


async def test_a_namespace_that_was_there_is_used_and_left_as_it_is(case: Case) -> None:
    await case.admin.create(
        NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": case.options.namespace}}
    )
    await case.installation.install()
    await case.installation.uninstall()
    found = await case.admin.get(NAMESPACES, case.options.namespace)
    assert LABEL not in (found["metadata"].get("labels") or {})
    assert "deletionTimestamp" not in found["metadata"]
    await case.admin.delete(NAMESPACES, case.options.namespace)


async def test_no_request_fails_while_certificate_and_authority_are_replaced(case: Case) -> None:
    await case.installation.install()
    failures: list[str] = []
    answered = 0
    stop = asyncio.Event()

    async def ask() -> None:
        nonlocal answered
        while not stop.is_set():
            try:
                await case.admin.list(case.greetings)
                answered += 1
            except StatusError as failure:
                failures.append(str(failure))

    first = await case.stored()
    asking = asyncio.create_task(ask())
    await case.installation.rotate()
    second = await case.stored()
    assert second.ca_pem == first.ca_pem
    assert second.serving.cert_pem != first.serving.cert_pem
    await case.installation.rotate(authority=True)
    third = await case.stored()
    assert third.ca_pem not in (first.ca_pem, b"")
    assert first.ca_pem in await case.trusted()
    assert third.ca_pem in await case.trusted()
    await eventually(lambda: _serves(case, third.serving.cert_pem))
    await case.installation.rotate(drop_old=True)
    assert await case.trusted() == third.ca_pem
    seen = answered
    await eventually(lambda: _passed(lambda: answered > seen + 20))
    stop.set()
    await asking
    assert failures == []
    assert availability(await case.admin.get(API_SERVICES, f"v1.{case.app.group}"))[0] == "True"


async def _passed(condition: object) -> bool:
    return bool(condition())  # type: ignore[operator]


async def _serves(case: Case, certificate: bytes) -> bool:
    import ssl

    pem = await asyncio.to_thread(ssl.get_server_certificate, ("127.0.0.1", case.options.port))
    return pem.split() == certificate.decode().split()


async def test_a_server_that_never_gets_ready_is_explained(admin: RestClient) -> None:
    app = greetings(f"g{uuid.uuid4().hex[:6]}.example.com")
    options = ManifestOptions(spec="hello:app").checked(app)
    installation = Installation(admin, app, options, now=now, say=lambda step, line: None, timeout=1.0)
    with pytest.raises(ExtensionError) as failure:
        await installation.install()
    assert failure.value.reason == "DeploymentNotReady"
    assert "0 of 1 replicas are available" in failure.value.message
    await installation.uninstall()


async def test_an_api_of_somebody_else_is_refused_before_anything_is_applied(admin: RestClient) -> None:
    app = greetings(f"g{uuid.uuid4().hex[:6]}.example.com")
    options = ManifestOptions(spec="hello:app").checked(app)
    other = Manifests(app, ManifestOptions(spec="hello:app", namespace="elsewhere").checked(app), None).registration()[
        0
    ]
    await admin.create(API_SERVICES, other)
    installation = Installation(admin, app, options, now=now, say=lambda step, line: None)
    try:
        with pytest.raises(ExtensionError, match="is registered for Service elsewhere/") as failure:
            await installation.install()
        assert failure.value.reason == "AlreadyServed"
        with pytest.raises(NotFoundError):
            await admin.get(NAMESPACES, options.namespace)
    finally:
        await admin.delete(API_SERVICES, f"v1.{app.group}")


async def test_without_rights_the_refusal_says_what_is_needed(admin: RestClient) -> None:
    from dataclasses import replace

    from bowsprit.client.config import Impersonation

    app = greetings(f"g{uuid.uuid4().hex[:6]}.example.com")
    options = ManifestOptions(spec="hello:app").checked(app)
    async with RestClient(replace(admin.config, impersonate=Impersonation("nobody"))) as client:
        installation = Installation(client, app, options, now=now, say=lambda step, line: None)
        with pytest.raises(ExtensionError) as failure:
            await installation.install()
    assert failure.value.reason == "InstallForbidden"
    assert "nobody" in failure.value.hint


async def test_rotation_of_what_is_not_installed_says_so(admin: RestClient) -> None:
    app = greetings(f"g{uuid.uuid4().hex[:6]}.example.com")
    installation = Installation(
        admin, app, ManifestOptions(spec="hello:app").checked(app), now=now, say=lambda step, line: None
    )
    with pytest.raises(ExtensionError) as failure:
        await installation.rotate()
    assert failure.value.reason == "NotInstalled"


async def test_the_secret_that_pods_mount_does_not_hold_the_key_of_the_authority(case: Case) -> None:
    await case.installation.install()
    mounted = await case.admin.get(SECRETS, f"{case.app.name}-serving", namespace=case.options.namespace)
    assert sorted(mounted["data"]) == ["ca.crt", "tls.crt", "tls.key"]
    authority = (await case.stored()).ca_key_pem
    assert authority
    assert authority not in b64decode(mounted["data"]["tls.key"])


@pytest.mark.parametrize(("text", "seconds"), [("90", 90.0), ("1.5", 1.5), ("90s", 90.0), ("2m", 120.0)])
def test_time_limits_are_seconds_or_durations(text: str, seconds: float) -> None:
    assert Seconds().convert(text, None, None) == seconds


@pytest.mark.parametrize("text", ["x", "", "0", "-5s", "5 minutes"])
def test_what_is_no_time_limit_is_refused(text: str) -> None:
    with pytest.raises(click.BadParameter):
        Seconds().convert(text, None, None)
