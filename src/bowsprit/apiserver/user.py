"""Who asks: the identity that authentication establishes (upstream user.Info)."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field

SYSTEM_PRIVILEGED_GROUP = "system:masters"
ALL_AUTHENTICATED = "system:authenticated"
ALL_UNAUTHENTICATED = "system:unauthenticated"
ANONYMOUS = "system:anonymous"


@dataclass(frozen=True, slots=True)
class UserInfo:
    """An authenticated (or anonymous) user. `extra` values are lists of strings, keys are lower case."""

    name: str
    uid: str = ""
    groups: tuple[str, ...] = ()
    extra: Mapping[str, tuple[str, ...]] = field(default_factory=dict)


LOOPBACK_USER = UserInfo("system:apiserver", "", (SYSTEM_PRIVILEGED_GROUP, ALL_AUTHENTICATED))
