"""The order of nodes: zones take turns (k8s.io/kubernetes/pkg/scheduler/backend/cache.nodeTree)."""

from __future__ import annotations

from collections.abc import Mapping

Zone = tuple[str, str]


def zone_of(labels: Mapping[str, str]) -> Zone:
    """(region, zone) of a node: the beta labels count where the stable ones are missing."""
    zone = labels.get("topology.kubernetes.io/zone", labels.get("failure-domain.beta.kubernetes.io/zone", ""))
    region = labels.get("topology.kubernetes.io/region", labels.get("failure-domain.beta.kubernetes.io/region", ""))
    return region, zone


class NodeTree:
    """Node names by zone, zones in the order in which their first node came."""

    def __init__(self) -> None:
        self._zones: dict[Zone, dict[str, None]] = {}
        self._zone_of: dict[str, Zone] = {}

    def add(self, name: str, labels: Mapping[str, str]) -> None:
        zone = zone_of(labels)
        known = self._zone_of.get(name)
        if known == zone:
            return
        if known is not None:
            self.remove(name)
        self._zones.setdefault(zone, {})[name] = None
        self._zone_of[name] = zone

    def remove(self, name: str) -> None:
        zone = self._zone_of.pop(name, None)
        if zone is not None:
            self._zones[zone].pop(name, None)
            if not self._zones[zone]:
                del self._zones[zone]

    def names(self) -> list[str]:
        """One node of each zone in turn."""
        lists = [list(names) for names in self._zones.values()]
        longest = max(map(len, lists), default=0)
        return [zone[turn] for turn in range(longest) for zone in lists if turn < len(zone)]
