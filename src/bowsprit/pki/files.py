"""Reading and writing certificate and key files."""

from __future__ import annotations

import os
import secrets
from pathlib import Path

from bowsprit.pki.errors import PKIError

_LARGEST = 1 << 20


def read_file(path: Path) -> bytes:
    """The content of a PEM file of at most 1 MiB.

    Raises:
        PKIError: it cannot be read or is too large.
    """
    try:
        with path.open("rb") as file:
            data = file.read(_LARGEST + 1)
    except OSError as exc:
        raise PKIError(f"cannot read {path}: {exc.strerror}") from exc
    if len(data) > _LARGEST:
        raise PKIError(f"{path} is larger than 1 MiB: not a certificate or key")
    return data


def write_private(path: Path, data: bytes) -> None:
    """Replace a file that only the owner may read."""
    _write(path, data, 0o600)


def write_public(path: Path, data: bytes) -> None:
    """Replace a file that everyone may read."""
    _write(path, data, 0o644)


def _write(path: Path, data: bytes, mode: int) -> None:
    # A new file under another name, so that the mode holds from the first byte and readers never see a part.
    temporary = path.with_name(f".{path.name}.{secrets.token_hex(4)}")
    descriptor = os.open(temporary, os.O_WRONLY | os.O_CREAT | os.O_EXCL, mode)
    try:
        with os.fdopen(descriptor, "wb") as file:
            file.write(data)
        os.replace(temporary, path)
    except BaseException:
        os.unlink(temporary)
        raise
