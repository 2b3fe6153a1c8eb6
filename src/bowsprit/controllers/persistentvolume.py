"""Binds PersistentVolumeClaims to volumes, and makes volumes for simulated storage (upstream pkg/controller/volume).

A claim whose StorageClass has the provisioner ``bowsprit.dev/simulated`` gets a volume that stands for nothing; any other
claim gets the smallest PersistentVolume that fits. Volumes of other provisioners are theirs to make.
"""

from __future__ import annotations

from collections.abc import Iterable
from contextlib import suppress

from bowsprit.client.cache import object_key
from bowsprit.client.informer import Handler
from bowsprit.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, STORAGE_CLASSES
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.pods import is_deleting
from bowsprit.machinery import objects
from bowsprit.machinery.errors import AlreadyExistsError, NotFoundError
from bowsprit.machinery.objects import Obj, labels, nested
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.selectors import LabelSelector

PROVISIONER = "bowsprit.dev/simulated"
_BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
_BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
_PROVISIONED_BY = "pv.kubernetes.io/provisioned-by"
_SELECTED_NODE = "volume.kubernetes.io/selected-node"
_VOLUME = "volume:"


def fits(claim: Obj, volume: Obj) -> bool:
    """Whether an unbound volume (or one reserved for this claim) can serve the claim."""
    spec, wanted = volume["spec"], claim["spec"]
    reserved = spec.get("claimRef")
    if reserved is not None:
        meta = claim["metadata"]
        if (reserved.get("namespace"), reserved.get("name")) != (meta["namespace"], meta["name"]):
            return False
        return reserved.get("uid") in (None, "", meta["uid"])
    if is_deleting(volume) or (volume.get("status") or {}).get("phase") not in ("Available", "Pending", None):
        return False
    if wanted.get("volumeName"):
        return bool(wanted["volumeName"] == volume["metadata"]["name"])
    selector = wanted.get("selector")
    return (
        (spec.get("storageClassName") or "") == (wanted.get("storageClassName") or "")
        and (spec.get("volumeMode") or "Filesystem") == (wanted.get("volumeMode") or "Filesystem")
        and set(wanted.get("accessModes") or ()) <= set(spec.get("accessModes") or ())
        and (selector is None or LabelSelector.from_obj(selector).matches(labels(volume)))
        and _size(spec.get("capacity")) >= _size(nested(wanted, "resources", "requests"))
    )


def choose(claim: Obj, volumes: Iterable[Obj]) -> Obj | None:
    """The volume for a claim: one reserved for it, else the smallest that fits."""
    fitting = [volume for volume in volumes if fits(claim, volume)]
    return min(
        fitting,
        key=lambda volume: (not volume["spec"].get("claimRef"), _size(volume["spec"].get("capacity"))),
        default=None,
    )


def provisioned(claim: Obj, storage_class: Obj) -> Obj:
    """A simulated volume made for a claim."""
    meta, spec = claim["metadata"], claim["spec"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolume",
        "metadata": {"name": f"pvc-{meta['uid']}", "annotations": {_PROVISIONED_BY: PROVISIONER}},
        "spec": {
            "capacity": {"storage": nested(spec, "resources", "requests", "storage", default="1Gi")},
            "accessModes": spec.get("accessModes") or ["ReadWriteOnce"],
            "volumeMode": spec.get("volumeMode") or "Filesystem",
            "persistentVolumeReclaimPolicy": storage_class.get("reclaimPolicy") or "Delete",
            "storageClassName": storage_class["metadata"]["name"],
            "hostPath": {"path": f"/var/lib/bowsprit/{meta['uid']}", "type": "DirectoryOrCreate"},
            "claimRef": claim_reference(claim),
        },
    }


def claim_reference(claim: Obj) -> Obj:
    """The reference with which a volume names its claim."""
    meta = claim["metadata"]
    return {
        "apiVersion": "v1",
        "kind": "PersistentVolumeClaim",
        "namespace": meta["namespace"],
        "name": meta["name"],
        "uid": meta["uid"],
    }


def _size(amounts: Obj | None) -> Quantity:
    return Quantity.parse((amounts or {}).get("storage") or "0")


