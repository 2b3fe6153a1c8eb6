"""Who may do what on this server: authenticators, authorizers and impersonation, put together from the flags.

Upstream: pkg/kubeapiserver/authenticator and pkg/kubeapiserver/authorizer.
"""

from __future__ import annotations

import datetime
import secrets
import time
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path

from bowsprit.apiserver.access import Authenticator, forbidden_error
from bowsprit.apiserver.authentication.bearer import (
    BearerAuthenticator,
    RememberedTokens,
    StaticTokens,
    TokenAuthenticator,
    TokenUnion,
)
from bowsprit.apiserver.authentication.certificate import CertificateAuthenticator, Trust
from bowsprit.apiserver.authentication.chain import AuthenticatorChain
from bowsprit.apiserver.authentication.front_proxy import FrontProxyAuthenticator, FrontProxyHeaders
from bowsprit.apiserver.authentication.serviceaccount import ServiceAccountTokens, TokenSettings
from bowsprit.apiserver.authorization.escalation import EscalationCheck
from bowsprit.apiserver.authorization.impersonation import HeaderImpersonator
from bowsprit.apiserver.authorization.modes import AuthorizerUnion, authorizer_for
from bowsprit.apiserver.authorization.rbac import RoleResolver
from bowsprit.apiserver.lookup import Listers
from bowsprit.controlplane.options import APIServerOptions


@dataclass(frozen=True, slots=True)
class Identity:
    """The server's judges."""

    authenticator: AuthenticatorChain
    tokens: TokenAuthenticator
    token_settings: TokenSettings
    authorizer: AuthorizerUnion
    impersonator: HeaderImpersonator
    resolver: RoleResolver | None  # None when RBAC is not among the modes
    escalation: EscalationCheck | None
    client_trust: Trust | None
    front_proxy_trust: Trust | None
    front_proxy: FrontProxyHeaders


def _utc_now() -> datetime.datetime:
    return datetime.datetime.now(datetime.UTC)


def build_identity(
    options: APIServerOptions,
    settings: TokenSettings,
    listers: Listers,
    monotonic: Callable[[], float] = time.monotonic,
) -> Identity:
    """Put together what the flags ask for.

    Raises:
        PKIError: a bundle cannot be read.
        ValueError: the token file or a mode cannot be used.
    """
    headers = FrontProxyHeaders(
        options.requestheader_username_headers,
        options.requestheader_uid_headers,
        options.requestheader_group_headers,
        options.requestheader_extra_headers_prefix,
        options.requestheader_allowed_names,
    )
    front_proxy_trust = _trust(options.requestheader_client_ca_file)
    client_trust = _trust(options.client_ca_file)
    members: list[Authenticator] = []
    if front_proxy_trust is not None:
        members.append(FrontProxyAuthenticator(front_proxy_trust, headers, _utc_now))
    if client_trust is not None:
        members.append(CertificateAuthenticator(client_trust, _utc_now))
    kinds: list[TokenAuthenticator] = []
    if options.token_auth_file is not None:
        kinds.append(StaticTokens.load(options.token_auth_file, options.audiences))
    kinds.append(ServiceAccountTokens(settings, listers, time.time))
    tokens = TokenUnion(kinds)
    remembered = RememberedTokens(tokens, secrets.token_bytes(32), monotonic)
    members.append(BearerAuthenticator(remembered))
    resolver = RoleResolver(listers)
    authorizer = authorizer_for(options.authorization_mode, listers, resolver)
    rbac = "RBAC" in options.authorization_mode
    return Identity(
        AuthenticatorChain(members, anonymous=options.anonymous),
        tokens,
        settings,
        authorizer,
        HeaderImpersonator(authorizer, forbidden_error),
        resolver if rbac else None,
        EscalationCheck(resolver, authorizer) if rbac else None,
        client_trust,
        front_proxy_trust,
        headers,
    )


def _trust(path: Path | None) -> Trust | None:
    return Trust(path) if path is not None else None
