"""Asking the core API server whom a token stands for (TokenReview) and what a user may do (SubjectAccessReview).

Answers are remembered for ten seconds, good and bad alike. Calls that fail for the server's or the network's reasons are tried
five times, from half a second on. Upstream: k8s.io/apiserver plugin/pkg/{authenticator/token,authorizer}/webhook and
pkg/authentication/token/cache.
"""

from __future__ import annotations

import asyncio
import hashlib
import hmac
from collections import OrderedDict
from collections.abc import Awaitable, Callable, Sequence
from typing import Generic, TypeVar

from bowsprit.apiserver.access import Attributes, Authenticated, Decision
from bowsprit.apiserver.authentication.bearer import TokenRefused
from bowsprit.apiserver.authorization.modes import ALWAYS_ALLOWED_PATHS
from bowsprit.apiserver.user import SYSTEM_PRIVILEGED_GROUP, UserInfo
from bowsprit.client.errors import ClientError
from bowsprit.client.rest import RestClient
from bowsprit.machinery.errors import StatusError, internal_error, unauthorized
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj

TOKEN_REVIEWS = GroupVersionResource("authentication.k8s.io", "v1", "tokenreviews")
ACCESS_REVIEWS = GroupVersionResource("authorization.k8s.io", "v1", "subjectaccessreviews")
REMEMBER_SECONDS = 10.0
CALL_SECONDS = 10.0
ALL_SECONDS = 30.0  # for all tries: the request that waits for the answer has a deadline of its own
TRIES, FIRST_PAUSE, GROWTH = 5, 0.5, 1.5
REMEMBERED_TOKENS = 4096
REMEMBERED_DECISIONS = 8192
LARGEST_REMEMBERED = 10_000  # characters of attributes; longer ones could fill the memory

Key = TypeVar("Key")
T = TypeVar("T")
Clock = Callable[[], float]
Sleep = Callable[[float], Awaitable[None]]


class Remembered(Generic[Key, T]):
    """The last answers, each for ten seconds; equal questions that are under way share one call."""

    def __init__(self, size: int, clock: Clock) -> None:
        self._size = size
        self._clock = clock
        self._known: OrderedDict[Key, tuple[float, T]] = OrderedDict()
        self._asking: dict[Key, asyncio.Task[T]] = {}

    async def get(self, key: Key, ask: Callable[[], Awaitable[T]]) -> T:
        """The remembered answer, or a new one."""
        known = self._known.get(key)
        if known is not None:
            if known[0] > self._clock():
                self._known.move_to_end(key)
                return known[1]
            del self._known[key]
        task = self._asking.get(key)
        if task is None:
            task = self._asking[key] = asyncio.ensure_future(self._ask(key, ask))
        # One client that gives up must not take the answer away from the others.
        return await asyncio.shield(task)

    async def _ask(self, key: Key, ask: Callable[[], Awaitable[T]]) -> T:
        try:
            answer = await ask()
            self._known[key] = (self._clock() + REMEMBER_SECONDS, answer)
            while len(self._known) > self._size:
                self._known.popitem(last=False)
            return answer
        finally:
            del self._asking[key]


async def persistently(call: Callable[[], Awaitable[Obj]], sleep: Sleep) -> Obj:
    """Tries a call until it is answered (upstream webhook.WithExponentialBackoff). Raises StatusError, ClientError, TimeoutError."""
    async with asyncio.timeout(ALL_SECONDS):
        return await _try(call, sleep)


async def _try(call: Callable[[], Awaitable[Obj]], sleep: Sleep) -> Obj:
    pause = FIRST_PAUSE
    for attempt in range(1, TRIES + 1):
        try:
            async with asyncio.timeout(CALL_SECONDS):
                return await call()
        except StatusError as failure:
            if failure.code < 500 and failure.code != 429:
                raise
            if attempt == TRIES:
                raise
        except (ClientError, TimeoutError):
            if attempt == TRIES:
                raise
        await sleep(pause)
        pause *= GROWTH
    raise AssertionError("unreachable")


