"""Validation of a defaulted configuration (pkg/scheduler/apis/config/validation)."""

from __future__ import annotations

from typing import Any

from bowsprit.machinery.fielderrors import (
    FieldError,
    Path,
    duplicate,
    forbidden,
    invalid,
    not_supported,
    path,
    required,
)
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_qualified_name
from bowsprit.scheduler.config.decode import V1
from bowsprit.scheduler.config.duration import seconds
from bowsprit.scheduler.config.schema import POINTS
from bowsprit.scheduler.termerrors import term_errors

_REMOVED = ("AzureDiskLimits", "CinderLimits", "EBSLimits", "GCEPDLimits")
_UNCHECKED = ("multiPoint", "placementGenerate", "placementScore")  # where upstream does not look for them
_ANY = Any


def validate(config: Obj, gates: dict[str, bool]) -> list[FieldError]:
    """All problems, in upstream's order."""
    errors: list[FieldError] = []
    if config["clientConnection"]["burst"] < 0:
        errors.append(
            invalid(path("clientConnection", "burst"), config["clientConnection"]["burst"], "must be non-negative")
        )
    errors += _election(config["leaderElection"])
    if config["parallelism"] <= 0:
        errors.append(
            invalid(path("parallelism"), config["parallelism"], "should be an integer value greater than zero")
        )
    errors += _profiles(config["profiles"], gates)
    errors += _percentage(path("percentageOfNodesToScore"), config["percentageOfNodesToScore"])
    initial, longest = config["podInitialBackoffSeconds"], config["podMaxBackoffSeconds"]
    if initial <= 0:
        errors.append(invalid(path("podInitialBackoffSeconds"), initial, "must be greater than 0"))
    if longest < initial:
        text = "must be greater than or equal to PodInitialBackoffSeconds"
        errors.append(invalid(path("podMaxBackoffSeconds"), longest, text))
    return errors + _extenders(config.get("extenders") or [])


def _percentage(where: Path, value: int | None) -> list[FieldError]:
    if value is None or 0 <= value <= 100:
        return []
    return [invalid(where, value, "not in valid range [0-100]")]


def _election(election: Obj) -> list[FieldError]:
    """ValidateLeaderElectionConfiguration, and that the lock is a Lease."""
    if not election["leaderElect"]:
        return []
    where, errors = path("leaderElection"), []
    lease, renew, retry = (seconds(election[key]) for key in ("leaseDuration", "renewDeadline", "retryPeriod"))
    for key, value in (("leaseDuration", lease), ("renewDeadline", renew), ("retryPeriod", retry)):
        if value <= 0:
            errors.append(invalid(where.child(key), election[key], "must be greater than zero"))
    if lease <= renew:
        # upstream puts the renew deadline into the message
        errors.append(
            invalid(where.child("leaseDuration"), election["renewDeadline"], "must be greater than `RenewDeadline`")
        )
    errors += [
        required(where.child(key)) for key in ("resourceLock", "resourceNamespace", "resourceName") if not election[key]
    ]
    if election["resourceLock"] != "leases":
        errors.append(
            invalid(where.child("resourceLock"), election["resourceLock"], 'resourceLock value must be "leases"')
        )
    return errors


def _go_set(plugins: Obj) -> Obj:
    """A PluginSet as Go prints it in messages."""

    def listed(part: str) -> Any:
        items = plugins.get(part)
        return [{"Name": p["name"], "Weight": p["weight"]} for p in items] if items else None

    return {"Enabled": listed("enabled"), "Disabled": listed("disabled")}


