"""The garbage collector: deletes what has lost its owners; foreground and orphan deletion (upstream garbagecollector.go).

It follows the metadata of every kind that can be deleted, those of CustomResourceDefinitions and aggregated APIs as they
come and go, keeps a graph of owners, and asks the server itself before it deletes anything.
"""

from __future__ import annotations

import asyncio
import logging
from collections import OrderedDict

from bowsprit.client.cache import only_metadata
from bowsprit.client.discovery import ApiResource
from bowsprit.client.errors import ClientError
from bowsprit.client.informer import Handler, Informer
from bowsprit.client.resources import CUSTOM_RESOURCE_DEFINITIONS, EVENTS, EVENTS_V1
from bowsprit.client.rest import PatchType
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.gc_graph import FOREGROUND, ORPHAN, Decision, Graph, Node, Owner, Verdict, decide
from bowsprit.machinery.errors import InvalidError, NotFoundError, StatusError
from bowsprit.machinery.names import GroupVersion, GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj

log = logging.getLogger(__name__)

_IGNORED = frozenset({EVENTS.gr, EVENTS_V1.gr})
_REQUIRED = frozenset({"delete", "list", "watch"})
_RESYNC = 30.0  # seconds between looks at discovery (upstream)
_ABSENT_CACHE = 500
_API_SERVICES = GroupVersionResource("apiregistration.k8s.io", "v1", "apiservices")


class OwnerUnknown(ClientError):
    """An owner's kind is not served at the moment: nothing may be concluded."""


