"""Rules about restarts and resizes of containers, and the resource claims they use."""

from __future__ import annotations

from bowsprit.controlplane.gostructs import go_value
from bowsprit.controlplane.labelrules import name_errors
from bowsprit.machinery import fielderrors
from bowsprit.machinery.fielderrors import FieldError, Path
from bowsprit.machinery.objects import Obj
from bowsprit.machinery.validation import is_dns1123_label, is_dns1123_subdomain

_POLICIES = ["Always", "Never", "OnFailure"]
_ACTIONS = ["Restart", "RestartAllContainers"]
_MOST_RULES, _MOST_CODES = 20, 255


def resize_policy_errors(policies: list[Obj], where: Path, pod_policy: str) -> list[FieldError]:
    """`resizePolicy` of a container (upstream validateResizePolicy, whose errors stand at the list)."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, policy in enumerate(policies):
        resource, restart = policy.get("resourceName", ""), policy.get("restartPolicy", "")
        if resource in seen:
            errors.append(fielderrors.duplicate(where.index(index), resource))
        seen.add(resource)
        for value, supported in ((resource, ["cpu", "memory"]), (restart, ["NotRequired", "RestartContainer"])):
            if not value:
                errors.append(fielderrors.required(where))
            elif value not in supported:
                errors.append(fielderrors.not_supported(where, value, supported))
        if pod_policy == "Never" and restart != "NotRequired":
            detail = "must be 'NotRequired' when pod `restartPolicy` is 'Never'"
            errors.append(fielderrors.invalid(where, restart, detail))
    return errors


def restart_errors(container: Obj, where: Path, *, init: bool = False) -> list[FieldError]:
    """`restartPolicy` and `restartPolicyRules` of a container; without a policy, init containers' rules are not judged."""
    errors: list[FieldError] = []
    policy, rules = container.get("restartPolicy"), container.get("restartPolicyRules") or []
    place = where.child("restartPolicy")
    if policy is None:
        if not rules:
            return []
        errors.append(fielderrors.required(place, "must specify restartPolicy when restart rules are used"))
        if init:
            return errors
    elif policy not in _POLICIES:
        errors.append(fielderrors.not_supported(place, policy, _POLICIES))
    if len(rules) > _MOST_RULES:
        errors.append(fielderrors.too_many(where.child("restartPolicyRules"), len(rules), _MOST_RULES))
    for index, rule in enumerate(rules):
        spot, codes = where.child("restartPolicyRules").index(index), rule.get("exitCodes")
        if rule.get("action", "") not in _ACTIONS:
            errors.append(fielderrors.not_supported(spot.child("action"), rule.get("action", ""), _ACTIONS))
        if codes is None:
            errors.append(fielderrors.required(spot.child("exitCodes"), "must be specified"))
            continue
        if codes.get("operator", "") not in ("In", "NotIn"):
            spot = spot.child("exitCodes")
            errors.append(fielderrors.not_supported(spot.child("operator"), codes.get("operator", ""), ["In", "NotIn"]))
        if len(codes.get("values") or ()) > _MOST_CODES:
            errors.append(fielderrors.too_many(spot.child("values"), len(codes["values"]), _MOST_CODES))
    return errors


def used_claim_errors(claims: list[Obj], where: Path, known: list[str]) -> list[FieldError]:
    """`resources.claims`: names of the pod's resourceClaims, each said once."""
    errors: list[FieldError] = []
    seen: set[str] = set()
    for index, claim in enumerate(claims):
        name, request, place = claim.get("name", ""), claim.get("request", ""), where.index(index)
        if not name:
            errors.append(fielderrors.required(place))
        elif name in seen:
            errors.append(fielderrors.duplicate(place, name))
        else:
            if request:
                errors += name_errors(request, place.child("request"), is_dns1123_label)
            key = f"{name}/{request}" if request else name
            if key in seen or (not request and any(other.startswith(f"{name}/") for other in seen)):
                errors.append(fielderrors.duplicate(place, key))
            seen.add(key)
        if name and name not in known:
            error = fielderrors.not_found(place, name)
            detail = "must be one of the names in pod.spec.resourceClaims"
            detail += f": {', '.join(sorted(known))}" if known else " which is empty"
            errors.append(FieldError(error.type, error.field, error.bad_value, detail))
    return errors


def pod_claim_errors(claims: list[Obj], where: Path) -> list[FieldError]:
    """`spec.resourceClaims` of a pod."""
    errors: list[FieldError] = []
    names: set[str] = set()
    for index, claim in enumerate(claims):
        place, name = where.index(index), claim.get("name", "")
        if not name:
            errors.append(fielderrors.required(place.child("name")))
        elif name in names:
            errors.append(fielderrors.duplicate(place.child("name"), name))
        else:
            errors += name_errors(name, place.child("name"), is_dns1123_label)
            names.add(name)
        given = {field: claim.get(field) for field in ("resourceClaimName", "resourceClaimTemplateName")}
        shown = go_value("PodResourceClaim", claim)
        if all(value is not None for value in given.values()):
            detail = "at most one of `resourceClaimName` or `resourceClaimTemplateName` may be specified"
            errors.append(fielderrors.invalid(place, shown, detail))
        if all(value is None for value in given.values()):
            detail = "must specify one of: `resourceClaimName`, `resourceClaimTemplateName`"
            errors.append(fielderrors.invalid(place, shown, detail))
        for field, value in given.items():
            if value is not None:
                errors += name_errors(value, place.child(field), is_dns1123_subdomain)
    return errors
