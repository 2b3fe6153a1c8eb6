"""Namespace deletion: delete everything in it, by discovery, then take off its finalizer (namespaced_resources_deleter).

Pods go first; whatever discovery cannot name, or is held by finalizers, keeps the namespace Terminating, and its
conditions say so.
"""

from __future__ import annotations

import asyncio
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import dataclass, field
from datetime import datetime

from bowsprit.client.discovery import ApiResource, DiscoveryResult
from bowsprit.client.errors import ClientError
from bowsprit.client.resources import NAMESPACES, PODS
from bowsprit.controllers import conditions
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.pods import is_deleting
from bowsprit.machinery.errors import MethodNotAllowedError, NotFoundError, StatusError
from bowsprit.machinery.objects import Obj, nested

_PARALLEL = 8
_FIRST_RETRY, _MAX_RETRY = 0.3, 15.0


@dataclass(slots=True)
class Content:
    """What is left in a namespace, and what went wrong."""

    remaining: dict[str, int] = field(default_factory=dict)
    finalizers: dict[str, int] = field(default_factory=dict)
    failures: list[str] = field(default_factory=list)
    discovery_failures: dict[str, str] = field(default_factory=dict)

    @property
    def clean(self) -> bool:
        """Whether the namespace may go."""
        return not (self.remaining or self.failures or self.discovery_failures)


def deletion_conditions(current: list[Obj], content: Content, now: datetime) -> list[Obj]:
    """The five conditions of a terminating namespace, in upstream's words."""
    failed = content.discovery_failures
    remaining = ", ".join(f"{name} has {count} resource instances" for name, count in sorted(content.remaining.items()))
    held = ", ".join(f"{name} in {count} resource instances" for name, count in sorted(content.finalizers.items()))
    rows = [
        (
            "NamespaceDeletionDiscoveryFailure",
            "DiscoveryFailed" if failed else "",
            f"Discovery failed for some groups, {len(failed)} failing: unable to retrieve the complete list of server APIs: "
            + ", ".join(f"{gv}: {text}" for gv, text in sorted(failed.items())),
            "ResourcesDiscovered",
            "All resources successfully discovered",
        ),
        (
            "NamespaceDeletionGroupVersionParsingFailure",
            "",
            "",
            "ParsedGroupVersions",
            "All legacy kube types successfully parsed",
        ),
        (
            "NamespaceDeletionContentFailure",
            "ContentDeletionFailed" if content.failures else "",
            f"Failed to delete all resource types, {len(content.failures)} remaining: {', '.join(content.failures)}",
            "ContentDeleted",
            "All content successfully deleted, may be waiting on finalization",
        ),
        (
            "NamespaceContentRemaining",
            "SomeResourcesRemain" if remaining else "",
            f"Some resources are remaining: {remaining}",
            "ContentRemoved",
            "All content successfully removed",
        ),
        (
            "NamespaceFinalizersRemaining",
            "SomeFinalizersRemain" if held else "",
            f"Some content in the namespace has finalizers remaining: {held}",
            "ContentHasNoFinalizers",
            "All content-preserving finalizers finished",
        ),
    ]
    result = list(current)
    for type_, bad, bad_message, good, good_message in rows:
        new = conditions.condition(
            type_, "True" if bad else "False", bad or good, bad_message if bad else good_message, now
        )
        old = conditions.find(result, type_)
        if old is None:
            result.append(new)
        elif any(old.get(name) != new[name] for name in ("status", "reason", "message")):
            if old.get("status") == new["status"]:
                new["lastTransitionTime"] = old.get("lastTransitionTime")
            result[result.index(old)] = new
    return result


def count_remaining(content: Content, resource: ApiResource, items: Iterable[Obj]) -> None:
    """Note what a listing still shows."""
    gvr = resource.gvr
    for item in items:
        name = f"{gvr.resource}.{gvr.group}"
        content.remaining[name] = content.remaining.get(name, 0) + 1
        for finalizer in item["metadata"].get("finalizers") or ():
            content.finalizers[finalizer] = content.finalizers.get(finalizer, 0) + 1


