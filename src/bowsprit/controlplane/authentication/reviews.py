"""TokenReview and SelfSubjectReview: asking who somebody is, through the API.

Upstream: pkg/registry/authentication. Neither is stored.
"""

from __future__ import annotations

from collections.abc import Sequence

from bowsprit.apiserver.access import Authenticated
from bowsprit.apiserver.authentication.bearer import TokenAuthenticator, TokenRefused
from bowsprit.apiserver.authentication.chain import with_authenticated_group
from bowsprit.apiserver.request import RequestContext
from bowsprit.apiserver.resource import Resource, Version, Virtual
from bowsprit.apiserver.user import UserInfo
from bowsprit.controlplane.schemas import BuiltinSchema
from bowsprit.machinery.errors import bad_request
from bowsprit.machinery.names import GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj

GROUP = "authentication.k8s.io"
_UNKNOWN = "invalid bearer token"


def user_info(user: UserInfo) -> Obj:
    """authentication.k8s.io/v1 UserInfo; empty parts are left out."""
    shown: Obj = {
        "username": user.name,
        "uid": user.uid,
        "groups": list(user.groups),
        "extra": {key: list(user.extra[key]) for key in sorted(user.extra)},
    }
    return {key: value for key, value in shown.items() if value}


class IdentityReviews:
    """The two virtual resources of authentication.k8s.io.

    Args:
        tokens: who knows tokens.
        audiences: the server's own, for reviews that name none.
    """

    def __init__(self, tokens: TokenAuthenticator, audiences: Sequence[str]) -> None:
        self._tokens = tokens
        self._audiences = tuple(audiences)

    def resources(self) -> list[Resource]:
        """What to serve."""
        return [
            _resource("TokenReview", Virtual(create=self.token)),
            _resource("SelfSubjectReview", Virtual(create=self.self_subject)),
        ]

    async def token(self, _: RequestContext, review: Obj) -> Obj:
        """POST of a TokenReview. A bad token is an answer, not a failure."""
        spec = review.get("spec") or {}
        token = spec.get("token") or ""
        if not token:
            raise bad_request("token is required for TokenReview in authentication")
        audiences = tuple(spec.get("audiences") or self._audiences)
        try:
            found = await self._tokens.authenticate_token(token, audiences)
            status = _known(found) if found is not None else {"user": {}, "error": _UNKNOWN}
        except TokenRefused as exc:
            status = {"user": {}, "error": str(exc)}
        return {**review, "status": status}

    async def self_subject(self, ctx: RequestContext, review: Obj) -> Obj:
        """POST of a SelfSubjectReview."""
        head = {"kind": review.get("kind"), "apiVersion": review.get("apiVersion")}
        meta = {"creationTimestamp": ctx.timestamp}
        return {**head, "metadata": meta, "status": {"userInfo": user_info(ctx.user)}}


def _known(found: Authenticated) -> Obj:
    status: Obj = {"authenticated": True, "user": user_info(with_authenticated_group(found).user)}
    if found.audiences:
        status["audiences"] = list(found.audiences)
    return status


def _resource(kind: str, virtual: Virtual) -> Resource:
    gvk = GroupVersionKind(GROUP, "v1", kind)
    plural = kind.lower() + "s"
    version = Version(GroupVersionResource(GROUP, "v1", plural), gvk, BuiltinSchema(gvk))
    return Resource(kind, plural, [version], group=GROUP, namespaced=False, verbs=("create",), virtual=virtual)
