"""Rules for CertificateSigningRequests (upstream pkg/apis/certificates/validation)."""

from __future__ import annotations

import base64
import re

from bowsprit.controlplane.countrules import one_of
from bowsprit.controlplane.gostructs import difference
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_subdomain

_SHORTEST = 600
_HEADER = b"-----BEGIN CERTIFICATE REQUEST-----"
_USAGES = sorted(
    (
        "any",
        "cert sign",
        "client auth",
        "code signing",
        "content commitment",
        "crl sign",
        "data encipherment",
        "decipher only",
        "digital signature",
        "email protection",
        "encipher only",
        "ipsec end system",
        "ipsec tunnel",
        "ipsec user",
        "key agreement",
        "key encipherment",
        "microsoft sgc",
        "netscape sgc",
        "ocsp signing",
        "s/mime",
        "server auth",
        "signing",
        "timestamping",
    )
)


def signing_request_errors(obj: Obj) -> list[FieldError]:
    """A CertificateSigningRequest to be created."""
    spec, where = obj.get("spec") or {}, path("spec")
    errors: list[FieldError] = []
    request = spec.get("request") or ""
    if not base64.b64decode(request).lstrip().startswith(_HEADER):
        detail = "PEM block type must be CERTIFICATE REQUEST"
        errors.append(fielderrors.invalid(where.child("request"), request, detail))
    usages = spec.get("usages") or []
    if not usages:
        errors.append(fielderrors.required(where.child("usages")))
    for index, usage in enumerate(usages):
        place = where.child("usages").index(index)
        errors += one_of(usage, _USAGES, place)
        if usage in usages[:index]:
            errors.append(fielderrors.duplicate(place, usage))
    errors += _signer_name(spec.get("signerName", ""), where.child("signerName"))
    seconds = spec.get("expirationSeconds")
    if seconds is not None and seconds < _SHORTEST:
        detail = "may not specify a duration less than 600 seconds (10 minutes)"
        errors.append(fielderrors.invalid(where.child("expirationSeconds"), seconds, detail))
    return errors


def _signer_name(name: str, where: Path) -> list[FieldError]:
    if not name:
        return [fielderrors.required(where)]
    domain, _, rest = name.partition("/")
    if not rest or "." not in domain:
        detail = "must be a fully qualified domain and path of the form 'example.com/signer-name'"
        return [fielderrors.invalid(where, name, detail)]
    return [fielderrors.invalid(where, domain, text) for text in is_dns1123_subdomain(domain)]


_TRUE_ONLY = ("Approved", "Denied", "Failed")
_CERTIFICATE = re.compile(r"-----BEGIN CERTIFICATE-----\s[\s\S]+?-----END CERTIFICATE-----")


def signing_request_status_errors(new: Obj, old: Obj, *, approval: bool) -> list[FieldError]:
    """A change through ``/approval`` or ``/status``: decisions stay, and the certificate is set once."""
    after, before = new.get("status") or {}, old.get("status") or {}
    conditions, had = after.get("conditions") or [], before.get("conditions") or []
    where = path("status", "conditions")
    errors = _condition_errors(conditions, where)
    for kind in _TRUE_ONLY:
        now, was = ([item for item in side if item.get("type") == kind] for side in (conditions, had))
        if len(now) < len(was):
            errors.append(fielderrors.forbidden(where, f'updates may not remove a condition of type "{kind}"'))
        elif not approval and kind != "Failed":
            if len(now) > len(was):
                errors.append(fielderrors.forbidden(where, f'updates may not add a condition of type "{kind}"'))
            elif changes := difference("[]CertificateSigningRequestCondition", was, now):
                detail = f'updates may not modify a condition of type "{kind}"\n{changes}'
                errors.append(fielderrors.forbidden(where, detail))
    given, place = after.get("certificate") or "", path("status", "certificate")
    if given != (before.get("certificate") or ""):
        text = base64.b64decode(given).decode("utf-8", "replace")
        if not _CERTIFICATE.search(text):
            detail = "must contain at least one CERTIFICATE PEM block"
            errors.append(fielderrors.invalid(place, "<certificate data>", detail))
        if approval:
            errors.append(fielderrors.forbidden(place, "updates may not set certificate content"))
        elif before.get("certificate"):
            errors.append(fielderrors.forbidden(place, "updates may not modify existing certificate content"))
    return errors


def _condition_errors(conditions: list[Obj], where: Path) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: list[str] = []
    for index, condition in enumerate(conditions):
        kind, status, place = condition.get("type", ""), condition.get("status", ""), where.index(index)
        allowed = ["True"] if kind in _TRUE_ONLY else ["False", "True", "Unknown"]
        if not kind:
            errors.append(fielderrors.required(place.child("type")))
        if not status:
            errors.append(fielderrors.required(place.child("status")))
        elif status not in allowed:
            errors.append(fielderrors.not_supported(place.child("status"), status, allowed))
        other = {"Approved": "Denied", "Denied": "Approved"}.get(kind)
        if other in seen:
            detail = "Approved and Denied conditions are mutually exclusive"
            errors.append(fielderrors.invalid(where, kind, detail))
        if kind in seen:
            errors.append(fielderrors.duplicate(place.child("type"), kind))
        seen.append(kind)
    return errors
