"""ServiceAccount tokens: making them (TokenRequest) and believing them.

Upstream: pkg/serviceaccount (claims.go, jwt.go), registry/core/serviceaccount/storage/token.go. A token names its
ServiceAccount, and perhaps a Pod, Secret or Node, by name and uid; it is good only while those objects exist.
"""

from __future__ import annotations

import base64
import uuid
from collections.abc import Callable, Sequence
from dataclasses import dataclass

from bowsprit.apiserver.access import Authenticated
from bowsprit.apiserver.authentication import jwt
from bowsprit.apiserver.authentication.bearer import TokenRefused
from bowsprit.apiserver.lookup import Listers
from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery import fielderrors
from bowsprit.machinery.errors import StatusError, bad_request, conflict, invalid, not_found
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupKind, GroupResource
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.time import format_time
from bowsprit.pki.signing import PrivateKey, PublicKey

USER_PREFIX = "system:serviceaccount:"
ALL_GROUP = "system:serviceaccounts"
NAMESPACE_GROUP_PREFIX = "system:serviceaccounts:"
LEGACY_ISSUER = "kubernetes/serviceaccount"
_LEGACY = "kubernetes.io/serviceaccount/"
_LEEWAY = 0.0
_SHORTEST = 600
_LONGEST = 1 << 32
_DEFAULT_SECONDS = 3600
# Tokens in projected volumes ask for this odd number; they live for a year and warn after it (KEP-1205).
_EXTENDABLE_SECONDS = 3607
_EXTENDED_SECONDS = 365 * 24 * 3600
_DELETION_GRACE = 60

ACCOUNTS = GroupResource("", "serviceaccounts")
PODS = GroupResource("", "pods")
SECRETS = GroupResource("", "secrets")
NODES = GroupResource("", "nodes")
_BINDABLE = {"Pod": PODS, "Secret": SECRETS, "Node": NODES}

EXTRA_CREDENTIAL = "authentication.kubernetes.io/credential-id"
EXTRA_POD_NAME = "authentication.kubernetes.io/pod-name"
EXTRA_POD_UID = "authentication.kubernetes.io/pod-uid"
EXTRA_NODE_NAME = "authentication.kubernetes.io/node-name"
EXTRA_NODE_UID = "authentication.kubernetes.io/node-uid"


@dataclass(frozen=True, slots=True)
class TokenSettings:
    """The flags about ServiceAccount tokens. `issuers[0]` signs; all of them are believed."""

    issuers: Sequence[str]
    audiences: Sequence[str]
    signing_key: PrivateKey
    verification_keys: Sequence[PublicKey]
    extend_expiration: bool = True


def user_of(namespace: str, name: str, uid: str = "") -> UserInfo:
    """The identity of a ServiceAccount."""
    return UserInfo(f"{USER_PREFIX}{namespace}:{name}", uid, (ALL_GROUP, NAMESPACE_GROUP_PREFIX + namespace))


def split_username(user: str) -> tuple[str, str] | None:
    """Namespace and name of a ServiceAccount's user name; None for other users."""
    if not user.startswith(USER_PREFIX):
        return None
    namespace, colon, name = user.removeprefix(USER_PREFIX).partition(":")
    return (namespace, name) if colon and namespace and name and ":" not in name else None


def legacy_claims(account: Obj, secret: str) -> jwt.Claims:
    """The claims of a token that a secret keeps."""
    meta = account["metadata"]
    return {
        "iss": LEGACY_ISSUER,
        _LEGACY + "namespace": meta["namespace"],
        _LEGACY + "secret.name": secret,
        _LEGACY + "service-account.name": meta["name"],
        _LEGACY + "service-account.uid": meta["uid"],
        "sub": f"{USER_PREFIX}{meta['namespace']}:{meta['name']}",
    }


