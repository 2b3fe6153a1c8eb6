"""The ConfigMap ``kube-root-ca.crt`` in every namespace, which pods verify the API server with (rootcacertpublisher)."""

from __future__ import annotations

from bowsprit.client.resources import CONFIG_MAPS, NAMESPACES
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.pod_control import namespace_is_terminating
from bowsprit.machinery.errors import AlreadyExistsError, ForbiddenError, NotFoundError
from bowsprit.machinery.objects import Obj, nested

NAME = "kube-root-ca.crt"
_DESCRIPTION = (
    "Contains a CA bundle that can be used to verify the kube-apiserver when using internal endpoints such as the internal"
    " service IP or kubernetes.default.svc. No other usage is guaranteed across distributions of Kubernetes clusters."
)


class RootCACertPublisher(Controller):
    """Creates the ConfigMap, and puts it right when somebody edits or deletes it."""

    name = "root-ca-certificate-publisher-controller"
    account = "root-ca-cert-publisher"
    workers = 1

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._namespaces = context.informers.informer(NAMESPACES)
        self._config_maps = context.informers.informer(CONFIG_MAPS, field_selector=f"metadata.name={NAME}")
        self.watch(self._namespaces)
        self.watch(self._config_maps, lambda config_map: self.queue.add(config_map["metadata"]["namespace"]))

    async def sync(self, key: str) -> None:
        """See Controller."""
        namespace = self._namespaces.get(key)
        if namespace is None or nested(namespace, "status", "phase") != "Active":
            return
        data = {"ca.crt": self.context.root_ca.decode()}
        wanted: Obj = {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {
                "name": NAME,
                "namespace": key,
                "annotations": {"kubernetes.io/description": _DESCRIPTION},
            },
            "data": data,
        }
        current = self._config_maps.get(f"{key}/{NAME}")
        try:
            if current is None:
                await self.client.create(CONFIG_MAPS, wanted)
            elif current.get("data") != data:
                meta = {**current["metadata"], "annotations": wanted["metadata"]["annotations"]}
                await self.client.update(CONFIG_MAPS, {**wanted, "metadata": meta})
        except (AlreadyExistsError, NotFoundError):
            return
        except ForbiddenError as exc:
            if not namespace_is_terminating(exc):
                raise