def _profiles(profiles: list[Obj], gates: dict[str, bool]) -> list[FieldError]:
    errors: list[FieldError] = []
    seen: set[str] = set()
    where = path("profiles")
    for i, profile in enumerate(profiles):
        here, name = where.index(i), profile["schedulerName"]
        errors += _profile(here, profile, gates)
        if name in seen:
            errors.append(duplicate(here.child("schedulerName"), {}))
        seen.add(name)
    first = _go_set(profiles[0]["plugins"]["queueSort"])
    sort_name = first["Enabled"][0]["Name"] if first["Enabled"] else ""
    sort_args = _args_of(profiles[0], sort_name) if sort_name else None
    for i, profile in enumerate(profiles):
        own = _go_set(profile["plugins"]["queueSort"])
        if i == 0 and len(own["Enabled"] or ()) > 1:
            sort = where.index(i).child("plugins", "queueSort", "Enabled")
            errors.append(invalid(sort, len(own["Enabled"]), "only one queue sort plugin can be enabled"))
        if i and own != first:
            sort = where.index(i).child("plugins", "queueSort")
            errors.append(invalid(sort, own, "must be the same for all profiles"))
        for item in profile["pluginConfig"] if i else ():
            if item["name"] == sort_name and item.get("args") != sort_args:
                at = where.index(i).child("pluginConfig", "args")
                errors.append(invalid(at, item.get("args") or {}, "queueSort must be the same for all profiles"))
    return errors


def _args_of(profile: Obj, name: str) -> Any:
    found = [item.get("args") for item in profile["pluginConfig"] if item["name"] == name]
    return found[-1] if found else None


def _profile(where: Path, profile: Obj, gates: dict[str, bool]) -> list[FieldError]:
    errors: list[FieldError] = []
    if not profile["schedulerName"]:
        errors.append(required(where.child("schedulerName")))
    errors += _percentage(where.child("percentageOfNodesToScore"), profile.get("percentageOfNodesToScore"))
    removed = f'was invalid in version "v1" (KubeSchedulerConfiguration is version "{V1}")'
    for point in POINTS:
        for i, plugin in enumerate(profile["plugins"][point].get("enabled") or ()):
            if plugin["name"] in _REMOVED and point not in _UNCHECKED:
                errors.append(invalid(where.child("plugins", point, "enabled").index(i), plugin["name"], removed))
    named: set[str] = set()
    for i, item in enumerate(profile["pluginConfig"]):
        here, name = where.child("pluginConfig").index(i), item["name"]
        if name in named:
            errors.append(duplicate(here, name))
        named.add(name)
        if name in _REMOVED:
            errors.append(invalid(here, name, removed))
        check = _CHECKS.get(name)
        if check is not None and item.get("args") is not None:
            errors += check(here.child("args"), item["args"], gates)
    return errors


# arguments


def _preemption(where: Path, args: Obj, gates: dict[str, bool]) -> list[FieldError]:
    percentage, absolute = args["minCandidateNodesPercentage"], args["minCandidateNodesAbsolute"]
    names = ("minCandidateNodesPercentage", "minCandidateNodesAbsolute")
    errors = []
    if not 0 <= percentage <= 100:
        errors.append(invalid(where.child(names[0]), percentage, "not in valid range [0, 100]"))
    if absolute < 0:
        errors.append(invalid(where.child(names[1]), absolute, "not in valid range [0, inf)"))
    if percentage == 0 and absolute == 0:
        text = "cannot be zero at the same time as "
        errors += [invalid(where.child(mine), 0, text + other) for mine, other in (names, names[::-1])]
    return errors


def _dynamic_resources(where: Path, args: Obj, gates: dict[str, bool]) -> list[FieldError]:
    errors = []
    if seconds(args["filterTimeout"]) < 0:
        errors.append(invalid(where.child("filterTimeout"), args["filterTimeout"], "must be zero or positive"))
    if seconds(args["bindingTimeout"]) < 1:
        errors.append(invalid(where.child("bindingTimeout"), args["bindingTimeout"], "must be at least 1 second"))
    return errors


def _pod_affinity(where: Path, args: Obj, gates: dict[str, bool]) -> list[FieldError]:
    weight = args["hardPodAffinityWeight"]
    if 0 <= weight <= 100:
        return []
    return [invalid(where.child("hardPodAffinityWeight"), weight, "not in valid range [0, 100]")]


