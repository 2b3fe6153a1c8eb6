"""Failures as clients see them: one exception tree, converted to metav1.Status in one place (`StatusError.to_status`).

    StatusError                         .code .reason .message .details
    ├── RequestFault                    the client must change something
    │   ├── BadRequestError             400 BadRequest
    │   ├── UnauthorizedError           401 Unauthorized
    │   ├── ForbiddenError              403 Forbidden
    │   ├── NotFoundError               404 NotFound
    │   ├── MethodNotAllowedError       405 MethodNotAllowed
    │   ├── NotAcceptableError          406 NotAcceptable
    │   ├── AlreadyExistsError          409 AlreadyExists
    │   ├── ConflictError               409 Conflict
    │   ├── GoneError                   410 Gone
    │   ├── ExpiredError                410 Expired
    │   ├── RequestEntityTooLargeError  413 RequestEntityTooLarge
    │   ├── UnsupportedMediaTypeError   415 UnsupportedMediaType
    │   ├── InvalidError                422 Invalid
    │   └── TooManyRequestsError        429 TooManyRequests
    └── ServerFault                     the client may try again
        ├── InternalServerError         500 InternalError
        ├── ServerTimeoutError          500 ServerTimeout
        ├── UnknownError                500 without a reason
        ├── ServiceUnavailableError     503 ServiceUnavailable
        └── TimeoutStatusError          504 Timeout

The functions build them with the texts of k8s.io/apimachinery/pkg/api/errors (`not_found` is NewNotFound, and so on).
"""

from __future__ import annotations

from collections.abc import Iterable, Sequence
from typing import Any, ClassVar

from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupKind, GroupResource
from bowsprit.machinery.objects import Obj


class StatusError(Exception):
    """A failure with its HTTP code, machine-readable reason and details (metav1.StatusDetails as a dict)."""

    default_code: ClassVar[int] = 500
    default_reason: ClassVar[str] = ""

    def __init__(
        self, message: str, *, details: Obj | None = None, code: int | None = None, reason: str | None = None
    ) -> None:
        super().__init__(message)
        self.message = message
        self.details = details
        self.code = self.default_code if code is None else code
        self.reason = self.default_reason if reason is None else reason

    @property
    def retry_after(self) -> int:
        """Seconds that the client is asked to wait, 0 when it is not asked (the Retry-After header)."""
        return int((self.details or {}).get("retryAfterSeconds") or 0)

    @property
    def causes(self) -> list[Obj]:
        return (self.details or {}).get("causes") or []

    def has_cause(self, reason: str) -> bool:
        return any(entry.get("reason") == reason for entry in self.causes)

    def to_status(self) -> Obj:
        """The metav1.Status object, members in upstream's order, empty ones left out."""
        status: Obj = {
            "kind": "Status",
            "apiVersion": "v1",
            "metadata": {},
            "status": "Failure",
            "message": self.message,
        }
        if self.reason:
            status["reason"] = self.reason
        if self.details is not None:
            status["details"] = self.details
        status["code"] = self.code
        return status


class RequestFault(StatusError):
    """The request cannot succeed as it is."""

    default_code = 400


class ServerFault(StatusError):
    """The server failed; the same request may succeed later."""


class BadRequestError(RequestFault):
    default_code, default_reason = 400, "BadRequest"


class UnauthorizedError(RequestFault):
    default_code, default_reason = 401, "Unauthorized"


class ForbiddenError(RequestFault):
    default_code, default_reason = 403, "Forbidden"


class NotFoundError(RequestFault):
    default_code, default_reason = 404, "NotFound"


class MethodNotAllowedError(RequestFault):
    default_code, default_reason = 405, "MethodNotAllowed"


class NotAcceptableError(RequestFault):
    default_code, default_reason = 406, "NotAcceptable"


class AlreadyExistsError(RequestFault):
    default_code, default_reason = 409, "AlreadyExists"


class ConflictError(RequestFault):
    default_code, default_reason = 409, "Conflict"


class GoneError(RequestFault):
    default_code, default_reason = 410, "Gone"


class ExpiredError(RequestFault):
    default_code, default_reason = 410, "Expired"


class RequestEntityTooLargeError(RequestFault):
    default_code, default_reason = 413, "RequestEntityTooLarge"


class UnsupportedMediaTypeError(RequestFault):
    default_code, default_reason = 415, "UnsupportedMediaType"


class InvalidError(RequestFault):
    default_code, default_reason = 422, "Invalid"


