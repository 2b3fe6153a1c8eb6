"""Claims in use by pods, and volumes bound to claims, stay until they are no longer (upstream pvcprotection, pvprotection).

Admission puts the finalizers on; these controllers take them off.
"""

from __future__ import annotations

from contextlib import suppress

from bowsprit.client.informer import Handler
from bowsprit.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.pods import is_deleting, phase
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj, nested

CLAIM_FINALIZER = "kubernetes.io/pvc-protection"
VOLUME_FINALIZER = "kubernetes.io/pv-protection"


def claims_used_by(pod: Obj) -> list[str]:
    """Index function: keys of the claims that a pod mounts, unless it has finished."""
    if phase(pod) in ("Succeeded", "Failed"):
        return []
    namespace = pod["metadata"]["namespace"]
    names = [nested(volume, "persistentVolumeClaim", "claimName") for volume in pod["spec"].get("volumes") or ()]
    return [f"{namespace}/{name}" for name in names if name]


def without_finalizer(obj: Obj, finalizer: str) -> Obj | None:
    """The object without the finalizer; None if it is not being deleted or does not have it."""
    finalizers = obj["metadata"].get("finalizers") or []
    if not is_deleting(obj) or finalizer not in finalizers:
        return None
    return {**obj, "metadata": {**obj["metadata"], "finalizers": [name for name in finalizers if name != finalizer]}}


class _Protection(Controller):
    workers = 1

    async def release(self, gvr: GroupVersionResource, kind: str, freed: Obj | None) -> None:
        """Write an object that has lost its finalizer."""
        if freed is not None:
            with suppress(NotFoundError):
                await self.client.update(gvr, {**freed, "apiVersion": "v1", "kind": kind})


class ClaimProtectionController(_Protection):
    """Keys are claims."""

    name = "persistentvolumeclaim-protection-controller"
    account = "pvc-protection-controller"

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._claims = context.informers.informer(PERSISTENT_VOLUME_CLAIMS)
        self._pods = context.informers.informer(PODS, indexers={"claim": claims_used_by})
        self.watch(self._claims)
        self._pods.add_handler(Handler(on_update=lambda old, _: self._pod(old), on_delete=self._pod))

    def _pod(self, pod: Obj) -> None:
        for key in claims_used_by(pod):
            self.queue.add(key)

    async def sync(self, key: str) -> None:
        """See Controller."""
        claim = self._claims.get(key)
        if claim is not None and not self._pods.by_index("claim", key):
            await self.release(
                PERSISTENT_VOLUME_CLAIMS, "PersistentVolumeClaim", without_finalizer(claim, CLAIM_FINALIZER)
            )


class VolumeProtectionController(_Protection):
    """Keys are volumes."""

    name = "persistentvolume-protection-controller"
    account = "pv-protection-controller"

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._volumes = context.informers.informer(PERSISTENT_VOLUMES)
        self.watch(self._volumes)

    async def sync(self, key: str) -> None:
        """See Controller."""
        volume = self._volumes.get(key)
        if volume is not None and nested(volume, "status", "phase") != "Bound":
            await self.release(PERSISTENT_VOLUMES, "PersistentVolume", without_finalizer(volume, VOLUME_FINALIZER))
