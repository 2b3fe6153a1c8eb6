"""Requests: what a path means (upstream RequestInfo) and what travels with a request through the chain."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import dataclass, field
from datetime import datetime
from functools import lru_cache
from typing import TYPE_CHECKING, Any

from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.errors import bad_request
from bowsprit.machinery.time import format_time
from bowsprit.machinery.validation import is_valid_path_segment_name

if TYPE_CHECKING:
    from aiohttp.web import BaseRequest

_VERBS = {"POST": "create", "GET": "get", "HEAD": "get", "PUT": "update", "PATCH": "patch", "DELETE": "delete"}
# Upstream's namespaceSubresources: /namespaces/x/status is not a resource called "status".
_NAMESPACE_SUBRESOURCES = frozenset({"status", "finalize"})
_SPECIAL_VERBS = frozenset({"proxy", "watch"})
_CACHED_PATHS = 4096
_CACHED_LENGTH = 512


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


def parse_bool(text: str) -> bool:
    """A boolean query parameter as upstream's conversion reads it: everything but "false" and "0" is true, also ""."""
    return text.lower() not in ("false", "0")


def request_info(method: str, path: str, query: Mapping[str, str]) -> RequestInfo:
    """What a request means (upstream RequestInfoFactory.NewRequestInfo). `path` is percent-decoded.

    Raises bad_request where upstream fails.
    """
    # Long paths are not remembered: a client must not fill the memory with them.
    parse = _path_info if len(path) <= _CACHED_LENGTH else _path_info.__wrapped__
    info = RequestInfo(*parse(method, path))
    if info.is_resource:
        if query:
            info.field_selector = query.get("fieldSelector", "")
            info.label_selector = query.get("labelSelector", "")
        if not info.name:
            if info.verb == "get":
                info.verb = "watch" if "watch" in query and parse_bool(query["watch"]) else "list"
            elif info.verb == "delete":
                info.verb = "deletecollection"
        if info.field_selector and not info.name and info.verb in ("list", "watch", "deletecollection"):
            info.name = _exact_name(info.field_selector)
    return info


def _exact_name(field_selector: str) -> str:
    """The name that a selector like metadata.name=x pins (it is authorized as if it were in the path)."""
    for term in field_selector.split(","):
        key, equals, value = term.partition("=")
        if equals and key == "metadata.name" and not value.startswith("!"):
            value = value.removeprefix("=")
            if value and not is_valid_path_segment_name(value):
                return value
    return ""


@lru_cache(_CACHED_PATHS)
def _path_info(method: str, path: str) -> tuple[Any, ...]:
    verb = method.lower()
    parts = path.strip("/").split("/")
    if len(parts) < 3 or parts[0] not in ("api", "apis"):
        return (path, verb)
    prefix, *parts = parts
    group = ""
    if prefix == "apis":
        if len(parts) < 3:
            return (path, verb)
        group, *parts = parts
    version, *parts = parts
    if parts[0] in _SPECIAL_VERBS:
        if len(parts) < 2:
            raise bad_request(f"unable to determine kind and namespace from url, {path}")
        verb, *parts = parts
    else:
        verb = _VERBS.get(method, "")
    namespace = ""
    if parts[0] == "namespaces" and len(parts) > 1:
        namespace = parts[1]
        if len(parts) > 2 and parts[2] not in _NAMESPACE_SUBRESOURCES:
            parts = parts[2:]
    subresource = parts[2] if len(parts) >= 3 and verb not in _SPECIAL_VERBS else ""
    name = parts[1] if len(parts) >= 2 else ""
    return (path, verb, True, prefix, group, version, namespace, parts[0], subresource, name, tuple(parts))
