"""What the extension API servers serve, in the server's own discovery documents.

Upstream: kube-aggregator pkg/apiserver/handler_discovery.go. A group-version is asked for when its APIService changes and every
minute; servers that know aggregated discovery answer for all their group-versions at once. What cannot be asked is stale.
"""

from __future__ import annotations

import logging
from collections.abc import Iterable, Mapping
from dataclasses import dataclass
from time import monotonic
from typing import Any

from bowsprit.aggregator.backend import Backend, Fetched
from bowsprit.aggregator.workers import Workers
from bowsprit.apiserver.discovery import DiscoveryIndex
from bowsprit.client.workqueue import WorkQueue
from bowsprit.machinery.codec import DecodeError, decode_json
from bowsprit.machinery.names import GroupVersion
from bowsprit.machinery.objects import Obj

logger = logging.getLogger(__name__)

REFRESH_SECONDS = 60.0
ASK_SECONDS = 5.0
_FIRST_PAUSE = 0.5
_WORKERS = 2
_AGGREGATED = ",".join(
    f"application/json;g=apidiscovery.k8s.io;v={version};as=APIGroupDiscoveryList" for version in ("v2", "v2beta1")
)
_USER = "system:kube-aggregator"


@dataclass(frozen=True, slots=True)
class _Document:
    """What a service told in aggregated discovery, and when it was asked."""

    versions: Mapping[GroupVersion, Obj]
    etag: str
    asked: float


class DiscoveryManager:
    """See the module's docstring.

    Args:
        backends: by APIService name.
    """

    def __init__(self, backends: Mapping[str, Backend], index: DiscoveryIndex) -> None:
        self._backends = backends
        self._index = index
        self._documents: dict[tuple[str, str, int], _Document] = {}
        self._dirty: dict[str, float] = {}
        self._published: dict[str, GroupVersion] = {}
        self._queue: WorkQueue[str] = WorkQueue("discovery-manager", base_delay=_FIRST_PAUSE, max_delay=REFRESH_SECONDS)
        self._workers = Workers(self._queue, self._sync, _WORKERS)

    def start(self) -> None:
        """Begin."""
        self._workers.start()

    async def stop(self) -> None:
        """End."""
        await self._workers.stop()

    def changed(self, name: str) -> None:
        """An APIService came, changed or went."""
        used = {backend.service for backend in self._backends.values()}
        self._documents = {service: known for service, known in self._documents.items() if service in used}
        if name in self._backends:
            self._dirty[name] = monotonic()
        self._queue.add(name)

    async def _sync(self, name: str) -> None:
        backend = self._backends.get(name)
        if backend is None:
            self._dirty.pop(name, None)
            self._queue.forget(name)
            published = self._published.pop(name, None)
            if published is not None:
                self._index.drop_foreign(published)
            return
        version: Obj | None = None
        stale = False
        try:
            version = await self._fresh(name, backend)
        except LookupError as failure:
            logger.debug("discovery of %s: %s", name, failure)
            stale = True
        if self._backends.get(name) is not backend:
            return  # replaced meanwhile, and queued again
        self._publish(name, backend, version, stale=stale)
        if stale:
            self._queue.add_rate_limited(name)
        else:
            self._queue.forget(name)
            self._dirty[name] = monotonic()
            self._queue.add_after(name, REFRESH_SECONDS)

    def _publish(self, name: str, backend: Backend, version: Obj | None, *, stale: bool) -> None:
        self._published[name] = backend.group_version
        self._index.put_foreign(backend.group_version, (version or {}).get("resources") or [], stale=stale)

    async def _fresh(self, name: str, backend: Backend) -> Obj | None:
        """The group-version as the server tells of it now. Raises LookupError when it does not tell."""
        known = self._documents.get(backend.service)
        if known is not None and known.asked > self._dirty.get(name, 0.0):
            return known.versions.get(backend.group_version)
        fields = [("Accept", _AGGREGATED)]
        if known is not None and known.etag:
            fields.append(("If-None-Match", known.etag))
        asked = monotonic()
        answer = await backend.ask("/apis", fields, _USER, ["system:masters"], ASK_SECONDS)
        if answer.status == 304 and known is not None:
            self._documents[backend.service] = _Document(known.versions, known.etag, asked)
            return known.versions.get(backend.group_version)
        if answer.status == 503:
            raise LookupError(f"service {backend.service} returned non-success response code: 503")
        if answer.status == 200 and _is_aggregated(answer.content_type):
            versions = dict(_versions(_decoded(answer)))
            self._documents[backend.service] = _Document(versions, answer.etag, asked)
            return versions.get(backend.group_version)
        answer = await backend.ask(backend.path, [("Accept", "application/json")], _USER, [], ASK_SECONDS)
        if answer.status != 200:
            raise LookupError(f"failed to download legacy discovery for {backend.path}: {answer.status}")
        return {"resources": discovery_entries(_decoded(answer).get("resources") or ())}


