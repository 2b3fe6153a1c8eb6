"""VolumeZone: zone labels of bound volumes must agree with the node's."""

from __future__ import annotations

import numpy as np

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.cache import Cache
from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import SKIP, CycleState, Ints, Status, failure, unresolvable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podinfo import PodInfo

REASON = "node(s) had no available volume zone"
_BETA_ZONE, _BETA_REGION = "failure-domain.beta.kubernetes.io/zone", "failure-domain.beta.kubernetes.io/region"
_ZONE, _REGION = "topology.kubernetes.io/zone", "topology.kubernetes.io/region"
TOPOLOGY_LABELS = (_BETA_ZONE, _BETA_REGION, _ZONE, _REGION)
_GA = {_BETA_ZONE: _ZONE, _BETA_REGION: _REGION}
_KEY = "PreFilterVolumeZone"

Wanted = list[tuple[str, frozenset[str]]]  # label, allowed values


def class_of(claim: Obj) -> str:
    """GetPersistentVolumeClaimClass: the beta annotation wins over the field."""
    annotations = claim["metadata"].get("annotations") or {}
    if "volume.beta.kubernetes.io/storage-class" in annotations:
        return str(annotations["volume.beta.kubernetes.io/storage-class"])
    return (claim.get("spec") or {}).get("storageClassName") or ""


class VolumeZone:
    name = "VolumeZone"
    local = False

    def __init__(self, cache: Cache):
        self._cache = cache

    def pre_filter(
        self, state: CycleState, pod: PodInfo, nodes: NodeColumns
    ) -> tuple[frozenset[str] | None, Status | None]:
        if not pod.volumes:
            return None, SKIP
        wanted, status = self._wanted(pod)
        if status is not None:
            return None, status
        if not wanted:
            return None, SKIP
        state.data[_KEY] = wanted
        return None, None

    def _wanted(self, pod: PodInfo) -> tuple[Wanted, Status | None]:
        objects = self._cache.objects
        wanted: Wanted = []
        for volume in pod.volumes:
            if not volume.get("persistentVolumeClaim"):
                continue
            name = volume["persistentVolumeClaim"].get("claimName", "")
            if not name:
                return wanted, unresolvable("PersistentVolumeClaim had no name")
            claim = objects.get("PersistentVolumeClaim", name, pod.namespace)
            if claim is None:
                return wanted, unresolvable(f'persistentvolumeclaim "{name}" not found')
            volume_name = (claim.get("spec") or {}).get("volumeName") or ""
            if not volume_name:
                status = self._unbound(claim)
                if status is not None:
                    return wanted, status
                continue
            volume_object = objects.get("PersistentVolume", volume_name)
            if volume_object is None:
                return wanted, unresolvable(f'persistentvolume "{volume_name}" not found')
            labels = volume_object["metadata"].get("labels") or {}
            wanted += [(key, frozenset(labels[key].split("__"))) for key in TOPOLOGY_LABELS if key in labels]
        return wanted, None

    def _unbound(self, claim: Obj) -> Status | None:
        name = class_of(claim)
        if not name:
            return unresolvable("PersistentVolumeClaim had no pv name and storageClass name")
        storage_class = self._cache.objects.get("StorageClass", name)
        if storage_class is None:
            return unresolvable(f'storageclass.storage.k8s.io "{name}" not found')
        if storage_class.get("volumeBindingMode") is None:
            return failure(f'VolumeBindingMode not set for StorageClass "{name}"')
        if storage_class["volumeBindingMode"] == "WaitForFirstConsumer":
            return None
        return unresolvable("PersistentVolume had no name")

    @staticmethod
    def _fits(wanted: Wanted, labels: dict[str, str]) -> bool:
        if not any(key in labels for key in TOPOLOGY_LABELS):
            return True
        for key, values in wanted:
            value = labels.get(key, labels.get(_GA.get(key, key)))
            if value is None or value not in values:
                return False
        return True

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        return None if self._fits(state.data[_KEY], node.labels) else unresolvable(REASON)

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints:
        wanted: Wanted = state.data[_KEY]

        def interned() -> tuple[Ints, list[dict[str, str]]]:
            index: dict[tuple[tuple[str, str], ...], int] = {(): 0}
            ids = [
                0
                if info is None
                else index.setdefault(
                    tuple((key, info.labels[key]) for key in TOPOLOGY_LABELS if key in info.labels), len(index)
                )
                for info in nodes.infos
            ]
            return np.array(ids, dtype=np.int64), [dict(labels) for labels in index]

        ids, sets = nodes.derived("volume-zones", interned)
        return np.array([0 if self._fits(wanted, labels) else 1 for labels in sets], dtype=np.int64)[ids]

    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status:
        return unresolvable(REASON)
