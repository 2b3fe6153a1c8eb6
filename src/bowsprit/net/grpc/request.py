"""How a server reads the headers of a call, and what it answers to bad ones: as grpc-go does (gRFC A41). No I/O."""

from __future__ import annotations

import json
import re
from collections.abc import Iterable
from dataclasses import dataclass

from bowsprit.net.grpc import metadata as md
from bowsprit.net.grpc.metadata import Metadata
from bowsprit.net.grpc.status import Status, StatusCode

CONTENT_TYPE = "application/grpc"
_PSEUDO = frozenset({":method", ":scheme", ":path", ":authority"})
_NAME = re.compile(r"[!#$%&'*+.^_`|~0-9a-z-]+")  # RFC 9113 8.2.1: a token without upper case
_CONTROL = re.compile(r"[\x00-\x08\x0a-\x1f\x7f]")


class MalformedRequestError(Exception):
    """No HTTP/2 request (RFC 9113 8.1.1): its stream is reset."""


class RefusedRequestError(Exception):
    """A request that cannot be served: answered with ``status`` under ``http_status``."""

    def __init__(self, http_status: int, code: StatusCode, message: str) -> None:
        super().__init__(message)
        self.http_status = http_status
        self.status = Status(code, message)


@dataclass(frozen=True, slots=True)
class Request:
    """What the headers ask for. ``content_type`` is that of the answer, ``timeout`` in seconds."""

    path: str
    content_type: str
    timeout: float | None


def read(headers: Metadata) -> Request:
    """Judge the headers. Raises MalformedRequestError and RefusedRequestError."""
    _check_fields(headers)
    hosts = md.values(headers, "host")
    if len(hosts) > 1:
        authorities = len(md.values(headers, ":authority"))
        text = f"num values of :authority: {authorities}, num values of host: {len(hosts)}, both must only have 1 value"
        raise RefusedRequestError(400, StatusCode.INTERNAL, f"{text} as per HTTP/2 spec")
    content_type = _content_type("".join(md.values(headers, "content-type")[-1:]))
    try:
        timeout = next((md.decode_timeout(text) for text in md.values(headers, "grpc-timeout")), None)
    except ValueError as exc:
        raise RefusedRequestError(400, StatusCode.INTERNAL, f"malformed grpc-timeout: {exc}") from exc
    method = "".join(md.values(headers, ":method"))
    if method != "POST":
        text = f"Received a HEADERS frame with :method {_quoted(method)} which should be POST"
        raise RefusedRequestError(405, StatusCode.INTERNAL, text)
    if timeout == 0:
        raise RefusedRequestError(200, StatusCode.DEADLINE_EXCEEDED, "context deadline exceeded")
    encoding = "".join(md.values(headers, "grpc-encoding")[-1:])
    if encoding not in ("", "identity"):
        text = f"grpc: Decompressor is not installed for grpc-encoding {_quoted(encoding)}"
        raise RefusedRequestError(200, StatusCode.UNIMPLEMENTED, text)
    return Request("".join(md.values(headers, ":path")), content_type, timeout)


def _check_fields(headers: Metadata) -> None:
    pseudo: set[str] = set()
    regular = False
    for name, value in headers:
        if name.startswith(":"):
            if regular or name not in _PSEUDO or name in pseudo:
                raise MalformedRequestError(f"pseudo-header {name!r}")
            pseudo.add(name)
        else:
            regular = True
            if name == "connection" or not _NAME.fullmatch(name):
                raise MalformedRequestError(f"header {name!r}")
        if _CONTROL.search(value):
            raise MalformedRequestError(f"the value of header {name!r}")


def _content_type(given: str) -> str:
    """``application/grpc``, and what follows a ``+`` or ``;``: it comes back in the answer."""
    suffix = given.removeprefix(CONTENT_TYPE)
    if not given.startswith(CONTENT_TYPE) or suffix[:1] not in ("", "+", ";"):
        text = f"invalid gRPC request content-type {_quoted(given)}"
        raise RefusedRequestError(415, StatusCode.INVALID_ARGUMENT, text)
    return f"{CONTENT_TYPE}+{suffix[1:]}" if suffix[1:] else CONTENT_TYPE


def unserved(path: str, served: Iterable[str]) -> Status:
    """The answer to a call of a method that is none of ``served``."""
    service, slash, method = path.removeprefix("/").rpartition("/")
    if not slash:
        text = f"malformed method name: {_quoted(path)}"
    elif any(each.startswith(f"/{service}/") for each in served):
        text = f"unknown method {method} for service {service}"
    else:
        text = f"unknown service {service}"
    return Status(StatusCode.UNIMPLEMENTED, text)


def _quoted(text: str) -> str:
    return json.dumps(text, ensure_ascii=False)