class ServiceAccountTokens:
    """Verifies tokens of this cluster's issuer.

    Args:
        settings: issuer, audiences, keys.
        listers: to see whether the objects still exist.
        clock: seconds since 1970.
    """

    def __init__(self, settings: TokenSettings, listers: Listers, clock: Callable[[], float]) -> None:
        self._settings = settings
        self._listers = listers
        self._clock = clock

    async def authenticate_token(self, token: str, audiences: Sequence[str]) -> Authenticated | None:
        """See bearer.TokenAuthenticator."""
        try:
            claims = jwt.unverified_claims(token)
        except jwt.MalformedToken:
            return None
        legacy = claims.get("iss") == LEGACY_ISSUER
        if not legacy and claims.get("iss") not in self._settings.issuers:
            return None
        try:
            if jwt.verify(token, self._settings.verification_keys) is None:
                raise TokenRefused("invalid bearer token")
        except jwt.MalformedToken as exc:
            raise TokenRefused("invalid bearer token") from exc
        if legacy:
            return Authenticated(self._legacy_user(token, claims), self._audiences(audiences))
        return Authenticated(self._user(claims), self._matching(claims, audiences))

    def _audiences(self, wanted: Sequence[str]) -> tuple[str, ...]:
        """Those of a token that names none: the server's own."""
        accepted = tuple(item for item in wanted or self._settings.audiences if item in self._settings.audiences)
        if not accepted:
            raise TokenRefused(f"[invalid bearer token, token is not good for {_go_list(wanted)}]")
        return accepted

    def _legacy_user(self, token: str, claims: jwt.Claims) -> UserInfo:
        """A token without an end, of a secret (upstream legacy.go): good while the secret holds it and the account is there."""
        name, secret = (
            str(claims.get(_LEGACY + "service-account.name", "")),
            str(claims.get(_LEGACY + "secret.name", "")),
        )
        namespace, uid = str(claims.get(_LEGACY + "namespace", "")), claims.get(_LEGACY + "service-account.uid")
        if claims.get("sub") != f"{USER_PREFIX}{namespace}:{name}":
            raise TokenRefused("[invalid bearer token, sub claim is invalid]")
        kept = self._listers(SECRETS).get(namespace, secret)
        if kept is None or kept["metadata"].get("deletionTimestamp"):
            raise TokenRefused("[invalid bearer token, token has been invalidated]")
        if (kept.get("data") or {}).get("token") != base64.b64encode(token.encode()).decode():
            raise TokenRefused("[invalid bearer token, token does not match server's copy]")
        account = self._existing(ACCOUNTS, namespace, {"name": name, "uid": uid})
        return user_of(namespace, name, str(account["metadata"]["uid"]))

    def _matching(self, claims: jwt.Claims, wanted: Sequence[str]) -> tuple[str, ...]:
        given = claims.get("aud")
        token_audiences = [given] if isinstance(given, str) else list(given or [])
        accepted = list(wanted) or list(self._settings.audiences)
        matching = tuple(item for item in accepted if item in token_audiences)
        if not matching:
            raise TokenRefused(
                f"[invalid bearer token, token audiences {_go_list(token_audiences)} is invalid for the target audiences "
                f"{_go_list(accepted)}]"
            )
        return matching

    def _user(self, claims: jwt.Claims) -> UserInfo:
        private = claims.get("kubernetes.io")
        if not isinstance(private, dict) or not isinstance(private.get("serviceaccount"), dict):
            raise TokenRefused("[invalid bearer token, token has no kubernetes.io claims]")
        now = self._clock()
        if now > float(claims.get("exp", 0)) + _LEEWAY:
            raise TokenRefused("[invalid bearer token, service account token has expired]")
        if now < float(claims.get("nbf", 0)) - 1:
            raise TokenRefused("[invalid bearer token, service account token is not valid yet]")
        namespace = str(private.get("namespace", ""))
        account = self._existing(ACCOUNTS, namespace, private["serviceaccount"])
        extra: dict[str, tuple[str, ...]] = {}
        if jti := claims.get("jti"):
            extra[EXTRA_CREDENTIAL] = (f"JTI={jti}",)
        for kind, claim, name_key, uid_key in (
            ("Secret", "secret", "", ""),
            ("Pod", "pod", EXTRA_POD_NAME, EXTRA_POD_UID),
            ("Node", "node", EXTRA_NODE_NAME, EXTRA_NODE_UID),
        ):
            reference = private.get(claim)
            if not isinstance(reference, dict):
                continue
            if not (kind == "Node" and "pod" in private):  # a pod's node is told, not checked (upstream)
                self._existing(_BINDABLE[kind], "" if kind == "Node" else namespace, reference)
            if name_key:
                extra[name_key] = (str(reference.get("name", "")),)
                extra[uid_key] = (str(reference.get("uid", "")),)
        base = user_of(namespace, str(account["metadata"]["name"]), str(account["metadata"]["uid"]))
        return UserInfo(base.name, base.uid, base.groups, extra)

    def _existing(self, resource: GroupResource, namespace: str, reference: Obj) -> Obj:
        name = str(reference.get("name", ""))
        found = self._listers(resource).get(namespace, name)
        if found is None:
            raise TokenRefused(f"[invalid bearer token, {resource} {quote(name)} not found]")
        meta = found["metadata"]
        if meta.get("uid") != reference.get("uid"):
            raise TokenRefused(f"[invalid bearer token, {resource.resource} {quote(name)} has another uid]")
        deleted = meta.get("deletionTimestamp")
        if deleted and deleted < format_time(self._clock() - _DELETION_GRACE):
            raise TokenRefused(f"[invalid bearer token, {resource.resource} {quote(name)} is being deleted]")
        return found


def _go_list(items: Sequence[str]) -> str:
    return f"[{' '.join(quote(item) for item in items)}]"


def default_token_request(obj: Obj) -> None:
    """Upstream's SetDefaults_TokenRequestSpec."""
    spec = obj.setdefault("spec", {})
    if spec.get("expirationSeconds") is None:
        spec["expirationSeconds"] = _DEFAULT_SECONDS


