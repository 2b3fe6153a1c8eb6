"""The OpenAPI documents of extension API servers, among the server's own.

Upstream: kube-aggregator pkg/controllers/openapi and openapiv3. v2 documents are fetched, cut down and joined; of v3 only the
list is fetched, the documents themselves are passed on when they are asked for. A server without v3 has one made of its v2.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Awaitable, Callable, Mapping
from typing import TYPE_CHECKING, Any

from bowsprit.aggregator.backend import Backend, Fetched
from bowsprit.aggregator.openapi_v2 import join, only_paths
from bowsprit.aggregator.openapi_v3 import from_v2
from bowsprit.aggregator.workers import Workers
from bowsprit.apiserver.openapi import OpenAPI
from bowsprit.client.workqueue import WorkQueue
from bowsprit.machinery.codec import DecodeError, decode_json
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.openapi_protobuf import encode_v2

if TYPE_CHECKING:
    from aiohttp import web

    from bowsprit.apiserver.answer import Answer, Sent
    from bowsprit.apiserver.request import RequestContext

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 60.0
LONGEST_PAUSE = 3600.0
FIRST_SECONDS = 1.0
ASK_SECONDS = 60.0
_USER = "system:aggregator"
_WORKERS = 4  # a slow server must not keep the others' documents waiting

Pass = Callable[[Backend, "RequestContext", "web.BaseRequest"], Awaitable["Answer | Sent"]]
"""Hands a request on to a backend."""


class DocumentError(Exception):
    """A backend's document cannot be had or used."""


class SecondVersion:
    """The v2 documents."""

    def __init__(self, backends: Mapping[str, Backend], documents: OpenAPI) -> None:
        self._backends = backends
        self._documents = documents
        self._specs: dict[str, Obj] = {}
        self._etags: dict[str, str] = {}
        self._known: set[str] = set()
        self._queue: WorkQueue[str] = WorkQueue(
            "open_api_aggregation_controller", base_delay=REFRESH_SECONDS, max_delay=LONGEST_PAUSE
        )
        self._workers = Workers(self._queue, self._sync, _WORKERS)

    def start(self) -> None:
        """Begin."""
        self._documents.extend_v2 = self._extended
        self._workers.start()

    async def stop(self) -> None:
        """End."""
        await self._workers.stop()

    def changed(self, name: str) -> None:
        """An APIService came, changed or went."""
        if name not in self._backends:
            self._known.discard(name)
            self._etags.pop(name, None)
            if self._specs.pop(name, None) is not None:
                self._documents.invalidate_v2()
            self._queue.forget(name)
        elif name in self._known:
            self._queue.forget(name)
            self._queue.add(name)
        else:
            self._known.add(name)
            self._queue.add_after(name, FIRST_SECONDS)

    async def _sync(self, name: str) -> None:
        backend = self._backends.get(name)
        if backend is None:
            return
        try:
            fetched = await fetch_v2(backend, self._etags.get(name, ""))
        except DocumentError as failure:
            logger.debug("OpenAPI v2 of %s: %s", name, failure)
            self._queue.add_rate_limited(name)
            return
        if self._backends.get(name) is not backend:
            return
        if fetched is not None:
            self._specs[name], self._etags[name] = fetched
            self._documents.invalidate_v2()
        self._queue.forget(name)
        self._queue.add_after(name, REFRESH_SECONDS)

    def _extended(self, own: Obj) -> Obj:
        """The server's own document with everybody's; runs in a thread."""
        backends = dict(self._backends)
        groups: dict[str, int] = {}
        for backend in backends.values():
            group, priority = backend.group_version.group, backend.spec.get("groupPriorityMinimum", 0)
            groups[group] = max(priority, groups.get(group, 0))

        def order(name: str) -> tuple[int, int, str]:
            spec = backends[name].spec
            return -groups[spec.get("group", "")], -spec.get("versionPriority", 0), name

        for name in sorted((name for name in list(self._specs) if name in backends), key=order):
            own = join(own, self._specs[name])
        return {
            **own,
            "paths": dict(sorted(own["paths"].items())),
            "definitions": dict(sorted(own["definitions"].items())),
        }


