"""The REST client: verbs on resources, with objects as decoded JSON.

Failures the server explains are machinery.errors.StatusError; see client.errors for the others.
Upstream: client-go's dynamic client (and rest.Request below it).
"""

from __future__ import annotations

from collections.abc import AsyncGenerator, AsyncIterator, Mapping
from contextlib import asynccontextmanager
from dataclasses import dataclass
from enum import Enum
from typing import Any, Literal, Self, cast

import orjson

from bowsprit.client.config import RestConfig
from bowsprit.client.errors import ClientError, ConnectionFailed
from bowsprit.client.transport import RawResponse, Transport
from bowsprit.machinery.errors import StatusError, from_status, generic
from bowsprit.machinery.names import GroupVersionResource, resource_path
from bowsprit.machinery.objects import Obj

_METADATA = "application/json;as=PartialObjectMetadata{};g=meta.k8s.io;v=v1,application/json"
_MAX_WATCH_FRAME = 32 * 1024 * 1024
_WATCH_GRACE = 30.0  # seconds that a server may be late in ending a watch


class PatchType(Enum):
    """Media types of patches."""

    JSON = "application/json-patch+json"
    MERGE = "application/merge-patch+json"
    STRATEGIC = "application/strategic-merge-patch+json"
    APPLY = "application/apply-patch+yaml"


@dataclass(frozen=True, slots=True)
class WatchEvent:
    """``type`` is ADDED, MODIFIED, DELETED or BOOKMARK."""

    type: str
    object: Obj


