"""VolumeBinding: claims must be bindable on the node; what is decided is held until the binding is written.

Upstream: pkg/scheduler/framework/plugins/volumebinding and pkg/controller/volume/persistentvolume (FindMatchingVolume).
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field

import numpy as np

from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.machinery.quantity import Quantity
from bowsprit.machinery.selectors import LabelSelector
from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import SKIP, CycleState, Ints, Mask, Status, failure, unresolvable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.nodeselector import NodeSelector
from bowsprit.scheduler.plugins.volumezone import class_of
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.profile import Handle

BIND_COMPLETED = "pv.kubernetes.io/bind-completed"
BOUND_BY_CONTROLLER = "pv.kubernetes.io/bound-by-controller"
SELECTED_NODE = "volume.kubernetes.io/selected-node"
NO_PROVISIONER = "kubernetes.io/no-provisioner"
UNBOUND_IMMEDIATE = "pod has unbound immediate PersistentVolumeClaims"
_REASONS = (
    (1, "node(s) didn't match PersistentVolume's node affinity"),
    (2, "node(s) didn't find available persistent volumes to bind"),
    (4, "node(s) did not have enough free storage"),
    (8, "node(s) unavailable due to one or more pvc(s) bound to non-existent pv(s)"),
)
_CONFLICT, _NO_VOLUME, _NO_SPACE, _GONE = 1, 2, 4, 8
_KEY = "VolumeBinding"


@dataclass(slots=True)
class PodClaims:
    """A pod's claims in a cycle. Where a profile disables the Filter point nothing is examined, so nothing is bound."""

    bound: list[Obj] = field(default_factory=list)
    delayed: list[Obj] = field(default_factory=list)
    immediate: list[Obj] = field(default_factory=list)
    examined: bool = False


@dataclass(slots=True)
class Binding:
    """What a node means for the delayed claims: volumes to bind and claims to provision."""

    volumes: list[tuple[Obj, Obj]] = field(default_factory=list)  # (claim, volume)
    provision: list[Obj] = field(default_factory=list)


def claim_key(claim: Obj) -> str:
    return f"{claim['metadata'].get('namespace', '')}/{claim['metadata']['name']}"


def _size(spec: Obj, *where: str) -> int:
    value: Obj | str | None = spec
    for name in where:
        value = value.get(name) if isinstance(value, dict) else None
    return Quantity.parse(value).nano if isinstance(value, str | int) else 0


def _affinity(volume: Obj) -> NodeSelector | None:
    required = ((volume.get("spec") or {}).get("nodeAffinity") or {}).get("required")
    return NodeSelector.from_obj(required) if required else None


