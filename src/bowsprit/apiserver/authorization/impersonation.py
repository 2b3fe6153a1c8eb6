"""Acting as someone else: the Impersonate-* headers and the right to use them.

Upstream: k8s.io/apiserver/pkg/endpoints/filters/impersonation. Since v1.36 there are constrained modes (KEP-5284), each with
its own verbs: the user must be allowed to impersonate that kind of user, and to do on their behalf what the request does.
The old verb `impersonate` is tried last. The mode that last worked for a user is tried first, and the first mode's refusal
is what a refused user sees.
"""

from __future__ import annotations

from collections import OrderedDict
from collections.abc import Awaitable, Callable, Mapping
from typing import Any
from urllib.parse import unquote

from bowsprit.apiserver.access import Attributes, Authorizer, Decision
from bowsprit.apiserver.authentication.serviceaccount import split_username, user_of
from bowsprit.apiserver.user import (
    ALL_AUTHENTICATED,
    ALL_UNAUTHENTICATED,
    ANONYMOUS,
    UserInfo,
)
from bowsprit.machinery.errors import StatusError, bad_request
from bowsprit.machinery.goformat import quote

_NODE_PREFIX = "system:node:"
_AUTHENTICATION = "authentication.k8s.io"
_REMEMBERED = 1000

Refusal = Callable[[Attributes, str], StatusError]
Check = Callable[[UserInfo, UserInfo, Attributes], Awaitable[StatusError | None]]


def wanted_user(headers: Mapping[str, str]) -> UserInfo | None:
    """The user that the headers ask for, with exactly what they name; None without impersonation.

    Raises:
        BadRequest: other parts are given without a user name.
    """
    multi: Any = headers
    name = headers.get("Impersonate-User", "")
    groups = tuple(multi.getall("Impersonate-Group", []))
    uid = headers.get("Impersonate-Uid", "")
    extra: dict[str, tuple[str, ...]] = {}
    for header, value in headers.items():
        lower = header.lower()
        if lower.startswith("impersonate-extra-"):
            key = unquote(lower.removeprefix("impersonate-extra-"))
            extra[key] = (*extra.get(key, ()), value)
    if not name:
        if groups or uid or extra:
            raise bad_request(f"requested {_go_user(groups, uid, extra)} without impersonating a user name")
        return None
    return UserInfo(name, uid, groups, extra)


def _go_user(groups: tuple[str, ...], uid: str, extra: Mapping[str, tuple[str, ...]]) -> str:
    def strings(values: tuple[str, ...]) -> str:
        return "[]string{" + ", ".join(map(quote, values)) + "}"

    shown_groups = strings(groups) if groups else "[]string(nil)"
    if extra:
        pairs = ", ".join(f"{quote(key)}:{strings(values)}" for key, values in sorted(extra.items()))
        shown_extra = f"map[string][]string{{{pairs}}}"
    else:
        shown_extra = "map[string][]string(nil)"
    return f'&user.DefaultInfo{{Name:"", UID:{quote(uid)}, Groups:{shown_groups}, Extra:{shown_extra}}}'


def effective_user(wanted: UserInfo) -> UserInfo:
    """The user with the groups that belong to them: a ServiceAccount's, and system:authenticated."""
    groups = wanted.groups
    if not groups and (account := split_username(wanted.name)):
        groups = user_of(*account).groups
    if wanted.name == ANONYMOUS:
        if ALL_UNAUTHENTICATED not in groups:
            groups = (*groups, ALL_UNAUTHENTICATED)
    elif ALL_AUTHENTICATED not in groups and ALL_UNAUTHENTICATED not in groups:
        groups = (*groups, ALL_AUTHENTICATED)
    return UserInfo(wanted.name, wanted.uid, groups, wanted.extra)