class RestClient:
    """Verbs on resources. ``namespace`` None addresses a cluster-scoped object, or all namespaces of a collection."""

    def __init__(self, config: RestConfig) -> None:
        self.config = config
        self.transport = Transport(config)

    async def __aenter__(self) -> Self:
        return self

    async def __aexit__(self, *exc: object) -> None:
        await self.close()

    async def close(self) -> None:
        """Close all connections."""
        await self.transport.close()

    # Reading

    async def get(
        self,
        gvr: GroupVersionResource,
        name: str,
        *,
        namespace: str | None = None,
        subresource: str | None = None,
        params: Mapping[str, str] | None = None,
    ) -> Obj:
        """One object (or its subresource)."""
        return await self.request_json("GET", _path(gvr, namespace, name, subresource), params=params)

    async def pages(
        self,
        gvr: GroupVersionResource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = 500,
        resource_version: str | None = None,
        resource_version_match: str | None = None,
        metadata_only: bool = False,
    ) -> AsyncIterator[Obj]:
        """A collection in pages of at most ``limit`` items (0: in one), all of one resourceVersion."""
        params = _params(
            labelSelector=label_selector,
            fieldSelector=field_selector,
            limit=str(limit) if limit else None,
            resourceVersion=resource_version,
            resourceVersionMatch=resource_version_match,
        )
        headers = {"Accept": _METADATA.format("List")} if metadata_only else None
        path = _path(gvr, namespace)
        while True:
            page = await self.request_json("GET", path, params=params, headers=headers)
            yield page
            token = (page.get("metadata") or {}).get("continue")
            if not token:
                return
            params["continue"] = token
            params.pop("resourceVersion", None)  # the token carries it; both together are refused
            params.pop("resourceVersionMatch", None)

    async def list(
        self,
        gvr: GroupVersionResource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        limit: int = 500,
        resource_version: str | None = None,
        resource_version_match: str | None = None,
        metadata_only: bool = False,
    ) -> Obj:
        """The whole collection as one List object (never None for its items)."""
        result: Obj | None = None
        async for page in self.pages(
            gvr,
            namespace=namespace,
            label_selector=label_selector,
            field_selector=field_selector,
            limit=limit,
            resource_version=resource_version,
            resource_version_match=resource_version_match,
            metadata_only=metadata_only,
        ):
            if result is None:
                result = page
                result["items"] = page.get("items") or []
            else:
                result["items"].extend(page.get("items") or [])
                result["metadata"] = page.get("metadata") or {}
        assert result is not None
        result["metadata"].pop("remainingItemCount", None)
        return result

    async def watch(
        self,
        gvr: GroupVersionResource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        resource_version: str | None = None,
        send_initial_events: bool = False,
        bookmarks: bool = True,
        timeout_seconds: int | None = None,
        metadata_only: bool = False,
    ) -> AsyncGenerator[WatchEvent, None]:
        """Changes, until the server ends the watch. An ERROR event, or a refusal, raises StatusError.

        Close the iterator (``aclose``) to end the watch early.
        """
        params = _params(
            watch="true",
            labelSelector=label_selector,
            fieldSelector=field_selector,
            resourceVersion=resource_version,
            allowWatchBookmarks="true" if bookmarks else None,
            timeoutSeconds=str(timeout_seconds) if timeout_seconds else None,
        )
        if send_initial_events:
            params |= {
                "sendInitialEvents": "true",
                "resourceVersionMatch": "NotOlderThan",
                "allowWatchBookmarks": "true",
            }
        headers = {"Accept": _METADATA.format("")} if metadata_only else None
        async with self._stream(_path(gvr, namespace), params, headers, timeout_seconds) as frames:
            async for frame in frames:
                if frame["type"] == "ERROR":
                    raise from_status(frame["object"])
                yield WatchEvent(frame["type"], frame["object"])

    # Writing

    async def create(
        self,
        gvr: GroupVersionResource,
        obj: Obj,
        *,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: str | None = None,
    ) -> Obj:
        """POST an object, or to the subresource of the object ``name`` (binding, eviction, token)."""
        params = _write_params(dry_run, field_manager, field_validation)
        path = _path(gvr, namespace or _own_namespace(obj, subresource), name, subresource)
        return await self.request_json("POST", path, params=params, body=orjson.dumps(obj))

    async def update(
        self,
        gvr: GroupVersionResource,
        obj: Obj,
        *,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: str | None = None,
    ) -> Obj:
        """PUT an object to its own name (or its status, scale, ...)."""
        params = _write_params(dry_run, field_manager, field_validation)
        meta = obj.get("metadata") or {}
        path = _path(gvr, namespace or meta.get("namespace"), name or str(meta["name"]), subresource)
        return await self.request_json("PUT", path, params=params, body=orjson.dumps(obj))

    async def patch(
        self,
        gvr: GroupVersionResource,
        name: str,
        patch: Any,
        *,
        patch_type: PatchType = PatchType.MERGE,
        namespace: str | None = None,
        subresource: str | None = None,
        dry_run: bool = False,
        field_manager: str | None = None,
        field_validation: str | None = None,
        force: bool = False,
    ) -> Obj:
        """PATCH an object with a JSON value of the given patch type."""
        params = _write_params(dry_run, field_manager, field_validation)
        if force:
            params["force"] = "true"
        return await self.request_json(
            "PATCH",
            _path(gvr, namespace, name, subresource),
            params=params,
            body=orjson.dumps(patch),
            headers={"Content-Type": patch_type.value},
        )

    async def apply(
        self,
        gvr: GroupVersionResource,
        obj: Obj,
        *,
        field_manager: str,
        force: bool = False,
        namespace: str | None = None,
        subresource: str | None = None,
        dry_run: bool = False,
    ) -> Obj:
        """Server-side apply; JSON is YAML, so the body is JSON."""
        meta = obj["metadata"]
        return await self.patch(
            gvr,
            meta["name"],
            obj,
            patch_type=PatchType.APPLY,
            namespace=namespace or meta.get("namespace"),
            subresource=subresource,
            dry_run=dry_run,
            field_manager=field_manager,
            force=force,
        )

    async def delete(
        self,
        gvr: GroupVersionResource,
        name: str,
        *,
        namespace: str | None = None,
        grace_period_seconds: int | None = None,
        propagation_policy: Literal["Background", "Foreground", "Orphan"] | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        dry_run: bool = False,
    ) -> Obj:
        """DELETE one object; ``uid`` and ``resource_version`` are preconditions. Answers a Status or the object."""
        body = _delete_options(grace_period_seconds, propagation_policy, uid, resource_version, dry_run)
        return await self.request_json("DELETE", _path(gvr, namespace, name), body=orjson.dumps(body))

    async def delete_collection(
        self,
        gvr: GroupVersionResource,
        *,
        namespace: str | None = None,
        label_selector: str | None = None,
        field_selector: str | None = None,
        grace_period_seconds: int | None = None,
        propagation_policy: Literal["Background", "Foreground", "Orphan"] | None = None,
    ) -> Obj:
        """DELETE what matches the selectors (everything in the namespace, if there are none)."""
        body = _delete_options(grace_period_seconds, propagation_policy, None, None, False)
        params = _params(labelSelector=label_selector, fieldSelector=field_selector)
        return await self.request_json("DELETE", _path(gvr, namespace), params=params, body=orjson.dumps(body))

    # Anything else

    async def raw(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> RawResponse:
        """Any request; an error status is an answer, not an exception."""
        return await self.transport.send(method, path, params=params, body=body, headers=headers, timeout=timeout)

    async def request_json(
        self,
        method: str,
        path: str,
        *,
        params: Mapping[str, str] | None = None,
        body: bytes | None = None,
        headers: Mapping[str, str] | None = None,
        timeout: float | None = None,
    ) -> Obj:
        """Any request whose answer is a JSON object; raises StatusError for an error status."""
        every = dict(headers or {})
        if body is not None:
            every.setdefault("Content-Type", "application/json")
        answer = await self.raw(method, path, params=params, body=body, headers=every, timeout=timeout)
        if answer.status >= 400:
            raise status_error(answer.status, answer.body, method)
        try:
            return cast("Obj", orjson.loads(answer.body))
        except orjson.JSONDecodeError as exc:
            raise ClientError(f"{method} {path}: the answer is not JSON: {exc}") from exc

    @asynccontextmanager
    async def _stream(
        self, path: str, params: dict[str, str], headers: dict[str, str] | None, timeout_seconds: int | None
    ) -> AsyncIterator[AsyncIterator[Obj]]:
        deadline = timeout_seconds + _WATCH_GRACE if timeout_seconds else None
        request = self.transport.open(
            "GET", path, params=params, headers=headers, timeout=deadline, endless=deadline is None
        )
        async with request as answer:
            if answer.status >= 400:
                body = await answer.content.read(1024 * 1024)
                raise status_error(answer.status, body, "GET")
            yield _frames(answer.content.iter_any())


async def _frames(chunks: AsyncIterator[bytes]) -> AsyncIterator[Obj]:
    """Newline-separated JSON values; the buffer is bounded."""
    rest = b""
    async for chunk in chunks:
        lines = (rest + chunk if rest else chunk).split(b"\n")
        rest = lines.pop()
        for line in lines:
            if line:
                try:
                    frame = orjson.loads(line)
                except orjson.JSONDecodeError as exc:
                    raise ConnectionFailed(f"a watch event is not JSON: {exc}") from exc
                yield frame
        if len(rest) > _MAX_WATCH_FRAME:
            raise ConnectionFailed(f"a watch event exceeds {_MAX_WATCH_FRAME} bytes")


def status_error(code: int, body: bytes, verb: str) -> StatusError:
    """The error in a response: its Status if it has one, otherwise one made from the HTTP code and the text."""
    try:
        document = orjson.loads(body)
    except orjson.JSONDecodeError:
        document = None
    if isinstance(document, dict) and document.get("kind") == "Status":
        return from_status(document)
    return generic(code, message=body[:2048].decode("utf-8", "replace").strip(), verb=verb)


def _path(
    gvr: GroupVersionResource, namespace: str | None = None, name: str | None = None, subresource: str | None = None
) -> str:
    return resource_path(gvr, namespace or "", name or "", subresource or "")


def _own_namespace(obj: Obj, subresource: str | None) -> str | None:
    return None if subresource else (obj.get("metadata") or {}).get("namespace")


def _params(**values: str | None) -> dict[str, str]:
    return {name: value for name, value in values.items() if value is not None and value != ""}


def _write_params(dry_run: bool, field_manager: str | None, field_validation: str | None) -> dict[str, str]:
    return _params(dryRun="All" if dry_run else None, fieldManager=field_manager, fieldValidation=field_validation)


def _delete_options(
    grace: int | None, policy: str | None, uid: str | None, resource_version: str | None, dry_run: bool
) -> Obj:
    options: Obj = {"kind": "DeleteOptions", "apiVersion": "v1"}
    if grace is not None:
        options["gracePeriodSeconds"] = grace
    if policy:
        options["propagationPolicy"] = policy
    preconditions = _params(uid=uid, resourceVersion=resource_version)
    if preconditions:
        options["preconditions"] = preconditions
    if dry_run:
        options["dryRun"] = ["All"]
    return options
