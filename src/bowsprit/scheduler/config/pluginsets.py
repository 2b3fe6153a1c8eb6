"""The default plugins and how a profile's plugin sets are merged into them (apis/config/v1/default_plugins.go)."""

from __future__ import annotations

from collections.abc import Mapping

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.profile import POINTS

DEFAULT_MULTI_POINT: tuple[tuple[str, int], ...] = (
    ("SchedulingGates", 0),
    ("PrioritySort", 0),
    ("NodeUnschedulable", 0),
    ("NodeName", 0),
    ("TaintToleration", 3),
    ("NodeAffinity", 2),
    ("NodePorts", 0),
    ("NodeResourcesFit", 1),
    ("VolumeRestrictions", 0),
    ("NodeVolumeLimits", 0),
    ("VolumeBinding", 0),
    ("VolumeZone", 0),
    ("PodTopologySpread", 2),
    ("InterPodAffinity", 2),
    ("DynamicResources", 2),
    ("DefaultPreemption", 0),
    ("NodeResourcesBalancedAllocation", 1),
    ("ImageLocality", 1),
    ("DefaultBinder", 0),
    ("NodeDeclaredFeatures", 0),
)


def default_plugins(gates: Mapping[str, bool] | None = None) -> Obj:
    """The plugins of a profile that says nothing about them."""
    enabled: list[Obj] = [
        {"name": name, "weight": weight} if weight else {"name": name} for name, weight in DEFAULT_MULTI_POINT
    ]
    if (gates or {}).get("GangScheduling"):
        enabled.append({"name": "GangScheduling"})
    return {"multiPoint": {"enabled": enabled}}


def merge_plugins(defaults: Obj, custom: Obj | None) -> Obj:
    """Defaults with a profile's own sets merged in, point by point."""
    if custom is None:
        return defaults
    return {
        point: _merge_set(defaults.get(point) or {}, custom.get(point) or {})
        for point in (*POINTS, "multiPoint")
        if defaults.get(point) or custom.get(point)
    }


def _merge_set(default: Obj, custom: Obj) -> Obj:
    disabled = [{"name": plugin["name"]} for plugin in custom.get("disabled") or ()]
    disabled += [{"name": plugin["name"]} for plugin in default.get("disabled") or ()]
    off = {plugin["name"] for plugin in disabled}
    mine = list(custom.get("enabled") or ())
    position_of = {plugin["name"]: position for position, plugin in enumerate(mine)}
    replaced: set[int] = set()
    enabled: list[Obj] = []
    if "*" not in off:
        for plugin in default.get("enabled") or ():
            if plugin["name"] in off:
                continue
            position = position_of.get(plugin["name"])
            if position is not None:
                replaced.add(position)
                plugin = mine[position]
            enabled.append(plugin)
    enabled += [plugin for position, plugin in enumerate(mine) if position not in replaced]
    merged: Obj = {}
    if enabled:
        merged["enabled"] = enabled
    if disabled:
        merged["disabled"] = disabled
    return merged
