"""All or none: pods of a group wait at Permit until enough of them have a node.

A pod names its group with the label `gang` and the group's size with the annotation `gang/size`.
"""

from bowsprit.scheduler.framework import WAIT, unschedulable


class Gang:
    """Args: {"timeoutSeconds": 60}. `waiting` (pods held at Permit, by uid) is set by the scheduler."""

    name = "Gang"

    def __init__(self, args):
        self.timeout = float(args.get("timeoutSeconds") or 60)
        self.waiting = {}

    def permit(self, state, pod, node_name):
        group = pod.shape.labels.get("gang")
        if group is None:
            return None, 0
        size = int((pod.obj["metadata"].get("annotations") or {}).get("gang/size", "1"))
        if size < 1:
            return unschedulable("annotation gang/size must be at least 1"), 0
        held = [w for w in self.waiting.values() if self._same(w.pod, pod)]
        if len(held) + 1 < size:
            return WAIT, self.timeout
        for waiting in held:
            waiting.allow(self.name)
        return None, 0

    def unreserve(self, state, pod, node_name):
        """One of the group is turned away: the others must not wait for it."""
        for waiting in list(self.waiting.values()):
            if waiting.pod.uid != pod.uid and self._same(waiting.pod, pod):
                waiting.reject(self.name, "another pod of the group was turned away")

    def reserve(self, state, pod, node_name):
        return None

    @staticmethod
    def _same(one, other):
        group = other.shape.labels.get("gang")
        return group is not None and (one.namespace, one.shape.labels.get("gang")) == (other.namespace, group)
