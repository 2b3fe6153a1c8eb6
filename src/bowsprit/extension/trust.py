"""Whom the core API server vouches for: ConfigMap kube-system/extension-apiserver-authentication, followed live.

It names the authorities of client certificates and of front proxies, and the headers in which a front proxy says who sends
a request. Upstream: k8s.io/apiserver pkg/server/options/authentication_dynamic_request_header.go and
dynamiccertificates.ConfigMapCAController.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Sequence
from typing import Any

from bowsprit.apiserver.access import Authenticated, Authenticator, Credentials
from bowsprit.apiserver.authentication.certificate import CertificateAuthenticator, Now, Roots
from bowsprit.apiserver.authentication.chain import AuthenticatorChain
from bowsprit.apiserver.authentication.front_proxy import FrontProxyAuthenticator, FrontProxyHeaders
from bowsprit.client.errors import ClientError
from bowsprit.client.informer import Handler, Informer
from bowsprit.client.rest import RestClient
from bowsprit.extension.errors import ExtensionError
from bowsprit.machinery.codec import DecodeError, decode_json
from bowsprit.machinery.errors import ForbiddenError, NotFoundError, StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj
from bowsprit.pki.errors import PKIError

logger = logging.getLogger("bowsprit.extension")

CONFIG_MAPS = GroupVersionResource("", "v1", "configmaps")
NAMESPACE, NAME = "kube-system", "extension-apiserver-authentication"
READER_ROLE = "extension-apiserver-authentication-reader"
_LOOKUP_SECONDS = 10.0


class DelegatedAuthenticator:
    """Front proxy, client certificate, token, anonymous, in upstream's order, under whatever is trusted now.

    Args:
        tokens: asks for tokens; None refuses them.
        client_ca: PEM in place of what the ConfigMap says of client certificates.
        proxy_ca, allowed_names: the same for front proxies.
    """

    def __init__(
        self,
        now: Now,
        tokens: Authenticator | None,
        *,
        client_ca: bytes = b"",
        proxy_ca: bytes = b"",
        allowed_names: Sequence[str] = (),
    ) -> None:
        self._now = now
        self._tokens = tokens
        self._fixed_client_ca, self._fixed_proxy_ca = client_ca, proxy_ca
        self._allowed_names = tuple(allowed_names)
        self._client_roots, self._proxy_roots = Roots(), Roots()
        self._headers = FrontProxyHeaders(allowed_names=self._allowed_names)
        self._known: dict[str, bytes] = {}
        self._has_read = False
        self.problem = "not read yet"
        """Why the ConfigMap is not in use, "" when it is."""
        self._trust({})
        self._chain = self._build()

    async def authenticate(self, credentials: Credentials) -> Authenticated:
        """See access.Authenticator."""
        return await self._chain.authenticate(credentials)

    async def check_read(self) -> None:
        """The readiness check: raises until the ConfigMap has been in use once."""
        if not self._has_read:
            raise RuntimeError(self.problem)

    def take(self, data: Obj) -> None:
        """Trusts what the ConfigMap's data says; what cannot be read leaves the old state, and says so."""
        try:
            headers = self._read_headers(data)
            self._trust(data)
        except (DecodeError, PKIError, ValueError) as failure:
            self.problem = f"ConfigMap {NAMESPACE}/{NAME}: {failure}"
            logger.error("%s; what was trusted before stays trusted", self.problem)
            return
        self.problem = ""
        self._has_read = True
        if not self._known.get("requestheader-client-ca-file"):
            logger.warning(
                "ConfigMap %s/%s names no front-proxy authority: requests through the aggregation layer will be anonymous",
                NAMESPACE,
                NAME,
            )
        self._headers = headers
        self._chain = self._build()

    def _trust(self, data: Obj) -> None:
        for roots, key, fixed in (
            (self._client_roots, "client-ca-file", self._fixed_client_ca),
            (self._proxy_roots, "requestheader-client-ca-file", self._fixed_proxy_ca),
        ):
            pem = fixed or str(data.get(key) or "").encode()
            if pem != self._known.get(key, b""):
                roots.replace(pem)
                self._known[key] = pem

    def _build(self) -> AuthenticatorChain:
        members: list[Authenticator] = [
            FrontProxyAuthenticator(self._proxy_roots, self._headers, self._now),
            CertificateAuthenticator(self._client_roots, self._now),
        ]
        if self._tokens is not None:
            members.append(self._tokens)
        return AuthenticatorChain(members, anonymous=True)

    def _read_headers(self, data: Obj) -> FrontProxyHeaders:
        def names(key: str, default: Sequence[str]) -> tuple[str, ...]:
            text = data.get(f"requestheader-{key}")
            if not text:
                return tuple(default)
            value: Any = decode_json(str(text).encode())
            if not isinstance(value, list) or not all(isinstance(item, str) for item in value):
                raise ValueError(f"requestheader-{key} is no list of texts")
            return tuple(value)

        # The uid header has no default: aggregators before 1.33 pass on what a client puts there.
        standard = FrontProxyHeaders()
        return FrontProxyHeaders(
            names("username-headers", standard.username),
            names("uid-headers", ()),
            names("group-headers", standard.group),
            names("extra-headers-prefix", standard.extra_prefix),
            self._allowed_names or names("allowed-names", ()),
        )


