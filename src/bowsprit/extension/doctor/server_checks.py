"""Checks 6, 7 and 9: is the server who it must be, does it serve the group-version, is it well?"""

from __future__ import annotations

import re
from base64 import b64decode

from bowsprit.client.errors import ClientError
from bowsprit.client.resources import SECRETS
from bowsprit.extension.apiservices import hint_for
from bowsprit.extension.certificates import certificate_problem, chain_problem
from bowsprit.extension.doctor.finding import Finding, fail, ok, skip, warn
from bowsprit.extension.doctor.subject import Subject
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.objects import nested
from bowsprit.pki.authority import load_certificate, load_key, needs_renewal
from bowsprit.pki.errors import PKIError

_RENEW = "bowsprit extension rotate-certs (or whoever issues it); the name must be a DNS name of the certificate"


async def check_certificate(subject: Subject) -> Finding:
    """Name, authority, expiry of the served certificate; and that it is the one in the Secret."""
    if nested(subject.api_service, "spec", "insecureSkipTLSVerify"):
        return warn(
            "insecureSkipTLSVerify is set: anybody in the way can answer as this API", "set spec.caBundle instead"
        )
    mounted, problem = await _mounted(subject)
    if problem:
        return fail(problem, "write the pair anew: bowsprit extension rotate-certs")
    served = await subject.served_certificate()
    if served is None and mounted is None:
        _, reason, message = subject.availability
        if "x509" in message or "tls:" in message:
            return fail(message, hint_for(reason, message))
        if subject.is_available:
            return ok("the API server accepts the certificate (it cannot be seen from here)")
        return skip("no endpoint can be reached from here, and no Secret holds the certificate")
    leaf, verdict = served if served is not None else (mounted or b"", "")
    what = "the served certificate" if served is not None else "the certificate in the Secret"
    told = certificate_problem(leaf, [subject.server_name], subject.now()) or verdict
    if not told and served is None:
        told = chain_problem(leaf, subject.ca_bundle, subject.now())
    if told:
        hint = _RENEW if "valid for" in told or "expired" in told else hint_for("FailedDiscoveryCheck", f"x509: {told}")
        hint = "spec.caBundle must hold the authority of the serving certificate" if told == verdict else hint
        return fail(f"{what}: {told}", hint)
    if served is not None and mounted is not None and load_certificate(mounted) != load_certificate(leaf):
        return warn(
            "the server serves another certificate than its Secret holds",
            "mounted Secrets follow within a minute or so; a server that does not read it again must be restarted",
        )
    if needs_renewal(leaf, subject.now()):
        return warn(f"{what} expires at {load_certificate(leaf).not_valid_after_utc:%Y-%m-%d}", _RENEW)
    return ok(f"{what} is valid for {subject.server_name}, of the authority in caBundle")


async def _mounted(subject: Subject) -> tuple[bytes | None, str]:
    """The certificate (PEM) in a TLS Secret that a pod mounts; or what is wrong with that Secret."""
    for pod in subject.pods:
        for volume in pod["spec"].get("volumes") or ():
            name = nested(volume, "secret", "secretName")
            if not name:
                continue
            try:
                secret = await subject.client.get(SECRETS, name, namespace=pod["metadata"]["namespace"])
            except (StatusError, ClientError):
                continue
            data = {key: b64decode(value) for key, value in (secret.get("data") or {}).items()}
            if "tls.crt" in data:
                return data["tls.crt"], _pair_problem(name, data)
    return None, ""


def _pair_problem(name: str, data: dict[str, bytes]) -> str:
    try:
        certificate, key = load_certificate(data["tls.crt"]), load_key(data.get("tls.key", b""))
    except PKIError as failure:
        return f"Secret {name}: {failure.message}"
    return "" if certificate.public_key() == key.public_key() else f"Secret {name}: tls.key does not belong to tls.crt"


async def check_discovery(subject: Subject) -> Finding:
    """`/apis/<group>/<version>`, asked through the API server, is answered by the server with its resources."""
    path = f"/apis/{subject.group}/{subject.version}"
    if subject.discovery is None:
        return fail(f"{path}: {subject.discovery_failure}", "look at the server's log")
    if subject.discovery.status != 200:
        text = subject.discovery.body[:200].decode("utf-8", "replace").strip()
        hint = (
            "see available"
            if subject.discovery.status == 503
            else "the server must serve the group-version it is registered for"
        )
        return fail(f"{path} answers {subject.discovery.status}: {text}", hint)
    if subject.discovery_failure:
        return fail(f"{path}: {subject.discovery_failure}", "the answer must be an APIResourceList")
    if not subject.resources:
        return fail(f"{path} names no resource", "the answer must be an APIResourceList with resources")
    return ok(f"{path} names {', '.join(item['name'] for item in subject.resources)}")


async def check_ready(subject: Subject) -> Finding:
    """The server's own `/readyz`, which the aggregation layer never looks at."""
    found = await subject.ask("/readyz?verbose=true")
    if found is None:
        return skip(
            "the server's /readyz cannot be reached from here",
            f"kubectl get --raw /api/v1/namespaces/{subject.service_key[0]}/services/"
            f"https:{subject.service_key[1]}:{subject.service_port}/proxy/readyz?verbose",
        )
    status, body = found
    if status == 404:
        return warn("the server has no /readyz", "serve it, and let the readinessProbe ask it")
    failed = re.findall(r"^\[-\](\S+)", body, re.MULTILINE)
    if status != 200:
        which = ", ".join(failed) or body[:100].strip()
        state = "although its APIService is Available" if subject.is_available else "and not Available"
        hint = (
            "informers that may not list and watch never sync, and then every write waits 10 s and is refused: see permissions"
            if "informer" in which or "admission" in which
            else "look at the server's log"
        )
        return fail(f"the server is not ready {state}: {which}", hint)
    off = re.findall(r"^\[\+\]admission-off-(\S+)", body, re.MULTILINE)
    if off:
        return warn(f"the server does not honour the core's {', '.join(off)}", "see permissions")
    return ok("the server says that it is ready")