def _is_aggregated(content_type: str) -> bool:
    media_type, *parameters = (part.strip() for part in content_type.split(";"))
    given = dict(parameter.partition("=")[::2] for parameter in parameters)
    return (
        media_type == "application/json"
        and given.get("as") == "APIGroupDiscoveryList"
        and given.get("g") == "apidiscovery.k8s.io"
        and given.get("v") in ("v2", "v2beta1")
    )


def _decoded(answer: Fetched) -> Obj:
    try:
        value: Any = decode_json(answer.body)
    except DecodeError as exc:
        raise LookupError(f"malformed document: {exc}") from exc
    if not isinstance(value, dict):
        raise LookupError("malformed document: no JSON object")
    return value


def _versions(document: Obj) -> Iterable[tuple[GroupVersion, Obj]]:
    """The group-versions of an APIGroupDiscoveryList. Raises LookupError."""
    try:
        for group in document.get("items") or ():
            name = (group.get("metadata") or {}).get("name", "")
            for version in group.get("versions") or ():
                for resource in version.get("resources") or ():
                    resource.setdefault("responseKind", _kind({}))
                    for subresource in resource.get("subresources") or ():
                        subresource.setdefault("responseKind", _kind({}))
                yield GroupVersion(name, version["version"]), version
    except (AttributeError, KeyError, TypeError) as exc:
        raise LookupError(f"malformed document: {exc}") from exc


def discovery_entries(resources: Iterable[Obj]) -> list[Obj]:
    """An APIResourceList's resources as aggregated discovery has them, subresources below their resource.

    Upstream: endpoints.ConvertGroupVersionIntoToDiscovery. Raises LookupError for what makes no sense.
    """
    found: dict[str, Obj] = {}
    later: list[Obj] = []
    try:
        for item in resources:
            if "/" in item["name"]:
                later.append(item)
                continue
            entry: Obj = {
                "resource": item["name"],
                "responseKind": _kind(item),
                "scope": _scope(item),
                "singularResource": item.get("singularName", ""),
                "verbs": list(item.get("verbs") or ()),
            }
            for field in ("shortNames", "categories"):
                if item.get(field):
                    entry[field] = list(item[field])
            found[entry["resource"]] = entry
        for item in later:
            resource, _, subresource = item["name"].partition("/")
            bare = {"resource": resource, "responseKind": _kind({}), "scope": _scope(item)}
            parent = found.setdefault(resource, {**bare, "singularResource": "", "verbs": None})
            if parent["scope"] != _scope(item):
                raise LookupError(f"the scopes of {resource} and of {item['name']} do not match")
            below = {
                "subresource": subresource,
                "responseKind": _kind(item if item.get("kind") else {}),
                "verbs": list(item.get("verbs") or ()),
            }
            parent.setdefault("subresources", []).append(below)
    except (AttributeError, KeyError, TypeError) as exc:
        raise LookupError(f"malformed document: {exc}") from exc
    return list(found.values())


def _scope(item: Obj) -> str:
    return "Namespaced" if item.get("namespaced") else "Cluster"


def _kind(item: Obj) -> Obj:
    return {"group": item.get("group", ""), "version": item.get("version", ""), "kind": item.get("kind", "")}
