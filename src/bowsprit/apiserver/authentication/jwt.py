"""JSON Web Tokens of the two kinds that ServiceAccounts use: ES256 and RS256 (RFC 7515, 7518, 7519).

Only compact serialisation; `alg` must fit the key, so "none" and HMAC with a public key never verify.
"""

from __future__ import annotations

import base64
import binascii
import hashlib
from collections.abc import Iterable
from typing import Any

import orjson
from cryptography.exceptions import InvalidSignature
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec, padding, rsa
from cryptography.hazmat.primitives.asymmetric.utils import decode_dss_signature, encode_dss_signature

from bowsprit.pki.signing import PrivateKey, PublicKey

Claims = dict[str, Any]
_CURVES = {"secp256r1": ("ES256", hashes.SHA256(), 32), "secp384r1": ("ES384", hashes.SHA384(), 48)}


class MalformedToken(ValueError):
    """The text is no JSON Web Token."""


def key_id(key: PublicKey) -> str:
    """The SHA-256 of the public key's DER form in unpadded base64url (upstream keyIDFromPublicKey)."""
    der = key.public_bytes(serialization.Encoding.DER, serialization.PublicFormat.SubjectPublicKeyInfo)
    return _encode(hashlib.sha256(der).digest())


def algorithm(key: PublicKey) -> str:
    """The JWS algorithm of a key.

    Raises:
        ValueError: its curve is not supported.
    """
    if isinstance(key, rsa.RSAPublicKey):
        return "RS256"
    if key.curve.name not in _CURVES:
        raise ValueError(f"unsupported curve {key.curve.name}")
    return _CURVES[key.curve.name][0]


def sign(claims: Claims, key: PrivateKey) -> str:
    """A signed token."""
    public = key.public_key()
    header = {"alg": algorithm(public), "kid": key_id(public)}
    message = f"{_encode(orjson.dumps(header))}.{_encode(orjson.dumps(claims))}".encode()
    if isinstance(key, rsa.RSAPrivateKey):
        signature = key.sign(message, padding.PKCS1v15(), hashes.SHA256())
    else:
        _, digest, size = _CURVES[key.curve.name]
        r, s = decode_dss_signature(key.sign(message, ec.ECDSA(digest)))
        signature = r.to_bytes(size) + s.to_bytes(size)
    return f"{message.decode()}.{_encode(signature)}"


def unverified_claims(token: str) -> Claims:
    """The claims without looking at the signature: to see whose token it claims to be.

    Raises:
        MalformedToken: it is no token.
    """
    parts = token.split(".")
    if len(parts) != 3:
        raise MalformedToken("not three parts")
    claims = _decode_object(parts[1])
    _decode_object(parts[0])
    return claims


def verify(token: str, keys: Iterable[PublicKey]) -> Claims | None:
    """The claims if any of the keys signed them, else None.

    Raises:
        MalformedToken: it is no token.
    """
    claims = unverified_claims(token)
    message, _, encoded = token.rpartition(".")
    header = _decode_object(token.partition(".")[0])
    signature = _decode(encoded)
    candidates = [key for key in keys if algorithm(key) == header.get("alg")]
    if kid := header.get("kid"):
        candidates.sort(key=lambda key: key_id(key) != kid)
    return claims if any(_good(key, message.encode(), signature) for key in candidates) else None


def jwk(key: PublicKey) -> dict[str, str]:
    """The key as JSON Web Key (RFC 7517)."""
    common = {"use": "sig", "kid": key_id(key), "alg": algorithm(key)}
    numbers = key.public_numbers()
    if isinstance(numbers, rsa.RSAPublicNumbers):
        return {
            **common,
            "kty": "RSA",
            "n": _encode(numbers.n.to_bytes((numbers.n.bit_length() + 7) // 8)),
            "e": _encode(numbers.e.to_bytes((numbers.e.bit_length() + 7) // 8)),
        }
    size = (numbers.curve.key_size + 7) // 8
    curve = {"secp256r1": "P-256", "secp384r1": "P-384"}[numbers.curve.name]
    return {
        **common,
        "kty": "EC",
        "crv": curve,
        "x": _encode(numbers.x.to_bytes(size)),
        "y": _encode(numbers.y.to_bytes(size)),
    }


def _good(key: PublicKey, message: bytes, signature: bytes) -> bool:
    try:
        if isinstance(key, rsa.RSAPublicKey):
            key.verify(signature, message, padding.PKCS1v15(), hashes.SHA256())
            return True
        _, digest, size = _CURVES[key.curve.name]
        if len(signature) != 2 * size:
            return False
        der = encode_dss_signature(int.from_bytes(signature[:size]), int.from_bytes(signature[size:]))
        key.verify(der, message, ec.ECDSA(digest))
    except InvalidSignature:
        return False
    return True


def _encode(data: bytes) -> str:
    return base64.urlsafe_b64encode(data).rstrip(b"=").decode()


def _decode(text: str) -> bytes:
    try:
        return base64.b64decode(text + "=" * (-len(text) % 4), altchars=b"-_", validate=True)
    except (binascii.Error, ValueError) as exc:
        raise MalformedToken("not base64url") from exc


def _decode_object(text: str) -> Claims:
    try:
        value = orjson.loads(_decode(text))
    except orjson.JSONDecodeError as exc:
        raise MalformedToken("not JSON") from exc
    if not isinstance(value, dict):
        raise MalformedToken("not an object")
    return value
