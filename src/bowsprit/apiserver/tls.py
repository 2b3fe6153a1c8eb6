"""TLS of the serving side: ask for client certificates without judging them.

kube-apiserver asks every client for a certificate and lets authentication judge it: an unknown authority is a 401, not a
broken handshake. Python's ssl module can only verify (and abort) or not ask at all, so the verification callback of its
OpenSSL context is replaced by one that accepts. The certificate proves possession of its key; who it speaks for is decided
by the x509 authenticator, which verifies the chain itself.
"""

from __future__ import annotations

import _ssl
import ctypes
import ssl
import sys
from collections.abc import Sequence
from typing import Any

_VerifyCallback = ctypes.CFUNCTYPE(ctypes.c_int, ctypes.c_void_p, ctypes.c_void_p)


def _accept(store_context: int, argument: int) -> int:
    return 1


_ACCEPT = _VerifyCallback(_accept)  # kept alive here: OpenSSL holds only its address


def ask_for_client_certificates(context: ssl.SSLContext) -> bool:
    """Makes a server context request client certificates and accept any; False where the interpreter does not allow it.

    Then only clients without a certificate, or with one that the context itself trusts, get through the handshake.
    """
    context.verify_mode = ssl.CERT_OPTIONAL
    pointer = _native_context(context)
    if pointer is None:
        return False
    library = ctypes.CDLL(_ssl.__file__)
    install = library.SSL_CTX_set_cert_verify_callback
    install.argtypes = [ctypes.c_void_p, _VerifyCallback, ctypes.c_void_p]
    install.restype = None
    install(pointer, _ACCEPT, None)
    return True


def _native_context(context: ssl.SSLContext) -> int | None:
    """The SSL_CTX* of a context: the first member of CPython's PySSLContext behind the object head."""
    if sys.implementation.name != "cpython" or not hasattr(_ssl, "__file__"):
        return None
    head = object.__basicsize__
    pointer = ctypes.c_void_p.from_address(id(context) + head).value
    library = ctypes.CDLL(_ssl.__file__)
    try:
        options = library.SSL_CTX_get_options
    except AttributeError:
        return None
    options.argtypes = [ctypes.c_void_p]
    options.restype = ctypes.c_uint64
    # The options read through the pointer must be the context's: else the layout is not what we think.
    if not pointer or int(options(pointer)) & 0xFFFFFFFF != int(context.options) & 0xFFFFFFFF:
        return None
    return pointer


def peer_certificates(ssl_object: Any) -> tuple[bytes | None, Sequence[bytes]]:
    """(leaf, the other certificates that were sent), in DER; the leaf is None when the peer showed none."""
    if ssl_object is None:
        return None, ()
    leaf = ssl_object.getpeercert(binary_form=True)
    if leaf is None:
        return None, ()
    native: Any = getattr(ssl_object, "_sslobj", None)
    chain = native.get_unverified_chain() if hasattr(native, "get_unverified_chain") else None
    others = [certificate.public_bytes(_ssl.ENCODING_DER) for certificate in chain or ()]
    return leaf, [certificate for certificate in others if certificate != leaf]
