"""Requests: what a path means (upstream RequestInfo) and what travels with a request through the chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from typing import TYPE_CHECKING, Any

from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.time import format_time

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

# Subresources that take the rest of the path (upstream APIInstaller's {path:*}).
_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# Upstream's namespaceSubresources: /namespaces/x/status is not a resource called "status".
NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})


@dataclass(slots=True)
class RequestInfo:
    """What a request's path and method mean (upstream k8s.io/apiserver request.RequestInfo)."""

    path: str
    verb: str  # lower-case HTTP method for non-resource requests
    is_resource: bool = False
    prefix: str = ""  # "api" or "apis"
    group: str = ""
    version: str = ""
    namespace: str = ""
    resource: str = ""
    subresource: str = ""
    name: str = ""
    parts: tuple[str, ...] = ()  # the path's segments from the resource on; more than 3 for proxied paths
    field_selector: str = ""
    label_selector: str = ""


@dataclass(slots=True)
class RequestContext:
    """One request on its way through the chain; what strategies and hooks get to see."""

    info: RequestInfo
    user: UserInfo
    now: datetime  # UTC, the moment the request arrived
    audit_id: str = ""
    dry_run: bool = False
    field_manager: str = ""
    field_validation: str = "Warn"
    user_agent: str = ""
    query: Mapping[str, str] = field(default_factory=dict)  # a multidict
    http: BaseRequest | None = None  # only for connect handlers and mounted handlers
    warnings: list[str] = field(default_factory=list)
    scratch: dict[str, Any] = field(default_factory=dict)  # hooks of one kind may pass notes to each other

    @property
    def timestamp(self) -> str:
        """`now` as metav1.Time."""
        return format_time(self.now)

    def warn(self, text: str) -> None:
        """Adds a Warning header to the answer; repeated texts are sent once."""
        if text and text not in self.warnings:
            self.warnings.append(text)
