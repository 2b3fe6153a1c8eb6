"""The server's own certificate and keys: those of the flags, or self-made ones in the certificate folder.

Upstream: k8s.io/apiserver/pkg/server/options/serving.go (MaybeDefaultWithSelfSignedCerts). A self-made certificate is signed
by an authority whose key is thrown away; it is made anew when it is about to expire or its names no longer fit. Beyond
upstream, the key of ServiceAccount tokens is made as well.
"""

from __future__ import annotations

import datetime
import ipaddress
import ssl
from dataclasses import dataclass
from pathlib import Path

from bowsprit.apiserver.authentication.serviceaccount import TokenSettings
from bowsprit.controlplane.options import APIServerOptions
from bowsprit.pki.errors import PKIError
from bowsprit.pki.files import read_file, write_private
from bowsprit.pki.signing import PublicKey, load_signing_key, load_verification_keys, new_signing_key
from bowsprit.pki.trusting import trusting

_CERT, _KEY, _SIGNING_KEY = "apiserver.crt", "apiserver.key", "sa.key"
_LOCAL_ADDRESSES = ("127.0.0.1", "::1")
_DNS_NAMES = (
    "kubernetes.default.svc.cluster.local",
    "kubernetes.default.svc",
    "kubernetes.default",
    "kubernetes",
    "localhost",
)


@dataclass(frozen=True, slots=True)
class ServingFiles:
    """The files to serve with."""

    cert: Path
    key: Path


def service_address(options: APIServerOptions) -> str:
    """The ClusterIP of default/kubernetes: the first address of the first range."""
    network = ipaddress.ip_network(options.service_cluster_ip_range.split(",")[0].strip())
    return str(network[1])


def serving_files(options: APIServerOptions, now: datetime.datetime) -> ServingFiles:
    """The serving certificate; made when the flags name none and there is no good one.

    Raises:
        PKIError: a file cannot be read.
    """
    if options.tls_cert_file is not None and options.tls_private_key_file is not None:
        return ServingFiles(options.tls_cert_file, options.tls_private_key_file)
    files = ServingFiles(options.folder / _CERT, options.folder / _KEY)
    addresses = _addresses(options)
    names = [*_DNS_NAMES, *([options.external_hostname] if options.external_hostname else [])]
    if not _is_good(files, names, addresses, now):
        from bowsprit.pki.authority import Authority
        from bowsprit.pki.keypair import KeyPair

        options.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
        authority = Authority.create(f"{options.advertised}-ca@{int(now.timestamp())}", days=365, now=now)
        pair = authority.issue_server(options.advertised, names, addresses, days=365, now=now)
        KeyPair(pair.cert_pem + authority.ca_pem, pair.key_pem).save(files.cert, files.key)
    return files


def _addresses(options: APIServerOptions) -> list[str]:
    found = [*_LOCAL_ADDRESSES, options.advertised, service_address(options)]
    if not ipaddress.ip_address(options.bind_address).is_unspecified:
        found.append(options.bind_address)
    return list(dict.fromkeys(found))


def _is_good(files: ServingFiles, names: list[str], addresses: list[str], now: datetime.datetime) -> bool:
    if not (files.cert.is_file() and files.key.is_file()):
        return False
    from cryptography import x509

    from bowsprit.pki.authority import load_certificate, needs_renewal

    try:
        pem = read_file(files.cert)
        served = load_certificate(pem).extensions.get_extension_for_class(x509.SubjectAlternativeName).value
    except (PKIError, x509.ExtensionNotFound, ValueError):
        return False
    have = {str(item) for item in served.get_values_for_type(x509.IPAddress)}
    have |= set(served.get_values_for_type(x509.DNSName))
    wanted = {*names, *(str(ipaddress.ip_address(address)) for address in addresses)}
    return wanted <= have and not needs_renewal(pem, now)


def token_settings(options: APIServerOptions) -> TokenSettings:
    """Issuer and keys of ServiceAccount tokens; the signing key is made when the flags name none.

    Raises:
        PKIError: a key cannot be read.
    """
    path = options.service_account_signing_key_file
    if path is None:
        path = options.folder / _SIGNING_KEY
        if not path.is_file():
            options.folder.mkdir(parents=True, exist_ok=True, mode=0o700)
            write_private(path, new_signing_key())
    signing = load_signing_key(read_file(path))
    keys: list[PublicKey] = []
    for file in options.service_account_key_file:
        keys += load_verification_keys(read_file(file))
    return TokenSettings(
        options.service_account_issuer,
        options.audiences,
        signing,
        keys or [signing.public_key()],
        options.service_account_extend_token_expiration,
    )


def kubelet_context(options: APIServerOptions) -> ssl.SSLContext:
    """The TLS context for kubelets: with the server's client certificate, and verifying when an authority is given.

    Raises:
        PKIError: a file cannot be used.
    """
    authority = options.kubelet_certificate_authority
    try:
        context = trusting(authority.read_bytes() if authority is not None else b"")
        if authority is None:  # upstream: without --kubelet-certificate-authority the kubelet is not verified
            context.check_hostname = False
            context.verify_mode = ssl.CERT_NONE
        if options.kubelet_client_certificate is not None and options.kubelet_client_key is not None:
            context.load_cert_chain(options.kubelet_client_certificate, options.kubelet_client_key)
    except (OSError, ssl.SSLError) as exc:
        raise PKIError(f"cannot use the kubelet client certificate or authority: {exc}") from exc
    return context
