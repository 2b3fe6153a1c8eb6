"""Plugins about taints: DefaultTolerationSeconds, TaintNodesByCondition, ExtendedResourceToleration.

Upstream: plugin/pkg/admission/{defaulttolerationseconds,nodetaint,extendedresourcetoleration}.
"""

from __future__ import annotations

from bowsprit.apiserver.admission.chain import CREATE, UPDATE, Target
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, nested

PODS = GroupResource("", "pods")
NODES = GroupResource("", "nodes")
NOT_READY = "node.kubernetes.io/not-ready"
UNREACHABLE = "node.kubernetes.io/unreachable"
_SECONDS = 300


class DefaultTolerationSeconds:
    """Pods stay five minutes on a node that is not ready or unreachable."""

    name = "DefaultTolerationSeconds"

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.is_on(PODS, CREATE, UPDATE)

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Add what the pod does not say itself."""
        spec = (attributes.object or {}).get("spec")
        if spec is None:
            return
        given = spec.get("tolerations") or []
        for key in (NOT_READY, UNREACHABLE):
            if not any(_tolerates(item, key) for item in given):
                toleration = {"key": key, "operator": "Exists", "effect": "NoExecute", "tolerationSeconds": _SECONDS}
                given = [*given, toleration]
        if given:
            spec["tolerations"] = given


def _tolerates(toleration: Obj, key: str) -> bool:
    return (toleration.get("key") or "") in ("", key) and (toleration.get("effect") or "") in ("", "NoExecute")


class TaintNodesByCondition:
    """A new node takes no pods until the node lifecycle controller has seen it ready."""

    name = "TaintNodesByCondition"

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.is_on(NODES, CREATE)

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Add the not-ready taint."""
        spec = (attributes.object or {}).setdefault("spec", {})
        taint = {"key": NOT_READY, "effect": "NoSchedule"}
        given = spec.get("taints") or []
        if not any(item.get("key") == NOT_READY and item.get("effect") == "NoSchedule" for item in given):
            spec["taints"] = [*given, taint]


class ExtendedResourceToleration:
    """Pods that ask for `example.com/gpu` tolerate nodes tainted with that name."""

    name = "ExtendedResourceToleration"

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.is_on(PODS, CREATE, UPDATE)

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Add a toleration per extended resource."""
        spec = (attributes.object or {}).get("spec") or {}
        wanted: set[str] = set()
        for container in [*(spec.get("initContainers") or ()), *(spec.get("containers") or ())]:
            requests = nested(container, "resources", "requests", default={})
            wanted |= {name for name in requests if is_extended_resource(name)}
        given = spec.get("tolerations") or []
        for name in sorted(wanted):
            toleration = {"key": name, "operator": "Exists", "effect": "NoSchedule"}
            if toleration not in given:
                given = [*given, toleration]
        if given:
            spec["tolerations"] = given


def is_extended_resource(name: str) -> bool:
    """Whether a resource's name is fully qualified and not Kubernetes' own (upstream IsExtendedResourceName)."""
    return "/" in name and "kubernetes.io/" not in name and not name.startswith("requests.")
