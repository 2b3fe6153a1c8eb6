"""The protocols of authentication and authorization; their implementations live in the subpackages of those names."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from enum import Enum
from typing import Any, Protocol

from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.errors import StatusError, forbidden
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupResource


@dataclass(slots=True)
class Connection:
    """One client connection. Authenticators may keep what they verified in `cache` for the connection's life."""

    peer_certificate: bytes | None  # DER of the leaf; NOT verified by the TLS layer, only proven to be held by the peer
    peer_chain: Sequence[bytes] = ()  # DER of the further certificates sent, unverified
    peer_address: str = ""
    cache: dict[str, Any] = field(default_factory=dict)


@dataclass(frozen=True, slots=True)
class Credentials:
    """What a request shows about its sender. Header names are looked up case-insensitively."""

    headers: Mapping[str, str]  # a multidict: .getall(name, []) gives repeated headers
    connection: Connection
    protocols: Sequence[str] = ()  # Sec-WebSocket-Protocol values (base64url.bearer.authorization.k8s.io.<token>)


@dataclass(frozen=True, slots=True)
class Authenticated:
    """The result of authentication. `audiences` are those of the token that match the server's, if any were asked."""

    user: UserInfo
    audiences: tuple[str, ...] = ()


class Authenticator(Protocol):
    """Decides who sent a request."""

    async def authenticate(self, credentials: Credentials) -> Authenticated | None:
        """The user, or None if these credentials are not of this authenticator's kind.

        Raises errors.unauthorized (any StatusError) when they are, but are not good.
        """
        ...


class Decision(Enum):
    """What an authorizer says."""

    ALLOW = "allow"
    DENY = "deny"
    NO_OPINION = "no opinion"


@dataclass(frozen=True, slots=True)
class Attributes:
    """What is to be authorized (upstream authorizer.Attributes)."""

    user: UserInfo
    verb: str  # get list watch create update patch delete deletecollection; lower-case HTTP method for non-resources
    group: str = ""
    version: str = ""
    resource: str = ""
    subresource: str = ""
    namespace: str = ""
    name: str = ""
    path: str = ""  # only meaningful for non-resource requests
    resource_request: bool = True
    field_selector: str = ""
    label_selector: str = ""


class Authorizer(Protocol):
    """Decides whether an authenticated user may do something."""

    async def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        """The decision and, for anything but ALLOW, the reason shown to the user ("" if there is none)."""
        ...


class Impersonator(Protocol):
    """Turns the Impersonate-* headers into another user, checking the right to do so."""

    async def impersonate(self, user: UserInfo, headers: Mapping[str, str], request: Attributes) -> UserInfo | None:
        """The user to act as, None if no impersonation is asked; `request` is what that user wants to do.

        Raises forbidden, bad_request, internal_error.
        """
        ...


def forbidden_error(attributes: Attributes, reason: str) -> StatusError:
    """The 403 for a request that no authorizer allowed (upstream responsewriters.Forbidden)."""
    who = f"User {quote(attributes.user.name)} cannot {attributes.verb}"
    if not attributes.resource_request:
        text = f"{who} path {quote(attributes.path)}"
    else:
        resource = attributes.resource + (f"/{attributes.subresource}" if attributes.subresource else "")
        text = f"{who} resource {quote(resource)} in API group {quote(attributes.group)} "
        text += f"in the namespace {quote(attributes.namespace)}" if attributes.namespace else "at the cluster scope"
    if reason:
        text += f": {reason}"
    return forbidden(GroupResource(attributes.group, attributes.resource), attributes.name, text)


class AllowAlways:
    """Authorizer of servers without one (tests, toys)."""

    async def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        return Decision.ALLOW, ""


class FixedUser:
    """Authenticator that takes everybody for one user (tests, toys)."""

    def __init__(self, user: UserInfo) -> None:
        self._authenticated = Authenticated(user)

    async def authenticate(self, credentials: Credentials) -> Authenticated | None:
        return self._authenticated
