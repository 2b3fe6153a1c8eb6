"""Every check of the doctor, on a server that is well and with exactly that thing broken."""

from __future__ import annotations

import asyncio
import datetime
import json
import uuid
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import pytest
from click.testing import CliRunner, Result
from doctor_stage import Stage, now
from odd_server import odd_answers, odd_server, patch_operation
from played_node import played
from serving_apps import eventually, greetings, served

from bowsprit.cli.extension_setup import doctor
from bowsprit.client.resources import CLUSTER_ROLES, CUSTOM_RESOURCE_DEFINITIONS, NAMESPACES
from bowsprit.client.rest import RestClient
from bowsprit.extension.app import App
from bowsprit.extension.certificates import Certificates
from bowsprit.extension.doctor import behaviour_checks
from bowsprit.extension.doctor.examination import CHECKS, examine, healthy
from bowsprit.extension.doctor.finding import Finding
from bowsprit.extension.doctor.subject import Subject, remote_api_services
from bowsprit.extension.install import Installation
from bowsprit.extension.manifests import ManifestOptions
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.net.ports import free_port
from bowsprit.pki.authority import Authority
from bowsprit.testing.plugin import RunningCluster

BINDINGS = GroupVersionResource("rbac.authorization.k8s.io", "v1", "clusterrolebindings")
ROLE_BINDINGS = GroupVersionResource("rbac.authorization.k8s.io", "v1", "rolebindings")


@pytest.fixture
async def stage(admin: RestClient) -> AsyncIterator[Stage]:
    made = Stage(admin)
    yield made
    await made.clear()


def failed(finding: Finding, text: str, hint: str = "") -> None:
    assert finding.level == "fail", finding
    assert text in finding.message, finding
    assert finding.hint, finding
    assert hint in finding.hint, finding


# -- a server that is well -----------------------------------------------------------------------------------------------


async def test_all_checks_pass_on_what_install_has_made(admin: RestClient, tmp_path: Path) -> None:
    app = greetings(f"d{uuid.uuid4().hex[:6]}.example.com")
    options = ManifestOptions(spec="hello:app", port=free_port()).checked(app)
    installation = Installation(admin, app, options, now=now, say=lambda step, line: None, timeout=20.0)
    async with played(admin, app, options.namespace, tmp_path):
        await installation.install()
        (found,) = await remote_api_services(admin, app.group)
        subject = await Subject.read(admin, found, now)
        await eventually(lambda: _well(subject, "ready"))
        findings = await examine(subject)
        await installation.uninstall()
    assert list(findings) == list(CHECKS)
    assert len(findings) == 15
    assert {name: finding for name, finding in findings.items() if finding.level != "ok"} == {}
    assert healthy(findings)


async def _well(subject: Subject, check: str) -> bool:
    return (await CHECKS[check](subject)).level == "ok"


# -- 1 authentication-config ---------------------------------------------------------------------------------------------


def _expired() -> str:
    return Authority.create("old", days=1, now=now() - datetime.timedelta(days=9)).ca_pem.decode()


@pytest.mark.parametrize(
    ("change", "text"),
    [
        (None, "does not exist"),
        ({"requestheader-client-ca-file": None}, "names no front-proxy authority"),
        ({"requestheader-client-ca-file": "nonsense"}, "requestheader-client-ca-file: not a bundle"),
        ({"requestheader-allowed-names": "front-proxy-client"}, "requestheader-allowed-names is not JSON"),
        ({"requestheader-group-headers": '"X-Remote-Group"'}, "requestheader-group-headers is no list"),
        ({"requestheader-client-ca-file": _expired()}, "requestheader-client-ca-file: it expired at"),
        ({"client-ca-file": _expired()}, "client-ca-file: it expired at"),
    ],
)
async def test_a_broken_authentication_config_is_found(stage: Stage, change: Obj | None, text: str) -> None:
    await stage.api_service(stage.certificates())
    subject = await stage.subject()
    assert (await CHECKS["authentication-config"](subject)).level == "ok"
    if change is None:
        subject.config = None
    else:
        config = deep_copy(subject.config)
        config["data"] = {key: value for key, value in (config["data"] | change).items() if value is not None}
        subject.config = config
    failed(await CHECKS["authentication-config"](subject), text)