class NamespaceController(Controller):
    """Finishes namespaces that are being deleted. ``grace`` is the time for the API servers to hear of it."""

    name = "namespace-controller"
    account = "namespace-controller"
    workers = 4
    grace = 0.2

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._namespaces = context.informers.informer(NAMESPACES)
        self._retries: dict[str, int] = {}
        self.watch(self._namespaces, self._changed)

    def _changed(self, namespace: Obj) -> None:
        if is_deleting(namespace):
            self.queue.add_after(namespace["metadata"]["name"], self.grace)

    async def sync(self, key: str) -> None:
        """See Controller."""
        try:
            namespace = await self.client.get(NAMESPACES, key)
        except NotFoundError:
            self._retries.pop(key, None)
            return
        if not is_deleting(namespace):
            return
        if nested(namespace, "status", "phase") != "Terminating":
            terminating = {**namespace, "status": {**(namespace.get("status") or {}), "phase": "Terminating"}}
            namespace = await self.client.update(NAMESPACES, terminating, subresource="status")
        if not nested(namespace, "spec", "finalizers"):
            return
        content = await self._delete_content(key)
        namespace = await self._report(namespace, content)
        if not content.clean:
            tries = self._retries[key] = self._retries.get(key, 0) + 1
            self.queue.add_after(key, min(_MAX_RETRY, _FIRST_RETRY * 1.5**tries))
            return
        self._retries.pop(key, None)
        finalizers = [name for name in nested(namespace, "spec", "finalizers", default=[]) if name != "kubernetes"]
        namespace["spec"] = {**namespace["spec"], "finalizers": finalizers}
        try:
            await self.client.update(NAMESPACES, namespace, subresource="finalize")
        except NotFoundError:
            return

    async def _report(self, namespace: Obj, content: Content) -> Obj:
        current = nested(namespace, "status", "conditions", default=[])
        updated = deletion_conditions(current, content, self.now())
        if updated == current:
            return namespace
        return await self.client.update(
            NAMESPACES, {**namespace, "status": {**namespace["status"], "conditions": updated}}, subresource="status"
        )

    async def _delete_content(self, namespace: str) -> Content:
        content = Content()
        try:
            found = await self.context.discovery.resources()
        except (StatusError, ClientError) as exc:
            found = DiscoveryResult()
            content.discovery_failures[""] = str(exc)
        content.discovery_failures |= {str(gv): text for gv, text in found.failed.items()}
        resources = [
            resource
            for resource in found.preferred()
            if resource.namespaced and "list" in resource.verbs and resource.verbs & {"delete", "deletecollection"}
        ]
        pods = [resource for resource in resources if resource.gvr == PODS]
        await self._delete_all(namespace, pods, content)
        if content.remaining:
            return content  # the rest waits until no pod uses it (KEP-5080)
        await self._delete_all(namespace, [resource for resource in resources if resource.gvr != PODS], content)
        return content

    async def _delete_all(self, namespace: str, resources: list[ApiResource], content: Content) -> None:
        slots = asyncio.Semaphore(_PARALLEL)

        async def one(resource: ApiResource) -> None:
            async with slots:
                try:
                    await self._delete_kind(namespace, resource, content)
                except (NotFoundError, MethodNotAllowedError):
                    pass  # the kind went away, or cannot be listed after all
                except (StatusError, ClientError) as exc:
                    content.failures.append(f"{resource.gvr}: {exc}")

        await asyncio.gather(*(one(resource) for resource in resources))

    async def _delete_kind(self, namespace: str, resource: ApiResource, content: Content) -> None:
        items = (await self.client.list(resource.gvr, namespace=namespace, metadata_only=True))["items"]
        if not items:
            return
        if "deletecollection" in resource.verbs:
            await self.client.delete_collection(resource.gvr, namespace=namespace, propagation_policy="Background")
        else:
            for item in items:
                with suppress(NotFoundError):
                    await self.client.delete(
                        resource.gvr, item["metadata"]["name"], namespace=namespace, propagation_policy="Background"
                    )
        count_remaining(
            content, resource, (await self.client.list(resource.gvr, namespace=namespace, metadata_only=True))["items"]
        )
