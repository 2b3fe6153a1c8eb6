"""Certificate signing requests: who is signed, for how long, and when requests go."""

from __future__ import annotations

import base64
from datetime import UTC, datetime, timedelta
from typing import Any

import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec
from cryptography.x509.oid import ExtendedKeyUsageOID, NameOID

from bowsprit.client.resources import CERTIFICATE_SIGNING_REQUESTS
from bowsprit.controllers.certificates import CLIENT, KUBELET_CLIENT, KUBELET_SERVING, LEGACY, due, lifetime, problem_of
from bowsprit.machinery.objects import find_condition
from bowsprit.machinery.time import format_time
from bowsprit.pki.authority import Authority
from bowsprit.pki.errors import PKIError
from bowsprit.pki.signing_request import SigningRequest, sign

NOW = datetime(2026, 1, 1, 12, tzinfo=UTC)
CLIENT_USAGES = {"digital signature", "client auth"}


def pem(common_name: str, *organizations: str, dns: tuple[str, ...] = ()) -> bytes:
    names = [x509.NameAttribute(NameOID.ORGANIZATION_NAME, name) for name in organizations]
    builder = x509.CertificateSigningRequestBuilder().subject_name(
        x509.Name([*names, x509.NameAttribute(NameOID.COMMON_NAME, common_name)])
    )
    if dns:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(name) for name in dns]), False)
    made = builder.sign(ec.generate_private_key(ec.SECP256R1()), hashes.SHA256())
    return made.public_bytes(serialization.Encoding.PEM)


@pytest.mark.parametrize(
    ("signer", "request_pem", "usages", "problem"),
    [
        (CLIENT, pem("jane", "devs"), CLIENT_USAGES, ""),
        (CLIENT, pem("jane"), {"server auth", "client auth"}, "invalid usage for client certificate: server auth"),
        (CLIENT, pem("jane"), {"digital signature"}, "missing required usage for client certificate: client auth"),
        (KUBELET_CLIENT, pem("system:node:a", "system:nodes"), CLIENT_USAGES, ""),
        (KUBELET_CLIENT, pem("system:node:a"), CLIENT_USAGES, "subject organization is not system:nodes"),
        (KUBELET_CLIENT, pem("a", "system:nodes"), CLIENT_USAGES, "subject common name does not begin with system:node:"),
        (KUBELET_CLIENT, pem("system:node:a", "system:nodes", dns=("a",)), CLIENT_USAGES, "DNS subjectAltNames are not allowed"),
        (KUBELET_CLIENT, pem("system:node:a", "system:nodes"), {"client auth"},
         "usages did not match [client auth digital signature key encipherment]"),
        (KUBELET_SERVING, pem("system:node:a", "system:nodes"), {"digital signature", "server auth"},
         "DNS or IP subjectAltName is required"),
        (KUBELET_SERVING, pem("system:node:a", "system:nodes", dns=("a",)), {"digital signature", "server auth"}, ""),
        (LEGACY, pem("anyone"), {"any"}, ""),
    ],
)  # fmt: skip
def test_signers_sign_what_upstreams_sign(signer: str, request_pem: bytes, usages: set[str], problem: str) -> None:
    assert problem_of(signer, SigningRequest.read(request_pem), usages) == problem


