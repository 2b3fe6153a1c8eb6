"""RuntimeClass: a pod takes its class's overhead, node selector and tolerations.

Upstream: plugin/pkg/admission/runtimeclass.
"""

from __future__ import annotations

from bowsprit.apiserver.admission.chain import CREATE, Target
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.controlplane.admission.pod_resources import amounts
from bowsprit.controlplane.admission.refusal import refused
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, nested

PODS = GroupResource("", "pods")
RUNTIME_CLASSES = GroupResource("node.k8s.io", "runtimeclasses")


class RuntimeClass:
    """See the module's docstring."""

    name = "RuntimeClass"

    def __init__(self, listers: Listers) -> None:
        self._listers = listers

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.is_on(PODS, CREATE)

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Set overhead and scheduling."""
        spec = (attributes.object or {}).get("spec") or {}
        found = self._class_of(attributes, spec)
        if found is None:
            return
        overhead = nested(found, "overhead", "podFixed")
        if overhead:
            if spec.get("overhead") and amounts(spec["overhead"]) != amounts(overhead):
                raise refused(attributes, "pod rejected: Pod's Overhead doesn't match RuntimeClass's defined Overhead")
            spec["overhead"] = dict(overhead)
        scheduling = found.get("scheduling") or {}
        selector = spec.get("nodeSelector") or {}
        for key, value in (scheduling.get("nodeSelector") or {}).items():
            if selector.get(key, value) != value:
                raise refused(
                    attributes,
                    f"conflict: runtimeClass.scheduling.nodeSelector[{key}] = {value}; "
                    f"pod.spec.nodeSelector[{key}] = {selector[key]}",
                )
            spec["nodeSelector"] = selector = {**selector, key: value}
        for toleration in scheduling.get("tolerations") or ():
            if toleration not in (spec.get("tolerations") or ()):
                spec["tolerations"] = [*(spec.get("tolerations") or ()), dict(toleration)]

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Overhead comes from a class only."""
        spec = (attributes.object or {}).get("spec") or {}
        found = self._class_of(attributes, spec)
        if spec.get("overhead") is not None and not (found and nested(found, "overhead", "podFixed")):
            raise refused(
                attributes, "pod rejected: Pod Overhead set without corresponding RuntimeClass defined Overhead"
            )

    def _class_of(self, attributes: AdmissionAttributes, spec: Obj) -> Obj | None:
        name = spec.get("runtimeClassName")
        if not name:
            return None
        found = self._listers(RUNTIME_CLASSES).get("", name)
        if found is None:
            raise refused(attributes, f"pod rejected: RuntimeClass {quote(name)} not found")
        return found