class TooManyRequestsError(RequestFault):
    default_code, default_reason = 429, "TooManyRequests"


class InternalServerError(ServerFault):
    default_code, default_reason = 500, "InternalError"


class ServerTimeoutError(ServerFault):
    default_code, default_reason = 500, "ServerTimeout"


class UnknownError(ServerFault):
    default_code, default_reason = 500, ""


class ServiceUnavailableError(ServerFault):
    default_code, default_reason = 503, "ServiceUnavailable"


class TimeoutStatusError(ServerFault):
    default_code, default_reason = 504, "Timeout"


_BY_REASON: dict[str, type[StatusError]] = {
    cls.default_reason: cls
    for family in (RequestFault, ServerFault)
    for cls in family.__subclasses__()
    if cls.default_reason
}


def from_status(status: Obj) -> StatusError:
    """The exception for a Status that a server sent; a reason we do not know is kept on a fault of the code's side."""
    code = int(status.get("code") or 500)
    reason = str(status.get("reason") or "")
    family: type[StatusError] = RequestFault if 400 <= code < 500 else ServerFault
    cls = _BY_REASON.get(reason, family if reason or family is RequestFault else UnknownError)
    return cls(str(status.get("message") or ""), details=status.get("details"), code=code, reason=reason)


def cause(reason: str, message: str, field: str = "") -> Obj:
    """A metav1.StatusCause; empty members are left out."""
    entry: Obj = {}
    if reason:
        entry["reason"] = reason
    entry["message"] = message
    if field:
        entry["field"] = field
    return entry


def _details(
    group: str = "", kind: str = "", name: str = "", *, causes: Sequence[Obj] = (), retry_after: int = 0, uid: str = ""
) -> Obj:
    """metav1.StatusDetails in upstream's member order, empty members left out."""
    details: dict[str, Any] = {
        "name": name,
        "group": group,
        "kind": kind,
        "uid": uid,
        "causes": list(causes),
        "retryAfterSeconds": retry_after,
    }
    return {key: value for key, value in details.items() if value}


def not_found(gr: GroupResource, name: str) -> NotFoundError:
    return NotFoundError(f"{gr} {quote(name)} not found", details=_details(gr.group, gr.resource, name))


def already_exists(gr: GroupResource, name: str) -> AlreadyExistsError:
    return AlreadyExistsError(f"{gr} {quote(name)} already exists", details=_details(gr.group, gr.resource, name))


def generate_name_conflict(gr: GroupResource, name: str, retry_after: int = 1) -> AlreadyExistsError:
    return AlreadyExistsError(
        f"{gr} {quote(name)} already exists, the server was not able to generate a unique name for the object",
        details=_details(gr.group, gr.resource, name, retry_after=retry_after),
    )


def conflict(gr: GroupResource, name: str, detail: str) -> ConflictError:
    return ConflictError(
        f"Operation cannot be fulfilled on {gr} {quote(name)}: {detail}",
        details=_details(gr.group, gr.resource, name),
    )


def apply_conflict(causes: Sequence[Obj], message: str) -> ConflictError:
    """A server-side apply that met other managers' fields; causes have reason FieldManagerConflict."""
    return ConflictError(message, details=_details(causes=causes))


def invalid(gk: GroupKind, name: str, errors: Iterable[FieldError]) -> InvalidError:
    listed = list(errors)
    message = f"{gk} {quote(name)} is invalid"
    if listed:
        message += f": {fielderrors.aggregate(listed)}"
    causes = [cause(error.type.reason, error.error_body(), error.field) for error in listed]
    return InvalidError(message, details=_details(gk.group, gk.kind, name, causes=causes))


def bad_request(message: str) -> BadRequestError:
    return BadRequestError(message)


def unauthorized(message: str = "Unauthorized") -> UnauthorizedError:
    return UnauthorizedError(message)


def forbidden(gr: GroupResource | None, name: str, message: str, *, causes: Sequence[Obj] = ()) -> ForbiddenError:
    """Without a resource the message stands for a non-resource path."""
    if gr is None or not (gr.group or gr.resource):
        return ForbiddenError(f"forbidden: {message}", details=_details(name=name, causes=causes))
    subject = f"{gr} {quote(name)}" if name else str(gr)
    return ForbiddenError(
        f"{subject} is forbidden: {message}", details=_details(gr.group, gr.resource, name, causes=causes)
    )


