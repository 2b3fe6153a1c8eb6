"""ValidatingAdmissionPolicy: rules in CEL, bound to what they apply to.

Upstream: k8s.io/apiserver/pkg/admission/plugin/policy/{generic,validating}. A policy acts only through its bindings; a
binding may narrow what is matched, give parameters, and says whether a violation denies, warns or is only audited.
"""

from __future__ import annotations

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

from bowsprit.apiserver.admission.chain import Target
from bowsprit.apiserver.admission.conditions import ConditionError
from bowsprit.apiserver.admission.matching import is_exempt
from bowsprit.apiserver.admission.policy_source import Bound, FindKind, PolicyError, PolicySource, Variables
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.machinery.codec import encode_json
from bowsprit.machinery.errors import StatusError, cause, forbidden
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import metadata

POLICIES = GroupResource("admissionregistration.k8s.io", "validatingadmissionpolicies")
BINDINGS = GroupResource("admissionregistration.k8s.io", "validatingadmissionpolicybindings")
_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}
_LONGEST_MESSAGE = 5 << 10
_AUDIT_KEY = "validation.policy.admission.k8s.io/validation_failure"


@dataclass(frozen=True, slots=True)
class Failure:
    """One violated (or failing) rule."""

    message: str
    reason: str = ""
    index: int = 0


class ValidatingAdmissionPolicy:
    """See the module's docstring."""

    name = "ValidatingAdmissionPolicy"

    def __init__(self, listers: Listers, find_kind: FindKind) -> None:
        self._source = PolicySource(listers, find_kind, POLICIES, BINDINGS)

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return True

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Evaluate every policy that is bound to the request; the first violation that denies is the answer."""
        if is_exempt(attributes):
            return
        denied: StatusError | None = None
        for bound in self._source.bound(attributes):
            for failure in await self._failures(attributes, bound):
                refusal = _act(attributes, bound, failure)
                denied = denied or refusal
        if denied is not None:
            raise denied

    async def _failures(self, attributes: AdmissionAttributes, bound: Bound) -> list[Failure]:
        found: list[Failure] = []
        try:
            async for values in self._source.values(attributes, bound):
                found += _evaluate(attributes, bound, values)
        except (ConditionError, PolicyError) as exc:
            return [*found, Failure(str(exc))] if bound.fails else found
        return found


def _evaluate(attributes: AdmissionAttributes, bound: Bound, values: dict[str, Any]) -> Iterator[Failure]:
    variables = Variables(bound.spec.get("variables") or (), values)
    for index, validation in enumerate(bound.spec.get("validations") or ()):
        expression = str(validation.get("expression") or "")
        try:
            if variables.evaluate(expression) is True:
                continue
        except ConditionError as exc:
            if bound.fails:
                yield Failure(str(exc), index=index)
            continue
        yield Failure(_message(validation, variables), str(validation.get("reason") or ""), index)
    for annotation in bound.spec.get("auditAnnotations") or ():
        try:
            text = variables.evaluate(str(annotation.get("valueExpression") or ""))
        except ConditionError as exc:
            if bound.fails:
                yield Failure(str(exc))
            continue
        if isinstance(text, str) and text.strip():
            attributes.annotations[f"{bound.names[0]}/{annotation.get('key', '')}"] = text.strip()


def _message(validation: Mapping[str, Any], variables: Variables) -> str:
    if expression := validation.get("messageExpression"):
        try:
            text = variables.evaluate(str(expression))
        except ConditionError:
            text = None
        if isinstance(text, str) and text.strip() and "\n" not in text and len(text.encode()) <= _LONGEST_MESSAGE:
            return text.strip()
    message = str(validation.get("message") or "").strip()
    return message or f"failed expression: {str(validation.get('expression') or '').strip()}"


def _act(attributes: AdmissionAttributes, bound: Bound, failure: Failure) -> StatusError | None:
    """Do what the binding asks for; gives the refusal when it is to deny."""
    policy_name, binding_name = bound.names
    actions = bound.binding["spec"].get("validationActions") or ()
    if "Audit" in actions:
        entry = {
            "message": failure.message,
            "policy": policy_name,
            "binding": binding_name,
            "expressionIndex": failure.index,
            "validationActions": list(actions),
        }
        attributes.annotations[_AUDIT_KEY] = encode_json([entry]).decode()
    if "Warn" in actions:
        attributes.warn(
            f"Validation failed for ValidatingAdmissionPolicy '{policy_name}' with binding '{binding_name}': {failure.message}"
        )
    if "Deny" not in actions:
        return None
    text = f"ValidatingAdmissionPolicy '{policy_name}' with binding '{binding_name}' denied request: {failure.message}"
    name = attributes.name or str(metadata(attributes.object or {}).get("generateName") or "")
    refusal = forbidden(attributes.gvr.gr, name, text, causes=[cause("", text)])
    reason = failure.reason or "Invalid"
    return StatusError(refusal.message, details=refusal.details, code=_CODES.get(reason, 422), reason=reason)
