"""What a client can fail with, besides a Status from the server.

    ClientError
    ├── ConfigError          a kubeconfig, certificate or credential cannot be used
    ├── ConnectionFailed     no answer: dial, TLS, a broken or silent connection
    └── ResponseTooLarge     an answer beyond the client's bound

Answers with a Status become machinery.errors.StatusError.
"""

from __future__ import annotations


class ClientError(Exception):
    """The base of the client's own failures."""


class ConfigError(ClientError):
    """Wrong configuration; ``hint`` says what to try."""

    def __init__(self, message: str, hint: str = "") -> None:
        super().__init__(message)
        self.hint = hint


class ConnectionFailed(ClientError):
    """The server gave no (complete) answer; the request may or may not have been carried out."""


class ResponseTooLarge(ClientError):
    """The answer is longer than the client accepts."""
