"""What can go wrong with a cluster as a whole."""

from __future__ import annotations


class ClusterError(Exception):
    """A cluster could not be configured, started, found or stopped.

    Args:
        message: what went wrong, one line.
        reason: a stable CamelCase identifier.
        hint: what to do about it.
    """

    def __init__(self, message: str, *, reason: str = "ClusterFailed", hint: str = "") -> None:
        super().__init__(message)
        self.message = message
        self.reason = reason
        self.hint = hint