# -- 2 front-proxy -------------------------------------------------------------------------------------------------------


async def test_a_server_that_does_not_believe_the_front_proxy_is_found(
    core: RunningCluster, stage: Stage, tmp_path: Path
) -> None:
    certificates = stage.certificates()
    app = greetings(stage.group)
    names = {"requestheader_allowed_names": ("somebody-else",)}
    async with served(app, certificates, tmp_path, core.kubeconfig, **names) as running:
        await stage.registered(running.port, certificates, reason="FailedDiscoveryCheck")
        failed(await stage.check("front-proxy"), "does not believe", "--requestheader-allowed-names")


@pytest.mark.parametrize(
    ("common_name", "days", "same_authority", "text"),
    [
        ("intruder", 365, True, "'intruder' is not among the allowed names front-proxy-client"),
        ("front-proxy-client", 1, True, "it expired at"),
        ("front-proxy-client", 365, False, "unknown authority"),
        ("front-proxy-client", 365, True, ""),
    ],
)
async def test_the_front_proxys_certificate_is_judged_by_what_is_published(
    stage: Stage, common_name: str, days: int, same_authority: bool, text: str
) -> None:
    await stage.api_service(stage.certificates())
    authority = Authority.create("front-proxy-ca", now=now())
    published = authority if same_authority else Authority.create("front-proxy-ca")
    pair = authority.issue_client(common_name, days=days, now=now() - datetime.timedelta(days=9))
    config = {
        "data": {
            "requestheader-allowed-names": '["front-proxy-client"]',
            "requestheader-client-ca-file": published.ca_pem.decode(),
        }
    }
    finding = await stage.check("front-proxy", proxy_certificate=pair.cert_pem, config=config)
    if text:
        failed(finding, text)
    else:
        assert finding.level == "skip"  # nothing runs behind it, so there is nobody to believe


# -- 3 available, 5 reachable --------------------------------------------------------------------------------------------


async def test_a_server_that_does_not_run_is_found(stage: Stage) -> None:
    await stage.registered(free_port(), stage.certificates(), reason="FailedDiscoveryCheck")
    failed(await stage.check("available"), "connection refused", "nothing listens")
    failed(await stage.check("reachable"), "does not reach", "nothing listens")


async def test_a_firewall_between_control_plane_and_pod_is_named(stage: Stage) -> None:
    await stage.api_service(stage.certificates())
    subject = await stage.subject()
    subject.api_service = deep_copy(subject.api_service)
    message = 'Get "https://10.1.2.3:8443/apis/x/v1": context deadline exceeded (Client.Timeout exceeded)'
    condition = {"type": "Available", "status": "False", "reason": "FailedDiscoveryCheck", "message": message}
    subject.api_service["status"] = {"conditions": [condition]}
    failed(await CHECKS["reachable"](subject), "deadline exceeded", "hostNetwork")


# -- 4 endpoints ---------------------------------------------------------------------------------------------------------


async def test_a_missing_service_is_found(stage: Stage) -> None:
    await stage.api_service(stage.certificates())
    await stage.settled("ServiceNotFound")
    failed(await stage.check("endpoints"), "does not exist", "create the Service")
    failed(await stage.check("available"), "is not present")
    assert (await stage.check("reachable")).level == "skip"


async def test_a_wrong_port_is_found(stage: Stage) -> None:
    await stage.registered(free_port(), stage.certificates(), reason="ServicePortError", api_service={"port": 8443})
    failed(await stage.check("endpoints"), "has no port 8443, but 443")


async def test_a_wrong_port_name_is_found(stage: Stage) -> None:
    await stage.registered(free_port(), stage.certificates(), reason="MissingEndpoints", slice={"port_name": "web"})
    failed(await stage.check("endpoints"), "is named 'https', in its EndpointSlices 'web'", "the same name")


