"""ValidatingAdmissionPolicy: rules in CEL, bound to what they apply to.

Upstream: k8s.io/apiserver/pkg/admission/plugin/policy/{generic,validating}. A policy acts only through its bindings; a
binding may narrow what is matched, give parameters, and says whether a violation denies, warns or is only audited.
"""

from __future__ import annotations

import re
from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any

from bowsprit.apiserver.admission.chain import Target
from bowsprit.apiserver.admission.conditions import ConditionError, MatchConditions, activation, evaluate
from bowsprit.apiserver.admission.matching import Match, Matcher, converted, is_exempt
from bowsprit.apiserver.admission.review import admission_request
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.machinery.codec import encode_json
from bowsprit.machinery.errors import StatusError, cause, forbidden
from bowsprit.machinery.names import GroupResource, GroupVersionKind
from bowsprit.machinery.objects import Obj, labels, metadata
from bowsprit.machinery.selectors import LabelSelector

POLICIES = GroupResource("admissionregistration.k8s.io", "validatingadmissionpolicies")
BINDINGS = GroupResource("admissionregistration.k8s.io", "validatingadmissionpolicybindings")
_CODES = {"Unauthorized": 401, "Forbidden": 403, "Invalid": 422, "RequestEntityTooLarge": 413}
_LONGEST_MESSAGE = 5 << 10
_USES = re.compile(r"\bvariables\.([A-Za-z_][A-Za-z0-9_]*)")
_AUDIT_KEY = "validation.policy.admission.k8s.io/validation_failure"

FindKind = Callable[[GroupVersionKind], tuple[GroupResource, bool] | None]
"""The resource of a kind and whether it is namespaced; None when it is not served."""


@dataclass(frozen=True, slots=True)
class Failure:
    """One violated (or failing) rule."""

    message: str
    reason: str = ""
    index: int = 0


class PolicyError(Exception):
    """A policy that cannot be evaluated with a binding."""


