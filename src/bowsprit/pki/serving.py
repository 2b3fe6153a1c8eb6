"""TLS server contexts whose certificate follows its files.

A context is built from the files; its SNI callback hands every new handshake the newest one. The files are looked at no
more than once a second, by modification time; a pair that cannot be loaded leaves the last good one in place.
"""

from __future__ import annotations

import logging
import ssl
import time
from collections.abc import Callable
from pathlib import Path

from bowsprit.pki.errors import PKIError

log = logging.getLogger(__name__)

_LOOK_EVERY = 1.0


class ServingContext:
    """The server context of a certificate and key file.

    Args:
        cert, key: PEM files; the certificate's may hold a chain.
        client_ca: PEM bundle that client certificates must verify against; None asks for no client certificate.
        require_client: refuse the handshake without a client certificate.
        configure: applied to every context that is built (ALPN, verification hooks).

    Raises:
        PKIError: the files cannot be used.
    """

    def __init__(
        self,
        cert: Path,
        key: Path,
        *,
        client_ca: Path | None = None,
        require_client: bool = False,
        configure: Callable[[ssl.SSLContext], None] | None = None,
        clock: Callable[[], float] = time.monotonic,
    ) -> None:
        self._files = [path for path in (cert, key, client_ca) if path is not None]
        self._cert, self._key, self._client_ca = cert, key, client_ca
        self._require_client = require_client
        self._configure = configure
        self._clock = clock
        self._stamp = self._stamps()
        self._looked = clock()
        self._current = self._build()
        self.context = self._current
        """The context to listen with."""
        self.context.sni_callback = self._on_handshake

    def _on_handshake(self, connection: ssl.SSLObject, _name: str | None, _context: ssl.SSLContext) -> None:
        self._refresh()
        if connection.context is not self._current:
            connection.context = self._current

    def _refresh(self) -> None:
        now = self._clock()
        if now - self._looked < _LOOK_EVERY:
            return
        self._looked = now
        stamp = self._stamps()
        if stamp == self._stamp:
            return
        try:
            self._current = self._build()
        except PKIError as exc:
            log.warning("keeping the old certificate: %s", exc.message)
            return
        self._stamp = stamp
        log.info("loaded the changed certificate %s", self._cert)

    def _stamps(self) -> list[tuple[int, int, int]]:
        stamps = []
        for path in self._files:
            try:
                info = path.stat()
            except OSError:
                stamps.append((0, 0, 0))
            else:
                stamps.append((info.st_mtime_ns, info.st_ino, info.st_size))
        return stamps

    def _build(self) -> ssl.SSLContext:
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.minimum_version = ssl.TLSVersion.TLSv1_2
        try:
            context.load_cert_chain(self._cert, self._key, password=_no_password)
        except (OSError, ssl.SSLError) as exc:
            raise PKIError(f"cannot use {self._cert} with {self._key}: {exc.strerror or exc}") from exc
        if self._client_ca is not None:
            try:
                context.load_verify_locations(cafile=str(self._client_ca))
            except (OSError, ssl.SSLError) as exc:
                raise PKIError(f"cannot use {self._client_ca} as client CA: {exc.strerror or exc}") from exc
            context.verify_mode = ssl.CERT_REQUIRED if self._require_client else ssl.CERT_OPTIONAL
        if self._configure is not None:
            self._configure(context)
        return context


def _no_password() -> str:
    raise PKIError("the private key is encrypted", hint="decrypt it: openssl pkey -in KEY -out KEY")
