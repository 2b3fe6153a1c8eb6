"""ConfigMap kube-system/extension-apiserver-authentication: how extension servers tell whom to believe.

Several API servers may write it, so what is there stays: values are joined, certificates that have expired go. Upstream:
pkg/controlplane/controller/clusterauthenticationtrust.
"""

from __future__ import annotations

import asyncio
import contextlib
import logging
from collections.abc import Callable, Sequence
from datetime import datetime, timedelta
from typing import Any

import orjson
from cryptography import x509
from cryptography.hazmat.primitives.serialization import Encoding

from bowsprit.apiserver.authentication.front_proxy import FrontProxyHeaders
from bowsprit.apiserver.lookup import LocalClient
from bowsprit.apiserver.registry import Lister
from bowsprit.machinery.errors import (
    AlreadyExistsError,
    ConflictError,
    InvalidError,
    NotFoundError,
    RequestEntityTooLargeError,
    StatusError,
)
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, deep_copy

logger = logging.getLogger(__name__)

CONFIG_MAPS = GroupResource("", "configmaps")
NAMESPACE, NAME = "kube-system", "extension-apiserver-authentication"
_EVERY = 60.0
_SLACK = timedelta(minutes=5)
_CLIENT_CA, _PROXY_CA = "client-ca-file", "requestheader-client-ca-file"
_LISTS = (
    ("requestheader-username-headers", "username"),
    ("requestheader-uid-headers", "uid"),
    ("requestheader-group-headers", "group"),
    ("requestheader-extra-headers-prefix", "extra_prefix"),
    ("requestheader-allowed-names", "allowed_names"),
)


def joined(existing: dict[str, str], own: dict[str, str], headers: FrontProxyHeaders, now: datetime) -> dict[str, str]:
    """The data that the ConfigMap should have.

    Args:
        existing: the data it has.
        own: PEM under `client-ca-file` and `requestheader-client-ca-file`, as far as they are configured.

    Raises:
        ValueError: what it has cannot be read.
    """
    data = {}
    if bundle := _certificates(existing.get(_CLIENT_CA, ""), own.get(_CLIENT_CA, ""), now):
        data[_CLIENT_CA] = bundle
    bundle = _certificates(existing.get(_PROXY_CA, ""), own.get(_PROXY_CA, ""), now)
    if not bundle:
        return data
    data[_PROXY_CA] = bundle
    for key, field in _LISTS:
        before: Any = orjson.loads(existing[key]) if existing.get(key) else []
        if not isinstance(before, list) or not all(isinstance(item, str) for item in before):
            raise ValueError(f"{key} is no list of strings")
        mine: Sequence[str] = getattr(headers, field) if own.get(_PROXY_CA) else ()
        values = list(dict.fromkeys([*before, *mine]))
        if values or key != "requestheader-uid-headers":
            data[key] = orjson.dumps(values).decode()
    return data


def _certificates(existing: str, own: str, now: datetime) -> str:
    """PEM of all that have not expired, each once."""
    found: dict[str, None] = {}
    for bundle in (existing, own):
        for certificate in x509.load_pem_x509_certificates(bundle.encode()) if bundle else ():
            if certificate.not_valid_after_utc > now - _SLACK:
                found[certificate.public_bytes(Encoding.PEM).decode()] = None
    return "".join(found)


class AuthenticationConfig:
    """Keeps the ConfigMap; see the module's docstring.

    Args:
        own: the PEM bundles that are configured, as they are now.
        now: UTC.
    """

    def __init__(
        self,
        client: LocalClient,
        listers: Callable[[GroupResource], Lister],
        own: Callable[[], dict[str, str]],
        headers: FrontProxyHeaders,
        now: Callable[[], datetime],
    ) -> None:
        self._client = client
        self._lister = listers(CONFIG_MAPS)
        self._own = own
        self._headers = headers
        self._now = now
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None

    async def start(self) -> None:
        """Write it, and look after it whenever it changes and every minute."""
        await self.sync()
        self._unsubscribe = self._lister.subscribe(self._changed)
        self._task = asyncio.create_task(self._run(), name="authentication-config")

    async def stop(self) -> None:
        """End."""
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _changed(self, _: str, obj: Obj, __: Obj | None) -> None:
        if obj["metadata"]["name"] == NAME and obj["metadata"].get("namespace") == NAMESPACE:
            self._wake.set()

    async def _run(self) -> None:
        while True:
            with contextlib.suppress(TimeoutError):
                async with asyncio.timeout(_EVERY):
                    await self._wake.wait()
            self._wake.clear()
            try:
                await self.sync()
            except Exception:
                logger.exception("ConfigMap %s/%s was not written; it is tried again", NAMESPACE, NAME)

    async def sync(self) -> None:
        """One look at it. Raises StatusError."""
        found = self._lister.get(NAMESPACE, NAME)
        try:
            wanted = joined((found or {}).get("data") or {}, self._own(), self._headers, self._now())
        except (ValueError, orjson.JSONDecodeError) as exc:
            # Upstream leaves it alone then, too.
            logger.error("ConfigMap %s/%s cannot be read: %s", NAMESPACE, NAME, exc)
            return
        if wanted == ((found or {}).get("data") or {}):
            return
        try:
            await self._write(found, wanted)
        except (AlreadyExistsError, ConflictError, NotFoundError):
            self._wake.set()  # somebody else was faster

    async def _write(self, found: Obj | None, data: dict[str, str]) -> None:
        if found is None:
            meta = {"name": NAME, "namespace": NAMESPACE}
            await self._client.create(
                CONFIG_MAPS, {"apiVersion": "v1", "kind": "ConfigMap", "metadata": meta, "data": data}
            )
            return
        try:
            await self._client.update(CONFIG_MAPS, {**deep_copy(found), "data": data})
        except StatusError as failure:
            if isinstance(failure, RequestEntityTooLargeError) or (
                isinstance(failure, InvalidError) and "Too long" in failure.message
            ):
                # The next look writes what is really needed.
                await self._client.delete(CONFIG_MAPS, NAMESPACE, NAME)
                return
            raise
