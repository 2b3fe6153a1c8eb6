"""Defaults of KubeSchedulerConfiguration v1 (pkg/scheduler/apis/config/v1/defaults.go)."""

from __future__ import annotations

from collections.abc import Mapping
from typing import Any

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.config.decode import V1
from bowsprit.scheduler.config.pluginsets import default_plugins, merge_plugins
from bowsprit.scheduler.config.schema import ARGS, POINTS

_ELECTION = {
    "leaderElect": True, "leaseDuration": "15s", "renewDeadline": "10s", "retryPeriod": "2s", "resourceLock": "leases",
    "resourceName": "kube-scheduler", "resourceNamespace": "kube-system",
}  # fmt: skip
_CONNECTION = {
    "kubeconfig": "", "acceptContentTypes": "", "contentType": "application/vnd.kubernetes.protobuf", "qps": 50,
    "burst": 100,
}  # fmt: skip
_TOP = {
    "parallelism": 16, "enableProfiling": True, "enableContentionProfiling": True, "percentageOfNodesToScore": 0,
    "podInitialBackoffSeconds": 1, "podMaxBackoffSeconds": 10,
}  # fmt: skip
_ZERO: tuple[Any, ...] = ("", 0, "0s")


def set_defaults(config: Obj, gates: Mapping[str, bool] | None = None) -> Obj:
    """A decoded configuration with everything filled in, as /configz shows it."""
    result: Obj = {"kind": "KubeSchedulerConfiguration", "apiVersion": V1}
    result.update({key: config.get(key, value) for key, value in _TOP.items()})
    if not result["enableProfiling"]:
        result["enableContentionProfiling"] = config.get("enableContentionProfiling", False)
    election = config.get("leaderElection") or {}
    result["leaderElection"] = {
        key: value if key not in election or (key != "leaderElect" and election[key] in _ZERO) else election[key]
        for key, value in _ELECTION.items()
    }
    connection = config.get("clientConnection") or {}
    result["clientConnection"] = {
        key: value if connection.get(key) in (None, "", 0) else connection[key] for key, value in _CONNECTION.items()
    }
    profiles = config.get("profiles") or [{}]
    if len(profiles) == 1 and profiles[0].get("schedulerName") is None:
        profiles = [{**profiles[0], "schedulerName": "default-scheduler"}]
    result["profiles"] = [_profile(profile, gates) for profile in profiles]
    if config.get("extenders"):
        result["extenders"] = [_extender(extender) for extender in config["extenders"]]
        _ignore_managed(result)
    if config.get("delayCacheUntilActive"):
        result["delayCacheUntilActive"] = True
    return result


def _plugin(plugin: Obj) -> Obj:
    return {"name": plugin.get("name", ""), "weight": plugin.get("weight", 0)}


def _profile(profile: Obj, gates: Mapping[str, bool] | None) -> Obj:
    custom = profile.get("plugins")
    if custom is not None:
        custom = {
            point: {part: [_plugin(p) for p in found[part]] for part in ("enabled", "disabled") if found.get(part)}
            for point, found in custom.items()
        }
    merged = merge_plugins(default_plugins(gates), custom)
    plugins: Obj = {}
    for point in POINTS:
        found = merged.get(point) or {}
        plugins[point] = {
            part: [_plugin(p) for p in found[part]] for part in ("enabled", "disabled") if found.get(part)
        }
    configs = [{"name": item.get("name", ""), "args": _args(item)} for item in profile.get("pluginConfig") or ()]
    configs = [item if item["args"] is not None else {"name": item["name"]} for item in configs]
    named = {item["name"] for item in configs}
    enabled = {plugin["name"] for found in plugins.values() for plugin in found.get("enabled") or ()}
    configs += [{"name": name, "args": default_args(name, {})} for name in sorted(enabled & set(ARGS) - named)]
    result: Obj = {"schedulerName": profile.get("schedulerName", "")}
    if profile.get("percentageOfNodesToScore") is not None:
        result["percentageOfNodesToScore"] = profile["percentageOfNodesToScore"]
    return {**result, "plugins": plugins, "pluginConfig": configs}


