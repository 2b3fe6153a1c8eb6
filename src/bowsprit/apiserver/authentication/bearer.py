"""Bearer tokens: taking one from a request, static tokens, and a short memory of what was verified.

Upstream: request/bearertoken, request/websocket, token/tokenfile, token/cache.
"""

from __future__ import annotations

import base64
import binascii
import csv
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Callable, Sequence
from pathlib import Path
from typing import Protocol

from bowsprit.apiserver.access import Authenticated, Credentials
from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.errors import unauthorized

_WEBSOCKET_PREFIX = "base64url.bearer.authorization.k8s.io."
_LONGEST_TOKEN = 64 << 10
_REMEMBERED = 4096
REMEMBER_SECONDS = 10.0


class TokenRefused(Exception):
    """A token is of a known kind, but not good; the text is for TokenReview."""


class TokenAuthenticator(Protocol):
    """Decides whom a token stands for."""

    async def authenticate_token(self, token: str, audiences: Sequence[str]) -> Authenticated | None:
        """The user and the matching audiences; None when the token is not of this kind.

        Args:
            token: the token.
            audiences: those to accept; the server's own when empty.

        Raises:
            TokenRefused: the token is of this kind, and not good.
        """
        ...


def bearer_token(credentials: Credentials) -> str:
    """The token of a request, "" without one."""
    scheme, _, token = credentials.headers.get("Authorization", "").strip().partition(" ")
    if scheme.lower() == "bearer" and token.strip():
        return token.strip()[: _LONGEST_TOKEN + 1]
    for protocol in credentials.protocols:
        if protocol.startswith(_WEBSOCKET_PREFIX):
            text = protocol.removeprefix(_WEBSOCKET_PREFIX)
            try:
                return base64.urlsafe_b64decode(text + "=" * (-len(text) % 4)).decode()
            except (binascii.Error, UnicodeDecodeError):
                raise unauthorized() from None
    return ""


class BearerAuthenticator:
    """Turns a token authenticator into one of requests."""

    def __init__(self, tokens: TokenAuthenticator) -> None:
        self._tokens = tokens

    async def authenticate(self, credentials: Credentials) -> Authenticated | None:
        """See access.Authenticator; a token that nobody knows is refused (upstream "invalid bearer token")."""
        token = bearer_token(credentials)
        if not token:
            return None
        try:
            found = await self._tokens.authenticate_token(token, ()) if len(token) <= _LONGEST_TOKEN else None
        except TokenRefused:
            raise unauthorized() from None
        if found is None:
            raise unauthorized()
        return found


class TokenUnion:
    """Asks several token authenticators in turn."""

    def __init__(self, members: Sequence[TokenAuthenticator]) -> None:
        self._members = list(members)

    async def authenticate_token(self, token: str, audiences: Sequence[str]) -> Authenticated | None:
        """See TokenAuthenticator; the refusals of all are joined in one text."""
        refusals: list[str] = []
        for member in self._members:
            try:
                found = await member.authenticate_token(token, audiences)
            except TokenRefused as exc:
                refusals.append(str(exc))
                continue
            if found is not None:
                return found
        if refusals:
            raise TokenRefused(refusals[0] if len(refusals) == 1 else f"[{', '.join(refusals)}]")
        return None


class RememberedTokens:
    """Keeps good answers for ten seconds, as upstream does; refusals are never kept.

    The memory is keyed by a keyed hash of the token, so that it holds no secrets.
    """

    def __init__(self, tokens: TokenAuthenticator, secret: bytes, clock: Callable[[], float]) -> None:
        self._tokens = tokens
        self._secret = secret
        self._clock = clock
        self._known: OrderedDict[bytes, tuple[float, Authenticated]] = OrderedDict()

    async def authenticate_token(self, token: str, audiences: Sequence[str]) -> Authenticated | None:
        """See TokenAuthenticator."""
        text = "\0".join([token, *audiences]).encode(errors="surrogatepass")
        key = hmac.digest(self._secret, text, hashlib.sha256)
        now = self._clock()
        known = self._known.get(key)
        if known is not None and known[0] > now:
            return known[1]
        found = await self._tokens.authenticate_token(token, audiences)
        if found is not None:
            self._known[key] = (now + REMEMBER_SECONDS, found)
            self._known.move_to_end(key)
            while len(self._known) > _REMEMBERED:
                self._known.popitem(last=False)
        return found


class StaticTokens:
    """`--token-auth-file`: lines of token, user, uid and optionally "group1,group2".

    Args:
        users: token to user.
        audiences: the server's own.
    """

    def __init__(self, users: dict[str, UserInfo], audiences: Sequence[str]) -> None:
        self._users = {hashlib.sha256(token.encode()).digest(): user for token, user in users.items()}
        self._audiences = tuple(audiences)

    @classmethod
    def load(cls, path: Path, audiences: Sequence[str]) -> StaticTokens:
        """Read the file.

        Raises:
            ValueError: it cannot be read, or a line is malformed; the text names the line, never the token.
        """
        try:
            text = path.read_text()
        except OSError as exc:
            raise ValueError(f"cannot read {path}: {exc.strerror}") from exc
        users: dict[str, UserInfo] = {}
        for number, row in enumerate(csv.reader(text.splitlines(), skipinitialspace=True), 1):
            if not row:
                continue
            if len(row) < 3:
                raise ValueError(
                    f"{path}:{number}: token file must have at least 3 columns (token, user name, user uid), found {len(row)}"
                )
            token = row[0].strip()
            if not token:
                continue
            groups = tuple(group.strip() for group in row[3].split(",")) if len(row) >= 4 and row[3] else ()
            users[token] = UserInfo(row[1], row[2], groups)
        return cls(users, audiences)

    async def authenticate_token(self, token: str, audiences: Sequence[str]) -> Authenticated | None:
        """See TokenAuthenticator. A static token is good for the server's audiences only."""
        user = self._users.get(hashlib.sha256(token.encode(errors="surrogatepass")).digest())
        if user is None:
            return None
        matching = tuple(item for item in self._audiences if item in audiences) if audiences else self._audiences
        if audiences and not matching:
            return None
        return Authenticated(user, matching)
