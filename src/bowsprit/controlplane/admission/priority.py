"""Priority: a pod's number comes from its PriorityClass, and one class at most is the default.

Upstream: plugin/pkg/admission/priority.
"""

from __future__ import annotations

from bowsprit.apiserver.admission.chain import CREATE, UPDATE, Target
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.controlplane.admission.refusal import refused
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj

PODS = GroupResource("", "pods")
PRIORITY_CLASSES = GroupResource("scheduling.k8s.io", "priorityclasses")
_WITHOUT_CLASS: Obj = {"metadata": {"name": ""}, "value": 0, "preemptionPolicy": "PreemptLowerPriority"}
_SOURCE = "priority admission controller computed {} from the given PriorityClass name"


class Priority:
    """See the module's docstring."""

    name = "Priority"

    def __init__(self, listers: Listers) -> None:
        self._listers = listers

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.is_on(PODS, CREATE, UPDATE) or target.is_on(PRIORITY_CLASSES, CREATE, UPDATE)

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Set spec.priority and spec.preemptionPolicy of a pod."""
        pod = attributes.object
        if attributes.gvr.gr != PODS or pod is None:
            return
        spec = pod.setdefault("spec", {})
        if attributes.operation is UPDATE:
            old = (attributes.old_object or {}).get("spec") or {}
            for field in ("priority", "preemptionPolicy"):
                if spec.get(field) is None and old.get(field) is not None:
                    spec[field] = old[field]
            return
        found = self._class_of(attributes, spec)
        if spec.get("priority") not in (None, found["value"]):
            raise refused(
                attributes,
                f"the integer value of priority ({spec['priority']}) must not be provided in pod spec; "
                + _SOURCE.format(found["value"]),
            )
        spec["priority"] = found["value"]
        policy = found.get("preemptionPolicy")
        if policy is None:
            return
        if spec.get("preemptionPolicy") not in (None, policy):
            raise refused(
                attributes,
                f"the string value of PreemptionPolicy ({spec['preemptionPolicy']}) must not be provided in pod spec; "
                + _SOURCE.format(policy),
            )
        spec["preemptionPolicy"] = policy

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Refuse a second default class."""
        if attributes.gvr.gr != PRIORITY_CLASSES or not (attributes.object or {}).get("globalDefault"):
            return
        default = self._default()
        if default is not None and default["metadata"]["name"] != attributes.name:
            name = default["metadata"]["name"]
            text = f"PriorityClass {name} is already marked as default. Only one default can exist"
            raise refused(attributes, text)

    def _class_of(self, attributes: AdmissionAttributes, spec: Obj) -> Obj:
        name = spec.get("priorityClassName")
        if name:
            found = self._listers(PRIORITY_CLASSES).get("", name)
            if found is None:
                raise refused(attributes, f"no PriorityClass with name {name} was found")
        else:
            found = self._default() or _WITHOUT_CLASS
            if found["metadata"]["name"]:
                spec["priorityClassName"] = found["metadata"]["name"]
        # A class with the value 0 has no such field when it is stored.
        return {**found, "value": found.get("value", 0)}

    def _default(self) -> Obj | None:
        defaults = [item for item in self._listers(PRIORITY_CLASSES).list() if item.get("globalDefault")]
        return min(defaults, key=lambda item: int(item.get("value", 0)), default=None)