def _node_affinity(where: Path, args: Obj, gates: dict[str, bool]) -> list[FieldError]:
    """nodeaffinity.NewNodeSelector and NewPreferredSchedulingTerms on the added affinity."""
    added, here = args.get("addedAffinity") or {}, where.child("addedAffinity")
    errors: list[FieldError] = []
    required_terms = added.get("requiredDuringSchedulingIgnoredDuringExecution")
    if required_terms is not None:
        base = here.child("requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms")
        for i, term in enumerate(required_terms.get("nodeSelectorTerms") or ()):
            errors += term_errors(base.index(i), term)
    base = here.child("preferredDuringSchedulingIgnoredDuringExecution")
    for i, item in enumerate(added.get("preferredDuringSchedulingIgnoredDuringExecution") or ()):
        if item.get("weight"):
            errors += term_errors(base.index(i), item.get("preference") or {})
    return errors


def _balanced(where: Path, args: Obj, gates: dict[str, bool]) -> list[FieldError]:
    errors, seen = [], set()
    for i, resource in enumerate(args["resources"]):
        here = where.child("resources").index(i)
        if resource["name"] in seen:
            errors.append(duplicate(here.child("name"), resource["name"]))
        seen.add(resource["name"])
        if resource["weight"] != 1:
            errors.append(invalid(here.child("weight"), resource["weight"], "must be 1"))
    return errors


def _spread(where: Path, args: Obj, gates: dict[str, bool]) -> list[FieldError]:
    kind, constraints = args["defaultingType"], args.get("defaultConstraints") or []
    errors: list[FieldError] = []
    if kind not in ("System", "List"):
        errors.append(not_supported(where.child("defaultingType"), kind, ["System", "List"]))
    elif kind == "System" and constraints:
        errors.append(invalid(where.child("defaultingType"), kind, "when .defaultConstraints are not empty"))
    seen: list[tuple[str, str]] = []
    for i, constraint in enumerate(constraints):
        here = where.child("defaultConstraints").index(i)
        key, action = constraint.get("topologyKey", ""), constraint.get("whenUnsatisfiable", "")
        if constraint.get("maxSkew", 0) <= 0:
            errors.append(invalid(here.child("maxSkew"), constraint.get("maxSkew", 0), "not in valid range (0, inf)"))
        if not key:
            errors.append(required(here.child("topologyKey"), "can not be empty"))
        elif problems := is_qualified_name(key):
            errors += [invalid(here.child("topologyKey"), key, problem) for problem in problems]
        if not action:
            errors.append(required(here.child("whenUnsatisfiable"), "can not be empty"))
        elif action not in ("DoNotSchedule", "ScheduleAnyway"):
            at = here.child("whenUnsatisfiable")
            errors.append(not_supported(at, action, ["DoNotSchedule", "ScheduleAnyway"]))
        if constraint.get("labelSelector") is not None:
            text = "constraint must not define a selector, as they deduced for each pod"
            errors.append(forbidden(here.child("labelSelector"), text))
        if (key, action) in seen:
            errors.append(duplicate(here, f"{{{key}, {action}}}"))
        seen.append((key, action))
    return errors


def _volume_binding(where: Path, args: Obj, gates: dict[str, bool]) -> list[FieldError]:
    errors: list[FieldError] = []
    if args["bindTimeoutSeconds"] < 0:
        text = "invalid BindTimeoutSeconds, should not be a negative value"
        errors.append(invalid(where.child("bindTimeoutSeconds"), args["bindTimeoutSeconds"], text))
    shape = args.get("shape") or []
    if gates.get("StorageCapacityScoring"):
        errors += shape_errors(where.child("shape"), shape) if shape else []
    elif shape:
        shown = [{"Utilization": p.get("utilization", 0), "Score": p.get("score", 0)} for p in shape]
        text = "unexpected field `shape`, remove it or turn on the feature gate StorageCapacityScoring"
        errors.append(invalid(where.child("shape"), shown, text))
    return errors


def shape_errors(where: Path, shape: list[Obj]) -> list[FieldError]:
    """validateFunctionShape."""
    if not shape:
        return [required(where, "at least one point must be specified")]
    errors = []
    last = -1
    for i, point in enumerate(shape):
        utilization, score = point.get("utilization", 0), point.get("score", 0)
        here = where.index(i)
        if not 0 <= utilization <= 100:
            errors.append(invalid(here.child("utilization"), utilization, "not in valid range [0, 100]"))
        if not 0 <= score <= 10:
            errors.append(invalid(here.child("score"), score, "not in valid range [0, 10]"))
    for i, point in enumerate(shape):
        utilization = point.get("utilization", 0)
        if i and utilization <= last:
            text = "values must be sorted in increasing order"
            errors.append(invalid(where.index(i).child("utilization"), utilization, text))
            break
        last = utilization
    return errors


