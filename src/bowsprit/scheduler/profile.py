"""A profile: plugins by extension point, built from the configuration (upstream: framework/runtime.frameworkImpl)."""

from __future__ import annotations

import importlib
import inspect
from collections import Counter, OrderedDict
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from time import perf_counter
from typing import Any

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.cache import Cache
from bowsprit.scheduler.framework import Code, CycleState, Status, failure, unresolvable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.nominator import Nominator
from bowsprit.scheduler.podinfo import PodInfo

# extension point in configurations -> the methods of which one makes a plugin run there
POINTS: dict[str, tuple[str, ...]] = {
    "preEnqueue": ("pre_enqueue",),
    "queueSort": ("sort_key",),
    "preFilter": ("pre_filter",),
    "filter": ("filter", "filter_rows"),
    "postFilter": ("post_filter",),
    "preScore": ("pre_score",),
    "score": ("score", "score_rows"),
    "reserve": ("reserve",),
    "permit": ("permit",),
    "preBind": ("pre_bind",),
    "bind": ("bind",),
    "postBind": ("post_bind",),
    "placementGenerate": ("placement_generate",),
    "placementScore": ("placement_score",),
}
# the order in which upstream fills the points: it decides which error is reported first
_EXPANSION_ORDER = (
    "preFilter", "filter", "postFilter", "reserve", "preScore", "score", "preBind", "bind", "postBind", "permit",
    "preEnqueue", "queueSort", "placementGenerate", "placementScore",
)  # fmt: skip
_GO_NAMES = {point: point[0].upper() + point[1:] + "Plugin" for point in POINTS}


class ProfileError(ValueError):
    """A profile that cannot be built, with upstream's message."""


@dataclass(slots=True)
class Handle:
    """What a plugin may use, given to its factory."""

    cache: Cache
    nominator: Nominator
    gates: Mapping[str, bool]
    clock: Callable[[], float] = lambda: 0.0
    profile: Profile | None = None
    binder: Any = None  # async (pod, node_name) -> Status | None
    client: Any = None
    extenders: list[Any] = field(default_factory=list)
    ignored_resources: frozenset[str] = frozenset()

    def enabled(self, gate: str) -> bool:
        return self.gates.get(gate, False)


Recorder = Callable[[str, str, str, float], None]  # (extension point, plugin, status, seconds)
_STATUS_NAMES = {
    Code.SUCCESS: "Success", Code.ERROR: "Error", Code.UNSCHEDULABLE: "Unschedulable", Code.SKIP: "Skip",
    Code.UNSCHEDULABLE_AND_UNRESOLVABLE: "UnschedulableAndUnresolvable", Code.WAIT: "Wait", Code.PENDING: "Pending",
}  # fmt: skip


def status_name(status: Status | None) -> str:
    """A status as metrics name it."""
    return "Success" if status is None else _STATUS_NAMES[status.code]


PluginFactory = Callable[[Obj, Handle], Any]


def plugin_factory(found: Any) -> PluginFactory:
    """A factory from what a user registered: a class or function that takes (args, handle), (args) or nothing."""
    takes = len(inspect.signature(found).parameters)

    def build(args: Obj, handle: Handle) -> Any:
        return found(*(args, handle)[:takes])

    return build


def plugin_at(path: str) -> PluginFactory:
    """The plugin that a configuration names as `package.module:Attribute`. Raises ProfileError."""
    module, _, attribute = path.partition(":")
    try:
        return plugin_factory(getattr(importlib.import_module(module), attribute))
    except (ImportError, AttributeError, ValueError) as exc:
        raise ProfileError(f'plugin "{path}" cannot be loaded: {exc}') from exc


def has_methods(plugin: Any, point: str) -> bool:
    return any(hasattr(plugin, method) for method in POINTS[point])


def implements(plugin: Any, point: str) -> bool:
    """Whether a configuration may name the plugin there: some do elsewhere what upstream does at a point (`also_at`)."""
    return has_methods(plugin, point) or point in getattr(plugin, "also_at", ())


