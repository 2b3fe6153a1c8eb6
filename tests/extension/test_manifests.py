"""The objects of the fifteen steps, and what fits together among them."""

from __future__ import annotations

import datetime
import stat
from base64 import b64decode
from pathlib import Path
from typing import Any

import pytest
import yaml
from click.testing import CliRunner
from cryptography import x509
from serving_apps import GreetingSpec, greetings

from bowsprit.cli.extension_setup import manifests
from bowsprit.client.rest import RestClient
from bowsprit.extension.app import App
from bowsprit.extension.certificates import (
    Certificates,
    certificate_problem,
    chain_problem,
    dns_names,
    serving_names,
)
from bowsprit.extension.errors import ExtensionError
from bowsprit.extension.install import resource_of
from bowsprit.extension.kind import Kind
from bowsprit.extension.manifests import ManifestOptions, Manifests
from bowsprit.extension.storage import sqlite
from bowsprit.machinery.objects import Obj
from bowsprit.pki.authority import Authority, load_certificate

NOW = datetime.datetime.now(datetime.UTC)


def objects(app: App, **options: Any) -> list[Obj]:
    checked = ManifestOptions(spec="hello:app", **options).checked(app)
    certificates = None if checked.cert_manager else Certificates.make(app.name, checked.namespace, now=NOW)
    return Manifests(app, checked, certificates).objects()


def one(made: list[Obj], kind: str, name: str = "") -> Obj:
    found = [obj for obj in made if obj["kind"] == kind and (not name or obj["metadata"]["name"] == name)]
    assert len(found) == 1, [obj["metadata"]["name"] for obj in found]
    return found[0]


def test_all_steps_are_there_in_an_order_in_which_they_can_be_applied() -> None:
    made = objects(greetings("hello.example.com"))
    assert [f"{obj['kind']}/{obj['metadata']['name']}" for obj in made] == [
        "Namespace/hello-system",
        "Secret/hello-ca",
        "Secret/hello-serving",
        "ServiceAccount/hello",
        "ClusterRole/hello.example.com:server",
        "ClusterRoleBinding/hello.example.com:server",
        "ClusterRole/hello.example.com:library",
        "ClusterRoleBinding/hello.example.com:library",
        "ClusterRoleBinding/hello.example.com:auth-delegator",
        "RoleBinding/hello.example.com:authentication-reader",
        "ClusterRole/hello.example.com:edit",
        "ClusterRole/hello.example.com:view",
        "Service/hello",
        "Deployment/hello",
        "APIService/v1.hello.example.com",
    ]


def test_the_certificate_is_for_the_name_that_the_api_server_checks_and_the_bundle_verifies_it() -> None:
    made = objects(greetings("hello.example.com"), namespace="tools")
    pem = b64decode(one(made, "Secret", "hello-serving")["data"]["tls.crt"])
    assert dns_names(load_certificate(pem)) == [
        "hello.tools.svc", "hello.tools", "hello", "hello.tools.svc.cluster.local",
    ]  # fmt: skip
    bundle = b64decode(one(made, "APIService")["spec"]["caBundle"])
    assert chain_problem(pem, bundle, NOW) == ""
    assert certificate_problem(pem, ["hello.tools.svc"], NOW) == ""


def test_service_deployment_and_certificate_volume_agree() -> None:
    made = objects(greetings("hello.example.com"), port=9443)
    service, deployment = one(made, "Service"), one(made, "Deployment")
    pod = deployment["spec"]["template"]["spec"]
    container = pod["containers"][0]
    labels = deployment["spec"]["template"]["metadata"]["labels"]
    assert service["spec"]["selector"].items() <= labels.items()
    assert deployment["spec"]["selector"]["matchLabels"].items() <= labels.items()
    assert service["spec"]["ports"][0]["targetPort"] == container["ports"][0]["name"]
    assert container["ports"][0]["containerPort"] == 9443
    assert "--secure-port=9443" in container["args"]
    assert container["command"] == ["bowsprit", "extension", "run", "hello:app"]
    secrets = [volume["secret"]["secretName"] for volume in pod["volumes"] if "secret" in volume]
    assert secrets == [one(made, "Secret", "hello-serving")["metadata"]["name"]]
    mount = next(each["mountPath"] for each in container["volumeMounts"] if each["name"] == "serving")
    assert f"--tls-cert-file={mount}/tls.crt" in container["args"]
    for probe, path in (("livenessProbe", "/livez"), ("readinessProbe", "/readyz"), ("startupProbe", "/livez")):
        assert container[probe]["httpGet"] == {"path": path, "port": "https", "scheme": "HTTPS"}