def fit_errors(args: Obj) -> list[FieldError]:
    """ValidateNodeResourcesFitArgs, which upstream runs when the plugin is built."""
    errors: list[FieldError] = []
    for i, name in enumerate(args.get("ignoredResources") or ()):
        errors += [invalid(path("ignoredResources").index(i), name, text) for text in is_qualified_name(name)]
    for i, name in enumerate(args.get("ignoredResourceGroups") or ()):
        here = path("ignoredResourceGroups").index(i)
        if "/" in name:
            errors.append(invalid(here, name, "resource group name can't contain '/'"))
        else:
            errors += [invalid(here, name, text) for text in is_qualified_name(name)]
    strategy, where = args.get("scoringStrategy"), path("scoringStrategy")
    if strategy is None:
        return [*errors, required(where, "ScoringStrategy field is required")]
    kinds = ["LeastAllocated", "MostAllocated", "RequestedToCapacityRatio"]
    kind = strategy.get("type", "")
    if kind not in kinds:
        errors.append(not_supported(where.child("type"), kind, kinds))
    for i, resource in enumerate(strategy.get("resources") or ()):
        if not 1 <= resource.get("weight", 0) <= 100:
            text = f"resource weight of {resource.get('name', '')} not in valid range (0, 100]"
            errors.append(invalid(where.child("resources").index(i).child("weight"), resource.get("weight", 0), text))
    ratio = strategy.get("requestedToCapacityRatio")
    if kind == "RequestedToCapacityRatio" and ratio is None:
        text = "must be specified when type is RequestedToCapacityRatio"
        errors.append(required(where.child("requestedToCapacityRatio"), text))
    elif kind == "RequestedToCapacityRatio" and ratio is not None:
        errors += shape_errors(where.child("requestedToCapacityRatio", "shape"), ratio.get("shape") or [])
    elif ratio is not None:
        text = "must be nil when type is not RequestedToCapacityRatio"
        errors.append(forbidden(where.child("requestedToCapacityRatio"), text))
    return errors


_CHECKS: dict[str, _ANY] = {
    "DefaultPreemption": _preemption,
    "DynamicResources": _dynamic_resources,
    "InterPodAffinity": _pod_affinity,
    "NodeAffinity": _node_affinity,
    "NodeResourcesBalancedAllocation": _balanced,
    "PodTopologySpread": _spread,
    "VolumeBinding": _volume_binding,
}


def _extenders(extenders: list[Obj]) -> list[FieldError]:
    errors: list[FieldError] = []
    binders = 0
    seen: set[str] = set()
    for i, extender in enumerate(extenders):
        where = path("extenders").index(i)
        if extender.get("prioritizeVerb") and extender.get("weight", 0) <= 0:
            text = "must have a positive weight applied to it"
            errors.append(invalid(where.child("weight"), extender.get("weight", 0), text))
        binders += bool(extender.get("bindVerb"))
        for j, resource in enumerate(extender.get("managedResources") or ()):
            name, here = resource.get("name", ""), where.child("managedResources").index(j).child("name")
            bad = is_qualified_name(name)
            errors += [invalid(here, name, text) for text in bad]
            if not bad and not _is_extended(name):
                errors.append(invalid(here, name, "is an invalid extended resource name"))
            if name in seen:
                errors.append(invalid(here, name, "duplicate extender managed resource name"))
            seen.add(name)
    if binders > 1:
        text = f"found {binders} extenders implementing bind"
        errors.append(invalid(path("extenders"), text, "only one extender can implement bind"))
    return errors


def _is_extended(name: str) -> bool:
    domain, slash, _ = name.partition("/")
    return bool(slash) and not domain.endswith("kubernetes.io") and not name.startswith("requests.")