class ThirdVersion:
    """The v3 documents."""

    def __init__(self, backends: Mapping[str, Backend], documents: OpenAPI, pass_on: Pass) -> None:
        self._backends = backends
        self._documents = documents
        self._pass = pass_on
        self._paths: dict[str, set[str]] = {}
        self._converted: dict[str, str] = {}  # APIService name -> path of the document made of its v2
        self._legacy: dict[str, str] = {}  # APIService name -> ETag of its v2
        self._known: set[str] = set()
        self._queue: WorkQueue[str] = WorkQueue(
            "open_api_v3_aggregation_controller", base_delay=REFRESH_SECONDS, max_delay=LONGEST_PAUSE
        )
        self._workers = Workers(self._queue, self._sync, _WORKERS)

    def start(self) -> None:
        """Begin."""
        self._workers.start()

    async def stop(self) -> None:
        """End."""
        await self._workers.stop()

    def changed(self, name: str) -> None:
        """An APIService came, changed or went."""
        if name not in self._backends:
            self._known.discard(name)
            self._legacy.pop(name, None)
            self._drop(name, self._paths.pop(name, set()))
            if name in self._converted:
                self._documents.unmount(self._converted.pop(name), name)
            self._queue.forget(name)
        elif name not in self._known:
            self._known.add(name)
            self._queue.add_after(name, FIRST_SECONDS)
        elif self._queue.num_requeues(name):
            self._queue.forget(name)
            self._queue.add_after(name, FIRST_SECONDS)

    async def _sync(self, name: str) -> None:
        backend = self._backends.get(name)
        if backend is None:
            return
        try:
            if name not in self._legacy:
                answer = await backend.ask("/openapi/v3", (), _USER, [], ASK_SECONDS)
                if answer.status == 404:
                    self._legacy[name] = ""
                elif self._backends.get(name) is backend:
                    self._publish(name, _index(answer))
            if name in self._legacy:
                await self._convert(name, backend)
        except DocumentError as failure:
            logger.debug("OpenAPI v3 of %s: %s", name, failure)
            self._queue.add_rate_limited(name)
            return
        self._queue.forget(name)
        self._queue.add_after(name, REFRESH_SECONDS)

    def _publish(self, name: str, index: Mapping[str, str]) -> None:
        self._drop(name, self._paths.get(name, set()) - set(index))
        self._paths[name] = set(index)

        async def hand_on(ctx: RequestContext, request: web.BaseRequest) -> Answer | Sent:
            return await self._pass(self._backends[name], ctx, request)

        own = self._backends[name].path[1:]
        for path, url in index.items():
            self._documents.mount(path, name, url, hand_on, before_own=path == own)

    def _drop(self, name: str, paths: set[str]) -> None:
        for path in paths:
            self._documents.unmount(path, name)

    async def _convert(self, name: str, backend: Backend) -> None:
        fetched = await fetch_v2(backend, self._legacy[name], cut=False)
        if fetched is None or self._backends.get(name) is not backend:
            return
        document, self._legacy[name] = fetched
        path = backend.path[1:]
        self._converted[name] = path
        self._documents.mount_document(path, name, lambda: from_v2(document))


async def fetch_v2(backend: Backend, etag: str, *, cut: bool = True) -> tuple[Obj, str] | None:
    """A backend's v2 document, by default cut down to its group-version, and the ETag; None if it has not changed.

    Raises:
        DocumentError.
    """
    fields = [("Accept", "application/json")]
    if etag:
        fields.append(("If-None-Match", etag))
    answer = await backend.ask("/openapi/v2", fields, _USER, [], ASK_SECONDS)
    if answer.status == 304 and etag:
        return None
    if answer.status != 200:
        raise DocumentError(f"failed to retrieve openAPI spec, http error: {answer.status}")
    prefix = f"{backend.path}/"

    def digest() -> Obj:
        document = _decoded(answer)
        document = only_paths(document, lambda path: path.startswith(prefix)) if cut else document
        if cut:
            encode_v2(document)  # what cannot be encoded must not spoil everybody's document
        else:
            from_v2(document)
        return document

    try:
        return await asyncio.to_thread(digest), answer.etag
    except (AttributeError, KeyError, TypeError, ValueError) as exc:
        raise DocumentError(f"malformed document: {exc!r}") from exc


def _decoded(answer: Fetched) -> Obj:
    try:
        value: Any = decode_json(answer.body)
    except DecodeError as exc:
        raise DocumentError(f"malformed document: {exc}") from exc
    if not isinstance(value, dict):
        raise DocumentError("malformed document: no JSON object")
    return value


def _index(answer: Fetched) -> dict[str, str]:
    if answer.status != 200:
        raise DocumentError("could not get list of group versions for APIService")
    paths = _decoded(answer).get("paths")
    if not isinstance(paths, dict):
        raise DocumentError("malformed document: no paths")
    found = {}
    for path, item in paths.items():
        url = item.get("serverRelativeURL") if isinstance(item, dict) else None
        if isinstance(url, str):
            found[path] = url
    return found
