"""DefaultIngressClass: an Ingress without a class gets the default one (upstream plugin/pkg/admission/network)."""

from __future__ import annotations

from bowsprit.apiserver.admission.chain import CREATE, Target
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.controlplane.admission.refusal import refused
from bowsprit.controlplane.admission.storage import newest
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import annotations as annotations_of

INGRESSES = GroupResource("networking.k8s.io", "ingresses")
INGRESS_CLASSES = GroupResource("networking.k8s.io", "ingressclasses")
SERVICES = GroupResource("", "services")
_OLD_ANNOTATION = "kubernetes.io/ingress.class"
_IS_DEFAULT = "ingressclass.kubernetes.io/is-default-class"


class DefaultIngressClass:
    """See the module's docstring."""

    name = "DefaultIngressClass"

    def __init__(self, listers: Listers) -> None:
        self._listers = listers

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.is_on(INGRESSES, CREATE)

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Set spec.ingressClassName."""
        ingress = attributes.object
        if ingress is None or _OLD_ANNOTATION in annotations_of(ingress):
            return
        spec = ingress.setdefault("spec", {})
        if spec.get("ingressClassName") is None:
            classes = self._listers(INGRESS_CLASSES).list()
            default = newest([item for item in classes if annotations_of(item).get(_IS_DEFAULT) == "true"])
            if default is not None:
                spec["ingressClassName"] = default["metadata"]["name"]


class DenyServiceExternalIPs:
    """No new external addresses of Services (upstream plugin/pkg/admission/network/denyserviceexternalips)."""

    name = "DenyServiceExternalIPs"

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.resource == SERVICES and target.operation.name in ("CREATE", "UPDATE")

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Addresses may only be taken away."""
        new = set(((attributes.object or {}).get("spec") or {}).get("externalIPs") or ())
        old = set(((attributes.old_object or {}).get("spec") or {}).get("externalIPs") or ())
        if new - old:
            raise refused(attributes, "Use of external IPs is denied by admission control.")
