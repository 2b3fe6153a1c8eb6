"""A certificate with its private key, as PEM."""

from __future__ import annotations

from dataclasses import dataclass, field
from pathlib import Path

from bowsprit.pki.files import read_file, write_private, write_public


@dataclass(frozen=True, slots=True)
class KeyPair:
    """``cert_pem`` may hold a chain, leaf first; ``key_pem`` is an unencrypted PKCS#8 or traditional key."""

    cert_pem: bytes
    key_pem: bytes = field(repr=False)

    def save(self, cert: Path, key: Path) -> None:
        """Write both files atomically; the key is readable by the owner alone."""
        write_private(key, self.key_pem)
        write_public(cert, self.cert_pem)

    @classmethod
    def load(cls, cert: Path, key: Path) -> KeyPair:
        """Read both files.

        Raises:
            PKIError: one of them cannot be read.
        """
        return cls(read_file(cert), read_file(key))
