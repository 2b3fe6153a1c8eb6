"""Rules for changes of pods: what may change at all, through which endpoint (upstream ValidatePodUpdate and neighbours)."""

from __future__ import annotations

from bowsprit.controlplane.core.podvalidation import pod_spec_errors, token_errors
from bowsprit.controlplane.core.qos import qos_class
from bowsprit.controlplane.gostructs import difference, go_value
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path, path
from bowsprit.machinery.objects import Obj, nested
from bowsprit.machinery.validation import is_dns1123_subdomain, is_qualified_name, is_valid_ip

_REQUIRED = "requiredDuringSchedulingIgnoredDuringExecution"
_LARGEST_DEADLINE = 2147483647
_UPDATE_DETAIL = (
    "pod updates may not change fields other than `spec.containers[*].image`,`spec.initContainers[*].image`,"
    "`spec.activeDeadlineSeconds`,`spec.tolerations` (only additions to existing tolerations),"
    "`spec.terminationGracePeriodSeconds` (allow it to be set to 1 if it was previously negative)"
)


def validate_pod_update(new: Obj, old: Obj, subresource: str = "") -> list[FieldError]:
    """A change of the spec, through the main endpoint or a subresource."""
    where = path("spec")
    after, before = new.get("spec") or {}, old.get("spec") or {}
    errors = pod_spec_errors(after, where, pod=new["metadata"].get("name", ""), of_pod=True)
    errors += token_errors(after, where)
    if subresource == "resize":
        if len(after.get("containers") or ()) != len(before.get("containers") or ()):
            detail = "containers may not be added or removed on resize"
            return [fielderrors.forbidden(where.child("containers"), detail)]
        errors += _resize_errors(after, before, where)
        if qos_class(after) != (old.get("status") or {}).get("qosClass", qos_class(before)):
            detail = "Pod QOS Class may not change as a result of resizing"
            errors.append(fielderrors.invalid(where, (old.get("status") or {}).get("qosClass", ""), detail))
        return errors
    if subresource == "ephemeralcontainers":
        return errors + _ephemeral_update(after, before, where.child("ephemeralContainers"))
    for field in ("containers", "initContainers"):
        if len(after.get(field) or ()) != len(before.get(field) or ()):
            return [*errors, fielderrors.forbidden(where.child(field), "pod updates may not add or remove containers")]
    errors += _deadline_update(after, before, where.child("activeDeadlineSeconds"))
    errors += _tolerations_update(after, before, where.child("tolerations"))
    errors += _gates_update(after, before, where.child("schedulingGates"))
    if before.get("schedulingGates"):
        errors += _steering_errors(after, before, where)
    wanted = _put_back(after, before)
    if wanted != before and (changes := difference("PodSpec", before, wanted)):
        errors.append(fielderrors.forbidden(where, f"{_UPDATE_DETAIL}\n{changes}"))
    return errors


def _steering_errors(after: Obj, before: Obj, where: Path) -> list[FieldError]:
    """Gated pods may still be steered, to fewer nodes only (KEP-3838)."""
    errors: list[FieldError] = []
    new, old = after.get("nodeSelector") or {}, before.get("nodeSelector") or {}
    if any(new.get(key) != value for key, value in old.items()):
        detail = "only additions to spec.nodeSelector are allowed (no mutations or deletions)"
        errors.append(fielderrors.invalid(where.child("nodeSelector"), after.get("nodeSelector"), detail))
    terms, held = _node_terms(after), _node_terms(before)
    place = where.child("affinity", "nodeAffinity", _REQUIRED, "nodeSelectorTerms")
    if held and len(terms) != len(held):
        detail = "no additions/deletions to non-empty NodeSelectorTerms list are allowed"
        return [*errors, fielderrors.invalid(place, go_value("[]NodeSelectorTerm", terms), detail)]
    for index, (term, was) in enumerate(zip(terms, held, strict=False)):
        if not _only_adds(term, was):
            detail = "only additions are allowed (no mutations or deletions)"
            errors.append(fielderrors.invalid(place.index(index), go_value("NodeSelectorTerm", term), detail))
    return errors


def _node_terms(spec: Obj) -> list[Obj]:
    found: list[Obj] = nested(spec, "affinity", "nodeAffinity", _REQUIRED, "nodeSelectorTerms", default=None) or []
    return found


def _only_adds(term: Obj, was: Obj) -> bool:
    parts = [(term.get(field) or [], was.get(field) or []) for field in ("matchExpressions", "matchFields")]
    if not any(old for _, old in parts):
        return not any(new for new, _ in parts)
    return all(new[: len(old)] == old for new, old in parts)


def _resize_errors(after: Obj, before: Obj, where: Path) -> list[FieldError]:
    """Only amounts of cpu and memory change, and none goes."""
    errors: list[FieldError] = []
    for kind in ("containers", "initContainers"):
        held = {item.get("name"): item.get("resources") or {} for item in before.get(kind) or ()}
        for index, container in enumerate(after.get(kind) or ()):
            now, was = container.get("resources") or {}, held.get(container.get("name"), {})
            place = where.child(kind).index(index).child("resources")
            for part in ("requests", "limits"):
                if set(was.get(part) or ()) - set(now.get(part) or ()):
                    detail = f"resource {part} cannot be removed"
                    errors.append(fielderrors.forbidden(place.child(part), detail))
            for part in ("requests", "limits"):
                new, old = (
                    {name: text for name, text in (side.get(part) or {}).items() if name not in ("cpu", "memory")}
                    for side in (now, was)
                )
                if new != old and not set(old) - set(new):
                    errors.append(fielderrors.forbidden(where, "only cpu and memory resources are mutable"))
    return errors