async def test_a_service_without_slices_or_ready_endpoints_is_found(stage: Stage) -> None:
    await stage.service()
    await stage.api_service(stage.certificates())
    await stage.settled("EndpointsNotFound")
    failed(await stage.check("endpoints"), "no EndpointSlice belongs to", "no selector")
    await stage.slice(free_port(), ready=False)
    await stage.settled("MissingEndpoints")
    failed(await stage.check("endpoints"), "has no ready endpoint")


# -- 6 certificate -------------------------------------------------------------------------------------------------------


@pytest.mark.parametrize("broken", ["name", "expired", "authority"])
async def test_a_certificate_that_the_api_server_refuses_is_found(
    core: RunningCluster, stage: Stage, tmp_path: Path, broken: str
) -> None:
    long_ago = now() - datetime.timedelta(days=5000)
    right = stage.certificates()
    shown, trusted, text = {
        "name": (Certificates.make("other", "default"), None, f"it is not valid for {stage.name}.default.svc"),
        "expired": (stage.certificates(now=long_ago), None, "it expired at"),
        "authority": (right, stage.certificates(), "unable to get local issuer certificate"),
    }[broken]
    async with served(greetings(stage.group), shown, tmp_path, core.kubeconfig) as running:
        await stage.registered(running.port, trusted or shown, reason="FailedDiscoveryCheck")
        failed(await stage.check("certificate"), text)
        failed(await stage.check("available"), "x509")


async def test_the_secret_is_compared_with_what_is_served(core: RunningCluster, stage: Stage, tmp_path: Path) -> None:
    certificates = stage.certificates()
    renewed = certificates.renew(stage.name, "default", now())
    async with served(greetings(stage.group), certificates, tmp_path, core.kubeconfig) as running:
        await stage.service(selector=True)
        volumes = await stage.secret(stage.name, renewed.serving.cert_pem, renewed.serving.key_pem)
        await stage.pod(stage.name, volumes)
        await stage.slice(running.port)
        await stage.api_service(certificates)
        await stage.settled("Passed")
        finding = await stage.check("certificate")
        assert finding.level == "warn"
        assert "another certificate than its Secret holds" in finding.message


async def test_a_secret_whose_key_belongs_to_another_certificate_is_found(stage: Stage) -> None:
    one, other = stage.certificates(), stage.certificates()
    await stage.service(selector=True)
    await stage.pod(stage.name, await stage.secret(stage.name, one.serving.cert_pem, other.serving.key_pem))
    await stage.api_service(one)
    failed(await stage.check("certificate"), "tls.key does not belong to tls.crt")


async def test_a_certificate_in_the_secret_is_judged_when_the_server_cannot_be_reached(stage: Stage) -> None:
    certificates = stage.certificates()
    await stage.service(selector=True)
    volumes = await stage.secret(stage.name, certificates.serving.cert_pem, certificates.serving.key_pem)
    await stage.pod(stage.name, volumes)
    await stage.api_service(certificates)
    assert (await stage.check("certificate")).level == "ok"
    failed(await stage.check("certificate", now=lambda: now() + datetime.timedelta(days=400)), "expired")


async def test_switched_off_verification_is_a_warning(stage: Stage) -> None:
    await stage.api_service(None)
    finding = await stage.check("certificate")
    assert finding.level == "warn"
    assert "insecureSkipTLSVerify" in finding.message


# -- 7 discovery ---------------------------------------------------------------------------------------------------------


async def test_a_server_of_another_version_is_found(core: RunningCluster, stage: Stage, tmp_path: Path) -> None:
    certificates = stage.certificates()
    async with served(greetings(stage.group, "v2"), certificates, tmp_path, core.kubeconfig) as running:
        await stage.registered(running.port, certificates, reason="FailedDiscoveryCheck")
        failed(await stage.check("discovery"), f"/apis/{stage.group}/v1 answers 503")
        failed(await stage.check("available"), "404", "another group or version")


async def test_an_answer_that_is_no_resource_list_is_found(stage: Stage, tmp_path: Path) -> None:
    certificates = stage.certificates()
    answers = {**odd_answers(stage.group), f"/apis/{stage.group}/v1": {"hello": "world"}}
    async with odd_server(answers, certificates, tmp_path) as port:
        await stage.registered(port, certificates)
        failed(await stage.check("discovery"), "names no resource", "APIResourceList")


