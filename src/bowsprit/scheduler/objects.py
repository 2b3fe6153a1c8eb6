"""Everything that plugins look at besides nodes and pods: claims, volumes, services, budgets, namespaces."""

from __future__ import annotations

from collections.abc import Iterable

from bowsprit.machinery.objects import Obj

# The kinds that the default plugins read, with the resource that serves them.
KINDS = {
    "Namespace": ("", "v1", "namespaces"),
    "PersistentVolume": ("", "v1", "persistentvolumes"),
    "PersistentVolumeClaim": ("", "v1", "persistentvolumeclaims"),
    "Service": ("", "v1", "services"),
    "ReplicationController": ("", "v1", "replicationcontrollers"),
    "ReplicaSet": ("apps", "v1", "replicasets"),
    "StatefulSet": ("apps", "v1", "statefulsets"),
    "PodDisruptionBudget": ("policy", "v1", "poddisruptionbudgets"),
    "StorageClass": ("storage.k8s.io", "v1", "storageclasses"),
    "CSINode": ("storage.k8s.io", "v1", "csinodes"),
    "CSIDriver": ("storage.k8s.io", "v1", "csidrivers"),
    "CSIStorageCapacity": ("storage.k8s.io", "v1", "csistoragecapacities"),
    "VolumeAttachment": ("storage.k8s.io", "v1", "volumeattachments"),
}


class ClusterObjects:
    """Objects by kind and key ("ns/name" or "name"). `versions` grow with every change of a kind."""

    def __init__(self) -> None:
        self._objects: dict[str, dict[str, Obj]] = {kind: {} for kind in KINDS}
        self._in_namespace: dict[str, dict[str, dict[str, Obj]]] = {kind: {} for kind in KINDS}
        self.versions: dict[str, int] = dict.fromkeys(KINDS, 0)

    @staticmethod
    def key_of(obj: Obj) -> str:
        meta = obj["metadata"]
        namespace = meta.get("namespace")
        return f"{namespace}/{meta['name']}" if namespace else str(meta["name"])

    def set(self, kind: str, obj: Obj) -> Obj | None:
        """Add or replace an object; returns the old one. Kinds that no plugin reads are ignored."""
        if kind not in self._objects:
            return None
        key = self.key_of(obj)
        old = self._objects[kind].get(key)
        self._objects[kind][key] = obj
        self._in_namespace[kind].setdefault(obj["metadata"].get("namespace") or "", {})[key] = obj
        self.versions[kind] += 1
        return old

    def delete(self, kind: str, obj: Obj) -> None:
        if kind not in self._objects:
            return
        key = self.key_of(obj)
        if self._objects[kind].pop(key, None) is not None:
            self._in_namespace[kind][obj["metadata"].get("namespace") or ""].pop(key, None)
            self.versions[kind] += 1

    def get(self, kind: str, name: str, namespace: str = "") -> Obj | None:
        return self._objects[kind].get(f"{namespace}/{name}" if namespace else name)

    def list(self, kind: str, namespace: str | None = None) -> Iterable[Obj]:
        if namespace is None:
            return self._objects[kind].values()
        return self._in_namespace[kind].get(namespace, {}).values()

    def namespace_labels(self, namespace: str) -> dict[str, str]:
        obj = self._objects["Namespace"].get(namespace)
        return (obj["metadata"].get("labels") or {}) if obj else {}
