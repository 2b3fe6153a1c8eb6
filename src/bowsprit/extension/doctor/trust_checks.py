"""Checks 1 and 2: does the server learn, and believe, who sends a request?"""

from __future__ import annotations

from bowsprit.extension.certificates import chain_problem, validity_problem
from bowsprit.extension.doctor.finding import Finding, fail, ok, skip, warn
from bowsprit.extension.doctor.subject import Subject
from bowsprit.extension.trust import NAME, NAMESPACE
from bowsprit.machinery.codec import DecodeError, decode_json
from bowsprit.pki.authority import load_certificate, load_certificates
from bowsprit.pki.errors import PKIError

_WHERE = f"ConfigMap {NAMESPACE}/{NAME}"
_LISTS = ("username-headers", "group-headers", "extra-headers-prefix", "allowed-names", "uid-headers")
_FLAGS = "start kube-apiserver with --requestheader-client-ca-file and the other --requestheader-* flags"


async def check_authentication_config(subject: Subject) -> Finding:
    """The ConfigMap exists, its keys parse, its authorities have not expired."""
    if subject.config is None:
        return fail(f"{_WHERE} does not exist", _FLAGS)
    data = subject.config.get("data") or {}
    for key in _LISTS:
        text = data.get(f"requestheader-{key}")
        if text is None:
            continue
        try:
            value: object = decode_json(text.encode())
        except DecodeError as failure:
            return fail(
                f"{_WHERE}: requestheader-{key} is not JSON: {failure}", "kube-apiserver writes it: who else does?"
            )
        if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
            return fail(
                f"{_WHERE}: requestheader-{key} is no list of texts", "kube-apiserver writes it: who else does?"
            )
    if not data.get("requestheader-client-ca-file"):
        return fail(f"{_WHERE} names no front-proxy authority: all requests arrive as anonymous ones", _FLAGS)
    for key in ("requestheader-client-ca-file", "client-ca-file"):
        try:
            found = load_certificates(data[key].encode()) if data.get(key) else []
        except PKIError as failure:
            return fail(f"{_WHERE}: {key}: {failure.message}", "correct the file that kube-apiserver's flag names")
        problems = [text for one in found if (text := validity_problem(one, subject.now()))]
        if problems and len(problems) == len(found):
            return fail(
                f"{_WHERE}: {key}: {problems[0]}", "renew that authority (kubeadm certs renew front-proxy-client)"
            )
        if problems:
            return warn(f"{_WHERE}: one of the authorities in {key}: {problems[0]}", "remove it from the file")
    if not data.get("client-ca-file"):
        return warn(f"{_WHERE} has no client-ca-file: client certificates are refused on direct connections")
    return ok(f"{_WHERE} names {len(_LISTS)} settings and valid authorities")


async def check_front_proxy(subject: Subject) -> Finding:
    """The API server's client certificate is of the published authority, its name among the allowed ones; it is believed."""
    data = (subject.config or {}).get("data") or {}
    try:
        allowed = decode_json((data.get("requestheader-allowed-names") or "[]").encode())
    except DecodeError:
        return skip("the allowed names cannot be read, see authentication-config")
    if subject.proxy_certificate:
        finding = _judge_certificate(subject, list(allowed), str(data.get("requestheader-client-ca-file") or ""))
        if finding is not None:
            return finding
    names = ", ".join(allowed) or "any"
    _, reason, message = subject.availability
    if reason == "FailedDiscoveryCheck" and any(f": {code}" in message for code in (401, 403)):
        return fail(
            f"the server does not believe the API server's identity headers ({message}); allowed names: {names}",
            "the common name of --proxy-client-cert-file must be among --requestheader-allowed-names, its authority the "
            "published one; a server that reads them from flags or files of its own needs the same values",
        )
    if not subject.is_available:
        return skip("no request reaches the server, see available")
    anonymous = await _who(subject)
    if anonymous:
        return fail(
            f"requests arrive as {anonymous}, not as the user who sends them; allowed names: {names}",
            "compare --requestheader-allowed-names with the common name of --proxy-client-cert-file",
        )
    return ok(f"the server believes the API server's identity headers; allowed names: {names}")


def _judge_certificate(subject: Subject, allowed: list[str], authority: str) -> Finding | None:
    from cryptography.x509.oid import NameOID

    try:
        certificate = load_certificate(subject.proxy_certificate)
    except PKIError as failure:
        return fail(f"the front proxy's client certificate: {failure.message}")
    held = certificate.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
    common_name = str(held[0].value) if held else ""
    if text := validity_problem(certificate, subject.now()):
        return fail(
            f"the front proxy's client certificate: {text}", "renew it; kube-apiserver reads it again by itself"
        )
    if allowed and common_name not in allowed:
        return fail(
            f"the front proxy's common name {common_name!r} is not among the allowed names {', '.join(allowed)}",
            "issue that certificate for one of these names, or change --requestheader-allowed-names",
        )
    problem = chain_problem(subject.proxy_certificate, authority.encode(), subject.now())
    if problem:
        return fail(
            f"the front proxy's client certificate: {problem}", "--requestheader-client-ca-file must have issued it"
        )
    return None


async def _who(subject: Subject) -> str:
    """Somebody else than the caller as whom a refused request arrives; "" when the caller does."""
    for resource in subject.resources:
        if "list" not in (resource.get("verbs") or ()):
            continue
        path = f"/apis/{subject.group}/{subject.version}/{resource['name']}"
        answer = await subject.client.raw("GET", path, params={"limit": "1"}, timeout=10.0)
        text = answer.body.decode("utf-8", "replace")
        if answer.status == 401:
            return "somebody unknown"
        if answer.status == 403:
            for name in ("system:anonymous", "front-proxy-client"):
                if name in text:
                    return name
        return ""
    return ""