class Profile:
    """One scheduler name with its plugins. Attributes named after the points hold them in running order."""

    def __init__(self, config: Obj, registry: Mapping[str, PluginFactory], handle: Handle):
        self.scheduler_name: str = config.get("schedulerName") or ""
        self.percentage: int | None = config.get("percentageOfNodesToScore")
        self.handle = handle
        handle.profile = self
        self.plugins: dict[str, Any] = {}
        self.at: dict[str, list[Any]] = {point: [] for point in POINTS}
        self.weights: dict[str, int] = {}
        self._build(config, registry)
        self.pre_filters, self.filters, self.scores = self.at["preFilter"], self.at["filter"], self.at["score"]
        self.pre_scores = {plugin.name: plugin for plugin in self.at["preScore"]}
        self.dynamic_filters = [plugin for plugin in self.filters if not getattr(plugin, "static", False)]
        self.rows: OrderedDict[bytes, Any] = OrderedDict()  # ShapeRows by PodShape.local, least recently used first
        self.evaluations: Counter[tuple[str, str]] = Counter()  # (point, plugin): cycles in which it ran
        self.recorder: Recorder | None = None  # set while a cycle is sampled
        self.extensions = [p for p in self.pre_filters if hasattr(p, "add_pod")]

    # building

    def _build(self, config: Obj, registry: Mapping[str, PluginFactory]) -> None:
        args: dict[str, Obj] = {}
        for item in config.get("pluginConfig") or ():
            if item["name"] in args:
                raise ProfileError(f"repeated config for plugin {item['name']}")
            args[item["name"]] = item.get("args") or {}
        sets: dict[str, Obj] = config.get("plugins") or {}
        wanted = {
            plugin["name"]
            for point in (*POINTS, "multiPoint")
            for plugin in (sets.get(point) or {}).get("enabled") or ()
        }
        paths = {name: plugin_at(name) for name in sorted(wanted) if ":" in name}
        for name, factory in {**registry, **paths}.items():
            if name in wanted:
                try:
                    self.plugins[name] = factory(args.get(name, {}), self.handle)
                except ValueError as exc:
                    raise ProfileError(f'initializing plugin "{name}": {exc}') from exc
        enabled = {point: self._enabled(point, sets) for point in _EXPANSION_ORDER}
        for point in _EXPANSION_ORDER:
            expanded = self._expand(point, sets, enabled[point])
            self.at[point] = [plugin for plugin in expanded if has_methods(plugin, point)]
        total = 0
        score_set = (sets.get("score") or {}).get("enabled") or ()
        for plugin in (*score_set, *((sets.get("multiPoint") or {}).get("enabled") or ())):
            instance = self.plugins[plugin["name"]]
            if implements(instance, "score") and instance.name not in self.weights:
                if total < 0:  # what upstream subtracts it from overflows
                    raise ProfileError("score plugins: total score of Score plugins could overflow")
                self.weights[instance.name] = int(plugin.get("weight") or 0) or 1
                total += self.weights[instance.name]
        self._check()

    def _enabled(self, point: str, sets: Obj) -> list[str]:
        """The names that are enabled at this point itself."""
        enabled: list[str] = []
        for plugin in (sets.get(point) or {}).get("enabled") or ():
            name = plugin["name"]
            if name not in self.plugins:
                raise ProfileError(f'{_GO_NAMES[point]} "{name}" does not exist')
            if not implements(self.plugins[name], point):
                raise ProfileError(f'plugin "{name}" does not extend {_GO_NAMES[point]} plugin')
            if name in enabled:
                raise ProfileError(f'plugin "{name}" already registered as "{_GO_NAMES[point]}"')
            enabled.append(name)
        return enabled

    def _expand(self, point: str, sets: Obj, enabled: list[str]) -> list[Any]:
        """expandMultiPointPlugins: overrides first, then multiPoint, then what is enabled at this point only."""
        own, multi = sets.get(point) or {}, sets.get("multiPoint") or {}
        disabled = {plugin["name"] for plugin in own.get("disabled") or ()}
        if "*" in disabled:
            return [self.plugins[name] for name in enabled]
        from_multi: list[str] = []
        overrides: set[str] = set()
        for plugin in multi.get("enabled") or ():
            name = plugin["name"]
            if name not in self.plugins:
                raise ProfileError(f'{_GO_NAMES[point]} "{name}" does not exist')
            if not implements(self.plugins[name], point) or name in disabled:
                continue
            if name in enabled:
                overrides.add(name)
            elif name in from_multi:
                raise ProfileError(f'plugin "{name}" already registered as "{_GO_NAMES[point]}"')
            else:
                from_multi.append(name)
        ordered = [n for n in enabled if n in overrides] + from_multi + [n for n in enabled if n not in overrides]
        return [self.plugins[name] for name in ordered]

    def _check(self) -> None:
        if len(self.at["queueSort"]) != 1:
            raise ProfileError(
                f"only one queue sort plugin required for profile with scheduler name "
                f'"{self.scheduler_name}", but got {len(self.at["queueSort"])}'
            )
        if not self.at["bind"]:
            raise ProfileError(
                f'at least one bind plugin is needed for profile with scheduler name "{self.scheduler_name}"'
            )

    def plugin(self, kind: type) -> Any:
        """The instance of a plugin class in this profile, or None."""
        return next((p for p in self.plugins.values() if isinstance(p, kind)), None)

    # running

    def run_pre_filter(self, state: CycleState, pod: PodInfo) -> tuple[frozenset[str] | None, Status | None, set[str]]:
        """RunPreFilterPlugins: the nodes that are left (None: all), the rejection if any, and who limited them."""
        nodes = self.handle.cache.nodes
        result: frozenset[str] | None = None
        limiting: set[str] = set()
        rejection: Status | None = None
        for plugin in self.pre_filters:
            started = perf_counter() if self.recorder else 0.0
            names, status = plugin.pre_filter(state, pod, nodes)
            if self.recorder:
                self.recorder("PreFilter", plugin.name, status_name(status), perf_counter() - started)
            if status is None or status.code != Code.SKIP:
                self.evaluations["PreFilter", plugin.name] += 1
            if status is not None:
                if status.code == Code.SKIP:
                    state.skip_filter.add(plugin.name)
                    continue
                if status.code == Code.UNSCHEDULABLE_AND_UNRESOLVABLE or not status.rejected:
                    return None, status.of(plugin.name), limiting
                rejection = status.of(plugin.name)
                continue
            if names is not None:
                limiting.add(plugin.name)
                result = names if result is None else result & names
                if not result:
                    return result, self._nothing_left(limiting), limiting
        return result, rejection, limiting

    @staticmethod
    def _nothing_left(limiting: set[str]) -> Status:
        if len(limiting) == 1:
            return unresolvable(f"node(s) didn't satisfy plugin {next(iter(limiting))}")
        return unresolvable(f"node(s) didn't satisfy plugin(s) [{' '.join(sorted(limiting))}] simultaneously")

    def run_filters(
        self, state: CycleState, pod: PodInfo, node: NodeInfo, *, only_dynamic: bool = False
    ) -> Status | None:
        """RunFilterPlugins on one node: the first rejection. `only_dynamic`: not those that look at the node alone."""
        skipped = state.skip_filter
        for plugin in self.dynamic_filters if only_dynamic else self.filters:
            if plugin.name in skipped:
                continue
            status: Status | None = plugin.filter(state, pod, node)
            if status is not None and status.code != Code.SUCCESS:
                return status.of(plugin.name)
        return None

    def run_filters_with_nominated(
        self, state: CycleState, pod: PodInfo, node: NodeInfo, *, only_dynamic: bool = False
    ) -> Status | None:
        """RunFilterPluginsWithNominatedPods: with the pods nominated to the node added, and without them."""
        rivals = self.handle.nominator.rivals(pod, node.name)
        if rivals:
            crowded, guess = node.clone(), state.clone()
            for rival in rivals:
                crowded.add_pod(rival)
                self.add_pod(guess, pod, rival, crowded)
            status = self.run_filters(guess, pod, crowded, only_dynamic=only_dynamic)
            if status is not None:
                return status
        return self.run_filters(state, pod, node, only_dynamic=only_dynamic)

    def add_pod(self, state: CycleState, pod: PodInfo, added: PodInfo, node: NodeInfo) -> None:
        for plugin in self.extensions:
            if plugin.name not in state.skip_filter:
                plugin.add_pod(state, pod, added, node)

    def remove_pod(self, state: CycleState, pod: PodInfo, removed: PodInfo, node: NodeInfo) -> None:
        for plugin in self.extensions:
            if plugin.name not in state.skip_filter:
                plugin.remove_pod(state, pod, removed, node)

    def run_post_filter(self, state: CycleState, pod: PodInfo, statuses: Any) -> tuple[str | None, Status | None]:
        """RunPostFilterPlugins: stops at the first success; reasons of the others are joined."""
        nominated: str | None = None
        reasons: list[str] = []
        for plugin in self.at["postFilter"]:
            started = perf_counter()
            name, status = plugin.post_filter(state, pod, statuses)
            if self.recorder:
                self.recorder("PostFilter", plugin.name, status_name(status), perf_counter() - started)
            if status is None:
                return name, None
            if status.code == Code.UNSCHEDULABLE_AND_UNRESOLVABLE:
                return name, status.of(plugin.name)
            if not status.rejected:
                return None, status.of(plugin.name)
            if name is not None:
                nominated = name
            reasons += status.reasons
        return nominated, Status(Code.UNSCHEDULABLE, tuple(reasons))

    def run_reserve(self, state: CycleState, pod: PodInfo, node_name: str) -> Status | None:
        for plugin in self.at["reserve"]:
            started = perf_counter()
            status: Status | None = plugin.reserve(state, pod, node_name)
            if self.recorder:
                self.recorder("Reserve", plugin.name, status_name(status), perf_counter() - started)
            if status is not None:
                return status.of(plugin.name)
        return None

    def run_unreserve(self, state: CycleState, pod: PodInfo, node_name: str) -> None:
        for plugin in reversed(self.at["reserve"]):
            plugin.unreserve(state, pod, node_name)

    def run_permit(self, state: CycleState, pod: PodInfo, node_name: str) -> tuple[Status | None, dict[str, float]]:
        """RunPermitPlugins: a rejection, or the plugins that want the pod to wait with their timeouts in seconds."""
        waits: dict[str, float] = {}
        for plugin in self.at["permit"]:
            started = perf_counter()
            status, timeout = plugin.permit(state, pod, node_name)
            if self.recorder:
                self.recorder("Permit", plugin.name, status_name(status), perf_counter() - started)
            if status is None:
                continue
            if status.code == Code.WAIT:
                waits[plugin.name] = min(timeout, 900.0)
            elif status.rejected:
                return status.of(plugin.name), {}
            else:
                return failure(f'running Permit plugin "{plugin.name}": {status.message}').of(plugin.name), {}
        return None, waits

    def run_pre_enqueue(self, pod: PodInfo) -> Status | None:
        for plugin in self.at["preEnqueue"]:
            status: Status | None = plugin.pre_enqueue(pod)
            if status is not None:
                return status.of(plugin.name)
        return None