def test_a_certificate_has_the_requests_key_names_and_usages() -> None:
    authority = Authority.create("ca", now=NOW)
    request = SigningRequest.read(pem("jane", "devs", dns=("jane.example",)))
    made = x509.load_pem_x509_certificate(sign(authority, request, CLIENT_USAGES, timedelta(hours=1), NOW))
    made.verify_directly_issued_by(x509.load_pem_x509_certificate(authority.ca_pem))
    assert made.subject == request.parsed.subject
    assert made.public_key() == request.parsed.public_key()
    assert (made.not_valid_before_utc, made.not_valid_after_utc) == (
        NOW - timedelta(minutes=5),
        NOW + timedelta(hours=1),
    )
    assert list(made.extensions.get_extension_for_class(x509.ExtendedKeyUsage).value) == [
        ExtendedKeyUsageOID.CLIENT_AUTH
    ]
    assert made.extensions.get_extension_for_class(x509.KeyUsage).value.digital_signature
    assert not made.extensions.get_extension_for_class(x509.BasicConstraints).value.ca
    alternative = made.extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    assert alternative.get_values_for_type(x509.DNSName) == ["jane.example"]
    ages = sign(authority, request, CLIENT_USAGES, timedelta(days=100_000), NOW)
    assert x509.load_pem_x509_certificate(ages).not_valid_after_utc == authority.not_after
    with pytest.raises(PKIError, match="unrecognized usage: world domination"):
        sign(authority, request, ["world domination"], timedelta(hours=1), NOW)
    with pytest.raises(PKIError, match="has expired"):
        sign(authority, request, CLIENT_USAGES, timedelta(hours=1), authority.not_after)


@pytest.mark.parametrize(
    "data", [b"", b"x", b"-----BEGIN CERTIFICATE REQUEST-----\nAAAA\n-----END CERTIFICATE REQUEST-----\n"]
)
def test_what_is_no_request_is_refused(data: bytes) -> None:
    with pytest.raises(PKIError, match="malformed"):
        SigningRequest.read(data)


async def test_an_approved_request_is_signed_and_a_wrong_one_fails(cluster: Any) -> None:
    async def ask(name: str, usages: list[str]) -> None:
        spec = {"request": base64.b64encode(pem("jane")).decode(), "signerName": CLIENT, "usages": usages}
        made = await cluster.create(CERTIFICATE_SIGNING_REQUESTS, {"metadata": {"name": name}, "spec": spec})
        approved = {
            "type": "Approved",
            "status": "True",
            "reason": "Test",
            "message": "",
            "lastUpdateTime": format_time(datetime.now(UTC)),
        }
        made = {**made, "kind": "CertificateSigningRequest", "apiVersion": "certificates.k8s.io/v1"}
        await cluster.update(
            CERTIFICATE_SIGNING_REQUESTS, {**made, "status": {"conditions": [approved]}}, subresource="approval"
        )

    def status(name: str) -> dict[str, Any]:
        return dict(cluster.find(CERTIFICATE_SIGNING_REQUESTS, name, None).get("status") or {})

    await ask("jane", ["client auth"])
    await ask("serving", ["client auth", "server auth"])
    await cluster.eventually(lambda: "certificate" in status("jane"))
    issued = x509.load_pem_x509_certificate(base64.b64decode(status("jane")["certificate"]))
    assert issued.issuer.rfc4514_string() == "CN=signer"
    await cluster.eventually(lambda: find_condition({"status": status("serving")}, "Failed"))
    assert "certificate" not in status("serving")


def test_lifetimes_and_the_cleaners_times() -> None:
    assert lifetime({}) == timedelta(days=365)
    assert lifetime({"expirationSeconds": 60}) == timedelta(minutes=10)
    assert lifetime({"expirationSeconds": 3600}) == timedelta(hours=1)
    item: dict[str, Any] = {"metadata": {"creationTimestamp": "2026-01-01T12:00:00Z"}, "status": {}}
    assert due(item, NOW) == NOW + timedelta(hours=24)
    approved = {"type": "Approved", "status": "True", "lastUpdateTime": "2026-01-01T13:00:00Z"}
    item["status"] = {"conditions": [approved]}
    assert due(item, NOW) == NOW + timedelta(hours=25)
    item["status"]["certificate"] = base64.b64encode(b"x").decode()
    assert due(item, NOW) == NOW + timedelta(hours=2)
    item["status"] = {"conditions": [{**approved, "type": "Denied"}]}
    assert due(item, NOW) == NOW + timedelta(hours=2)
