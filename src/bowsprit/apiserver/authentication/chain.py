"""The order of authenticators (upstream pkg/kubeapiserver/authenticator): front proxy, certificate, tokens, anonymous."""

from __future__ import annotations

from collections.abc import Sequence

from bowsprit.apiserver.access import Authenticated, Authenticator, Credentials
from bowsprit.apiserver.user import ALL_AUTHENTICATED, ALL_UNAUTHENTICATED, ANONYMOUS, UserInfo
from bowsprit.machinery.errors import StatusError, unauthorized

_ANONYMOUS = Authenticated(UserInfo(ANONYMOUS, "", (ALL_UNAUTHENTICATED,)))


class AuthenticatorChain:
    """Asks each authenticator in turn; the first that knows the sender wins.

    Wrong credentials do not stop the others, but if none knows the sender, they are a 401, never anonymous.
    """

    def __init__(self, members: Sequence[Authenticator], *, anonymous: bool) -> None:
        self._members = list(members)
        self._anonymous = anonymous

    async def authenticate(self, credentials: Credentials) -> Authenticated:
        """Who sends the request.

        Raises:
            Unauthorized: nobody knows, and anonymous requests are off or wrong credentials were shown.
        """
        refused: StatusError | None = None
        for member in self._members:
            try:
                found = await member.authenticate(credentials)
            except StatusError as exc:
                refused = exc
                continue
            if found is not None:
                return with_authenticated_group(found)
        if refused is not None or not self._anonymous:
            raise refused or unauthorized()
        return _ANONYMOUS


def with_authenticated_group(found: Authenticated) -> Authenticated:
    """Add system:authenticated, unless the user is anonymous or has it (upstream AuthenticatedGroupAdder)."""
    user = found.user
    if user.name == ANONYMOUS or ALL_AUTHENTICATED in user.groups or ALL_UNAUTHENTICATED in user.groups:
        return found
    return Authenticated(UserInfo(user.name, user.uid, (*user.groups, ALL_AUTHENTICATED), user.extra), found.audiences)
