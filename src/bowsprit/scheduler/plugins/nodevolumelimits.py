"""NodeVolumeLimits: CSI volumes attached to a node may not exceed what its CSINode says."""

from __future__ import annotations

import numpy as np

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.cache import Cache
from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import SKIP, CycleState, Ints, Status, unresolvable, unschedulable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.plugins.volumezone import class_of
from bowsprit.scheduler.podinfo import PodInfo

REASON = "node(s) exceed max volume count"
_MIGRATED_ANNOTATION = "storage.alpha.kubernetes.io/migrated-plugins"
# in-tree source -> (in-tree plugin, CSI driver, field with the volume's id)
_IN_TREE = {
    "awsElasticBlockStore": ("kubernetes.io/aws-ebs", "ebs.csi.aws.com", "volumeID"),
    "gcePersistentDisk": ("kubernetes.io/gce-pd", "pd.csi.storage.gke.io", "pdName"),
    "azureDisk": ("kubernetes.io/azure-disk", "disk.csi.azure.com", "diskURI"),
    "azureFile": ("kubernetes.io/azure-file", "file.csi.azure.com", "shareName"),
    "cinder": ("kubernetes.io/cinder", "cinder.csi.openstack.org", "volumeID"),
    "vsphereVolume": ("kubernetes.io/vsphere-volume", "csi.vsphere.vmware.com", "volumePath"),
    "portworxVolume": ("kubernetes.io/portworx-volume", "pxd.portworx.com", "volumeID"),
}
_PROVISIONERS = {plugin: driver for plugin, driver, _ in _IN_TREE.values()}

Volumes = dict[str, str]  # unique volume name -> driver


