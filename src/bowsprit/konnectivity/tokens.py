"""Authentication of agents by service account token (server.go authenticateAgentViaToken), with a short memory.

Upstream asks the API server for every Connect, of which agents make many; here an answer is good for ten seconds, and
several questions about one token at a time are one.
"""

from __future__ import annotations

import asyncio
import hashlib
from collections.abc import Callable, Sequence

from bowsprit.client.errors import ClientError
from bowsprit.client.rest import RestClient
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj

TOKEN_REVIEWS = GroupVersionResource("authentication.k8s.io", "v1", "tokenreviews")
_TTL = 10.0
_MAX_CACHED = 4096
_MAX_TOKEN = 32 * 1024


class TokenRejectedError(Exception):
    """The agent may not connect; the message is upstream's."""


class TokenAuthenticator:
    """Admits tokens of one service account, issued for one audience."""

    def __init__(
        self, client: RestClient, namespace: str, account: str, audience: str, clock: Callable[[], float]
    ) -> None:
        self._client = client
        self._namespace = namespace
        self._account = account
        self._audience = audience
        self._clock = clock
        self._good: dict[bytes, float] = {}
        self._asking: dict[bytes, asyncio.Future[None]] = {}

    async def authenticate(self, authorization: Sequence[str]) -> None:
        """Check the values of the ``authorization`` header. Raises TokenRejectedError."""
        if not authorization:
            raise TokenRejectedError("Authentication context was not found in metadata")
        if len(authorization) > 1:
            raise TokenRejectedError(f"too many ({len(authorization)}) tokens are received")
        if not authorization[0].startswith("Bearer "):
            raise TokenRejectedError('received token does not have "Bearer " prefix')
        token = authorization[0].removeprefix("Bearer ").strip()
        key = hashlib.sha256(token.encode()).digest()
        if self._good.get(key, 0.0) > self._clock():
            return
        asking = self._asking.get(key)
        if asking is None:
            asking = self._asking[key] = asyncio.ensure_future(self._ask(token))
            asking.add_done_callback(lambda _: self._asking.pop(key, None))
        try:
            await asyncio.shield(asking)
        except TokenRejectedError as exc:
            raise TokenRejectedError(f"Failed to validate authentication token, err:{exc}") from None
        if len(self._good) >= _MAX_CACHED:
            self._good.clear()
        self._good[key] = self._clock() + _TTL

    async def _ask(self, token: str) -> None:
        if len(token) > _MAX_TOKEN:
            raise TokenRejectedError("lookup failed: the token is too long")
        review: Obj = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenReview",
            "metadata": {},
            "spec": {"token": token, "audiences": [self._audience]},
        }
        try:
            answer = await self._client.create(TOKEN_REVIEWS, review)
        except (ClientError, StatusError, OSError) as exc:
            raise TokenRejectedError(f"Failed to authenticate request. err:{_as_go(exc)}") from exc
        self._check(answer.get("status") or {})

    def _check(self, status: Obj) -> None:
        if status.get("error"):
            raise TokenRejectedError(f"lookup failed: {status['error']}")
        if not status.get("authenticated"):
            raise TokenRejectedError("lookup failed: service account jwt not valid")
        audiences = status.get("audiences") or []
        if audiences and self._audience not in audiences:
            raise TokenRejectedError("lookup failed: service account jwt not valid")
        parts = str((status.get("user") or {}).get("username") or "").split(":")
        if len(parts) != 4:
            raise TokenRejectedError("lookup failed: unexpected username format")
        if parts[:2] != ["system", "serviceaccount"]:
            raise TokenRejectedError("lookup failed: username returned is not a service account")
        for got, wanted, what in (
            (parts[2], self._namespace, "namespace"),
            (parts[3], self._account, "service account"),
        ):
            if got != wanted:
                raise TokenRejectedError(
                    f"lookup failed: incoming request from {quote(got)} {what}. Expected {quote(wanted)}"
                )


def _as_go(exc: Exception) -> str:
    """``POST url: reason`` of our client as Go's ``Post "url": reason``."""
    method, space, rest = str(exc).partition(" ")
    url, colon, reason = rest.partition(": ")
    if method == "POST" and space and colon and "://" in url:
        return f"Post {quote(url)}: {reason}"
    return str(exc)