class TokenReviewAuthenticator:
    """Whom a bearer token stands for, by TokenReview (a TokenAuthenticator)."""

    def __init__(self, client: RestClient, secret: bytes, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._client = client
        self._secret = secret
        self._sleep = sleep
        self._known: Remembered[bytes, Authenticated | None] = Remembered(REMEMBERED_TOKENS, clock)
        self.problem = ""
        """Why the last review was not answered, "" if it was."""

    async def authenticate_token(self, token: str, audiences: Sequence[str]) -> Authenticated | None:
        """See bearer.TokenAuthenticator. The memory is keyed by a keyed hash: it holds no secrets."""
        text = "\0".join([token, *audiences]).encode(errors="surrogatepass")
        found = await self._known.get(
            hmac.digest(self._secret, text, hashlib.sha256), lambda: self._review(token, audiences)
        )
        if found is None:
            raise TokenRefused("invalid bearer token")
        return found

    async def _review(self, token: str, audiences: Sequence[str]) -> Authenticated | None:
        spec: Obj = {"token": token, **({"audiences": list(audiences)} if audiences else {})}
        body: Obj = {"apiVersion": TOKEN_REVIEWS.gv.api_version, "kind": "TokenReview", "spec": spec}
        try:
            answer = await persistently(lambda: self._client.create(TOKEN_REVIEWS, body), self._sleep)
        except (StatusError, ClientError, TimeoutError) as failure:
            self.problem = f"tokenreviews: {getattr(failure, 'message', None) or failure or 'timed out'}"
            raise unauthorized() from failure
        self.problem = ""
        status = answer.get("status") or {}
        user = status.get("user") or {}
        if not status.get("authenticated") or not user.get("username"):
            return None
        extra = {str(key).lower(): tuple(values) for key, values in (user.get("extra") or {}).items()}
        return Authenticated(
            UserInfo(user["username"], user.get("uid") or "", tuple(user.get("groups") or ()), extra),
            tuple(status.get("audiences") or ()),
        )


class AccessReviewAuthorizer:
    """What a user may do, by SubjectAccessReview; system:masters and the health paths need none."""

    def __init__(self, client: RestClient, clock: Clock, sleep: Sleep = asyncio.sleep) -> None:
        self._client = client
        self._sleep = sleep
        self._known: Remembered[tuple[object, ...], tuple[Decision, str]] = Remembered(REMEMBERED_DECISIONS, clock)
        self.problem = ""
        """Why the last review was not answered, "" if it was."""

    async def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        """See access.Authorizer. Raises internal_error when nobody could be asked."""
        if SYSTEM_PRIVILEGED_GROUP in attributes.user.groups:
            return Decision.ALLOW, ""
        if not attributes.resource_request and attributes.path in ALWAYS_ALLOWED_PATHS:
            return Decision.ALLOW, ""
        key = _key(attributes)
        if sum(len(str(part)) for part in key) > LARGEST_REMEMBERED:
            return await self._review(attributes)
        return await self._known.get(key, lambda: self._review(attributes))

    async def _review(self, attributes: Attributes) -> tuple[Decision, str]:
        body: Obj = {
            "apiVersion": ACCESS_REVIEWS.gv.api_version,
            "kind": "SubjectAccessReview",
            "spec": access_review_spec(attributes),
        }
        try:
            answer = await persistently(lambda: self._client.create(ACCESS_REVIEWS, body), self._sleep)
        except (StatusError, ClientError, TimeoutError) as failure:
            text = getattr(failure, "message", None) or str(failure) or "timed out"
            self.problem = f"subjectaccessreviews: {text}"
            raise internal_error(f"the access of {attributes.user.name!r} cannot be reviewed: {text}") from failure
        self.problem = ""
        status = answer.get("status") or {}
        reason = str(status.get("reason") or "")
        if status.get("denied"):
            return Decision.DENY, reason
        return (Decision.ALLOW if status.get("allowed") else Decision.NO_OPINION), reason


def access_review_spec(attributes: Attributes) -> Obj:
    """SubjectAccessReviewSpec of a question."""
    user = attributes.user
    spec: Obj = {"user": user.name, "groups": list(user.groups), "uid": user.uid}
    if user.extra:
        spec["extra"] = {key: list(values) for key, values in user.extra.items()}
    if attributes.resource_request:
        spec["resourceAttributes"] = {
            "namespace": attributes.namespace,
            "verb": attributes.verb,
            "group": attributes.group,
            "version": attributes.version,
            "resource": attributes.resource,
            "subresource": attributes.subresource,
            "name": attributes.name,
        }
        # Understood from 1.31 on, and dropped by older servers, which do not limit by selectors.
        for key, text in (("fieldSelector", attributes.field_selector), ("labelSelector", attributes.label_selector)):
            if text:
                spec["resourceAttributes"][key] = {"rawSelector": text}
    else:
        spec["nonResourceAttributes"] = {"path": attributes.path, "verb": attributes.verb}
    return {key: value for key, value in spec.items() if value}


def _key(attributes: Attributes) -> tuple[object, ...]:
    user = attributes.user
    return (
        user.name,
        user.uid,
        user.groups,
        tuple(sorted(user.extra.items())),
        attributes.verb,
        attributes.group,
        attributes.version,
        attributes.resource,
        attributes.subresource,
        attributes.namespace,
        attributes.name,
        "" if attributes.resource_request else attributes.path,
        attributes.resource_request,
        attributes.field_selector,
        attributes.label_selector,
    )
