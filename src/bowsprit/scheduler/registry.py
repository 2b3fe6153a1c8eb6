"""The default plugins by name, and how more are added: by hand or by entry point (profile.plugin_at: by module path)."""

from __future__ import annotations

from collections.abc import Callable
from importlib.metadata import entry_points
from typing import Any

from bowsprit.machinery.fielderrors import aggregate
from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.config.validation import fit_errors
from bowsprit.scheduler.plugins.declaredfeatures import NodeDeclaredFeatures
from bowsprit.scheduler.plugins.defaultbinder import DefaultBinder
from bowsprit.scheduler.plugins.dynamicresources import DynamicResources
from bowsprit.scheduler.plugins.imagelocality import ImageLocality
from bowsprit.scheduler.plugins.interpodaffinity import InterPodAffinity
from bowsprit.scheduler.plugins.nodeaffinity import NodeAffinity
from bowsprit.scheduler.plugins.nodename import NodeName
from bowsprit.scheduler.plugins.nodeports import NodePorts
from bowsprit.scheduler.plugins.noderesources import BalancedAllocation, NodeResourcesFit
from bowsprit.scheduler.plugins.nodeunschedulable import NodeUnschedulable
from bowsprit.scheduler.plugins.nodevolumelimits import NodeVolumeLimits
from bowsprit.scheduler.plugins.podtopologyspread import PodTopologySpread
from bowsprit.scheduler.plugins.queueing import GangScheduling, PrioritySort, SchedulingGates
from bowsprit.scheduler.plugins.tainttoleration import TaintToleration
from bowsprit.scheduler.plugins.volumebinding import VolumeBinding
from bowsprit.scheduler.plugins.volumerestrictions import VolumeRestrictions
from bowsprit.scheduler.plugins.volumezone import VolumeZone
from bowsprit.scheduler.preemption import DefaultPreemption
from bowsprit.scheduler.profile import Handle, PluginFactory, plugin_factory

ENTRY_POINTS = "bowsprit.scheduler.plugins"

Registry = dict[str, PluginFactory]


def _plain(kind: Callable[[], Any]) -> PluginFactory:
    return lambda args, handle: kind()


def _fit(args: Obj, handle: Handle) -> NodeResourcesFit:
    errors = fit_errors(args) if args else []
    if errors:
        raise ValueError(aggregate(errors))
    return NodeResourcesFit(args, handle.ignored_resources)


def in_tree() -> Registry:
    """The default plugins (upstream NewInTreeRegistry), in the order in which they are built."""
    return {
        "SchedulingGates": _plain(SchedulingGates),
        "PrioritySort": _plain(PrioritySort),
        "NodeUnschedulable": _plain(NodeUnschedulable),
        "NodeName": _plain(NodeName),
        "TaintToleration": lambda args, h: TaintToleration(h.enabled("TaintTolerationComparisonOperators")),
        "NodeAffinity": lambda args, h: NodeAffinity(args.get("addedAffinity")),
        "NodePorts": _plain(NodePorts),
        "NodeResourcesFit": _fit,
        "VolumeRestrictions": lambda args, h: VolumeRestrictions(h.cache),
        "NodeVolumeLimits": lambda args, h: NodeVolumeLimits(h.cache),
        "VolumeBinding": VolumeBinding,
        "VolumeZone": lambda args, h: VolumeZone(h.cache),
        "PodTopologySpread": lambda args, h: PodTopologySpread(args),
        "InterPodAffinity": lambda args, h: InterPodAffinity(args),
        "DynamicResources": _plain(DynamicResources),
        "DefaultPreemption": DefaultPreemption,
        "NodeResourcesBalancedAllocation": lambda args, h: BalancedAllocation(args),
        "ImageLocality": _plain(ImageLocality),
        "DefaultBinder": lambda args, h: DefaultBinder(h),
        "NodeDeclaredFeatures": _plain(NodeDeclaredFeatures),
        "GangScheduling": lambda args, h: GangScheduling(h.enabled("GangScheduling")),
    }


def from_entry_points() -> Registry:
    """Plugins that installed distributions offer in the group `bowsprit.scheduler.plugins`."""
    return {point.name: plugin_factory(point.load()) for point in entry_points(group=ENTRY_POINTS)}


def registry(*extra: Registry) -> Registry:
    """Default plugins, those of entry points, and `extra` ones; a name may be given only once."""
    result = in_tree()
    for more in (from_entry_points(), *extra):
        for name, factory in more.items():
            if name in result:
                raise ValueError(f"a plugin named {name} already exists")
            result[name] = factory
    return result