def method_not_supported(gr: GroupResource, verb: str) -> MethodNotAllowedError:
    return MethodNotAllowedError(
        f"{verb} is not supported on resources of kind {quote(str(gr))}", details=_details(gr.group, gr.resource)
    )


def not_acceptable(message: str) -> NotAcceptableError:
    return NotAcceptableError(message)


def unsupported_media_type(message: str) -> UnsupportedMediaTypeError:
    return UnsupportedMediaTypeError(message)


def expired(message: str) -> ExpiredError:
    return ExpiredError(message)


def gone(message: str) -> GoneError:
    return GoneError(message)


def too_large(message: str) -> RequestEntityTooLargeError:
    """`message` says the limit: `limit is 3145728`."""
    return RequestEntityTooLargeError(f"Request entity too large: {message}")


def too_many_requests(message: str, retry_after: int, *, causes: Sequence[Obj] = ()) -> TooManyRequestsError:
    return TooManyRequestsError(message, details=_details(causes=causes, retry_after=retry_after))


def timeout(message: str, retry_after: int = 0, *, causes: Sequence[Obj] = ()) -> TimeoutStatusError:
    return TimeoutStatusError(f"Timeout: {message}", details=_details(causes=causes, retry_after=retry_after))


def too_large_resource_version(asked: int, current: int, retry_after: int = 1) -> TimeoutStatusError:
    """The client asks for a revision that the store has not reached (upstream NewTooLargeResourceVersionError)."""
    return timeout(
        f"Too large resource version: {asked}, current: {current}",
        retry_after,
        causes=[cause("ResourceVersionTooLarge", "Too large resource version")],
    )


def server_timeout(gr: GroupResource, operation: str, retry_after: int = 0) -> ServerTimeoutError:
    return ServerTimeoutError(
        f"The {operation} operation against {gr} could not be completed at this time, please try again.",
        details=_details(gr.group, gr.resource, operation, retry_after=retry_after),
    )


def internal_error(message: str) -> InternalServerError:
    return InternalServerError(f"Internal error occurred: {message}", details=_details(causes=[cause("", message)]))


def service_unavailable(message: str) -> ServiceUnavailableError:
    return ServiceUnavailableError(message)


def unknown(message: str) -> UnknownError:
    """What upstream answers for a Go error that is no Status: 500 with the bare text, no reason and no details."""
    return UnknownError(message)


_GENERIC: dict[int, tuple[type[StatusError], str]] = {
    400: (BadRequestError, "the server rejected our request for an unknown reason"),
    401: (UnauthorizedError, "the server has asked for the client to provide credentials"),
    403: (ForbiddenError, "the server does not allow access to the requested resource"),
    404: (NotFoundError, "the server could not find the requested resource"),
    405: (MethodNotAllowedError, "the server does not allow this method on the requested resource"),
    406: (NotAcceptableError, "the server was unable to respond with a content type that the client supports"),
    409: (ConflictError, "the server reported a conflict"),
    410: (GoneError, "the server could not find the requested resource"),
    413: (RequestEntityTooLargeError, "the request is too large"),
    415: (UnsupportedMediaTypeError, "the request is in an unsupported format"),
    422: (InvalidError, "the server rejected our request due to an error in our request"),
    429: (TooManyRequestsError, "the server has received too many requests and has asked us to try again later"),
    500: (InternalServerError, "an error on the server has prevented the request from succeeding"),
    503: (ServiceUnavailableError, "the server is currently unable to handle the request"),
    504: (TimeoutStatusError, "the server was unable to return a response in the time allotted, but may still be processing the request"),
}  # fmt: skip


def generic(
    code: int,
    *,
    message: str = "",
    verb: str = "",
    gr: GroupResource | None = None,
    name: str = "",
    retry_after: int = 0,
) -> StatusError:
    """A failure known only by its HTTP code (upstream NewGenericServerResponse); `message` replaces the standard text.

    A POST that conflicts becomes AlreadyExists, as upstream has it. Details are present even when empty.
    """
    cls, text = _GENERIC.get(
        code, (UnknownError, f"the server responded with the status code {code} but did not return more information")
    )
    if code == 409 and verb.upper() == "POST":
        cls = AlreadyExistsError
    text = message or text
    if not message and gr is not None and gr.resource:
        subject = f"{verb.lower()} {gr}" + (f" {name}" if name else "")
        text = f"{text} ({subject})"
    details = (
        _details(gr.group, gr.resource, name, retry_after=retry_after)
        if gr is not None
        else _details(retry_after=retry_after)
    )
    return cls(text, details=details, code=code)
