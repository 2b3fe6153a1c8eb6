"""Keys that sign and verify ServiceAccount tokens: P-256 or RSA, from PEM keys or certificates."""

from __future__ import annotations

from cryptography import x509
from cryptography.hazmat.primitives import serialization
from cryptography.hazmat.primitives.asymmetric import ec, rsa

from bowsprit.pki.errors import PKIError

PrivateKey = ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey
PublicKey = ec.EllipticCurvePublicKey | rsa.RSAPublicKey


def new_signing_key() -> bytes:
    """A new P-256 private key as PEM."""
    return ec.generate_private_key(ec.SECP256R1()).private_bytes(
        serialization.Encoding.PEM, serialization.PrivateFormat.TraditionalOpenSSL, serialization.NoEncryption()
    )


def load_signing_key(pem: bytes) -> PrivateKey:
    """The private key that signs.

    Raises:
        PKIError: it is malformed, encrypted, or neither EC nor RSA.
    """
    try:
        key = serialization.load_pem_private_key(pem, None)
    except (ValueError, TypeError) as exc:
        raise PKIError("not an unencrypted PEM private key") from exc
    if not isinstance(key, ec.EllipticCurvePrivateKey | rsa.RSAPrivateKey):
        raise PKIError("the signing key must be EC or RSA")
    return key


def load_verification_keys(pem: bytes) -> list[PublicKey]:
    """All public keys of a PEM text that may hold public keys, private keys and certificates.

    Raises:
        PKIError: there is none, or one cannot be used.
    """
    keys: list[PublicKey] = []
    for block in _blocks(pem):
        try:
            if b"CERTIFICATE" in block.partition(b"\n")[0]:
                key: object = x509.load_pem_x509_certificate(block).public_key()
            elif b"PRIVATE" in block.partition(b"\n")[0]:
                key = load_signing_key(block).public_key()
            else:
                key = serialization.load_pem_public_key(block)
        except ValueError as exc:
            raise PKIError(f"malformed public key: {exc}") from exc
        if not isinstance(key, ec.EllipticCurvePublicKey | rsa.RSAPublicKey):
            raise PKIError("a verification key must be EC or RSA")
        keys.append(key)
    if not keys:
        raise PKIError("the file holds no public key, private key or certificate")
    return keys


def _blocks(pem: bytes) -> list[bytes]:
    blocks: list[bytes] = []
    current: list[bytes] | None = None
    for line in pem.splitlines():
        if line.startswith(b"-----BEGIN ") and b"PARAMETERS" not in line:
            current = []
        if current is not None:
            current.append(line)
            if line.startswith(b"-----END "):
                blocks.append(b"\n".join(current) + b"\n")
                current = None
    return blocks
