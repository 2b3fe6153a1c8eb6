"""PodTopologyLabels: a pod carries the zone and region of its node; AlwaysPullImages.

Upstream: plugin/pkg/admission/{podtopologylabels,alwayspullimages}.
"""

from __future__ import annotations

from bowsprit.apiserver.admission.chain import CREATE, UPDATE, Target
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import labels, metadata, nested

PODS = GroupResource("", "pods")
NODES = GroupResource("", "nodes")
TOPOLOGY_LABELS = ("topology.kubernetes.io/zone", "topology.kubernetes.io/region")


class PodTopologyLabels:
    """Writes the labels into the Binding (whose handler copies them to the pod) or into a pod made for a node."""

    name = "PodTopologyLabels"

    def __init__(self, listers: Listers) -> None:
        self._listers = listers

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.is_on(PODS, CREATE) or (
            target.resource == PODS and target.subresource == "binding" and target.operation is CREATE
        )

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Copy the labels that the node has."""
        obj = attributes.object or {}
        if attributes.subresource == "binding":
            node_name = (
                nested(obj, "target", "name") if nested(obj, "target", "kind", default="Node") == "Node" else None
            )
        else:
            node_name = nested(obj, "spec", "nodeName")
        node = self._listers(NODES).get("", node_name) if node_name else None
        if node is None:
            return
        found = {name: value for name, value in labels(node).items() if name in TOPOLOGY_LABELS}
        if found:
            meta = metadata(obj)
            meta["labels"] = {**(meta.get("labels") or {}), **found}


class AlwaysPullImages:
    """Images are pulled afresh, so that nobody uses an image that another pod was entitled to."""

    name = "AlwaysPullImages"

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.is_on(PODS, CREATE, UPDATE)

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Set every container's policy."""
        spec = (attributes.object or {}).get("spec") or {}
        for kind in ("initContainers", "containers", "ephemeralContainers"):
            for container in spec.get(kind) or ():
                container["imagePullPolicy"] = "Always"
