"""A server of this host, registered in a cluster for as long as it runs."""

from __future__ import annotations

from pathlib import Path

import pytest
from serving_apps import greetings, served

from bowsprit.client.resources import ENDPOINT_SLICES, NAMESPACES, SERVICES
from bowsprit.client.rest import RestClient
from bowsprit.extension.apiservices import API_SERVICES, availability
from bowsprit.extension.errors import ExtensionError
from bowsprit.extension.registration import (
    REGISTRATION,
    Registration,
    host_address,
    is_local,
    make_certificates,
    service_of,
)
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.testing.plugin import RunningCluster


async def left(admin: RestClient, app_name: str) -> list[str]:
    """What a registration has left in the cluster."""
    found = []
    for gvr in (API_SERVICES, SERVICES, ENDPOINT_SLICES, NAMESPACES):
        listed = await admin.list(gvr, label_selector=f"{REGISTRATION}={app_name}")
        found += [f"{gvr.resource}/{item['metadata']['name']}" for item in listed["items"]]
    return found


async def test_a_registered_server_answers_through_the_cluster_and_leaves_nothing(
    core: RunningCluster, admin: RestClient, tmp_path: Path
) -> None:
    app = greetings("dev1.example.com")
    async with served(app, make_certificates(app), tmp_path, core.kubeconfig) as running:
        registration = Registration(admin, app, "0.0.0.0", running.port, running.certificates.bundle)
        await registration.register()
        greeting = {
            "apiVersion": "dev1.example.com/v1",
            "kind": "Greeting",
            "metadata": {"name": "a", "namespace": "default"},
        }
        made = await admin.create(GroupVersionResource("dev1.example.com", "v1", "greetings"), greeting)
        assert made["metadata"]["uid"]
        assert await left(admin, "dev1")
        await registration.unregister()
    assert await left(admin, "dev1") == []


async def test_the_next_run_takes_over_what_a_crash_left_and_drops_versions_that_are_gone(
    core: RunningCluster, admin: RestClient, tmp_path: Path
) -> None:
    both = greetings("dev2.example.com", "v1", "v1beta1")
    async with served(both, make_certificates(both), tmp_path, core.kubeconfig) as running:
        await Registration(admin, both, "", running.port, running.certificates.bundle).register()
    one = greetings("dev2.example.com", "v1")
    async with served(one, make_certificates(one), tmp_path, core.kubeconfig) as running:
        again = Registration(admin, one, "", running.port, running.certificates.bundle)
        await again.register()
        services = [item for item in await left(admin, "dev2") if item.startswith("apiservices/")]
        assert services == ["apiservices/v1.dev2.example.com"]
        await again.unregister()
    assert await left(admin, "dev2") == []


async def test_a_run_that_was_taken_over_leaves_its_successor_alone(
    core: RunningCluster, admin: RestClient, tmp_path: Path
) -> None:
    app = greetings("dev3.example.com")
    certificates = make_certificates(app)
    async with served(app, certificates, tmp_path, core.kubeconfig) as running:
        first = Registration(admin, app, "", running.port, certificates.bundle)
        second = Registration(admin, app, "", running.port, certificates.bundle)
        await first.register()
        await second.register()
        await first.unregister()
        assert availability(await admin.get(API_SERVICES, "v1.dev3.example.com"))[0] == "True"
        assert (await admin.get(SERVICES, service_of(app), namespace="default"))["spec"]["type"] == "ClusterIP"
        await second.unregister()
    assert await left(admin, "dev3") == []


async def test_a_namespace_that_did_not_exist_is_removed_again(
    core: RunningCluster, admin: RestClient, tmp_path: Path
) -> None:
    app = greetings("dev4.example.com")
    certificates = make_certificates(app, namespace="only-for-dev4")
    async with served(app, certificates, tmp_path, core.kubeconfig) as running:
        registration = Registration(admin, app, "", running.port, certificates.bundle, namespace="only-for-dev4")
        await registration.register()
        await registration.unregister()
    try:
        found = await admin.get(NAMESPACES, "only-for-dev4")
    except NotFoundError:
        return
    assert found["metadata"]["deletionTimestamp"]


async def test_what_cannot_be_reached_is_explained_and_not_left_behind(admin: RestClient) -> None:
    app = greetings("dev5.example.com")
    registration = Registration(admin, app, "", 1, make_certificates(app).bundle)
    with pytest.raises(ExtensionError) as failure:
        await registration.register(timeout=1.0)
    assert failure.value.reason == "FailedDiscoveryCheck"
    assert "refused" in failure.value.message
    assert "nothing listens" in failure.value.hint
    assert await left(admin, "dev5") == []


async def test_an_api_that_somebody_else_serves_is_not_taken_over(admin: RestClient) -> None:
    app = greetings("dev6.example.com")
    installed = {
        "apiVersion": "apiregistration.k8s.io/v1",
        "kind": "APIService",
        "metadata": {"name": "v1.dev6.example.com"},
        "spec": {
            "group": "dev6.example.com",
            "version": "v1",
            "service": {"name": "dev6", "namespace": "dev6-system"},
            "groupPriorityMinimum": 1000,
            "versionPriority": 15,
        },
    }
    await admin.create(API_SERVICES, installed)
    try:
        with pytest.raises(ExtensionError, match="is installed in this cluster already") as failure:
            await Registration(admin, app, "", 1, make_certificates(app).bundle).register()
        assert failure.value.reason == "AlreadyServed"
    finally:
        await admin.delete(API_SERVICES, "v1.dev6.example.com")


def test_the_address_of_this_host_is_one_that_endpoints_may_have() -> None:
    assert not host_address("https://127.0.0.1:6443").startswith("127.")
    assert is_local("https://localhost:6443")
    assert is_local("https://[::1]:6443")
    assert not is_local("https://192.0.2.1:6443")
