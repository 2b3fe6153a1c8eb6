"""Whether a pod may be on a node by name, selector, affinity and taints: what DaemonSets and evictions ask. No I/O.

Upstream: component-helpers scheduling/corev1 (nodeaffinity, MatchToleration).
"""

from __future__ import annotations

from collections.abc import Iterable

from bowsprit.machinery.objects import Obj, labels, nested


def matches_node(pod_spec: Obj, node: Obj) -> bool:
    """nodeSelector and required node affinity."""
    node_labels = labels(node)
    if any(node_labels.get(key) != value for key, value in (pod_spec.get("nodeSelector") or {}).items()):
        return False
    required = nested(pod_spec, "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution")
    if required is None:
        return True
    return any(_term_matches(term, node) for term in required.get("nodeSelectorTerms") or ())


def _term_matches(term: Obj, node: Obj) -> bool:
    expressions, fields = term.get("matchExpressions") or (), term.get("matchFields") or ()
    if not expressions and not fields:
        return False
    named = {"metadata.name": node["metadata"]["name"]}
    return all(_requirement(item, labels(node)) for item in expressions) and all(
        _requirement(item, named) for item in fields
    )


def _requirement(item: Obj, values: dict[str, str]) -> bool:
    value, wanted = values.get(item["key"]), item.get("values") or []
    match item["operator"]:
        case "In":
            return value in wanted
        case "NotIn":
            return value not in wanted
        case "Exists":
            return value is not None
        case "DoesNotExist":
            return value is None
        case "Gt" | "Lt":
            try:
                number, limit = int(value or ""), int(wanted[0])
            except (ValueError, IndexError):
                return False
            return number > limit if item["operator"] == "Gt" else number < limit
    return False


def tolerates(toleration: Obj, taint: Obj) -> bool:
    """Whether one toleration covers one taint."""
    if toleration.get("effect") and toleration["effect"] != taint.get("effect"):
        return False
    if toleration.get("key") and toleration["key"] != taint["key"]:
        return False
    if (toleration.get("operator") or "Equal") == "Exists":
        return True
    return bool(toleration.get("key")) and (toleration.get("value") or "") == (taint.get("value") or "")


def untolerated(tolerations: Iterable[Obj], taints: Iterable[Obj], effects: frozenset[str]) -> list[Obj]:
    """The taints of these effects that no toleration covers."""
    listed = list(tolerations)
    return [
        taint
        for taint in taints
        if taint.get("effect") in effects and not any(tolerates(toleration, taint) for toleration in listed)
    ]


def node_taints(node: Obj) -> list[Obj]:
    """``spec.taints``."""
    return nested(node, "spec", "taints", default=[])  # type: ignore[no-any-return]
