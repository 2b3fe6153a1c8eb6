"""MutatingAdmissionPolicy: changes in CEL, as an applied configuration or as a JSON patch.

Upstream: k8s.io/apiserver/pkg/admission/plugin/policy/mutating. Expressions build objects with `Object{...}`, `Object.spec{...}` and
`JSONPatch{...}`; here these are read as maps, so that their fields are not checked before the result meets the type.
"""

from __future__ import annotations

import re
from typing import Any

from bowsprit.apiserver.admission.chain import REINVOKE, SECOND_ROUND, Target
from bowsprit.apiserver.admission.conditions import ConditionError
from bowsprit.apiserver.admission.matching import converted, is_exempt, redefaulted
from bowsprit.apiserver.admission.policy_source import Bound, FindKind, PolicyError, PolicySource, Variables
from bowsprit.apiserver.admit import AdmissionAttributes, Operation
from bowsprit.apiserver.lookup import Listers
from bowsprit.apiserver.ownership import typed_of
from bowsprit.apiserver.resource import Resource
from bowsprit.machinery import jsonpatch, typedvalue
from bowsprit.machinery.errors import StatusError, forbidden
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, metadata

POLICIES = GroupResource("admissionregistration.k8s.io", "mutatingadmissionpolicies")
BINDINGS = GroupResource("admissionregistration.k8s.io", "mutatingadmissionpolicybindings")
_TOKEN = re.compile(
    r"""(?P<text>[rR]?(?:'''.*?'''|\"\"\".*?\"\"\"|'(?:\\.|[^'\\])*'|"(?:\\.|[^"\\])*"))"""
    r"""|(?P<type>\b(?:Object(?:\.\w+)*|JSONPatch)\s*\{)|(?P<field>\b[A-Za-z_]\w*(?=\s*:(?!:)))|(?P<mark>[][(){},])""",
    re.DOTALL,
)


def as_maps(expression: str) -> str:
    """The expression with `Object.x{a: 1}` and `JSONPatch{op: "add"}` written as `{"a": 1}` and `{"op": "add"}`."""
    made: list[str] = []
    end = 0
    open_brackets: list[bool] = []  # whether each is that of a typed literal
    at_field = False  # a name here would be a field's
    for token in _TOKEN.finditer(expression):
        made.append(expression[end : token.start()])
        end = token.end()
        text = token.group()
        if token.lastgroup == "type":
            open_brackets.append(True)
            at_field = True
            made.append("{")
            continue
        made.append(f'"{text}"' if token.lastgroup == "field" and at_field else text)
        at_field = False
        if token.lastgroup == "mark":
            if text in "{[(":
                open_brackets.append(False)
            elif text == ",":
                at_field = bool(open_brackets) and open_brackets[-1]
            elif open_brackets:
                open_brackets.pop()
    return "".join(made) + expression[end:]


class MutatingAdmissionPolicy:
    """See the module's docstring."""

    name = "MutatingAdmissionPolicy"

    def __init__(self, listers: Listers, find_kind: FindKind) -> None:
        self._source = PolicySource(listers, find_kind, POLICIES, BINDINGS)

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.operation is not Operation.DELETE

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Apply what is bound to the request, one policy after the other; again only those that ask for it."""
        if is_exempt(attributes) or attributes.object is None:
            return
        again = SECOND_ROUND in attributes.reinvocation
        for bound in self._source.bound(attributes):
            if again and bound.spec.get("reinvocationPolicy") != "IfNeeded":
                continue
            try:
                changed = await self._apply(attributes, bound)
            except (ConditionError, PolicyError, jsonpatch.JSONPatchError) as exc:
                if bound.fails:
                    raise _refusal(attributes, bound, str(exc)) from exc
                continue
            if changed and not again:
                attributes.reinvocation[REINVOKE] = True

    async def _apply(self, attributes: AdmissionAttributes, bound: Bound) -> bool:
        before = attributes.object
        async for values in self._source.values(attributes, bound):
            for mutation in bound.spec.get("mutations") or ():
                shown = await converted(attributes.object, attributes.resource, bound.match.gvk) or {}
                # Each mutation sees what those before it have done.
                variables = Variables(bound.spec.get("variables") or (), {**values, "object": shown})
                changed = self._changed(attributes, mutation, variables, shown)
                attributes.object = redefaulted(
                    await converted(changed, attributes.resource, attributes.gvk) or {}, attributes
                )
        return attributes.object != before

    @staticmethod
    def _changed(attributes: AdmissionAttributes, mutation: Obj, variables: Variables, shown: Obj) -> Obj:
        if mutation.get("patchType") == "JSONPatch":
            expression = str((mutation.get("jsonPatch") or {}).get("expression") or "")
            operations = variables.evaluate(as_maps(expression))
            patched = jsonpatch.apply(shown, _operations(operations))
            if not isinstance(patched, dict):
                raise PolicyError("the JSON patch made the object something else")
            return patched
        expression = str((mutation.get("applyConfiguration") or {}).get("expression") or "")
        config = variables.evaluate(as_maps(expression))
        if not isinstance(config, dict):
            raise PolicyError("the apply configuration is no object")
        for field in ("name", "namespace", "uid", "generateName"):
            if field in metadata(config):
                raise PolicyError(f"the apply configuration may not set metadata.{field}")
        head = {"apiVersion": shown.get("apiVersion"), "kind": shown.get("kind")}
        return _merged(attributes, shown, {**config, **head})


def _merged(attributes: AdmissionAttributes, shown: Obj, config: Obj) -> Obj:
    """The configuration laid over the object as server-side apply does: by the type's lists and maps."""
    resource = attributes.resource
    for version in resource.versions if isinstance(resource, Resource) else ():
        if version.gvk.api_version == shown.get("apiVersion") and version.gvk.kind == shown.get("kind"):
            merged: Obj = typedvalue.merge(typed_of(version), shown, config)
            return merged
    raise PolicyError("apply configurations need an object of a known type")


def _operations(value: Any) -> list[Obj]:
    if not isinstance(value, list) or not all(isinstance(item, dict) for item in value):
        raise PolicyError("the JSON patch is no list of operations")
    return value


def _refusal(attributes: AdmissionAttributes, bound: Bound, text: str) -> StatusError:
    policy, binding = bound.names
    message = f"policy '{policy}' with binding '{binding}' denied request: {text}"
    refusal = forbidden(attributes.gvr.gr, attributes.name, message)
    return StatusError(refusal.message, details=refusal.details, code=422, reason="Invalid")
