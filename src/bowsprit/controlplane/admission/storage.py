"""Plugins about volumes: DefaultStorageClass, StorageObjectInUseProtection, PersistentVolumeClaimResize.

Upstream: plugin/pkg/admission/storage.
"""

from __future__ import annotations

from bowsprit.apiserver.admission.chain import CREATE, UPDATE, Target
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.controlplane.admission.refusal import refused
from bowsprit.controlplane.core.storagevalidation import CLASS_ANNOTATION
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, metadata, nested
from bowsprit.machinery.objects import annotations as annotations_of
from bowsprit.machinery.quantity import Quantity

CLAIMS = GroupResource("", "persistentvolumeclaims")
VOLUMES = GroupResource("", "persistentvolumes")
ATTRIBUTES_CLASSES = GroupResource("storage.k8s.io", "volumeattributesclasses")
STORAGE_CLASSES = GroupResource("storage.k8s.io", "storageclasses")
_DEFAULT_ANNOTATIONS = (
    "storageclass.kubernetes.io/is-default-class",
    "storageclass.beta.kubernetes.io/is-default-class",
)
_FINALIZERS = {
    CLAIMS: "kubernetes.io/pvc-protection",
    VOLUMES: "kubernetes.io/pv-protection",
    ATTRIBUTES_CLASSES: "kubernetes.io/vac-protection",
}


def newest(objects: list[Obj]) -> Obj | None:
    """The object made last; of several, the first by name (how upstream picks among default classes)."""
    if not objects:
        return None
    latest = max(metadata(item).get("creationTimestamp") or "" for item in objects)
    same = [item for item in objects if (metadata(item).get("creationTimestamp") or "") == latest]
    return min(same, key=lambda item: str(item["metadata"]["name"]))


class DefaultStorageClass:
    """A claim without a class gets the default one, if there is one."""

    name = "DefaultStorageClass"

    def __init__(self, listers: Listers) -> None:
        self._listers = listers

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.is_on(CLAIMS, CREATE)

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Set spec.storageClassName."""
        claim = attributes.object
        if claim is None or CLASS_ANNOTATION in annotations_of(claim):
            return
        spec = claim.setdefault("spec", {})
        if spec.get("storageClassName") is None:
            default = newest([item for item in self._listers(STORAGE_CLASSES).list() if _is_default(item)])
            if default is not None:
                spec["storageClassName"] = default["metadata"]["name"]


def _is_default(storage_class: Obj) -> bool:
    held = annotations_of(storage_class)
    return any(held.get(name) == "true" for name in _DEFAULT_ANNOTATIONS)


class StorageObjectInUseProtection:
    """Claims and volumes carry a finalizer that keeps them while they are used."""

    name = "StorageObjectInUseProtection"

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.resource in _FINALIZERS and target.is_on(target.resource, CREATE)

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Add the finalizer."""
        if attributes.object is None:
            return
        meta = metadata(attributes.object)
        finalizer = _FINALIZERS[attributes.gvr.gr]
        if finalizer not in (meta.get("finalizers") or ()):
            meta["finalizers"] = [*(meta.get("finalizers") or ()), finalizer]


class PersistentVolumeClaimResize:
    """Only bound claims grow, and only where their class allows it."""

    name = "PersistentVolumeClaimResize"

    def __init__(self, listers: Listers) -> None:
        self._listers = listers

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.is_on(CLAIMS, UPDATE)

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Judge a change of spec.resources.requests.storage."""
        new, old = attributes.object or {}, attributes.old_object or {}
        before = Quantity.parse(nested(old, "spec", "resources", "requests", "storage", default=0))
        after = Quantity.parse(nested(new, "spec", "resources", "requests", "storage", default=0))
        if not before < after:
            return
        if nested(old, "status", "phase") != "Bound":
            raise refused(attributes, "Only bound persistent volume claims can be expanded")
        name = annotations_of(old).get(CLASS_ANNOTATION) or nested(old, "spec", "storageClassName", default="")
        found = self._listers(STORAGE_CLASSES).get("", name) if name else None
        if not (found and found.get("allowVolumeExpansion")):
            raise refused(
                attributes,
                "only dynamically provisioned pvc can be resized and the storageclass that provisions the pvc must "
                "support resize",
            )
