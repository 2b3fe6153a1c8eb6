"""Who may read the scheduler's endpoints, as the API server says (delegated authentication and authorization).

Front-proxy headers and client certificates against the authorities of the flags or, where they name none, of ConfigMap
kube-system/extension-apiserver-authentication; tokens by TokenReview; everything by SubjectAccessReview.
"""

from __future__ import annotations

import logging
import time
from collections.abc import Callable
from dataclasses import dataclass, field
from datetime import UTC, datetime
from pathlib import Path
from typing import Any

import orjson

from bowsprit.apiserver.access import Authenticated, Connection, Credentials
from bowsprit.apiserver.authentication.certificate import CertificateAuthenticator, Roots, Trust
from bowsprit.apiserver.authentication.front_proxy import FrontProxyAuthenticator, FrontProxyHeaders
from bowsprit.apiserver.user import ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, SYSTEM_PRIVILEGED_GROUP, UserInfo
from bowsprit.client.rest import RestClient
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj
from bowsprit.pki.errors import PKIError
from bowsprit.scheduler.driver.writing import WRITE_ERRORS

log = logging.getLogger(__name__)

TOKEN_REVIEWS = GroupVersionResource("authentication.k8s.io", "v1", "tokenreviews")
ACCESS_REVIEWS = GroupVersionResource("authorization.k8s.io", "v1", "subjectaccessreviews")
CONFIG_MAPS = GroupVersionResource("", "v1", "configmaps")
NAMESPACE, NAME = "kube-system", "extension-apiserver-authentication"
_MAX_REMEMBERED = 1000
_LOOK_UP_EVERY = 60.0


@dataclass(frozen=True, slots=True)
class AccessOptions:
    """kube-scheduler's --client-ca-file, --requestheader-*, --authentication-* and --authorization-* flags.

    The factories make clients for reviews (owned and closed here); without them the scheduler's own client is used.
    """

    client_ca_file: Path | None = None
    front_proxy_ca_file: Path | None = None
    front_proxy: FrontProxyHeaders = field(default_factory=FrontProxyHeaders)
    skip_lookup: bool = False
    tolerate_lookup_failure: bool = True
    token_ttl: float = 10.0
    allowed_ttl: float = 10.0
    denied_ttl: float = 10.0
    authentication_client: Callable[[], RestClient] | None = None
    authorization_client: Callable[[], RestClient] | None = None


class LookupFailed(Exception):
    """The authorities could not be read, and the options do not tolerate that."""


