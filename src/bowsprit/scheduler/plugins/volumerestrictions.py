"""VolumeRestrictions: disks that only one pod may use, and ReadWriteOncePod claims."""

from __future__ import annotations

from collections.abc import Iterable

import numpy as np

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.cache import Cache
from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import SKIP, CycleState, Ints, Status, unresolvable, unschedulable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podinfo import PodInfo

REASON_DISK = "node(s) had no available disk"
REASON_ONCE = (
    "node(s) unavailable due to PersistentVolumeClaim with ReadWriteOncePod access mode already in-use by another pod"
)
_KEY = "PreFilterVolumeRestrictions"
_DISK, _ONCE = 1, 2


def _disks(volumes: Iterable[Obj]) -> list[tuple[str, Obj]]:
    kinds = ("gcePersistentDisk", "awsElasticBlockStore", "rbd", "iscsi")
    return [(kind, volume[kind]) for volume in volumes for kind in kinds if volume.get(kind)]


def _conflict(kind: str, mine: Obj, theirs: Obj) -> bool:
    """isVolumeConflict: the same disk, unless both sides only read (EBS: never shared)."""
    if kind == "awsElasticBlockStore":
        return bool(mine.get("volumeID") == theirs.get("volumeID"))
    if mine.get("readOnly") and theirs.get("readOnly"):
        return False
    if kind == "gcePersistentDisk":
        return bool(mine.get("pdName") == theirs.get("pdName"))
    if kind == "iscsi":
        return bool(mine.get("iqn") == theirs.get("iqn"))
    shared = set(mine.get("monitors") or ()) & set(theirs.get("monitors") or ())
    pool, image = mine.get("pool") or "rbd", mine.get("image")
    return bool(shared) and pool == (theirs.get("pool") or "rbd") and image == theirs.get("image")


class _OnceState:
    """ReadWriteOncePod claims of the pod, and how many other pods use them anywhere."""

    __slots__ = ("claims", "conflicts")

    def __init__(self, claims: frozenset[str], conflicts: int):
        self.claims = claims
        self.conflicts = conflicts

    def clone(self) -> _OnceState:
        return _OnceState(self.claims, self.conflicts)


class VolumeRestrictions:
    name = "VolumeRestrictions"
    local = False

    def __init__(self, cache: Cache):
        self._cache = cache

    def pre_filter(
        self, state: CycleState, pod: PodInfo, nodes: NodeColumns
    ) -> tuple[frozenset[str] | None, Status | None]:
        if not pod.volumes:
            return None, SKIP
        claims: set[str] = set()
        for volume in pod.volumes:
            if not volume.get("persistentVolumeClaim"):
                continue
            name = volume["persistentVolumeClaim"].get("claimName", "")
            claim = self._cache.objects.get("PersistentVolumeClaim", name, pod.namespace)
            if claim is None:
                return None, unresolvable(f'persistentvolumeclaim "{name}" not found')
            if "ReadWriteOncePod" in ((claim.get("spec") or {}).get("accessModes") or ()):
                claims.add(name)
        disks = _disks(pod.volumes)
        if not claims and not disks:
            return None, SKIP
        conflicts = sum(sum(nodes.claim_users.get(f"{pod.namespace}/{name}", {}).values()) for name in claims)
        state.data[_KEY] = _OnceState(frozenset(claims), conflicts)
        return None, None

    def _check(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> int:
        for kind, mine in _disks(pod.volumes):
            for other in node.pods.values():
                if any(kind == other_kind and _conflict(kind, mine, d) for other_kind, d in _disks(other.volumes)):
                    return _DISK
        once: _OnceState = state.data[_KEY]
        return _ONCE if once.claims and once.conflicts > 0 else 0

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        code = self._check(state, pod, node)
        return self.explain(state, pod, code) if code else None

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints:
        once: _OnceState = state.data[_KEY]
        codes: Ints = np.full(nodes.size, _ONCE if once.claims and once.conflicts > 0 else 0, dtype=np.int64)
        if _disks(pod.volumes):
            for row in nodes.volume_rows:
                codes[row] = self._check(state, pod, nodes.info(row))
        return codes

    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status:
        return unschedulable(REASON_DISK if code == _DISK else REASON_ONCE)

    def _update(self, state: CycleState, pod: PodInfo, other: PodInfo, sign: int) -> None:
        once: _OnceState | None = state.data.get(_KEY)
        if once is not None and other.namespace == pod.namespace:
            once.conflicts += sign * len(once.claims & set(other.claim_names()))

    def add_pod(self, state: CycleState, pod: PodInfo, added: PodInfo, node: NodeInfo) -> None:
        self._update(state, pod, added, 1)

    def remove_pod(self, state: CycleState, pod: PodInfo, removed: PodInfo, node: NodeInfo) -> None:
        self._update(state, pod, removed, -1)
