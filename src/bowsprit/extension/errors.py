"""What goes wrong in an extension.

ExtensionError          the author's declaration, the options or the cluster: nothing is served (what, reason, hint)
Refusal                 raised by an author's function while a request is answered; becomes that request's Status
├── Invalid             422, names a field
├── NotFound            404
├── AlreadyExists       409
├── Conflict            409
├── Forbidden           403
└── Unavailable         503
"""

from __future__ import annotations

from typing import Any

from bowsprit.machinery import errors, fielderrors
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.names import GroupKind, GroupResource


class ExtensionError(Exception):
    """Something that its author or operator must put right.

    Args:
        message: what is wrong, one line.
        reason: a stable CamelCase identifier.
        hint: what to do.
    """

    def __init__(self, message: str, *, reason: str = "InvalidExtension", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.hint = hint


class Refusal(Exception):
    """A request that is not fulfilled; `detail` is told to the client."""

    def __init__(self, detail: str = "") -> None:
        super().__init__(detail)
        self.detail = detail

    def status(self, resource: GroupResource, kind: GroupKind, name: str) -> StatusError:
        """The answer."""
        raise NotImplementedError


class Invalid(Refusal):
    """A field has a value that it must not have.

    Args:
        field: its path, such as ``spec.text``.
        value: what it holds.
        detail: why that is wrong.
    """

    def __init__(self, field: str, value: Any = fielderrors.OMIT, detail: str = "") -> None:
        super().__init__(detail)
        self.error: FieldError = fielderrors.invalid(field, value, detail)

    def status(self, resource: GroupResource, kind: GroupKind, name: str) -> StatusError:
        return errors.invalid(kind, name, [self.error])


class NotFound(Refusal):
    """There is no such object."""

    def status(self, resource: GroupResource, kind: GroupKind, name: str) -> StatusError:
        return errors.not_found(resource, name)


class AlreadyExists(Refusal):
    """There is an object of that name."""

    def status(self, resource: GroupResource, kind: GroupKind, name: str) -> StatusError:
        return errors.already_exists(resource, name)


class Conflict(Refusal):
    """The object was changed by somebody else."""

    def status(self, resource: GroupResource, kind: GroupKind, name: str) -> StatusError:
        return errors.conflict(resource, name, self.detail)


class Forbidden(Refusal):
    """Not to be done."""

    def status(self, resource: GroupResource, kind: GroupKind, name: str) -> StatusError:
        return errors.forbidden(resource, name, self.detail)


class Unavailable(Refusal):
    """What is needed for an answer cannot be reached."""

    def status(self, resource: GroupResource, kind: GroupKind, name: str) -> StatusError:
        return errors.service_unavailable(self.detail)
