"""Front-proxy headers: an aggregator says who sends the request, and proves itself with a client certificate.

Upstream: k8s.io/apiserver/pkg/authentication/request/headerrequest.
"""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import Any
from urllib.parse import unquote

from cryptography.x509 import Certificate
from cryptography.x509.oid import NameOID

from bowsprit.apiserver.access import Authenticated, Connection, Credentials
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
        if self._headers.allowed_names and not self._is_allowed(cert, credentials.connection):
            return None
        groups = [value for header in self._headers.group for value in _all(credentials.headers, header)]
        return Authenticated(
            UserInfo(
                name, _first(credentials.headers, self._headers.uid), tuple(groups), self._extra(credentials.headers)
            )
        )

    def _is_allowed(self, cert: Certificate, connection: Connection) -> bool:
        """Whether the certificate's first common name is; looked up once per connection."""
        known = connection.cache.get("front-proxy-name")
        if known is None or known[0] is not cert:
            names = cert.subject.get_attributes_for_oid(NameOID.COMMON_NAME)
            known = connection.cache["front-proxy-name"] = (cert, str(names[0].value) if names else None)
        return known[1] in self._headers.allowed_names

    def _extra(self, headers: Mapping[str, str]) -> dict[str, tuple[str, ...]]:
        extra: dict[str, tuple[str, ...]] = {}
        for prefix in self._headers.extra_prefix:
            for header, value in headers.items():
                key = _extra_key(header, prefix)
                if key is not None:
                    extra[key] = (*extra.get(key, ()), value)
        return extra


@lru_cache(1024)
def _extra_key(header: str, prefix: str) -> str | None:
    """The key of an extra value that a header carries; None for other headers."""
    return unquote(header[len(prefix) :].lower()) if header.lower().startswith(prefix.lower()) else None


def _all(headers: Mapping[str, str], name: str) -> list[str]:
    multi: Any = headers
    values: list[str] = (
        multi.getall(name, []) if hasattr(multi, "getall") else [headers[name]] if name in headers else []
    )
    return values


def _first(headers: Mapping[str, str], names: Sequence[str]) -> str:
    return next((value for name in names if (value := headers.get(name, ""))), "")