class GarbageCollector(Controller):
    """Keys of the queue are uids."""

    name = "garbage-collector-controller"
    account = "generic-garbage-collector"
    workers = 8

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._graph = Graph()
        self._monitors: dict[GroupVersionResource, Informer] = {}
        self._own: set[GroupVersionResource] = set()
        self._absent: OrderedDict[str, None] = OrderedDict()
        self._refresh = asyncio.Event()
        self._settled = asyncio.Event()
        handler = Handler(
            lambda _, initial: self._refresh.set(), lambda _, __: self._refresh.set(), lambda _: self._refresh.set()
        )
        for gvr in (CUSTOM_RESOURCE_DEFINITIONS, _API_SERVICES):
            context.informers.informer(gvr, metadata_only=True).add_handler(handler)

    async def run(self) -> None:
        """See Controller; also follows discovery."""
        async with asyncio.TaskGroup() as group:
            group.create_task(self._follow_discovery(), name="gc-discovery")
            await self._settled.wait()  # before that, most owners would look absent
            group.create_task(super().run(), name="gc-workers")

    async def close(self) -> None:
        """See Controller."""
        await super().close()
        await asyncio.gather(*(self._monitors[gvr].stop() for gvr in self._own))

    async def _follow_discovery(self) -> None:
        while True:
            self._refresh.clear()
            try:
                await self._sync_monitors()
            except (StatusError, ClientError, TimeoutError) as exc:
                log.info("garbage collector: discovery: %s", exc)
            self._settled.set()
            try:
                async with asyncio.timeout(_RESYNC):
                    await self._refresh.wait()
                await asyncio.sleep(0.3)  # a CustomResourceDefinition changes several times until it is established
            except TimeoutError:
                pass

    async def _sync_monitors(self) -> None:
        found = await self.context.mapper.refresh()
        wanted = {
            resource.gvr: resource
            for resource in found.preferred()
            if resource.verbs >= _REQUIRED and resource.gvr.gr not in _IGNORED
        }
        for gvr in [gvr for gvr in self._monitors if gvr not in wanted and gvr.gv not in found.failed]:
            await self._forget_monitor(gvr)
        fresh = [resource for gvr, resource in wanted.items() if gvr not in self._monitors]
        for resource in fresh:
            self._settled.clear()
            self._monitors[resource.gvr] = self._monitor(resource)
        await asyncio.gather(*(self._monitors[resource.gvr].wait_synced(30) for resource in fresh))

    def _monitor(self, resource: ApiResource) -> Informer:
        shared = self.context.informers.existing(resource.gvr)
        informer = shared or Informer(self.client, resource.gvr, metadata_only=True, transform=_lean)
        gvr, kind = resource.gvr, resource.kind

        def put(obj: Obj) -> None:
            obj.setdefault("kind", kind)
            self._look_at(self._graph.put({"kind": kind, "metadata": obj["metadata"]}, gvr))

        informer.add_handler(
            Handler(
                lambda obj, _: put(obj),
                lambda _, obj: put(obj),
                lambda obj: self._look_at(self._graph.remove(obj["metadata"]["uid"])),
            )
        )
        if shared is None:
            self._own.add(gvr)
            informer.start()
        return informer

    async def _forget_monitor(self, gvr: GroupVersionResource) -> None:
        informer = self._monitors.pop(gvr)
        if gvr in self._own:
            self._own.discard(gvr)
            await informer.stop()
            for obj in informer.list():
                self._look_at(self._graph.remove(obj["metadata"]["uid"]))

    def _look_at(self, nodes: list[Node]) -> None:
        for node in nodes:
            self.queue.add(node.uid)

    async def sync(self, key: str) -> None:
        """See Controller."""
        node = self._graph.nodes.get(key)
        if node is None or (not node.deleting and not self._graph.needs_look(node)):
            return
        live = await self._live(node)
        if live is None:
            self._look_at(self._graph.remove(key))
            return
        self._look_at([other for other in self._graph.put({"kind": node.kind, **live}, node.gvr) if other is not node])
        if node.deleting and not self._settled.is_set():
            self.queue.add_after(key, 0.5)  # dependents of a kind that is being read are not known yet
            return
        absent = [owner.uid for owner in node.owners if not node.deleting and await self._is_absent(owner, node)]
        await self._carry_out(node, live, decide(self._graph, node, absent))

    async def _live(self, node: Node) -> Obj | None:
        try:
            live = only_metadata(await self.client.get(node.gvr, node.name, namespace=node.namespace or None))
        except NotFoundError:
            return None
        return live if live["metadata"].get("uid") == node.uid else None

    async def _is_absent(self, owner: Owner, child: Node) -> bool:
        known = self._graph.holds(owner, child)
        if known is not None:
            return not known
        cache_key = f"{owner.uid}/{child.namespace}"
        if cache_key in self._absent:
            return True
        try:
            gvk = GroupVersionKind.parse(owner.api_version, owner.kind)
        except ValueError:
            gvk = GroupVersion("", owner.api_version).with_kind(owner.kind)
        resource = await self.context.mapper.resource_for(gvk)
        if resource is None:
            raise OwnerUnknown(f"no matches for kind {owner.kind!r} in version {owner.api_version!r}")
        if resource.namespaced and not child.namespace:
            absent = True  # a cluster-scoped object cannot have an owner in a namespace
        else:
            try:
                live = await self.client.get(
                    resource.gvr, owner.name, namespace=child.namespace if resource.namespaced else None
                )
                absent = live["metadata"].get("uid") != owner.uid
            except NotFoundError:
                absent = True
        if absent:
            self._absent[cache_key] = None
            if len(self._absent) > _ABSENT_CACHE:
                self._absent.popitem(last=False)
        return absent

    async def _carry_out(self, node: Node, live: Obj, decision: Decision) -> None:
        self._look_at(list(decision.dependents) if decision.verdict is Verdict.KEEP else [])
        match decision.verdict:
            case Verdict.KEEP:
                return
            case Verdict.ORPHAN_DEPENDENTS:
                for child in decision.dependents:
                    await self._drop_references(child, (node.uid,))
                await self._drop_finalizer(node, live, ORPHAN)
            case Verdict.FINISH_FOREGROUND:
                await self._drop_finalizer(node, live, FOREGROUND)
            case Verdict.DROP_REFERENCES:
                await self._drop_references(node, decision.uids)
            case _:
                if decision.unblock:
                    await self._unblock(node, live)
                log.info("deleting %s %s/%s: owners are gone", node.kind, node.namespace, node.name)
                await self._delete(node, live, decision.verdict)

    async def _delete(self, node: Node, live: Obj, verdict: Verdict) -> None:
        policies = {
            Verdict.DELETE_BACKGROUND: "Background",
            Verdict.DELETE_FOREGROUND: "Foreground",
            Verdict.DELETE_ORPHAN: "Orphan",
        }
        try:
            await self.client.delete(
                node.gvr,
                node.name,
                namespace=node.namespace or None,
                propagation_policy=policies[verdict],  # type: ignore[arg-type]
                uid=node.uid,
                resource_version=live["metadata"].get("resourceVersion"),
            )
        except NotFoundError:
            self._look_at(self._graph.remove(node.uid))

    async def _drop_references(self, node: Node, uids: tuple[str, ...]) -> None:
        live = await self._live(node)
        if live is None:
            return
        references = live["metadata"].get("ownerReferences") or []
        kept = [reference for reference in references if reference.get("uid") not in uids]
        if len(kept) != len(references):
            await self._patch(node, live, {"ownerReferences": kept or None})

    async def _drop_finalizer(self, node: Node, live: Obj, finalizer: str) -> None:
        finalizers = live["metadata"].get("finalizers") or []
        if finalizer in finalizers:
            await self._patch(node, live, {"finalizers": [name for name in finalizers if name != finalizer] or None})

    async def _unblock(self, node: Node, live: Obj) -> None:
        references = [
            {**reference, "blockOwnerDeletion": False} for reference in live["metadata"].get("ownerReferences") or []
        ]
        patched = await self._patch(node, live, {"ownerReferences": references})
        if patched is not None:
            live["metadata"]["resourceVersion"] = patched["metadata"].get("resourceVersion")

    async def _patch(self, node: Node, live: Obj, change: Obj) -> Obj | None:
        meta = {"uid": node.uid, "resourceVersion": live["metadata"].get("resourceVersion"), **change}
        try:
            return await self.client.patch(
                node.gvr,
                node.name,
                {"metadata": meta},
                namespace=node.namespace or None,
                patch_type=PatchType.MERGE,
            )
        except (NotFoundError, InvalidError):
            return None


def _lean(obj: Obj) -> Obj:
    """Only what the graph needs: a cluster's worth of metadata stays small."""
    meta = obj["metadata"]
    names = ("name", "namespace", "uid", "resourceVersion", "ownerReferences", "finalizers", "deletionTimestamp")
    return {"metadata": {name: meta[name] for name in names if meta.get(name)}}