class ValidatingAdmissionPolicy:
    """See the module's docstring.

    Args:
        find_kind: where the objects of a `paramKind` are.
    """

    name = "ValidatingAdmissionPolicy"

    def __init__(self, listers: Listers, find_kind: FindKind) -> None:
        self._listers = listers
        self._find_kind = find_kind
        self._matcher = Matcher(listers)

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return True

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Evaluate every policy that is bound to the request; the first violation that denies is the answer."""
        bindings = self._listers(BINDINGS).list()
        if not bindings or is_exempt(attributes):
            return
        policies = self._listers(POLICIES)
        denied: StatusError | None = None
        for binding in sorted(bindings, key=lambda item: str(item["metadata"]["name"])):
            spec = binding.get("spec") or {}
            policy = policies.get("", spec.get("policyName") or "")
            if policy is None:
                continue
            for failure in self._failures(attributes, policy, binding):
                refusal = _act(attributes, policy, binding, failure)
                denied = denied or refusal
        if denied is not None:
            raise denied

    def _failures(self, attributes: AdmissionAttributes, policy: Obj, binding: Obj) -> list[Failure]:
        spec = policy.get("spec") or {}
        match = self._match(attributes, spec.get("matchConstraints") or {}, required=True)
        if match is None or self._match(attributes, binding["spec"].get("matchResources"), required=False) is None:
            return []
        fails = spec.get("failurePolicy") != "Ignore"
        obj = converted(attributes.object, attributes.resource, match.gvk)
        old = converted(attributes.old_object, attributes.resource, match.gvk)
        request = admission_request(attributes, match, "", obj, old)
        try:
            more = {"namespaceObject": _shown_namespace(self._matcher.namespace(attributes))}
            found: list[Failure] = []
            for params in self._params(attributes, spec.get("paramKind"), binding["spec"].get("paramRef")):
                found += _evaluate(attributes, policy, activation(request, obj, old, params=params, **more), fails)
            return found
        except (ConditionError, PolicyError) as exc:
            return [Failure(str(exc))] if fails else []

    def _match(self, attributes: AdmissionAttributes, resources: Obj | None, *, required: bool) -> Match | None:
        resources = resources or {}
        rules = resources.get("resourceRules") or ()
        if not rules and not required:
            rules = ({"operations": ["*"], "apiGroups": ["*"], "apiVersions": ["*"], "resources": ["*", "*/*"]},)
        return self._matcher.match(
            attributes,
            rules,
            excluded=resources.get("excludeResourceRules") or (),
            namespaces=resources.get("namespaceSelector"),
            objects=resources.get("objectSelector"),
            equivalent=resources.get("matchPolicy") != "Exact",
        )

    def _params(self, attributes: AdmissionAttributes, kind: Obj | None, reference: Obj | None) -> Sequence[Obj | None]:
        """The parameter objects of a binding: each is evaluated on its own."""
        if not kind or not reference:
            return [None]
        gvk = GroupVersionKind.parse(str(kind.get("apiVersion") or ""), str(kind.get("kind") or ""))
        where = self._find_kind(gvk)
        if where is None:
            raise PolicyError(f"failed to configure policy: failed to find resource referenced by paramKind: '{gvk}'")
        resource, namespaced = where
        namespace = ""
        if namespaced:
            namespace = reference.get("namespace") or attributes.namespace
            if not namespace:
                raise PolicyError(
                    "failed to configure binding: cannot use namespaced paramRef in policy binding that matches "
                    "cluster-scoped resources"
                )
        elif reference.get("namespace"):
            raise PolicyError(
                "failed to configure binding: paramRef.namespace must not be provided for a cluster-scoped `paramKind`"
            )
        lister = self._listers(resource)
        found: list[Obj | None]
        if name := reference.get("name"):
            one = lister.get(namespace, name)
            found = [one] if one is not None else []
        else:
            selector = LabelSelector.from_obj(reference.get("selector") or {})
            found = [item for item in lister.list(namespace or None) if selector.matches(labels(item))]
        if not found and reference.get("parameterNotFoundAction") == "Deny":
            raise PolicyError(
                "failed to configure binding: no params found for policy binding with `Deny` parameterNotFoundAction"
            )
        return found


def _shown_namespace(namespace: Obj | None) -> Obj | None:
    """The part of a namespace that expressions may see (upstream CreateNamespaceObject)."""
    if namespace is None:
        return None
    meta = {key: value for key, value in metadata(namespace).items() if key not in ("managedFields", "ownerReferences")}
    status = {"phase": (namespace.get("status") or {}).get("phase", "")}
    spec = {"finalizers": (namespace.get("spec") or {}).get("finalizers") or []}
    return {"kind": "Namespace", "apiVersion": "v1", "metadata": meta, "spec": spec, "status": status}


def _evaluate(attributes: AdmissionAttributes, policy: Obj, values: dict[str, Any], fails: bool) -> Iterator[Failure]:
    spec = policy["spec"]
    # Conditions come before variables, and do not see them.
    conditions = MatchConditions(spec.get("matchConditions") or ())
    given = {key: values[key] for key in ("params", "namespaceObject")}
    if not conditions.is_empty and not conditions.hold(
        values["request"], values["object"], values["oldObject"], **given
    ):
        return
    variables = _Variables(spec.get("variables") or (), values)
    for index, validation in enumerate(spec.get("validations") or ()):
        expression = str(validation.get("expression") or "")
        try:
            if variables.evaluate(expression) is True:
                continue
        except ConditionError as exc:
            if fails:
                yield Failure(str(exc), index=index)
            continue
        yield Failure(_message(validation, variables), str(validation.get("reason") or ""), index)
    for annotation in spec.get("auditAnnotations") or ():
        try:
            text = variables.evaluate(str(annotation.get("valueExpression") or ""))
        except ConditionError as exc:
            if fails:
                yield Failure(str(exc))
            continue
        if isinstance(text, str) and text.strip():
            attributes.annotations[f"{policy['metadata']['name']}/{annotation.get('key', '')}"] = text.strip()


class _Variables:
    """`spec.variables`: each may use those before it; one that fails, fails whoever uses it."""

    def __init__(self, declared: Sequence[Obj], values: dict[str, Any]) -> None:
        self._values = {**values, "variables": {}}
        self._failed: dict[str, str] = {}
        for variable in declared:
            name, expression = str(variable.get("name") or ""), str(variable.get("expression") or "")
            try:
                self._values["variables"][name] = self.evaluate(expression)
            except ConditionError as exc:
                self._failed[name] = str(exc)

    def evaluate(self, expression: str) -> Any:
        for name in _USES.findall(expression) if self._failed else ():
            if name in self._failed:
                text = f'composited variable "{name}" fails to evaluate: {self._failed[name]}'
                raise ConditionError(f"expression '{expression}' resulted in error: {text}")
        return evaluate(expression, self._values)


def _message(validation: Mapping[str, Any], variables: _Variables) -> str:
    if expression := validation.get("messageExpression"):
        try:
            text = variables.evaluate(str(expression))
        except ConditionError:
            text = None
        if isinstance(text, str) and text.strip() and "\n" not in text and len(text.encode()) <= _LONGEST_MESSAGE:
            return text.strip()
    message = str(validation.get("message") or "").strip()
    return message or f"failed expression: {str(validation.get('expression') or '').strip()}"


def _act(attributes: AdmissionAttributes, policy: Obj, binding: Obj, failure: Failure) -> StatusError | None:
    """Do what the binding asks for; gives the refusal when it is to deny."""
    policy_name, binding_name = policy["metadata"]["name"], binding["metadata"]["name"]
    actions = binding["spec"].get("validationActions") or ()
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
