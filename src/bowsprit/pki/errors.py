"""What can go wrong with certificates and keys."""

from __future__ import annotations


class PKIError(Exception):
    """A certificate or key is missing, malformed, expired or does not fit.

    Args:
        message: what is wrong, one line, never with key material.
        hint: what to do about it.
    """

    def __init__(self, message: str, *, hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.hint = hint
