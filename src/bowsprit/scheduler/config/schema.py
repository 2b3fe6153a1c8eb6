"""The shape of KubeSchedulerConfiguration v1 and of the plugins' arguments, as Go's types have it.

A type is the name of a scalar (Go's name of a string type, "*duration" for one that may be null), ("list", T), a Struct, or
"any". Only what decoding needs is said here.
"""

from __future__ import annotations

from dataclasses import dataclass, field
from typing import Any


@dataclass(frozen=True, slots=True)
class Struct:
    """A Go struct: its name in error messages and the types of its fields."""

    name: str
    fields: dict[str, Any]
    package: str = "v1"
    embedded: dict[str, str] = field(default_factory=dict)  # field -> the embedded struct that has it


def _list(kind: Any) -> tuple[str, Any]:
    return ("list", kind)


PLUGIN = Struct("Plugin", {"name": "string", "weight": "int32"})
PLUGIN_SET = Struct("PluginSet", {"enabled": _list(PLUGIN), "disabled": _list(PLUGIN)})
POINTS = (
    "preEnqueue", "queueSort", "preFilter", "filter", "postFilter", "preScore", "score", "reserve", "permit", "preBind",
    "bind", "postBind", "multiPoint", "placementGenerate", "placementScore",
)  # fmt: skip
PLUGINS = Struct("Plugins", dict.fromkeys(POINTS, PLUGIN_SET))
PLUGIN_CONFIG = Struct("PluginConfig", {"name": "string", "args": "any"})
PROFILE = Struct(
    "KubeSchedulerProfile",
    {
        "schedulerName": "string",
        "percentageOfNodesToScore": "int32",
        "plugins": PLUGINS,
        "pluginConfig": _list(PLUGIN_CONFIG),
    },
)
TLS = Struct(
    "ExtenderTLSConfig",
    {
        "insecure": "bool", "serverName": "string", "certFile": "string", "keyFile": "string", "caFile": "string",
        "certData": "bytes", "keyData": "bytes", "caData": "bytes",
    },
)  # fmt: skip
MANAGED = Struct("ExtenderManagedResource", {"name": "string", "ignoredByScheduler": "bool"})
EXTENDER = Struct(
    "Extender",
    {
        "urlPrefix": "string", "filterVerb": "string", "preemptVerb": "string", "prioritizeVerb": "string",
        "weight": "int64", "bindVerb": "string", "enableHTTPS": "bool", "tlsConfig": TLS, "httpTimeout": "duration",
        "nodeCacheCapable": "bool", "managedResources": _list(MANAGED), "ignorable": "bool",
    },
)  # fmt: skip
ELECTION = Struct(
    "LeaderElectionConfiguration",
    {
        "leaderElect": "bool", "leaseDuration": "duration", "renewDeadline": "duration", "retryPeriod": "duration",
        "resourceLock": "string", "resourceName": "string", "resourceNamespace": "string",
    },
    "v1alpha1",
)  # fmt: skip
CONNECTION = Struct(
    "ClientConnectionConfiguration",
    {
        "kubeconfig": "string",
        "acceptContentTypes": "string",
        "contentType": "string",
        "qps": "float32",
        "burst": "int32",
    },
    "v1alpha1",
)
CONFIGURATION = Struct(
    "KubeSchedulerConfiguration",
    {
        "apiVersion": "string", "kind": "string", "parallelism": "int32", "leaderElection": ELECTION,
        "clientConnection": CONNECTION, "enableProfiling": "bool", "enableContentionProfiling": "bool",
        "percentageOfNodesToScore": "int32", "podInitialBackoffSeconds": "int64", "podMaxBackoffSeconds": "int64",
        "profiles": ("list", PROFILE), "extenders": _list(EXTENDER), "delayCacheUntilActive": "bool",
    },
    embedded=dict.fromkeys(("enableProfiling", "enableContentionProfiling"), "DebuggingConfiguration"),
)  # fmt: skip

_META = {"apiVersion": "string", "kind": "string"}
_RESOURCE = Struct("ResourceSpec", {"name": "string", "weight": "int64"})
_POINT = Struct("UtilizationShapePoint", {"utilization": "int32", "score": "int32"})
_RATIO = Struct("RequestedToCapacityRatioParam", {"shape": _list(_POINT)})
_STRATEGY = Struct(
    "ScoringStrategy",
    {"type": "v1.ScoringStrategyType", "resources": _list(_RESOURCE), "requestedToCapacityRatio": _RATIO},
)
_EXPRESSION = Struct(
    "NodeSelectorRequirement", {"key": "string", "operator": "v1.NodeSelectorOperator", "values": _list("string")}
)
_TERM = Struct("NodeSelectorTerm", {"matchExpressions": _list(_EXPRESSION), "matchFields": _list(_EXPRESSION)})
_AFFINITY = Struct(
    "NodeAffinity",
    {
        "requiredDuringSchedulingIgnoredDuringExecution": Struct("NodeSelector", {"nodeSelectorTerms": _list(_TERM)}),
        "preferredDuringSchedulingIgnoredDuringExecution": _list(
            Struct("PreferredSchedulingTerm", {"weight": "int32", "preference": _TERM})
        ),
    },
)
_SELECTOR = Struct(
    "LabelSelector",
    {
        "matchLabels": "map[string]string",
        "matchExpressions": _list(
            Struct(
                "LabelSelectorRequirement",
                {"key": "string", "operator": "v1.LabelSelectorOperator", "values": _list("string")},
            )
        ),
    },
)
_CONSTRAINT = Struct(
    "TopologySpreadConstraint",
    {
        "maxSkew": "int32",
        "topologyKey": "string",
        "whenUnsatisfiable": "v1.UnsatisfiableConstraintAction",
        "labelSelector": _SELECTOR,
        "minDomains": "int32",
        "nodeAffinityPolicy": "v1.NodeInclusionPolicy",
        "nodeTaintsPolicy": "v1.NodeInclusionPolicy",
        "matchLabelKeys": _list("string"),
    },
)

ARGS: dict[str, Struct] = {
    "DefaultPreemption": Struct(
        "DefaultPreemptionArgs",
        {**_META, "minCandidateNodesPercentage": "int32", "minCandidateNodesAbsolute": "int32"},
    ),
    "DynamicResources": Struct(
        "DynamicResourcesArgs", {**_META, "filterTimeout": "*duration", "bindingTimeout": "*duration"}
    ),
    "InterPodAffinity": Struct(
        "InterPodAffinityArgs",
        {**_META, "hardPodAffinityWeight": "int32", "ignorePreferredTermsOfExistingPods": "bool"},
    ),
    "NodeAffinity": Struct("NodeAffinityArgs", {**_META, "addedAffinity": _AFFINITY}),
    "NodeResourcesBalancedAllocation": Struct(
        "NodeResourcesBalancedAllocationArgs", {**_META, "resources": _list(_RESOURCE)}
    ),
    "NodeResourcesFit": Struct(
        "NodeResourcesFitArgs",
        {
            **_META,
            "ignoredResources": _list("string"),
            "ignoredResourceGroups": _list("string"),
            "scoringStrategy": _STRATEGY,
        },
    ),
    "PodTopologySpread": Struct(
        "PodTopologySpreadArgs",
        {
            **_META,
            "defaultConstraints": _list(_CONSTRAINT),
            "defaultingType": "v1.PodTopologySpreadConstraintsDefaulting",
        },
    ),
    "VolumeBinding": Struct("VolumeBindingArgs", {**_META, "bindTimeoutSeconds": "int64", "shape": _list(_POINT)}),
}