class PersistentVolumeController(Controller):
    """Keys are claims, and, with a prefix, volumes."""

    name = "persistentvolume-binder-controller"
    account = "persistent-volume-binder"
    component = "persistentvolume-controller"
    workers = 1

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._claims = context.informers.informer(PERSISTENT_VOLUME_CLAIMS)
        self._volumes = context.informers.informer(PERSISTENT_VOLUMES)
        self._classes = context.informers.informer(STORAGE_CLASSES)
        self.watch(self._claims)
        self.watch(self._volumes, self._volume_changed)
        self._classes.add_handler(Handler(lambda _, __: self._enqueue_waiting()))
        self._claims.add_handler(Handler(on_delete=self._claim_deleted))

    def _volume_changed(self, volume: Obj) -> None:
        self.queue.add(f"{_VOLUME}{volume['metadata']['name']}")
        self._enqueue_waiting()

    def _claim_deleted(self, claim: Obj) -> None:
        if volume := claim["spec"].get("volumeName"):
            self.queue.add(f"{_VOLUME}{volume}")

    def _enqueue_waiting(self) -> None:
        for claim in self._claims.list():
            if nested(claim, "status", "phase") != "Bound":
                self.enqueue(claim)

    async def sync(self, key: str) -> None:
        """See Controller."""
        if key.startswith(_VOLUME):
            await self._sync_volume(key.removeprefix(_VOLUME))
            return
        claim = self._claims.get(key)
        if claim is None or is_deleting(claim) or nested(claim, "status", "phase") == "Bound":
            return
        volume = choose(claim, self._volumes.list()) or await self._provision(claim)
        if volume is not None:
            await self._bind({**claim, "apiVersion": "v1", "kind": "PersistentVolumeClaim"}, volume)

    async def _provision(self, claim: Obj) -> Obj | None:
        storage_class = self._classes.get(claim["spec"].get("storageClassName") or "")
        if storage_class is None or storage_class.get("provisioner") != PROVISIONER:
            return None
        waits = storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"
        if waits and _SELECTED_NODE not in objects.annotations(claim):
            return None
        made = provisioned(claim, storage_class)
        try:
            volume = await self.client.create(PERSISTENT_VOLUMES, made)
        except AlreadyExistsError:
            volume = await self.client.get(PERSISTENT_VOLUMES, made["metadata"]["name"])
        text = f"Successfully provisioned volume {made['metadata']['name']} using {PROVISIONER}"
        self.event(
            {**claim, "apiVersion": "v1", "kind": "PersistentVolumeClaim"}, "Normal", "ProvisioningSucceeded", text
        )
        return volume

    async def _bind(self, claim: Obj, volume: Obj) -> None:
        """First the volume names the claim, then the claim the volume: a crash in between can be finished later."""
        volume = {**volume, "apiVersion": "v1", "kind": "PersistentVolume"}
        if nested(volume, "spec", "claimRef", "uid") != claim["metadata"]["uid"]:
            annotations = {**objects.annotations(volume), _BOUND_BY_CONTROLLER: "yes"}
            volume["metadata"] = {**volume["metadata"], "annotations": annotations}
            volume["spec"] = {**volume["spec"], "claimRef": claim_reference(claim)}
            volume = await self.client.update(PERSISTENT_VOLUMES, volume)
        if nested(volume, "status", "phase") != "Bound":
            status = {**(volume.get("status") or {}), "phase": "Bound"}
            volume = await self.client.update(PERSISTENT_VOLUMES, {**volume, "status": status}, subresource="status")
        if claim["spec"].get("volumeName") != volume["metadata"]["name"]:
            annotations = {**objects.annotations(claim), _BIND_COMPLETED: "yes", _BOUND_BY_CONTROLLER: "yes"}
            claim["metadata"] = {**claim["metadata"], "annotations": annotations}
            claim["spec"] = {**claim["spec"], "volumeName": volume["metadata"]["name"]}
            claim = await self.client.update(PERSISTENT_VOLUME_CLAIMS, claim)
        status = {
            "phase": "Bound",
            "accessModes": volume["spec"].get("accessModes"),
            "capacity": volume["spec"].get("capacity"),
        }
        await self.client.update(PERSISTENT_VOLUME_CLAIMS, {**claim, "status": status}, subresource="status")

    async def _sync_volume(self, name: str) -> None:
        volume = self._volumes.get(name)
        if volume is None or is_deleting(volume):
            return
        reference = volume["spec"].get("claimRef")
        if reference is None or not reference.get("uid"):
            if nested(volume, "status", "phase") != "Available":
                await self._set_phase(volume, "Available")
            return
        claim = self._claims.get(object_key({"metadata": reference}))
        if claim is not None and claim["metadata"]["uid"] == reference["uid"]:
            return
        if nested(volume, "status", "phase") != "Released":
            await self._set_phase(volume, "Released")
        elif self._is_ours_to_delete(volume):
            with suppress(NotFoundError):
                await self.client.delete(PERSISTENT_VOLUMES, name, uid=volume["metadata"]["uid"])

    @staticmethod
    def _is_ours_to_delete(volume: Obj) -> bool:
        ours = objects.annotations(volume).get(_PROVISIONED_BY) == PROVISIONER
        return ours and volume["spec"].get("persistentVolumeReclaimPolicy") == "Delete"

    async def _set_phase(self, volume: Obj, phase: str) -> None:
        body = {**volume, "apiVersion": "v1", "kind": "PersistentVolume"}
        body["status"] = {**(volume.get("status") or {}), "phase": phase}
        with suppress(NotFoundError):
            await self.client.update(PERSISTENT_VOLUMES, body, subresource="status")