# -- 8 permissions -------------------------------------------------------------------------------------------------------


async def test_each_missing_right_of_the_account_is_found(stage: Stage) -> None:
    account = stage.name
    subjects = [{"kind": "ServiceAccount", "name": account, "namespace": "default"}]
    await stage.service(selector=True)
    await stage.pod(account)
    await stage.api_service(stage.certificates())
    failed(await stage.check("permissions"), "may not create tokenreviews and subjectaccessreviews", "auth-delegator")

    await stage.put(BINDINGS, _binding(f"{account}:a", subjects, "ClusterRole", "system:auth-delegator"))
    failed(await stage.check("permissions"), "may not get, list, watch ConfigMap", "authentication-reader")

    reader = _binding(f"{account}:b", subjects, "Role", "extension-apiserver-authentication-reader", "kube-system")
    await stage.put(ROLE_BINDINGS, reader)
    failed(await stage.check("permissions"), "may not list and watch namespaces, mutatingadmissionpolicies")

    policies = ["mutatingadmissionpolicies", "mutatingadmissionpolicybindings"]
    others = ["mutatingwebhookconfigurations", "validatingadmissionpolicies", "validatingadmissionpolicybindings"]
    rules = [
        _rule("", ["namespaces"]),
        _rule("admissionregistration.k8s.io", [*others, "validatingwebhookconfigurations"]),
    ]
    await stage.put(CLUSTER_ROLES, _role(f"{account}:c", rules))
    await stage.put(BINDINGS, _binding(f"{account}:c", subjects, "ClusterRole", f"{account}:c"))
    failed(await stage.check("permissions"), f"may not list and watch {policies[0]}.admissionregistration.k8s.io")

    await stage.put(CLUSTER_ROLES, _role(f"{account}:d", [_rule("admissionregistration.k8s.io", policies)]))
    await stage.put(BINDINGS, _binding(f"{account}:d", subjects, "ClusterRole", f"{account}:d"))
    finding = await stage.check("permissions")
    assert finding.level == "warn"
    assert "flowschemas" in finding.message


def _binding(name: str, subjects: list[Obj], kind: str, role: str, namespace: str = "") -> Obj:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    api = "rbac.authorization.k8s.io"
    reference = {"apiGroup": api, "kind": kind, "name": role}
    made = f"{kind}Binding"
    return {"apiVersion": f"{api}/v1", "kind": made, "metadata": meta, "subjects": subjects, "roleRef": reference}


def _rule(group: str, resources: list[str]) -> Obj:
    return {"apiGroups": [group], "resources": resources, "verbs": ["get", "list", "watch"]}


def _role(name: str, rules: list[Obj]) -> Obj:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": "ClusterRole",
        "metadata": {"name": name},
        "rules": rules,
    }


async def test_tokenreviews_alone_can_be_what_is_missing(stage: Stage) -> None:
    subjects = [{"kind": "ServiceAccount", "name": stage.name, "namespace": "default"}]
    await stage.service(selector=True)
    await stage.pod(stage.name)
    await stage.api_service(stage.certificates())
    rule = {"apiGroups": ["authorization.k8s.io"], "resources": ["subjectaccessreviews"], "verbs": ["create"]}
    await stage.put(CLUSTER_ROLES, _role(f"{stage.name}:a", [rule]))
    await stage.put(BINDINGS, _binding(f"{stage.name}:a", subjects, "ClusterRole", f"{stage.name}:a"))
    finding = await stage.check("permissions")
    failed(finding, "may not create tokenreviews", "auth-delegator")
    assert "subjectaccessreviews" not in finding.message


# -- 9 ready -------------------------------------------------------------------------------------------------------------


async def test_an_available_server_that_is_not_ready_is_found(stage: Stage, tmp_path: Path) -> None:
    certificates = stage.certificates()
    answers = odd_answers(stage.group)
    async with odd_server(answers, certificates, tmp_path) as port:
        await stage.registered(port, certificates)
        assert (await stage.check("ready")).level == "ok"
        answers["/readyz"] = (500, "[+]ping ok\n[-]informer-sync failed: reason withheld\nreadyz check failed\n")
        failed(await stage.check("ready"), "although its APIService is Available: informer-sync", "see permissions")
        answers["/readyz"] = "[+]ping ok\n[+]admission-off-MutatingAdmissionWebhook ok\nreadyz check passed\n"
        finding = await stage.check("ready")
        assert (finding.level, "MutatingAdmissionWebhook" in finding.message) == ("warn", True)


