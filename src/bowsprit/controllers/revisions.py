"""ControllerRevisions: the template history of DaemonSets and StatefulSets (upstream pkg/controller/history)."""

from __future__ import annotations

from collections.abc import Iterable

from bowsprit.client.informer import Informer
from bowsprit.client.resources import CONTROLLER_REVISIONS
from bowsprit.client.rest import PatchType, RestClient
from bowsprit.controllers.pods import normalised, template_hash
from bowsprit.machinery.errors import AlreadyExistsError, NotFoundError
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj, labels, nested, new_controller_ref, owner_references

HASH_LABEL = "controller-revision-hash"


def revision_data(owner: Obj) -> Obj:
    """What a revision records: the template, as a patch that replaces it."""
    return {"spec": {"template": {**owner["spec"]["template"], "$patch": "replace"}}}


def owned_revisions(owner: Obj, revisions: Iterable[Obj]) -> list[Obj]:
    """The owner's revisions, oldest first."""
    uid = owner["metadata"]["uid"]
    mine = [item for item in revisions if any(ref.get("uid") == uid for ref in owner_references(item))]
    return sorted(mine, key=lambda item: (item.get("revision", 0), item["metadata"]["name"]))


class RevisionKeeper:
    """Finds or makes the revision of an owner's present template."""

    def __init__(self, client: RestClient, informer: Informer, gvk: GroupVersionKind) -> None:
        self._client = client
        self._informer = informer
        self._gvk = gvk

    def history(self, owner: Obj) -> list[Obj]:
        """The owner's revisions, oldest first."""
        return owned_revisions(owner, self._informer.list(owner["metadata"]["namespace"]))

    async def current(self, owner: Obj) -> Obj:
        """The revision whose data is the present template; it becomes the newest."""
        history = self.history(owner)
        data = revision_data(owner)
        newest = max((item.get("revision", 0) for item in history), default=0)
        for item in history:
            if normalised(item.get("data")) == normalised(data):
                if item.get("revision", 0) == newest:
                    return item
                meta = item["metadata"]
                return await self._client.patch(
                    CONTROLLER_REVISIONS,
                    meta["name"],
                    {"revision": newest + 1},
                    namespace=meta["namespace"],
                    patch_type=PatchType.MERGE,
                )
        return await self._create(owner, data, newest + 1)

    async def _create(self, owner: Obj, data: Obj, number: int) -> Obj:
        meta = owner["metadata"]
        collisions = nested(owner, "status", "collisionCount")
        while True:
            hashed = template_hash(owner["spec"]["template"], collisions)
            made: Obj = {
                "apiVersion": "apps/v1",
                "kind": "ControllerRevision",
                "metadata": {
                    "name": f"{meta['name']}-{hashed}",
                    "namespace": meta["namespace"],
                    "labels": {
                        **nested(owner, "spec", "template", "metadata", "labels", default={}),
                        HASH_LABEL: hashed,
                    },
                    "ownerReferences": [new_controller_ref(owner, self._gvk)],
                },
                "data": data,
                "revision": number,
            }
            try:
                return await self._client.create(CONTROLLER_REVISIONS, made)
            except AlreadyExistsError:
                name = made["metadata"]["name"]
                existing = await self._client.get(CONTROLLER_REVISIONS, name, namespace=meta["namespace"])
                if normalised(existing.get("data")) == normalised(data):
                    return existing
                collisions = (collisions or 0) + 1

    async def truncate(self, owner: Obj, live: set[str]) -> None:
        """Delete revisions beyond the history limit that no pod uses (``live``: hashes in use)."""
        limit = owner["spec"].get("revisionHistoryLimit")
        unused = [item for item in self.history(owner) if revision_hash(item) not in live]
        for item in unused[: max(0, len(unused) - (10 if limit is None else int(limit)))]:
            meta = item["metadata"]
            try:
                await self._client.delete(
                    CONTROLLER_REVISIONS, meta["name"], namespace=meta["namespace"], uid=meta["uid"]
                )
            except NotFoundError:
                continue


def revision_hash(revision: Obj) -> str:
    """The hash that pods of a revision carry as label."""
    return labels(revision).get(HASH_LABEL, "")
