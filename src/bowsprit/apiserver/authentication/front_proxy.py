"""Front-proxy headers: an aggregator says who sends the request, and proves itself with a client certificate.

Upstream: k8s.io/apiserver/pkg/authentication/request/headerrequest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from typing import Any
from urllib.parse import unquote

from cryptography.x509.oid import NameOID

from bowsprit.apiserver.access import Authenticated, Credentials
from bowsprit.apiserver.authentication.certificate import Now, Roots, VerifiedPeer
from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.errors import StatusError


@dataclass(frozen=True, slots=True)
class FrontProxyHeaders:
    """The header names of `--requestheader-*`; `allowed_names` empty allows every common name."""

    username: Sequence[str] = ("X-Remote-User",)
    uid: Sequence[str] = ()
    group: Sequence[str] = ("X-Remote-Group",)
    extra_prefix: Sequence[str] = ("X-Remote-Extra-",)
    allowed_names: Sequence[str] = ()


class FrontProxyAuthenticator:
    """`--requestheader-client-ca-file`. A certificate of another authority is left to the next authenticator."""

    def __init__(self, trust: Roots, headers: FrontProxyHeaders, now: Now) -> None:
        self._peer = VerifiedPeer(trust, "front-proxy", now)
        self._headers = headers

    async def authenticate(self, credentials: Credentials) -> Authenticated | None:
        """See access.Authenticator."""
        name = _first(credentials.headers, self._headers.username)
        if not name:
            return None
        try:
            cert = self._peer.certificate(credentials.connection)
        except StatusError:
            return None
        if cert is None:
            return None
        common_names = [str(item.value) for item in cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)]
        allowed = self._headers.allowed_names
        if allowed and not (common_names and common_names[0] in allowed):
            return None
        groups = [value for header in self._headers.group for value in _all(credentials.headers, header)]
        return Authenticated(
            UserInfo(
                name, _first(credentials.headers, self._headers.uid), tuple(groups), self._extra(credentials.headers)
            )
        )

    def _extra(self, headers: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
        extra: dict[str, tuple[str, ...]] = {}
        for prefix in self._headers.extra_prefix:
            for header, value in headers.items():
                if header.lower().startswith(prefix.lower()):
                    key = unquote(header[len(prefix) :].lower())
                    extra[key] = (*extra.get(key, ()), value)
        return extra


def _all(headers: Mapping[str, str], name: str) -> list[str]:
    multi: Any = headers
    values: list[str] = (
        multi.getall(name, []) if hasattr(multi, "getall") else [headers[name]] if name in headers else []
    )
    return values


def _first(headers: Mapping[str, str], names: Sequence[str]) -> str:
    return next((value for name in names if (value := headers.get(name, ""))), "")
