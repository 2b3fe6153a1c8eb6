"""What validating and mutating policies share: matching, parameters, variables.

Upstream: k8s.io/apiserver/pkg/admission/plugin/policy/{generic,matching}, .../plugin/cel.
"""

from __future__ import annotations

import re
from collections.abc import AsyncIterator, Callable, Iterator, Sequence
from dataclasses import dataclass
from typing import Any

from bowsprit.apiserver.admission.conditions import ConditionError, MatchConditions, activation, evaluate
from bowsprit.apiserver.admission.matching import Match, Matcher, converted
from bowsprit.apiserver.admission.review import admission_request
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.machinery.names import GroupResource, GroupVersionKind
from bowsprit.machinery.objects import Obj, labels, metadata
from bowsprit.machinery.selectors import LabelSelector

_USES = re.compile(r"\bvariables\.([A-Za-z_][A-Za-z0-9_]*)")

FindKind = Callable[[GroupVersionKind], tuple[GroupResource, bool] | None]
"""The resource of a kind and whether it is namespaced; None when it is not served."""


class PolicyError(Exception):
    """A policy that cannot be evaluated with a binding."""


@dataclass(frozen=True, slots=True)
class Bound:
    """A policy with one of its bindings, for a request that both are about."""

    policy: Obj
    binding: Obj
    match: Match

    @property
    def spec(self) -> Obj:
        """The policy's."""
        return self.policy["spec"]  # type: ignore[no-any-return]

    @property
    def fails(self) -> bool:
        """Whether errors refuse the request."""
        return bool(self.spec.get("failurePolicy") != "Ignore")

    @property
    def names(self) -> tuple[str, str]:
        """Of policy and binding."""
        return str(self.policy["metadata"]["name"]), str(self.binding["metadata"]["name"])


class PolicySource:
    """The policies of one kind.

    Args:
        find_kind: where the objects of a `paramKind` are.
    """

    def __init__(self, listers: Listers, find_kind: FindKind, policies: GroupResource, bindings: GroupResource) -> None:
        self._listers = listers
        self._find_kind = find_kind
        self._policies = policies
        self._bindings = bindings
        self._matcher = Matcher(listers)

    def bound(self, attributes: AdmissionAttributes) -> Iterator[Bound]:
        """Whatever is bound to the request, by the bindings' names."""
        bindings = self._listers(self._bindings).list()
        policies = self._listers(self._policies)
        for binding in sorted(bindings, key=lambda item: str(item["metadata"]["name"])):
            spec = binding.get("spec") or {}
            policy = policies.get("", spec.get("policyName") or "")
            if policy is None:
                continue
            constraints = (policy.get("spec") or {}).get("matchConstraints") or {}
            match = self._match(attributes, constraints, required=True)
            if match is not None and self._match(attributes, spec.get("matchResources"), required=False) is not None:
                yield Bound(policy, binding, match)

    async def values(self, attributes: AdmissionAttributes, bound: Bound) -> AsyncIterator[dict[str, Any]]:
        """What expressions see, once per parameter object, where the match conditions hold.

        Raises:
            ConditionError, PolicyError: a condition fails, or there are no parameters.
        """
        gvk = bound.match.gvk
        spec = bound.spec
        conditions = MatchConditions(spec.get("matchConditions") or ())
        namespace = _shown_namespace(self._matcher.namespace(attributes))
        for params in self._params(attributes, spec.get("paramKind"), bound.binding["spec"].get("paramRef")):
            obj = await converted(attributes.object, attributes.resource, gvk)
            old = await converted(attributes.old_object, attributes.resource, gvk)
            request = admission_request(attributes, bound.match, "", obj, old)
            given = {"params": params, "namespaceObject": namespace}
            # Conditions come before variables, and do not see them.
            if conditions.is_empty or conditions.hold(request, obj, old, **given):
                yield activation(request, obj, old, **given)

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


class Variables:
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
