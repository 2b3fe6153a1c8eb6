"""The PersistentVolumeClaims of StatefulSets: what they are called, and who owns them. No I/O.

Upstream: stateful_set_utils.go. What a claim's owners are decides what the garbage collector does with it when the set or
its pod goes (spec.persistentVolumeClaimRetentionPolicy).
"""

from __future__ import annotations

from bowsprit.client.resources import PODS, STATEFUL_SETS
from bowsprit.controllers.statefulset_plan import ordinal, ordinals
from bowsprit.machinery.objects import Obj, controller_of, deep_copy, nested, new_controller_ref

_SET, _POD = STATEFUL_SETS.gv.with_kind("StatefulSet"), PODS.gv.with_kind("Pod")


def claims_of(stateful_set: Obj, number: int) -> list[Obj]:
    """The claims of an ordinal."""
    meta = stateful_set["metadata"]
    claims = []
    for template in stateful_set["spec"].get("volumeClaimTemplates") or ():
        claim = deep_copy(template)
        claim.pop("status", None)
        claim["metadata"] |= {
            "name": f"{template['metadata']['name']}-{meta['name']}-{number}",
            "namespace": meta["namespace"],
            "labels": {
                **(template["metadata"].get("labels") or {}),
                **nested(stateful_set, "spec", "selector", "matchLabels", default={}),
            },
        }
        claims.append(claim)
    return claims


def owners(claim: Obj, stateful_set: Obj, pod: Obj) -> list[Obj]:
    """The ownerReferences that a claim of a set's pod should have; those that others made stay."""
    listed: list[Obj] = list(claim["metadata"].get("ownerReferences") or [])
    if any(
        _stale(reference, owner, kind)
        for reference in listed
        for owner, kind in ((stateful_set, "StatefulSet"), (pod, "Pod"))
    ):
        return listed  # it belongs to a namesake that is gone: the garbage collector knows what to do
    ours = {stateful_set["metadata"]["uid"], pod["metadata"]["uid"]}
    others = [reference for reference in listed if reference.get("uid") not in ours]
    if controller_of({"metadata": {"ownerReferences": others}}) is not None:
        return others
    policy = stateful_set["spec"].get("persistentVolumeClaimRetentionPolicy") or {}
    if policy.get("whenScaled") == "Delete" and ordinal(pod) not in ordinals(stateful_set):
        return [*others, new_controller_ref({**pod, "apiVersion": "v1", "kind": "Pod"}, _POD)]
    if policy.get("whenDeleted") == "Delete":
        return [*others, new_controller_ref(stateful_set, _SET)]
    return others


def _stale(reference: Obj, owner: Obj, kind: str) -> bool:
    meta = owner["metadata"]
    named = reference.get("kind") == kind and reference.get("name") == meta["name"]
    return named and reference.get("uid") != meta["uid"]