class HeaderImpersonator:
    """Decides on impersonation.

    Args:
        authorizer: who knows the rights.
        refuse: makes the server's 403 of attributes and a reason.
    """

    def __init__(self, authorizer: Authorizer, refuse: Refusal) -> None:
        self._authorizer = authorizer
        self._refuse = refuse
        self._last_mode: OrderedDict[tuple[str, tuple[str, ...]], str] = OrderedDict()
        self._modes: dict[str, Check] = {
            "arbitrary-node": self._as_node,
            "serviceaccount": self._as_service_account,
            "user-info": self._as_user_info,
            "legacy": self._legacy,
        }

    async def impersonate(self, user: UserInfo, headers: Mapping[str, str], request: Attributes) -> UserInfo | None:
        """The user to act as, None when no impersonation is asked.

        Raises:
            StatusError: the headers are incomplete, or the user may not.
        """
        wanted = wanted_user(headers)
        if wanted is None:
            return None
        key = (user.name, user.groups)
        order = list(self._modes)
        if last := self._last_mode.get(key):
            order.sort(key=lambda mode: mode != last)
        first: StatusError | None = None
        for mode in order:
            if not _applies(mode, wanted):
                continue
            refusal = await self._modes[mode](user, wanted, request)
            if refusal is None:
                self._last_mode[key] = mode
                self._last_mode.move_to_end(key)
                if len(self._last_mode) > _REMEMBERED:
                    self._last_mode.popitem(last=False)
                return effective_user(wanted)
            first = first or refusal
        assert first is not None
        raise first

    async def _check(self, attributes: Attributes) -> StatusError | None:
        decision, reason = await self._authorizer.authorize(attributes)
        return None if decision is Decision.ALLOW else self._refuse(attributes, reason)

    async def _all(self, *checks: Attributes) -> StatusError | None:
        for attributes in checks:
            if refusal := await self._check(attributes):
                return refusal
        return None

    async def _as_node(self, user: UserInfo, wanted: UserInfo, request: Attributes) -> StatusError | None:
        name = wanted.name.removeprefix(_NODE_PREFIX)
        return await self._all(
            _on_behalf(user, "arbitrary-node", request),
            Attributes(user, "impersonate:arbitrary-node", _AUTHENTICATION, "v1", "nodes", name=name),
        )

    async def _as_service_account(self, user: UserInfo, wanted: UserInfo, request: Attributes) -> StatusError | None:
        account = split_username(wanted.name)
        assert account is not None
        namespace, name = account
        return await self._all(
            _on_behalf(user, "serviceaccount", request),
            Attributes(
                user,
                "impersonate:serviceaccount",
                _AUTHENTICATION,
                "v1",
                "serviceaccounts",
                namespace=namespace,
                name=name,
            ),
        )

    async def _as_user_info(self, user: UserInfo, wanted: UserInfo, request: Attributes) -> StatusError | None:
        return await self._all(
            _on_behalf(user, "user-info", request), *_parts(user, wanted, "impersonate:user-info", _AUTHENTICATION)
        )

    async def _legacy(self, user: UserInfo, wanted: UserInfo, request: Attributes) -> StatusError | None:
        if account := split_username(wanted.name):
            namespace, name = account
            subject = Attributes(user, "impersonate", "", "v1", "serviceaccounts", namespace=namespace, name=name)
            return await self._all(subject, *_parts(user, wanted, "impersonate", "")[1:])
        return await self._all(*_parts(user, wanted, "impersonate", ""))


def _applies(mode: str, wanted: UserInfo) -> bool:
    account, node = split_username(wanted.name), wanted.name.startswith(_NODE_PREFIX)
    if mode == "legacy":
        return True
    if mode == "serviceaccount":
        return account is not None and not (wanted.groups or wanted.uid or wanted.extra)
    if mode == "arbitrary-node":
        return node and not (wanted.groups or wanted.uid or wanted.extra)
    return account is None and not node


def _on_behalf(user: UserInfo, mode: str, request: Attributes) -> Attributes:
    """The request itself, under the verb `impersonate-on:<mode>:<verb>`."""
    verb = f"impersonate-on:{mode}:{request.verb}"
    return Attributes(
        user,
        verb,
        request.group,
        request.version,
        request.resource,
        request.subresource,
        request.namespace,
        request.name,
        request.path,
        request.resource_request,
    )


def _parts(user: UserInfo, wanted: UserInfo, verb: str, user_group: str) -> list[Attributes]:
    """One question per part of the wanted identity: name, groups, extra values, uid."""
    checks = [Attributes(user, verb, user_group, "v1", "users", name=wanted.name)]
    checks += [Attributes(user, verb, user_group, "v1", "groups", name=group) for group in wanted.groups]
    for key, values in wanted.extra.items():
        checks += [Attributes(user, verb, _AUTHENTICATION, "v1", "userextras", key, name=value) for value in values]
    if wanted.uid:
        checks.append(Attributes(user, verb, _AUTHENTICATION, "v1", "uids", name=wanted.uid))
    return checks