# -- 10 openapi ----------------------------------------------------------------------------------------------------------


async def test_an_openapi_document_without_patch_or_its_parameter_is_found(stage: Stage, tmp_path: Path) -> None:
    certificates = stage.certificates()
    answers = odd_answers(stage.group)
    path = f"/apis/{stage.group}/v1/things/{{name}}"
    document = answers[f"/openapi/v3/apis/{stage.group}/v1"]
    async with odd_server(answers, certificates, tmp_path) as port:
        await stage.registered(port, certificates)
        await eventually(lambda: _finds(stage, "openapi", "ok"))
        document["paths"][path] = {"patch": patch_operation(stage.group, "Thing", [])}
        failed(await stage.check("openapi"), "has no parameter fieldValidation")
        document["paths"][path] = {}
        failed(await stage.check("openapi"), "has no PATCH operation of kind Thing")


async def _finds(stage: Stage, check: str, level: str) -> bool:
    return (await stage.check(check)).level == level


# -- 11 freshness --------------------------------------------------------------------------------------------------------


async def test_a_stale_version_is_found(stage: Stage) -> None:
    await stage.registered(free_port(), stage.certificates(), reason="FailedDiscoveryCheck")
    await eventually(lambda: _finds(stage, "freshness", "fail"))
    failed(await stage.check("freshness"), "is Stale in discovery")


# -- 12 overlap ----------------------------------------------------------------------------------------------------------


async def test_a_definition_of_the_same_group_version_is_found(stage: Stage) -> None:
    await stage.api_service(stage.certificates())
    assert (await stage.check("overlap")).level == "ok"
    schema = {"openAPIV3Schema": {"type": "object"}}
    definition = {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"things.{stage.group}"},
        "spec": {
            "group": stage.group,
            "names": {"plural": "things", "kind": "Thing"},
            "scope": "Namespaced",
            "versions": [{"name": "v2", "served": True, "storage": True, "schema": schema}],
        },
    }
    await stage.put(CUSTOM_RESOURCE_DEFINITIONS, definition)
    assert (await stage.check("overlap")).level == "warn"
    patch = {"spec": {"versions": [{"name": version, "served": True, "storage": version == "v2", "schema": schema}
                                   for version in ("v1", "v2")]}}  # fmt: skip
    await stage.admin.patch(CUSTOM_RESOURCE_DEFINITIONS, f"things.{stage.group}", patch)
    failed(await stage.check("overlap"), f"things.{stage.group} has {stage.group}/v1 too", "another group")


# -- 13 watchlist --------------------------------------------------------------------------------------------------------


