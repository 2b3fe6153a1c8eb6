"""gRPC status codes and the error that carries one (grpc/doc/statuscodes.md)."""

from __future__ import annotations

from dataclasses import dataclass
from enum import IntEnum

from h2.errors import ErrorCodes


class StatusCode(IntEnum):
    """The canonical codes."""

    OK = 0
    CANCELLED = 1
    UNKNOWN = 2
    INVALID_ARGUMENT = 3
    DEADLINE_EXCEEDED = 4
    NOT_FOUND = 5
    ALREADY_EXISTS = 6
    PERMISSION_DENIED = 7
    RESOURCE_EXHAUSTED = 8
    FAILED_PRECONDITION = 9
    ABORTED = 10
    OUT_OF_RANGE = 11
    UNIMPLEMENTED = 12
    INTERNAL = 13
    UNAVAILABLE = 14
    DATA_LOSS = 15
    UNAUTHENTICATED = 16


@dataclass(frozen=True, slots=True)
class Status:
    """How a call ended."""

    code: StatusCode
    message: str = ""

    @property
    def ok(self) -> bool:
        """Whether the call succeeded."""
        return self.code is StatusCode.OK


OK = Status(StatusCode.OK)


class GrpcError(Exception):
    """A call that ended with a status other than OK."""

    def __init__(self, code: StatusCode, message: str = "") -> None:
        super().__init__(f"rpc error: code = {code_name(code)} desc = {message}")
        self.code = code
        self.message = message

    @property
    def status(self) -> Status:
        """The same as a value."""
        return Status(self.code, self.message)


def code_name(code: StatusCode) -> str:
    """The name as Go prints it: ``DeadlineExceeded``, ``OK``; CANCELLED is ``Canceled`` there."""
    if code is StatusCode.OK:
        return "OK"
    if code is StatusCode.CANCELLED:
        return "Canceled"
    return "".join(part.capitalize() for part in code.name.split("_"))


# grpc/doc/PROTOCOL-HTTP2.md, "Errors": what an RST_STREAM without trailers means.
_RESET_STATUS = {
    ErrorCodes.REFUSED_STREAM: StatusCode.UNAVAILABLE,
    ErrorCodes.CANCEL: StatusCode.CANCELLED,
    ErrorCodes.ENHANCE_YOUR_CALM: StatusCode.RESOURCE_EXHAUSTED,
    ErrorCodes.INADEQUATE_SECURITY: StatusCode.PERMISSION_DENIED,
}
# grpc/doc/http-grpc-status-mapping.md: an answer that is no gRPC answer.
_HTTP_STATUS = {
    400: StatusCode.INTERNAL,
    401: StatusCode.UNAUTHENTICATED,
    403: StatusCode.PERMISSION_DENIED,
    404: StatusCode.UNIMPLEMENTED,
    429: StatusCode.UNAVAILABLE,
    502: StatusCode.UNAVAILABLE,
    503: StatusCode.UNAVAILABLE,
    504: StatusCode.UNAVAILABLE,
}


def status_of_reset(error_code: int) -> Status:
    """The status of a stream that the peer reset with this HTTP/2 error code."""
    try:
        known = ErrorCodes(error_code)
    except ValueError:
        return Status(StatusCode.INTERNAL, f"stream terminated by RST_STREAM with error code: {error_code}")
    code = _RESET_STATUS.get(known, StatusCode.INTERNAL)
    return Status(code, f"stream terminated by RST_STREAM with error code: {known.name}")


def status_of_http(http_status: int) -> Status:
    """The status of a response with an HTTP status other than 200."""
    code = _HTTP_STATUS.get(http_status, StatusCode.UNKNOWN)
    return Status(code, f"unexpected HTTP status code received from server: {http_status}")