def _put_back(after: Obj, before: Obj) -> Obj:
    """The new spec with the parts that may change as they were."""
    result = dict(after)
    for field in ("containers", "initContainers"):
        images = [item.get("image") for item in before.get(field) or ()]
        result[field] = [{**item, "image": image} for item, image in zip(after.get(field) or (), images, strict=True)]
    kept = ["activeDeadlineSeconds", "tolerations", "schedulingGates"]
    if (before.get("terminationGracePeriodSeconds") or 0) < 0 and after.get("terminationGracePeriodSeconds") == 1:
        kept.append("terminationGracePeriodSeconds")
    if before.get("schedulingGates"):
        kept.append("nodeSelector")
        others = {name: value for name, value in (after.get("affinity") or {}).items() if name != "nodeAffinity"}
        if held := nested(before, "affinity", "nodeAffinity", default=None):
            result["affinity"] = {**others, "nodeAffinity": held}
        elif after.get("affinity") is not None:
            result["affinity"] = others or before.get("affinity")
    return result | {field: before.get(field) for field in kept}


def _deadline_update(after: Obj, before: Obj, where: Path) -> list[FieldError]:
    new, old = after.get("activeDeadlineSeconds"), before.get("activeDeadlineSeconds")
    if new is not None and not 0 <= new <= _LARGEST_DEADLINE:
        return [fielderrors.invalid(where, new, f"must be between 0 and {_LARGEST_DEADLINE}, inclusive")]
    if new is not None and old is not None and new > old:
        return [fielderrors.invalid(where, new, "must be less than or equal to previous value")]
    if new is None and old is not None:
        return [fielderrors.invalid(where, None, "must not update from a positive integer to nil value")]
    return []


def _tolerations_update(after: Obj, before: Obj, where: Path) -> list[FieldError]:
    new, old = after.get("tolerations") or [], before.get("tolerations") or []

    def bare(toleration: Obj) -> Obj:
        return {key: value for key, value in toleration.items() if key != "tolerationSeconds"}

    kept = [bare(item) for item in new]
    if all(bare(item) in kept for item in old):
        return []
    return [fielderrors.forbidden(where, "existing toleration can not be modified except its tolerationSeconds")]


def _gates_update(after: Obj, before: Obj, where: Path) -> list[FieldError]:
    old = {gate.get("name") for gate in before.get("schedulingGates") or ()}
    return [
        fielderrors.forbidden(
            where.index(index).child("name"),
            f"only deletion is allowed, but found new scheduling gate '{gate.get('name', '')}'",
        )
        for index, gate in enumerate(after.get("schedulingGates") or ())
        if gate.get("name") not in old
    ]


def _ephemeral_update(after: Obj, before: Obj, where: Path) -> list[FieldError]:
    new = {item.get("name"): item for item in after.get("ephemeralContainers") or ()}
    errors: list[FieldError] = []
    for old in before.get("ephemeralContainers") or ():
        found = new.get(old.get("name"))
        if found is None:
            detail = f"existing ephemeral containers {_quoted(old.get('name'))} may not be removed\n"
            errors.append(fielderrors.forbidden(where, detail))
        elif found != old:
            changes = difference("EphemeralContainer", old, found)
            detail = f"existing ephemeral containers {_quoted(old.get('name'))} may not be changed\n{changes}"
            errors.append(fielderrors.forbidden(where, detail))
    return errors


def _quoted(name: object) -> str:
    return f'"{name}"'


def validate_pod_status_update(new: Obj, old: Obj) -> list[FieldError]:
    """A change of the status."""
    errors: list[FieldError] = []
    status, where = new.get("status") or {}, path("status")
    nominated = status.get("nominatedNodeName")
    if nominated:
        errors += name_errors(nominated, where.child("nominatedNodeName"), is_dns1123_subdomain)
    for index, condition in enumerate(status.get("conditions") or ()):
        kind, place = condition.get("type", ""), where.child("conditions").index(index).child("Type")
        if condition not in ((old.get("status") or {}).get("conditions") or ()):
            errors += [fielderrors.invalid(place, kind, text) for text in is_qualified_name(kind)]
    claims = {claim.get("name") for claim in (new.get("spec") or {}).get("resourceClaims") or ()}
    for index, claim in enumerate(status.get("resourceClaimStatuses") or ()):
        if claim.get("name") not in claims:
            place = where.child("resourceClaimStatuses").index(index).child("name")
            detail = "must match the name of an entry in `spec.resourceClaims`"
            errors.append(fielderrors.invalid(place, claim.get("name", ""), detail))
    before = old.get("status") or {}
    if before.get("qosClass") and status.get("qosClass") != before["qosClass"]:
        errors.append(fielderrors.invalid(where.child("qosClass"), status.get("qosClass", ""), "field is immutable"))
    for index, item in enumerate(status.get("podIPs") or ()):
        place = where.child("podIPs").index(index)
        errors += [fielderrors.invalid(place, item.get("ip", ""), text) for text in is_valid_ip(item.get("ip", ""))]
    for field, detail in (("podIPs", "IP"), ("hostIPs", "IP")):
        addresses = [item.get("ip", "") for item in status.get(field) or ()]
        if len(addresses) > 1 and (len(addresses) > 2 or len({":" in address for address in addresses}) < 2):
            text = "may specify no more than one IP for each IP family"
            errors.append(fielderrors.invalid(where.child(field), [{detail: each} for each in addresses], text))
    return errors
