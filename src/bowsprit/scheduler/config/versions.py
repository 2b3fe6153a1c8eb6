"""v1beta2 and v1beta3, which newer kube-schedulers refuse: converted to v1, with a warning."""

from __future__ import annotations

from bowsprit.machinery.objects import Obj, deep_copy
from bowsprit.scheduler.config.decode import GROUP, V1

V1BETA2, V1BETA3 = f"{GROUP}/v1beta2", f"{GROUP}/v1beta3"
OLD = (V1BETA2, V1BETA3)
_GONE_PLUGINS = frozenset({"EBSLimits", "GCEPDLimits", "AzureDiskLimits", "CinderLimits", "NodePreferAvoidPods"})
_V1BETA2_WEIGHTS = {"TaintToleration": 1, "NodeAffinity": 1, "InterPodAffinity": 1}  # v1 has 3, 2, 2


def convert(document: Obj) -> tuple[Obj, list[str]]:
    """The same configuration as v1, and what to tell its author."""
    version = document["apiVersion"]
    warnings = [f"{version} KubeSchedulerConfiguration is deprecated; it is read as {V1}: change its apiVersion"]
    result = deep_copy(document)
    result["apiVersion"] = V1
    for address in ("healthzBindAddress", "metricsBindAddress"):
        if version == V1BETA2 and result.pop(address, None):
            warnings.append(f"{address} is ignored: health and metrics are served on the secure port only")
    for profile in result.get("profiles") or ():
        _convert_profile(profile, version)
    if version == V1BETA2 and not result.get("profiles"):
        result["profiles"] = [{}]
        _convert_profile(result["profiles"][0], version)
    return result, warnings


def _convert_profile(profile: Obj, version: str) -> None:
    for item in profile.get("pluginConfig") or ():
        if isinstance(item.get("args"), dict) and item["args"].get("apiVersion") in OLD:
            item["args"]["apiVersion"] = V1
    plugins: Obj = profile.get("plugins") or {}
    for found in plugins.values():
        for part in ("enabled", "disabled"):
            if isinstance(found, dict) and found.get(part):
                found[part] = [p for p in found[part] if p.get("name") not in _GONE_PLUGINS]
    if version == V1BETA2:
        profile["plugins"] = plugins
        multi = plugins.setdefault("multiPoint", {})
        named = {p.get("name") for p in (*(multi.get("enabled") or ()), *(multi.get("disabled") or ()))}
        if "*" not in named:
            multi["enabled"] = [
                *(multi.get("enabled") or ()),
                *({"name": n, "weight": w} for n, w in _V1BETA2_WEIGHTS.items() if n not in named),
            ]
