"""What a new cluster has besides what Kubernetes makes itself: a default StorageClass, so that claims are bound.

Made once in a cluster's life: what its user deletes or changes afterwards stays so.
"""

from __future__ import annotations

from collections.abc import Callable
from contextlib import suppress
from typing import TYPE_CHECKING

from bowsprit.client.resources import CONFIG_MAPS, STORAGE_CLASSES
from bowsprit.cluster.process import Component
from bowsprit.machinery.errors import AlreadyExistsError, NotFoundError
from bowsprit.machinery.objects import Obj

if TYPE_CHECKING:
    from bowsprit.client.rest import RestClient

_STORAGE_CLASS: Obj = {
    "apiVersion": "storage.k8s.io/v1",
    "kind": "StorageClass",
    "metadata": {"name": "standard", "annotations": {"storageclass.kubernetes.io/is-default-class": "true"}},
    "provisioner": "bowsprit.dev/simulated",
    "reclaimPolicy": "Delete",
    "volumeBindingMode": "Immediate",
}
# Its existence says that all was made.
_MARK: Obj = {
    "apiVersion": "v1",
    "kind": "ConfigMap",
    "metadata": {"name": "bowsprit-addons", "namespace": "kube-system"},
    "data": {"storageclasses": "standard"},
}


class WithAddons:
    """A component that makes the addons once it runs. `admin` makes a client with every right."""

    def __init__(self, component: Component, admin: Callable[[], RestClient]) -> None:
        self._component = component
        self._admin = admin

    async def start(self) -> None:
        """See Component."""
        await self._component.start()
        async with self._admin() as client:
            try:
                await client.get(CONFIG_MAPS, _MARK["metadata"]["name"], namespace="kube-system")
            except NotFoundError:
                for resource, obj in ((STORAGE_CLASSES, _STORAGE_CLASS), (CONFIG_MAPS, _MARK)):
                    with suppress(AlreadyExistsError):
                        await client.create(resource, obj)

    async def stop(self) -> None:
        """See Component."""
        await self._component.stop()