def _args(item: Obj) -> Any:
    name = item.get("name", "")
    return default_args(name, item.get("args") or {}) if name in ARGS else item.get("args")


def default_args(name: str, args: Obj) -> Obj:
    """The arguments of a default plugin with defaults filled in."""
    result: Obj = {key: value for key, value in args.items() if value not in ([], {})}
    result.update(kind=ARGS[name].name, apiVersion=V1)
    if name == "DefaultPreemption":
        result.setdefault("minCandidateNodesPercentage", 10)
        result.setdefault("minCandidateNodesAbsolute", 100)
    elif name == "DynamicResources":
        result.setdefault("filterTimeout", "10s")
        result.setdefault("bindingTimeout", "10m0s")
    elif name == "InterPodAffinity":
        result.setdefault("hardPodAffinityWeight", 1)
        result.setdefault("ignorePreferredTermsOfExistingPods", False)
    elif name == "NodeAffinity" and result.get("addedAffinity"):
        result["addedAffinity"] = _affinity(result["addedAffinity"])
    elif name == "NodeResourcesBalancedAllocation":
        resources = result.get("resources") or [{"name": "cpu"}, {"name": "memory"}]
        result["resources"] = [_resource(resource) for resource in resources]
    elif name == "NodeResourcesFit":
        _fit(result, args)
    elif name == "PodTopologySpread":
        result.setdefault("defaultingType", "System")
    elif name == "VolumeBinding":
        result.setdefault("bindTimeoutSeconds", 600)
    return result


def _affinity(affinity: Obj) -> Obj:
    """Node affinity with the fields that are always shown."""
    result = dict(affinity)
    required, preferred = (f"{kind}DuringSchedulingIgnoredDuringExecution" for kind in ("required", "preferred"))
    if required in result:
        terms = result[required].get("nodeSelectorTerms")
        result[required] = {"nodeSelectorTerms": None if terms is None else [_term(term) for term in terms]}
    if preferred in result:
        result[preferred] = [
            {"weight": item.get("weight", 0), "preference": _term(item.get("preference") or {})}
            for item in result[preferred]
        ]
        if not result[preferred]:
            del result[preferred]
    return result


def _term(term: Obj) -> Obj:
    return {
        part: [{"key": e.get("key", ""), "operator": e.get("operator", ""), **_some(e, "values")} for e in term[part]]
        for part in ("matchExpressions", "matchFields")
        if term.get(part)
    }


def _some(obj: Obj, key: str) -> Obj:
    return {key: obj[key]} if obj.get(key) else {}


def _resource(resource: Obj) -> Obj:
    return {"name": resource.get("name", ""), "weight": resource.get("weight") or 1}


def _fit(result: Obj, args: Obj) -> None:
    strategy = args.get("scoringStrategy")
    if strategy is None:
        strategy = {"type": "LeastAllocated"}
    strategy = dict(strategy)
    resources = strategy.get("resources") or [{"name": "cpu"}, {"name": "memory"}]
    strategy["resources"] = [_resource(resource) for resource in resources]
    result["scoringStrategy"] = strategy


def _ignore_managed(config: Obj) -> None:
    """Resources that an extender manages alone are no business of NodeResourcesFit."""
    managed = (r for extender in config["extenders"] for r in extender.get("managedResources") or ())
    ignored = [resource["name"] for resource in managed if resource.get("ignoredByScheduler")]
    for profile in config["profiles"] if ignored else ():
        for item in profile["pluginConfig"]:
            if item["name"] == "NodeResourcesFit":
                item["args"]["ignoredResources"] = list(ignored)  # these take the place of the profile's own


def _extender(extender: Obj) -> Obj:
    result = {key: value for key, value in extender.items() if value not in ("", 0, False, [], None)}
    return {"urlPrefix": extender.get("urlPrefix", ""), **result, "httpTimeout": extender.get("httpTimeout") or "5s"}