class NodeVolumeLimits:
    name = "NodeVolumeLimits"
    local = False

    def __init__(self, cache: Cache):
        self._cache = cache
        self._rooms: tuple[tuple[int, ...], Ints] = ((), np.zeros(0, dtype=np.int64))

    def pre_filter(
        self, state: CycleState, pod: PodInfo, nodes: NodeColumns
    ) -> tuple[frozenset[str] | None, Status | None]:
        counted = ("persistentVolumeClaim", "ephemeral", *_IN_TREE)
        if any(volume.get(kind) is not None for volume in pod.volumes for kind in counted):
            return None, None
        return None, SKIP

    def _source(self, spec: Obj, csi_node: Obj | None) -> tuple[str, str] | None:
        """(driver, handle) of a volume source; in-tree ones only where the node has migrated the plugin."""
        csi = spec.get("csi")
        if csi and csi.get("volumeHandle"):
            return str(csi.get("driver", "")), str(csi["volumeHandle"])
        annotations = ((csi_node or {}).get("metadata") or {}).get("annotations") or {}
        migrated = annotations.get(_MIGRATED_ANNOTATION, "").split(",")
        for kind, (plugin, driver, field) in _IN_TREE.items():
            if spec.get(kind) and plugin in migrated:
                return driver, str(spec[kind].get(field, ""))
        return None

    def _volumes(self, pod: PodInfo, csi_node: Obj | None, new: bool) -> tuple[Volumes, Status | None]:
        objects = self._cache.objects
        found: Volumes = {}
        for volume in pod.volumes:
            if volume.get("persistentVolumeClaim"):
                name = volume["persistentVolumeClaim"].get("claimName", "")
            elif volume.get("ephemeral") is not None:
                name = f"{pod.name}-{volume.get('name', '')}"
            else:
                inline = None if volume.get("csi") else self._source(volume, csi_node)
                if inline is not None:
                    found[f"{inline[0]}/{inline[1]}"] = inline[0]
                continue
            claim = objects.get("PersistentVolumeClaim", name, pod.namespace)
            if claim is None:
                if new:
                    text = f'looking up PVC {pod.namespace}/{name}: persistentvolumeclaim "{name}" not found'
                    return found, unresolvable(text)
                continue
            source = self._claim_source(claim, csi_node)
            if source is not None:
                found[f"{source[0]}/{source[1]}"] = source[0]
        return found, None

    def _claim_source(self, claim: Obj, csi_node: Obj | None) -> tuple[str, str] | None:
        objects, spec = self._cache.objects, claim.get("spec") or {}
        meta = claim["metadata"]
        volume = objects.get("PersistentVolume", spec.get("volumeName") or "")
        if volume is not None:
            return self._source(volume.get("spec") or {}, csi_node)
        storage_class = objects.get("StorageClass", class_of(claim))
        if storage_class is None:
            return None
        provisioner = storage_class.get("provisioner", "")
        driver: str = _PROVISIONERS.get(provisioner) or provisioner
        return driver, f"unbound-{meta.get('namespace')}/{meta['name']}"

    @staticmethod
    def _limits(csi_node: Obj | None) -> dict[str, int]:
        drivers = ((csi_node or {}).get("spec") or {}).get("drivers") or ()
        counts = {d["name"]: (d.get("allocatable") or {}).get("count") for d in drivers}
        return {name: int(count) for name, count in counts.items() if count is not None}

    def _attached(self, node: NodeInfo, csi_node: Obj | None) -> Volumes:
        attached: Volumes = {}
        for other in node.pods.values():
            if other.volumes:
                attached.update(self._volumes(other, csi_node, new=False)[0])
        return attached

    def _lingering(self, node: NodeInfo, csi_node: Obj | None) -> Volumes:
        """Volumes that VolumeAttachments keep on the node."""
        attached: Volumes = {}
        for attachment in self._cache.objects.list("VolumeAttachment"):
            spec = attachment.get("spec") or {}
            if spec.get("nodeName") != node.name:
                continue
            name = (spec.get("source") or {}).get("persistentVolumeName") or ""
            volume = self._cache.objects.get("PersistentVolume", name)
            source = self._source(volume.get("spec") or {}, csi_node) if volume is not None else None
            if source is not None:
                attached[f"{source[0]}/{source[1]}"] = source[0]
        return attached

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        csi_node = self._cache.objects.get("CSINode", node.name)
        new, status = self._volumes(pod, csi_node, new=True)
        if status is not None:
            return status
        limits = self._limits(csi_node)
        if not new or not limits:
            return None
        attached = self._attached(node, csi_node)
        counts: dict[str, int] = {}
        lingering = self._lingering(node, csi_node)
        for driver in {**lingering, **attached}.values():
            counts[driver] = counts.get(driver, 0) + 1
        for name, driver in new.items():
            if name not in attached:
                counts[driver] = counts.get(driver, 0) + 1
        wanted = {driver for name, driver in new.items() if name not in attached}
        if any(driver in limits and counts[driver] > limits[driver] for driver in wanted):
            return unschedulable(REASON)
        return None

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints:
        codes: Ints = np.zeros(nodes.size, dtype=np.int64)
        # a node whose pods have few volumes cannot be at its limit: most rows end here
        crowded = nodes.volume_count + len(pod.volumes) > self._room(nodes)
        for row in np.flatnonzero(crowded).tolist():
            info = nodes.infos[row]
            if info is not None and self.filter(state, pod, info) is not None:
                codes[row] = 1
        return codes

    def _room(self, nodes: NodeColumns) -> Ints:
        """By row: the lowest limit of any driver, less the VolumeAttachments of the node."""
        versions = self._cache.objects.versions
        stamp = (versions["CSINode"], versions["VolumeAttachment"], nodes.static_version)
        if self._rooms[0] != stamp:
            room: Ints = np.full(nodes.size, 2**31, dtype=np.int64)
            for csi_node in self._cache.objects.list("CSINode"):
                row = nodes.row_of.get(csi_node["metadata"]["name"])
                limits = self._limits(csi_node)
                if row is not None and limits:
                    room[row] = min(limits.values())
            for attachment in self._cache.objects.list("VolumeAttachment"):
                row = nodes.row_of.get((attachment.get("spec") or {}).get("nodeName") or "")
                if row is not None:
                    room[row] -= 1
            self._rooms = (stamp, room)
        return self._rooms[1]

    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status:
        return unschedulable(REASON)
