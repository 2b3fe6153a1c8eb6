"""The base of controllers that own pods: which key a pod's change concerns, expectations, adoption."""

from __future__ import annotations

from typing import ClassVar

from bowsprit.client.cache import object_key
from bowsprit.client.informer import Handler
from bowsprit.client.resources import PODS
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.expectations import Expectations
from bowsprit.controllers.ownership import OwnershipKeeper
from bowsprit.controllers.pod_control import PodControl
from bowsprit.controllers.pods import POD_INDEXERS, is_deleting
from bowsprit.machinery.names import GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj, controller_of, labels
from bowsprit.machinery.selectors import LabelSelector


class PodOwnerController(Controller):
    """Keys are the owners of ``kind``; subclasses sync them."""

    gvr: ClassVar[GroupVersionResource]
    kind: ClassVar[str]

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self.gvk: GroupVersionKind = self.gvr.gv.with_kind(self.kind)
        indexers = {"namespace": POD_INDEXERS["namespace"], "owner": POD_INDEXERS["owner"]}
        self.owners = context.informers.informer(self.gvr, indexers=indexers)
        self.pods = context.informers.informer(PODS, indexers=POD_INDEXERS)
        self.expectations = Expectations(lambda: context.now().timestamp())
        self.keeper = OwnershipKeeper(context.client, self.gvr, self.gvk, PODS)
        self.control = PodControl(context.client, self.event)
        self.owners.add_handler(
            Handler(lambda obj, _: self.enqueue(obj), lambda _, obj: self.enqueue(obj), self._owner_deleted)
        )
        self.pods.add_handler(Handler(self._pod_added, self._pod_updated, self._pod_deleted))

    def selector(self, owner: Obj) -> LabelSelector:
        """Which pods belong to an owner."""
        return LabelSelector.from_obj(owner["spec"].get("selector"))

    def typed(self, owner: Obj) -> Obj:
        """A shallow copy of a cached owner with its apiVersion and kind, for events and updates."""
        return {**owner, "apiVersion": self.gvr.api_version, "kind": self.kind}

    def owner_key(self, pod: Obj) -> str | None:
        """The key of the living owner of a pod."""
        reference = controller_of(pod)
        if reference is None or reference.get("kind") != self.kind:
            return None
        key = f"{pod['metadata']['namespace']}/{reference['name']}"
        owner = self.owners.get(key)
        return key if owner is not None and owner["metadata"]["uid"] == reference["uid"] else None

    def pod_changed(self, key: str, old: Obj, pod: Obj) -> None:
        """A pod of ``key`` changed (a hook beside queueing the key)."""

    async def claim(self, owner: Obj, candidates: list[Obj] | None = None) -> list[Obj]:
        """The owner's pods after adoption and release, among the candidates (default: all of its namespace)."""
        if candidates is None:
            candidates = self.pods.by_index("namespace", owner["metadata"]["namespace"])
        return await self.keeper.claim(owner, self.selector(owner), candidates)

    def _owner_deleted(self, owner: Obj) -> None:
        self.expectations.forget(object_key(owner))
        self.enqueue(owner)

    def _pod_added(self, pod: Obj, initial: bool) -> None:
        if is_deleting(pod):
            self._pod_deleted(pod)
        elif key := self.owner_key(pod):
            self.expectations.creation_observed(key)
            self.queue.add(key)
        elif controller_of(pod) is None:
            self._enqueue_matching(pod)

    def _pod_updated(self, old: Obj, pod: Obj) -> None:
        if is_deleting(pod) and not is_deleting(old):
            self._pod_deleted(pod)
            return
        before, after = self.owner_key(old), self.owner_key(pod)
        if before and before != after:
            self.queue.add(before)
        if after:
            self.queue.add(after)
            self.pod_changed(after, old, pod)
        elif controller_of(pod) is None and (labels(old) != labels(pod) or controller_of(old) is not None):
            self._enqueue_matching(pod)

    def _pod_deleted(self, pod: Obj) -> None:
        if key := self.owner_key(pod):
            self.expectations.deletion_observed(key, pod["metadata"]["uid"])
            self.queue.add(key)

    def _enqueue_matching(self, pod: Obj) -> None:
        for owner in self.owners.by_index("namespace", pod["metadata"]["namespace"]):
            selector = self.selector(owner)
            if not selector.is_empty() and selector.matches(labels(pod)):
                self.enqueue(owner)
