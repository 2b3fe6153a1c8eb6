"""Rules for CertificateSigningRequests (upstream pkg/apis/certificates/validation)."""

from __future__ import annotations

import base64

from bowsprit.controlplane.countrules import one_of
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