class Access:
    """Answers who a request is from and whether it may go on."""

    def __init__(self, options: AccessOptions, client: RestClient, clock: Callable[[], float] = time.monotonic):
        self._options = options
        self._clock = clock
        self._owned: list[RestClient] = []
        self._authentication = self._own(options.authentication_client) or client
        self._authorization = self._own(options.authorization_client) or client
        self._remembered: dict[tuple[str, ...], tuple[float, Any]] = {}
        self._looked_up = float("-inf")
        self._clients: Roots = Trust(options.client_ca_file) if options.client_ca_file else Roots()
        self._proxies: Roots = Trust(options.front_proxy_ca_file) if options.front_proxy_ca_file else Roots()
        self._headers = options.front_proxy
        self._build()

    def _own(self, factory: Callable[[], RestClient] | None) -> RestClient | None:
        if factory is None:
            return None
        self._owned.append(client := factory())
        return client

    def _build(self) -> None:
        self._front_proxy = FrontProxyAuthenticator(self._proxies, self._headers, _now)
        self._certificate = CertificateAuthenticator(self._clients, _now)

    async def start(self) -> None:
        """Read the authorities. Raises LookupFailed."""
        await self._look_up()

    async def close(self) -> None:
        for client in self._owned:
            await client.close()

    async def _look_up(self) -> None:
        """Authorities that no flag names, from the ConfigMap; looked at once a minute."""
        options = self._options
        if options.skip_lookup or (options.client_ca_file and options.front_proxy_ca_file):
            return
        if self._clock() - self._looked_up < _LOOK_UP_EVERY:
            return
        self._looked_up = self._clock()
        try:
            found = (await self._authentication.get(CONFIG_MAPS, NAME, namespace=NAMESPACE)).get("data") or {}
            if not options.client_ca_file:
                self._clients.replace(str(found.get("client-ca-file") or "").encode())
            if not options.front_proxy_ca_file:
                self._proxies.replace(str(found.get("requestheader-client-ca-file") or "").encode())
                self._headers = _headers_of(found)
                self._build()
        except (*WRITE_ERRORS, PKIError, ValueError) as exc:
            if not options.tolerate_lookup_failure:
                raise LookupFailed(f"configmap {NAMESPACE}/{NAME} cannot be read: {exc}") from exc
            log.warning("configmap %s/%s cannot be read, client certificates may not work: %s", NAMESPACE, NAME, exc)

    # authentication

    async def who(self, headers: Any, connection: Connection) -> UserInfo | None:
        """The sender of a request (anonymous without credentials); None when the credentials are bad."""
        found: Authenticated | None = None
        if connection.peer_certificate is not None:
            try:
                await self._look_up()
            except LookupFailed as exc:
                log.warning("%s", exc)
            credentials = Credentials(headers, connection)
            found = await self._front_proxy.authenticate(credentials)
            if found is None:
                try:
                    found = await self._certificate.authenticate(credentials)
                except StatusError:
                    found = None  # of another authority: a token may still say who it is
        if found is not None:
            return _with_group(found.user, ALL_AUTHENTICATED)
        scheme, _, token = headers.get("Authorization", "").partition(" ")
        if scheme.lower() == "bearer" and token.strip():
            return await self._review(token.strip())
        return UserInfo(ANONYMOUS, "", (ALL_UNAUTHENTICATED,))

    async def _review(self, token: str) -> UserInfo | None:
        known = self._recall(("token", token))
        if known is None:
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
            try:
                status = (await self._authentication.create(TOKEN_REVIEWS, body)).get("status") or {}
            except WRITE_ERRORS as exc:
                log.warning("token cannot be reviewed: %s", exc)
                return None
            user = status.get("user") or {}
            known = (_user_of(user) if status.get("authenticated") and user.get("username") else None,)
            self._remember(("token", token), known, self._options.token_ttl)
        found: UserInfo | None = known[0]
        return found

    # authorization

    async def may(self, user: UserInfo, verb: str, path: str) -> bool:
        """Raises what the review raises."""
        if SYSTEM_PRIVILEGED_GROUP in user.groups:
            return True
        key = ("access", user.name, *user.groups, verb, path)
        known = self._recall(key)
        if known is None:
            spec: Obj = {
                "user": user.name,
                "groups": list(user.groups),
                "nonResourceAttributes": {"path": path, "verb": verb},
            }
            if user.uid:
                spec["uid"] = user.uid
            if user.extra:
                spec["extra"] = {name: list(values) for name, values in user.extra.items()}
            body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
            review = await self._authorization.create(ACCESS_REVIEWS, body)
            known = bool((review.get("status") or {}).get("allowed"))
            self._remember(key, known, self._options.allowed_ttl if known else self._options.denied_ttl)
        return bool(known)

    def _recall(self, key: tuple[str, ...]) -> Any:
        known = self._remembered.get(key)
        return known[1] if known is not None and known[0] > self._clock() else None

    def _remember(self, key: tuple[str, ...], value: Any, seconds: float) -> None:
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = (self._clock() + seconds, value)


def _now() -> datetime:
    return datetime.now(UTC)


def _with_group(user: UserInfo, group: str) -> UserInfo:
    return user if group in user.groups else UserInfo(user.name, user.uid, (*user.groups, group), user.extra)


def _user_of(user: Obj) -> UserInfo:
    extra = {name: tuple(values) for name, values in (user.get("extra") or {}).items()}
    return UserInfo(user["username"], user.get("uid") or "", tuple(user.get("groups") or ()), extra)


def _headers_of(found: Obj) -> FrontProxyHeaders:
    def listed(key: str) -> tuple[str, ...]:
        return tuple(orjson.loads(found.get(key) or "[]"))

    username, uid, group = (listed(f"requestheader-{kind}-headers") for kind in ("username", "uid", "group"))
    extra, allowed = listed("requestheader-extra-headers-prefix"), listed("requestheader-allowed-names")
    return FrontProxyHeaders(username, uid, group, extra, allowed)
