"""Which objects a controller owns: adopting orphans that match its selector, releasing those that no longer do.

Upstream: controller_ref_manager.go. Adoption asks the API server first whether the owner still is what the cache says.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

from bowsprit.client.rest import PatchType, RestClient
from bowsprit.controllers.pods import is_deleting
from bowsprit.machinery.errors import InvalidError, NotFoundError
from bowsprit.machinery.names import GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj, controller_of, labels, new_controller_ref, owner_references
from bowsprit.machinery.selectors import LabelSelector


@dataclass(slots=True)
class Claim:
    """The outcome of looking at candidates."""

    owned: list[Obj] = field(default_factory=list)
    adopt: list[Obj] = field(default_factory=list)
    release: list[Obj] = field(default_factory=list)


def classify(owner: Obj, selector: LabelSelector, candidates: Iterable[Obj], *, adopt_inactive: bool = True) -> Claim:
    """Decide for each candidate of the owner's namespace. A dying owner neither adopts nor releases."""
    claim = Claim()
    dying = is_deleting(owner)
    for candidate in candidates:
        controller = controller_of(candidate)
        matches = selector.matches(labels(candidate))
        if controller is not None:
            if controller.get("uid") != owner["metadata"]["uid"]:
                continue
            if matches:
                claim.owned.append(candidate)
            elif not dying:
                claim.release.append(candidate)
        elif matches and not dying and not is_deleting(candidate):
            finished = (candidate.get("status") or {}).get("phase") in ("Succeeded", "Failed")
            if adopt_inactive or not finished:
                claim.adopt.append(candidate)
    return claim


class OwnershipKeeper:
    """Carries out claims of one kind of owner on one kind of object."""

    def __init__(
        self,
        client: RestClient,
        owner_gvr: GroupVersionResource,
        owner_gvk: GroupVersionKind,
        gvr: GroupVersionResource,
    ) -> None:
        self._client = client
        self._owner_gvr = owner_gvr
        self._owner_gvk = owner_gvk
        self._gvr = gvr

    async def claim(self, owner: Obj, selector: LabelSelector, candidates: Iterable[Obj]) -> list[Obj]:
        """Adopt and release what must be; answers what the owner owns now."""
        claim = classify(owner, selector, candidates)
        owned = list(claim.owned)
        if claim.adopt and await self._still_wanted(owner):
            for candidate in claim.adopt:
                if await self._adopt(owner, candidate):
                    owned.append(candidate)
        for candidate in claim.release:
            await self.release(owner, candidate)
        return owned

    async def _still_wanted(self, owner: Obj) -> bool:
        """Whether the live owner is the cached one and is not being deleted (upstream RecheckDeletionTimestamp)."""
        meta = owner["metadata"]
        try:
            fresh = await self._client.get(self._owner_gvr, meta["name"], namespace=meta["namespace"])
        except NotFoundError:
            return False
        return fresh["metadata"]["uid"] == meta["uid"] and not is_deleting(fresh)

    async def _adopt(self, owner: Obj, candidate: Obj) -> bool:
        meta = candidate["metadata"]
        references = [*owner_references(candidate), new_controller_ref(owner, self._owner_gvk)]
        patch = {"metadata": {"ownerReferences": references, "uid": meta["uid"]}}
        return await self._patch(candidate, patch)

    async def release(self, owner: Obj, candidate: Obj) -> bool:
        """Take our reference off an object."""
        uid = owner["metadata"]["uid"]
        references = [reference for reference in owner_references(candidate) if reference.get("uid") != uid]
        patch = {"metadata": {"ownerReferences": references or None, "uid": candidate["metadata"]["uid"]}}
        return await self._patch(candidate, patch)

    async def _patch(self, candidate: Obj, patch: Obj) -> bool:
        meta = candidate["metadata"]
        try:
            await self._client.patch(
                self._gvr, meta["name"], patch, namespace=meta["namespace"], patch_type=PatchType.MERGE
            )
        except (NotFoundError, InvalidError):  # gone, or another object of that name by now (the uid differs)
            return False
        return True
