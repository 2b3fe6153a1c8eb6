"""Pods that preemption has promised a node: others of lower priority must leave them room."""

from __future__ import annotations

from collections.abc import Iterator

from bowsprit.scheduler.podinfo import PodInfo


class Nominator:
    def __init__(self) -> None:
        self._by_node: dict[str, dict[str, PodInfo]] = {}
        self._node_of: dict[str, str] = {}

    def __bool__(self) -> bool:
        return bool(self._node_of)

    def add(self, pod: PodInfo, node_name: str) -> None:
        self.remove(pod.uid)
        self._by_node.setdefault(node_name, {})[pod.uid] = pod
        self._node_of[pod.uid] = node_name

    def remove(self, uid: str) -> None:
        node = self._node_of.pop(uid, None)
        if node is not None:
            pods = self._by_node[node]
            pods.pop(uid, None)
            if not pods:
                del self._by_node[node]

    def node_of(self, uid: str) -> str:
        return self._node_of.get(uid, "")

    def pods_on(self, node_name: str) -> list[PodInfo]:
        return list(self._by_node.get(node_name, {}).values())

    def rivals(self, pod: PodInfo, node_name: str) -> list[PodInfo]:
        """Pods nominated to the node that count when `pod` is tried there: same or higher priority, not itself."""
        return [p for p in self._by_node.get(node_name, {}).values() if p.priority >= pod.priority and p.uid != pod.uid]

    def nodes(self) -> Iterator[str]:
        return iter(list(self._by_node))
