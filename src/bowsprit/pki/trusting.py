"""TLS contexts of clients: whom they trust, as Go's crypto/tls does it.

Any certificate of the bundle is an anchor, be it an intermediate or the server's own (RFC 5280 section 6.1.1 leaves it open).
Certificates are not held to RFC 5280 to the letter, as Python does from 3.13 on: many clusters' own authorities leave out key
identifiers. The common name counts for nothing.
"""

from __future__ import annotations

import ssl


def trusting(roots: bytes = b"") -> ssl.SSLContext:
    """A client's context that trusts a PEM bundle, or the system's authorities when there is none.

    Raises:
        ssl.SSLError, ValueError: the bundle holds no certificate.
    """
    context = ssl.create_default_context(cadata=roots.decode("ascii") if roots else None)
    context.verify_flags = ssl.VERIFY_X509_TRUSTED_FIRST | ssl.VERIFY_X509_PARTIAL_CHAIN
    context.hostname_checks_common_name = False
    return context