class VolumeBinding:
    name = "VolumeBinding"
    also_at = ("preScore", "score")  # for scoring by capacity, an alpha feature
    local = False

    def __init__(self, args: Obj, handle: Handle):
        timeout = args.get("bindTimeoutSeconds")
        self.timeout = 600.0 if timeout is None else float(timeout)
        self._handle = handle
        self._objects = handle.cache.objects
        self.assumed_volumes: dict[str, Obj] = {}  # by name: volumes whose claimRef is about to be written
        self.assumed_claims: dict[str, Obj] = {}  # by key: claims whose node is about to be written
        self._reserved: dict[str, Binding] = {}  # by pod uid

    # reading through what is assumed

    def _claim(self, namespace: str, name: str) -> Obj | None:
        return self.assumed_claims.get(f"{namespace}/{name}") or self._objects.get(
            "PersistentVolumeClaim", name, namespace
        )

    def _volume(self, name: str) -> Obj | None:
        return self.assumed_volumes.get(name) or self._objects.get("PersistentVolume", name)

    # PreFilter

    def pre_filter(
        self, state: CycleState, pod: PodInfo, nodes: NodeColumns
    ) -> tuple[frozenset[str] | None, Status | None]:
        if not pod.volumes:
            return None, SKIP
        claims = PodClaims()
        found = False
        for volume in pod.volumes:
            ephemeral = volume.get("ephemeral") is not None
            if volume.get("persistentVolumeClaim"):
                name = volume["persistentVolumeClaim"].get("claimName", "")
            elif ephemeral:
                name = f"{pod.name}-{volume.get('name', '')}"
            else:
                continue
            found = True
            claim = self._claim(pod.namespace, name)
            problem = self._problem(pod, claim, name, ephemeral)
            if problem:
                return None, unresolvable(problem)
            assert claim is not None
            self._sort(claim, claims)
        if not found:
            return None, SKIP
        if claims.immediate:
            return None, unresolvable(UNBOUND_IMMEDIATE)
        state.data[_KEY] = claims
        return None, None

    @staticmethod
    def _problem(pod: PodInfo, claim: Obj | None, name: str, ephemeral: bool) -> str:
        if claim is None:
            if ephemeral:
                return f'waiting for ephemeral volume controller to create the persistentvolumeclaim "{name}"'
            return f'persistentvolumeclaim "{name}" not found'
        if (claim.get("status") or {}).get("phase") == "Lost":
            volume = (claim.get("spec") or {}).get("volumeName") or ""
            return f'persistentvolumeclaim "{name}" bound to non-existent persistentvolume "{volume}"'
        if claim["metadata"].get("deletionTimestamp"):
            return f'persistentvolumeclaim "{name}" is being deleted'
        owners = claim["metadata"].get("ownerReferences") or ()
        if ephemeral and not any(o.get("controller") and o.get("uid") == pod.uid for o in owners):
            return f"PVC {claim_key(claim)} was not created for pod {pod.key} (pod is not owner)"
        return ""

    def _sort(self, claim: Obj, claims: PodClaims) -> None:
        volume = (claim.get("spec") or {}).get("volumeName")
        if volume and BIND_COMPLETED in (claim["metadata"].get("annotations") or {}):
            claims.bound.append(claim)
            return
        storage_class = self._objects.get("StorageClass", class_of(claim)) if class_of(claim) else None
        delayed = storage_class is not None and storage_class.get("volumeBindingMode") == "WaitForFirstConsumer"
        (claims.delayed if delayed and not volume else claims.immediate).append(claim)

    # Filter

    def find(self, claims: PodClaims, node: NodeInfo) -> tuple[int, Binding]:
        """FindPodVolumes: reasons as bits (0: satisfied) and what would be bound."""
        code = 0
        for claim in claims.bound:
            volume = self._volume(claim["spec"]["volumeName"])
            if volume is None:
                code |= _GONE
                break
            affinity = _affinity(volume)
            if affinity is not None and not affinity.matches("", node.labels):
                code |= _CONFLICT
                break
        binding = Binding()
        if claims.delayed:
            code |= self._find_delayed(claims.delayed, node, binding)
        return code, binding

    def _find_delayed(self, claims: list[Obj], node: NodeInfo, binding: Binding) -> int:
        to_match, to_provision = [], []
        for claim in claims:
            selected = (claim["metadata"].get("annotations") or {}).get(SELECTED_NODE)
            if selected is not None and selected != "":
                if selected != node.name:
                    return _NO_VOLUME
                to_provision.append(claim)
            else:
                to_match.append(claim)
        chosen: set[str] = set()
        for claim in sorted(to_match, key=lambda c: _size(c["spec"], "resources", "requests", "storage")):
            volume = self._smallest(self._candidates(claim), node, chosen)
            if volume is None:
                to_provision.append(claim)
            else:
                chosen.add(volume["metadata"]["name"])
                binding.volumes.append((claim, volume))
        for claim in to_provision:
            code = self._provisionable(claim, node)
            if code:
                return code
            binding.provision.append(claim)
        return 0

    def _candidates(self, claim: Obj) -> list[Obj]:
        """Volumes that could be bound to the claim on some node; a volume bound to it beforehand stands alone."""
        spec = claim["spec"]
        wanted, mode = _size(spec, "resources", "requests", "storage"), spec.get("volumeMode") or "Filesystem"
        selector = LabelSelector.from_obj(spec["selector"]) if spec.get("selector") else None
        name, modes = class_of(claim), set(spec.get("accessModes") or ())
        found = []
        for listed in self._objects.list("PersistentVolume"):
            volume = self.assumed_volumes.get(listed["metadata"]["name"], listed)
            meta, vspec = volume["metadata"], volume.get("spec") or {}
            reference = vspec.get("claimRef")
            if reference is not None and not self._refers_to(reference, claim):
                continue
            if _size(vspec, "capacity", "storage") < wanted or (vspec.get("volumeMode") or "Filesystem") != mode:
                continue
            if meta.get("deletionTimestamp") or (vspec.get("storageClassName") or "") != name:
                continue
            if reference is not None:
                return [volume]
            if (volume.get("status") or {}).get("phase") != "Available":
                continue
            if selector is not None and not selector.matches(meta.get("labels") or {}):
                continue
            if modes <= set(vspec.get("accessModes") or ()):
                found.append(volume)
        return found

    @staticmethod
    def _refers_to(reference: Obj, claim: Obj) -> bool:
        meta = claim["metadata"]
        if (reference.get("name"), reference.get("namespace")) != (meta["name"], meta.get("namespace")):
            return False
        return not reference.get("uid") or reference["uid"] == meta.get("uid")

    @staticmethod
    def _smallest(volumes: Iterable[Obj], node: NodeInfo, excluded: set[str]) -> Obj | None:
        best: Obj | None = None
        for volume in volumes:
            if volume["metadata"]["name"] in excluded:
                continue
            affinity = _affinity(volume)
            if affinity is not None and not affinity.matches("", node.labels):
                continue
            if best is None or _size(volume["spec"], "capacity", "storage") < _size(
                best["spec"], "capacity", "storage"
            ):
                best = volume
        return best

    def _provisionable(self, claim: Obj, node: NodeInfo) -> int:
        storage_class = self._objects.get("StorageClass", class_of(claim))
        if storage_class is None or storage_class.get("provisioner", "") in ("", NO_PROVISIONER):
            return _NO_VOLUME
        topologies = storage_class.get("allowedTopologies") or ()
        if topologies and not any(self._in_topology(term, node) for term in topologies):
            return _NO_VOLUME
        return 0 if self._has_space(storage_class, claim, node) else _NO_SPACE

    @staticmethod
    def _in_topology(term: Obj, node: NodeInfo) -> bool:
        expressions = term.get("matchLabelExpressions") or ()
        return bool(expressions) and all(node.labels.get(e["key"]) in (e.get("values") or ()) for e in expressions)

    def _limits_space(self, storage_class: Obj) -> bool:
        driver = self._objects.get("CSIDriver", storage_class.get("provisioner", ""))
        return bool(driver and (driver.get("spec") or {}).get("storageCapacity"))

    def _has_space(self, storage_class: Obj, claim: Obj, node: NodeInfo) -> bool:
        if not self._limits_space(storage_class):
            return True
        wanted = _size(claim["spec"], "resources", "requests", "storage")
        for capacity in self._objects.list("CSIStorageCapacity"):
            limit = capacity.get("maximumVolumeSize") or capacity.get("capacity")
            topology = capacity.get("nodeTopology")
            if (
                capacity.get("storageClassName") == storage_class["metadata"]["name"]
                and limit is not None
                and Quantity.parse(limit).nano >= wanted
                and topology is not None
                and LabelSelector.from_obj(topology).matches(node.labels)
            ):
                return True
        return False

    def filter(self, state: CycleState, pod: PodInfo, node: NodeInfo) -> Status | None:
        claims: PodClaims = state.data[_KEY]
        claims.examined = True
        code, _ = self.find(claims, node)
        return self.explain(state, pod, code) if code else None

    def filter_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns) -> Ints | None:
        claims: PodClaims = state.data[_KEY]
        claims.examined = True
        if claims.delayed and not all(map(self._fits_everywhere, claims.delayed)):
            codes: Ints = np.zeros(nodes.size, dtype=np.int64)
            for row in nodes.order.tolist():
                codes[row] = self.find(claims, nodes.info(row))[0]
            return codes
        gone, allowed = False, None
        for claim in claims.bound:
            volume = self._volume(claim["spec"]["volumeName"])
            if volume is None:
                gone = True
                break
            affinity = _affinity(volume)
            if affinity is not None:
                mask: Mask = affinity.rows(nodes)
                allowed = mask if allowed is None else allowed & mask
        if not gone and allowed is None:
            return None
        codes = np.full(nodes.size, _GONE if gone else 0, dtype=np.int64)
        return codes if allowed is None else np.where(allowed, codes, _CONFLICT)

    def _fits_everywhere(self, claim: Obj) -> bool:
        """A delayed claim that any node can have provisioned: no volume to bind, no topology, no limited space."""
        storage_class = self._objects.get("StorageClass", class_of(claim))
        return (
            storage_class is not None
            and SELECTED_NODE not in (claim["metadata"].get("annotations") or {})
            and storage_class.get("provisioner", "") not in ("", NO_PROVISIONER)
            and not storage_class.get("allowedTopologies")
            and not self._limits_space(storage_class)
            and not self._candidates(claim)
        )

    def explain(self, state: CycleState, pod: PodInfo, code: int) -> Status:
        return unresolvable(*(reason for bit, reason in _REASONS if code & bit))

    # Reserve and PreBind

    def reserve(self, state: CycleState, pod: PodInfo, node_name: str) -> Status | None:
        claims: PodClaims | None = state.data.get(_KEY)
        if claims is None or not claims.examined or not claims.delayed:
            return None
        node = self._handle.cache.nodes.node(node_name)
        if node is None:
            return failure(f'node "{node_name}" not found')
        code, binding = self.find(claims, node)
        if code:
            return self.explain(state, pod, code)
        for claim, volume in binding.volumes:
            assumed = deep_copy(volume)
            meta = claim["metadata"]
            assumed["spec"]["claimRef"] = {
                "kind": "PersistentVolumeClaim", "apiVersion": "v1", "namespace": meta.get("namespace"),
                "name": meta["name"], "uid": meta.get("uid"), "resourceVersion": meta.get("resourceVersion"),
            }  # fmt: skip
            annotations = assumed["metadata"].get("annotations") or {}
            assumed["metadata"]["annotations"] = {**annotations, BOUND_BY_CONTROLLER: "yes"}
            self.assumed_volumes[assumed["metadata"]["name"]] = assumed
        for claim in binding.provision:
            assumed = deep_copy(claim)
            annotations = assumed["metadata"].get("annotations") or {}
            assumed["metadata"]["annotations"] = {**annotations, SELECTED_NODE: node_name}
            self.assumed_claims[claim_key(claim)] = assumed
        self._reserved[pod.uid] = binding
        return None

    def unreserve(self, state: CycleState, pod: PodInfo, node_name: str) -> None:
        self.release(pod)

    def release(self, pod: PodInfo) -> Binding | None:
        """Forget what was assumed for a pod: it is written now, or given up."""
        binding = self._reserved.pop(pod.uid, None)
        for _, volume in binding.volumes if binding else ():
            self.assumed_volumes.pop(volume["metadata"]["name"], None)
        for claim in binding.provision if binding else ():
            self.assumed_claims.pop(claim_key(claim), None)
        return binding

    async def pre_bind(self, state: CycleState, pod: PodInfo, node_name: str) -> Status | None:
        """Write claimRefs and selected nodes, then wait until the claims are bound."""
        binding = self._reserved.get(pod.uid)
        if binding is None:
            return None
        if self._handle.client is None:
            return failure("this scheduler has no client to bind volumes with")
        volumes = [self.assumed_volumes[volume["metadata"]["name"]] for _, volume in binding.volumes]
        claims = [self.assumed_claims[claim_key(claim)] for claim in binding.provision]
        keys = [claim_key(claim) for claim, _ in binding.volumes] + [claim_key(claim) for claim in binding.provision]
        status: Status | None = await self._handle.client.bind_volumes(volumes, claims, keys, self.timeout)
        self.release(pod)
        return status
