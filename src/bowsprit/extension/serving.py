"""The serving certificate of a server that was given none: made at the start, signed by an authority made for it."""

from __future__ import annotations

import datetime
import shutil
import tempfile
from dataclasses import dataclass
from pathlib import Path

from bowsprit.extension.certificates import Certificates, serving_names
from bowsprit.pki.errors import PKIError
from bowsprit.pki.files import read_file, write_public
from bowsprit.pki.keypair import KeyPair

_CERT, _KEY, _CA = "tls.crt", "tls.key", "ca.crt"


@dataclass(frozen=True, slots=True)
class ServingFiles:
    """A certificate, its key, and the authority that clients must trust; `folder` is removed at the end."""

    cert: Path
    key: Path
    ca_pem: bytes
    folder: Path | None = None

    def discard(self) -> None:
        """Remove what was made for one run."""
        if self.folder is not None:
            shutil.rmtree(self.folder, ignore_errors=True)


def made_serving_files(service: str, namespace: str, now: datetime.datetime, keep: Path | None = None) -> ServingFiles:
    """A pair for a Service and this host; the one in the folder `keep` if it is still good, else a new one. Raises OSError."""
    names = serving_names(service, namespace)
    if keep is not None and (kept := _kept(keep, names, now)) is not None:
        return kept
    folder = keep or Path(tempfile.mkdtemp(prefix="bowsprit-extension-"))
    folder.mkdir(parents=True, exist_ok=True, mode=0o700)
    made = Certificates.make(service, namespace, now=now, addresses=["127.0.0.1", "::1"])
    files = ServingFiles(folder / _CERT, folder / _KEY, made.bundle, None if keep is not None else folder)
    made.serving.save(files.cert, files.key)
    write_public(folder / _CA, made.bundle)
    return files


def _kept(folder: Path, names: list[str], now: datetime.datetime) -> ServingFiles | None:
    try:
        ca_pem = read_file(folder / _CA)
        pair = KeyPair.load(folder / _CERT, folder / _KEY)
    except PKIError:
        return None
    if Certificates(ca_pem, b"", pair, ca_pem).problem(names, now):
        return None
    return ServingFiles(folder / _CERT, folder / _KEY, ca_pem)