def test_pods_meet_the_restricted_pod_security_standard() -> None:
    pod = one(objects(greetings("hello.example.com")), "Deployment")["spec"]["template"]["spec"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert pod["containers"][0]["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "capabilities": {"drop": ["ALL"]},
        "readOnlyRootFilesystem": True,
    }


def test_the_account_may_delegate_read_the_configuration_and_follow_what_admission_goes_by() -> None:
    made = objects(greetings("hello.example.com"))
    delegator = one(made, "ClusterRoleBinding", "hello.example.com:auth-delegator")
    assert delegator["roleRef"]["name"] == "system:auth-delegator"
    reader = one(made, "RoleBinding")
    assert reader["metadata"]["namespace"] == "kube-system"
    assert reader["roleRef"]["name"] == "extension-apiserver-authentication-reader"
    account = {"kind": "ServiceAccount", "name": "hello", "namespace": "hello-system"}
    assert reader["subjects"] == delegator["subjects"] == [account]
    library = one(made, "ClusterRole", "hello.example.com:library")["rules"]
    granted = {(rule["apiGroups"][0], resource) for rule in library for resource in rule["resources"]}
    admission = "admissionregistration.k8s.io"
    assert granted == {
        ("", "namespaces"),
        (admission, "mutatingadmissionpolicies"),
        (admission, "mutatingadmissionpolicybindings"),
        (admission, "mutatingwebhookconfigurations"),
        (admission, "validatingadmissionpolicies"),
        (admission, "validatingadmissionpolicybindings"),
        (admission, "validatingwebhookconfigurations"),
    }


def test_people_get_their_part_of_the_kinds() -> None:
    made = objects(greetings("hello.example.com"))
    view = one(made, "ClusterRole", "hello.example.com:view")
    assert view["rules"] == [
        {"apiGroups": ["hello.example.com"], "resources": ["greetings"], "verbs": ["get", "list", "watch"]}
    ]
    assert view["metadata"]["labels"]["rbac.authorization.k8s.io/aggregate-to-view"] == "true"
    edit = one(made, "ClusterRole", "hello.example.com:edit")
    assert "rbac.authorization.k8s.io/aggregate-to-view" not in edit["metadata"]["labels"]


def test_of_several_versions_the_preferred_one_has_the_highest_priority() -> None:
    made = objects(greetings("hello.example.com", "v1alpha1", "v1", "v1beta1"))
    services = [obj for obj in made if obj["kind"] == "APIService"]
    assert [obj["metadata"]["name"].split(".")[0] for obj in services] == ["v1", "v1beta1", "v1alpha1"]
    priorities = [obj["spec"]["versionPriority"] for obj in services]
    assert priorities == sorted(priorities, reverse=True)
    assert len(set(priorities)) == 3


def test_cert_manager_makes_the_certificates_when_asked_to() -> None:
    made = objects(greetings("hello.example.com"), cert_manager=True)
    assert [obj for obj in made if obj["kind"] == "Secret"] == []
    certificate = one(made, "Certificate", "hello-serving")
    assert certificate["spec"]["dnsNames"] == serving_names("hello", "hello-system")
    assert certificate["spec"]["secretName"] == "hello-serving"
    service = one(made, "APIService")
    assert "caBundle" not in service["spec"]
    assert service["metadata"]["annotations"]["cert-manager.io/inject-ca-from"] == "hello-system/hello-serving"
    issuers = [obj["metadata"]["name"] for obj in made if obj["kind"] == "Issuer"]
    assert certificate["spec"]["issuerRef"]["name"] in issuers


def test_replicas_that_would_each_have_their_own_objects_are_refused() -> None:
    with pytest.raises(ExtensionError, match="2 replicas would each have objects of their own") as failure:
        objects(greetings("hello.example.com"), replicas=2)
    assert failure.value.reason == "StoreNotShared"


def test_replicas_without_a_store_of_the_library_are_spread_and_replaced_one_by_one() -> None:
    class Fixed:
        def list(self, ctx: object, namespace: str) -> list[Obj]:
            return []

    app = App("fixed.example.com")

    @app.kind(storage=Fixed())
    class Thing(Kind):
        """A thing."""

        spec: GreetingSpec = GreetingSpec()

    deployment = one(objects(app, replicas=3), "Deployment")
    assert deployment["spec"]["replicas"] == 3
    assert deployment["spec"]["strategy"]["rollingUpdate"]["maxUnavailable"] == 0
    assert "topologySpreadConstraints" in deployment["spec"]["template"]["spec"]
    assert one(objects(app), "ClusterRole", "fixed.example.com:server")["rules"][0]["verbs"] == ["list"]


def test_a_sqlite_store_gets_a_claim_at_its_folder_and_needs_an_absolute_path() -> None:
    app = greetings("hello.example.com")
    app.store = sqlite("/data/hello.db")
    made = objects(app)
    claim = one(made, "PersistentVolumeClaim")["metadata"]["name"]
    pod = one(made, "Deployment")["spec"]["template"]["spec"]
    assert {"name": claim, "persistentVolumeClaim": {"claimName": claim}} in pod["volumes"]
    assert {"name": claim, "mountPath": "/data"} in pod["containers"][0]["volumeMounts"]
    app.store = sqlite("hello.db")
    with pytest.raises(ExtensionError) as failure:
        objects(app)
    assert failure.value.reason == "StorePathRelative"


async def test_a_server_accepts_every_object_without_a_warning(admin: RestClient) -> None:
    for obj in objects(greetings("dry.example.com", "v1", "v1beta1"), namespace="default"):
        await admin.apply(resource_of(obj), obj, field_manager="test", dry_run=True)
        made = await admin.create(resource_of(obj), obj, dry_run=True, field_validation="Strict")
        assert made["metadata"]["uid"]


HELLO = '''
from pydantic import BaseModel
from bowsprit.extension import App, Kind
app = App("hello.example.com")

class Spec(BaseModel):
    text: str = "hello"

@app.kind()
class Greeting(Kind):
    """A greeting."""
    spec: Spec = Spec()
'''


def test_the_command_prints_yaml_and_warns_of_the_keys_in_it(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(HELLO)
    result = CliRunner().invoke(manifests, [f"{tmp_path}/hello.py:app", "--image", "registry.example.com/hello:1"])
    assert result.exit_code == 0, result.output
    documents = list(yaml.safe_load_all(result.stdout))
    assert len(documents) == 15
    assert one(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]["image"].endswith("hello:1")
    assert one(documents, "Deployment")["spec"]["template"]["spec"]["containers"][0]["command"][-1] == "hello:app"
    assert "the output holds private keys" in result.stderr
    assert "keeps objects in memory" in result.stderr


def test_files_are_private_and_a_second_run_changes_none_of_them(tmp_path: Path) -> None:
    (tmp_path / "hello.py").write_text(HELLO)
    arguments = [f"{tmp_path}/hello.py:app", "--out-dir", str(tmp_path / "out")]
    first = CliRunner().invoke(manifests, arguments)
    assert first.exit_code == 0, first.output
    files = sorted((tmp_path / "out").iterdir())
    assert [str(path) for path in files] == first.stdout.split()
    assert {stat.S_IMODE(path.stat().st_mode) for path in files} == {0o600}
    before = {path.name: path.read_bytes() for path in files}
    assert CliRunner().invoke(manifests, arguments).exit_code == 0
    assert {path.name: path.read_bytes() for path in (tmp_path / "out").iterdir()} == before


@pytest.mark.parametrize(
    ("names", "days", "complaint"),
    [
        (["other.hello-system.svc"], 0, "it is not valid for hello.hello-system.svc: its DNS names are other."),
        ([], 0, "its DNS names are none (its subject is CN=hello)"),
        (["hello.hello-system.svc"], 500, "it expired at"),
        (["hello.hello-system.svc"], -5, "it is not valid before"),
        (["*.hello-system.svc"], 0, ""),
        (["HELLO.hello-system.svc"], 0, ""),
    ],
)
def test_what_is_wrong_with_a_certificate_is_told(names: list[str], days: int, complaint: str) -> None:
    pair = Authority.create("ca", now=NOW).issue_server("hello", names, now=NOW)
    told = certificate_problem(pair.cert_pem, ["hello.hello-system.svc"], NOW + datetime.timedelta(days=days))
    assert told.startswith(complaint) if complaint.startswith("it ") else complaint in told
    assert bool(told) == bool(complaint)


def test_a_chain_with_an_intermediate_leads_to_the_bundle_and_another_authority_does_not() -> None:
    from cryptography.hazmat.primitives import hashes, serialization
    from cryptography.hazmat.primitives.asymmetric import ec

    root = Authority.create("root", now=NOW)
    key = ec.generate_private_key(ec.SECP256R1())
    root_key = serialization.load_pem_private_key(root.pair.key_pem, None)
    assert isinstance(root_key, ec.EllipticCurvePrivateKey)
    middle = (
        x509.CertificateBuilder()
        .subject_name(x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "middle")]))
        .issuer_name(load_certificate(root.ca_pem).subject)
        .public_key(key.public_key())
        .serial_number(7)
        .not_valid_before(NOW - datetime.timedelta(days=1))
        .not_valid_after(NOW + datetime.timedelta(days=1))
        .add_extension(x509.BasicConstraints(ca=True, path_length=None), critical=True)
        .sign(root_key, hashes.SHA256())
        .public_bytes(serialization.Encoding.PEM)
    )
    from bowsprit.pki.keypair import KeyPair

    key_pem = key.private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption()
    )
    leaf = Authority(KeyPair(middle, key_pem)).issue_server("a", ["a"], now=NOW)
    assert chain_problem(leaf.cert_pem + middle, root.ca_pem, NOW) == ""
    assert "unknown authority" in chain_problem(leaf.cert_pem, root.ca_pem, NOW)
    assert "unknown authority" in chain_problem(leaf.cert_pem + middle, Authority.create("root").ca_pem, NOW)
    assert "expired" in chain_problem(leaf.cert_pem + middle, root.ca_pem, NOW + datetime.timedelta(days=4000))


@pytest.mark.parametrize(
    ("spec", "called"),
    [
        ("hello:app", "hello:app"),
        ("my-kind:app", "my_kind:app"),
        ("some/where/hello.py:app", "hello:app"),
        ("package.hello:server", "package.hello:server"),
    ],
)
def test_the_container_calls_the_app_by_a_name_that_can_be_imported(spec: str, called: str) -> None:
    assert ManifestOptions(spec=spec).checked(greetings("hello.example.com")).spec == called