async def test_a_watch_that_ignores_send_initial_events_is_found(
    stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    monkeypatch.setattr(behaviour_checks, "_WATCH_SECONDS", 0.3)
    certificates = stage.certificates()
    answers = odd_answers(stage.group)
    async with odd_server(answers, certificates, tmp_path) as port:
        await stage.registered(port, certificates)
        failed(await stage.check("watchlist"), "gets no bookmark", "refuse the parameter")
        answers["watch"] = "refused"
        assert (await stage.check("watchlist")).level == "ok"
        answers["watch"] = "error"
        finding = await stage.check("watchlist")
        assert (finding.level, "refused with an event: no progress" in finding.message) == ("warn", True)


# -- 14 dry-run ----------------------------------------------------------------------------------------------------------


async def test_a_slow_create_is_found(
    core: RunningCluster, stage: Stage, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    certificates = stage.certificates()
    app = greetings(stage.group)
    async with served(slow(app), certificates, tmp_path, core.kubeconfig) as running:
        await stage.registered(running.port, certificates)
        monkeypatch.setattr(behaviour_checks, "_SLOW", 0.2)
        finding = await stage.check("dry-run")
        assert (finding.level, finding.hint != "") == ("warn", True)
        monkeypatch.setattr(behaviour_checks, "_TOO_SLOW", 0.25)
        failed(await stage.check("dry-run"), "a create on trial takes")


def slow(app: App) -> App:
    @app.admit(app.declarations[0].versions[0].model)
    async def wait(new: object, old: object, ctx: object) -> None:
        await asyncio.sleep(0.3)

    return app


@pytest.mark.parametrize(
    ("answer", "text"),
    [
        ((403, {"kind": "Status", "message": "not yet ready to handle request"}), "and is refused: not yet ready"),
        ((500, {"kind": "Status", "message": "the disk is full"}), "answers 500: the disk is full"),
    ],
)
async def test_a_create_that_is_refused_for_its_servers_own_sake_is_found(
    stage: Stage, tmp_path: Path, answer: Any, text: str
) -> None:
    certificates = stage.certificates()
    answers = {**odd_answers(stage.group), f"/apis/{stage.group}/v1/namespaces/default/things": answer}
    async with odd_server(answers, certificates, tmp_path) as port:
        await stage.registered(port, certificates)
        failed(await stage.check("dry-run"), text)


# -- 15 namespaces -------------------------------------------------------------------------------------------------------


async def test_a_namespace_that_waits_for_this_group_is_found(stage: Stage) -> None:
    await stage.registered(free_port(), stage.certificates(), reason="FailedDiscoveryCheck")
    assert (await stage.check("namespaces")).level == "ok"
    await eventually(lambda: _finds(stage, "freshness", "fail"))
    namespace = f"{stage.name}-going"
    await stage.put(NAMESPACES, {"apiVersion": "v1", "kind": "Namespace", "metadata": {"name": namespace}})
    await stage.admin.delete(NAMESPACES, namespace)

    async def found() -> bool:  # those of other tests, which end, may wait for it too
        return namespace in (await stage.check("namespaces")).message

    await eventually(found)
    failed(await stage.check("namespaces"), "cannot be deleted because of this group", "delete its APIService")


# -- the command ---------------------------------------------------------------------------------------------------------


@pytest.fixture
def run(core: RunningCluster) -> Callable[..., Result]:
    def call(*arguments: str) -> Result:
        return CliRunner().invoke(doctor, [*arguments, "--kubeconfig", str(core.kubeconfig)])

    return call


async def test_the_command_tells_of_every_finding_and_fails_with_one(stage: Stage, run: Callable[..., Result]) -> None:
    await stage.api_service(stage.certificates())
    await stage.settled("ServiceNotFound")
    result = await asyncio.to_thread(run, f"v1.{stage.group}")
    assert result.exit_code == 1
    assert result.stdout.splitlines()[0] == f"v1.{stage.group}"
    assert " ✗ endpoints" in result.stdout
    assert "hint: create the Service" in result.stdout
    assert " ✓ authentication-config" in result.stdout
    told = await asyncio.to_thread(run, stage.group, "-o", "json")
    assert told.exit_code == 1
    document = json.loads(told.stdout)
    assert document["ok"] is False
    (service,) = document["apiServices"]
    assert [finding["check"] for finding in service["findings"]] == list(CHECKS)
    broken = next(finding for finding in service["findings"] if finding["check"] == "endpoints")
    assert broken["level"] == "fail"
    assert broken["hint"]


async def test_a_name_that_is_not_there_is_an_error(run: Callable[..., Result]) -> None:
    result = await asyncio.to_thread(run, "v1.nowhere.example.com")
    assert result.exit_code == 1
    assert result.exception.reason == "APIServiceNotFound"


async def test_nothing_to_check_is_no_failure(admin: RestClient, run: Callable[..., Result]) -> None:
    if await remote_api_services(admin):
        pytest.fail("a test has left an APIService behind")
    result = await asyncio.to_thread(run)
    assert result.exit_code == 0
    assert "nothing to check" in result.stderr


async def test_nothing_of_the_stage_is_left(admin: RestClient, stage: Stage) -> None:
    await stage.api_service(stage.certificates())
    await stage.clear()
    with pytest.raises(NotFoundError):
        await stage.subject()