class TokenIssuer:
    """The `serviceaccounts/token` subresource.

    Args:
        settings: issuer and signing key.
        listers: to find the account and the bound object.
        clock: seconds since 1970.
        new_uid: token ids.
    """

    def __init__(
        self,
        settings: TokenSettings,
        listers: Listers,
        clock: Callable[[], float],
        new_uid: Callable[[], str] = lambda: str(uuid.uuid4()),
    ) -> None:
        self._settings = settings
        self._listers = listers
        self._clock = clock
        self._new_uid = new_uid

    def issue(self, namespace: str, name: str, request: Obj) -> Obj:
        """Answer a TokenRequest (defaults set) with a token.

        Raises:
            StatusError: the account or bound object does not exist, or the request is not valid.
        """
        account = self._listers(ACCOUNTS).get(namespace, name)
        if account is None:
            raise not_found(ACCOUNTS, name)
        meta = account["metadata"]
        self._check_metadata(request, namespace, name)
        spec = request.setdefault("spec", {})
        seconds = int(spec.get("expirationSeconds") or _DEFAULT_SECONDS)
        if errors := _validate(seconds):
            raise invalid(GroupKind("authentication.k8s.io", "TokenRequest"), "", errors)
        audiences = list(spec.get("audiences") or self._settings.audiences)
        private: Obj = {"namespace": namespace}
        bound = self._bound(namespace, name, spec.get("boundObjectRef"))
        private |= bound
        private["serviceaccount"] = {"name": name, "uid": meta["uid"]}
        now = int(self._clock())
        lifetime = seconds
        if (
            seconds == _EXTENDABLE_SECONDS
            and self._settings.extend_expiration
            and "pod" in bound
            and not spec.get("audiences")
        ):
            lifetime = _EXTENDED_SECONDS
            private["warnafter"] = now + seconds
        claims: jwt.Claims = {
            "aud": audiences,
            "exp": now + lifetime,
            "iat": now,
            "iss": self._settings.issuers[0],
            "jti": self._new_uid(),
            "kubernetes.io": private,
            "nbf": now,
            "sub": f"{USER_PREFIX}{namespace}:{name}",
        }
        answer: Obj = {"kind": "TokenRequest", "apiVersion": "authentication.k8s.io/v1"}
        answer["metadata"] = {
            "name": name,
            "namespace": namespace,
            "uid": meta["uid"],
            "creationTimestamp": format_time(now),
        }
        answer["spec"] = {
            "audiences": audiences,
            "expirationSeconds": seconds,
            "boundObjectRef": spec.get("boundObjectRef") or None,
        }
        answer["status"] = {
            "token": jwt.sign(claims, self._settings.signing_key),
            "expirationTimestamp": format_time(now + seconds),
        }
        return answer

    @staticmethod
    def _check_metadata(request: Obj, namespace: str, name: str) -> None:
        meta = request.get("metadata") or {}
        given = meta.get("name") or name
        if given != name:
            raise bad_request(f"the name of the object ({given}) does not match the name on the URL ({name})")
        if (meta.get("namespace") or namespace) != namespace:
            raise bad_request("the namespace of the provided object does not match the namespace sent on the request")

    def _bound(self, namespace: str, account: str, reference: Obj | None) -> Obj:
        if not reference:
            return {}
        kind, name, uid = reference.get("kind", ""), str(reference.get("name", "")), reference.get("uid", "")
        if kind not in _BINDABLE or reference.get("apiVersion") != "v1":
            raise bad_request(
                f"cannot bind token for serviceaccount to object of type {reference.get('apiVersion')}, Kind={kind}"
            )
        resource = _BINDABLE[kind]
        found = self._listers(resource).get("" if kind == "Node" else namespace, name)
        if found is None:
            raise not_found(resource, name)
        meta = found["metadata"]
        if uid and uid != meta["uid"]:
            raise _uid_conflict(resource, name, str(uid), str(meta["uid"]))
        claims: Obj = {kind.lower(): {"name": name, "uid": meta["uid"]}}
        if kind == "Pod":
            if found.get("spec", {}).get("serviceAccountName") != account:
                raise bad_request(
                    f"cannot bind token for serviceaccount {quote(account)} to pod running with different serviceaccount name."
                )
            node = self._listers(NODES).get("", str(found["spec"].get("nodeName") or ""))
            if node is not None:
                claims["node"] = {"name": node["metadata"]["name"], "uid": node["metadata"]["uid"]}
        return claims


def _uid_conflict(resource: GroupResource, name: str, wanted: str, found: str) -> StatusError:
    return conflict(
        resource,
        name,
        f"the UID in the bound object reference ({wanted}) does not match the UID in record. "
        f"The object might have been deleted and then recreated ({found})",
    )


def _validate(seconds: int) -> list[FieldError]:
    where = path("spec", "expirationSeconds")
    if seconds < _SHORTEST:
        return [fielderrors.invalid(where, seconds, "may not specify a duration less than 10 minutes")]
    if seconds > _LONGEST:
        return [fielderrors.invalid(where, seconds, "may not specify a duration larger than 2^32 seconds")]
    return []