class ConfigFollower:
    """Keeps a DelegatedAuthenticator in step with the ConfigMap."""

    def __init__(self, client: RestClient, authenticator: DelegatedAuthenticator) -> None:
        self._client = client
        self._authenticator = authenticator
        self._informer: Informer | None = None

    async def start(self, *, tolerate: bool) -> None:
        """Reads the ConfigMap once, then follows it. Raises ExtensionError when it cannot be read, unless that is tolerated."""
        try:
            async with asyncio.timeout(_LOOKUP_SECONDS):
                found = await self._client.get(CONFIG_MAPS, NAME, namespace=NAMESPACE)
            self._authenticator.take(found.get("data") or {})
        except (StatusError, ClientError, TimeoutError) as failure:
            problem = _problem(failure)
            self._authenticator.problem = problem.message
            if not tolerate:
                raise problem from failure
            logger.error("%s; %s", problem.message, problem.hint)
        self._informer = Informer(
            self._client, CONFIG_MAPS, namespace=NAMESPACE, field_selector=f"metadata.name={NAME}"
        )
        self._informer.add_handler(
            Handler(
                on_add=lambda obj, _: self._authenticator.take(obj.get("data") or {}),
                on_update=lambda _, obj: self._authenticator.take(obj.get("data") or {}),
                on_delete=lambda _: logger.warning(
                    "ConfigMap %s/%s was deleted; its last state counts", NAMESPACE, NAME
                ),
            )
        )
        self._informer.start()

    async def stop(self) -> None:
        """Stop following."""
        if self._informer is not None:
            await self._informer.stop()


def _problem(failure: Exception) -> ExtensionError:
    where = f"ConfigMap {NAMESPACE}/{NAME} cannot be read"
    if isinstance(failure, ForbiddenError):
        return ExtensionError(
            f"{where}: {failure.message}",
            reason="AuthenticationConfigForbidden",
            hint=f"bind this server's account to Role {READER_ROLE} in {NAMESPACE}, "
            "or pass --authentication-skip-lookup",
        )
    if isinstance(failure, NotFoundError):
        return ExtensionError(
            f"{where}: it does not exist",
            reason="AuthenticationConfigMissing",
            hint="the core API server needs --requestheader-client-ca-file (or --client-ca-file)",
        )
    text = "timed out" if isinstance(failure, TimeoutError) else getattr(failure, "message", None) or str(failure)
    return ExtensionError(f"{where}: {text}", reason="CoreUnreachable", hint="check --kubeconfig and the network")
