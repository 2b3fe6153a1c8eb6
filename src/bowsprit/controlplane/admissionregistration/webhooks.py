"""Webhook configurations, admission policies and their bindings."""

from __future__ import annotations

from datetime import datetime
from typing import Any

from bowsprit.apiserver.strategy import Strategy
from bowsprit.controlplane.admissionregistration.validation import (
    mutating_binding_errors,
    mutating_policy_errors,
    validating_binding_errors,
    validating_policy_errors,
)
from bowsprit.controlplane.admissionregistration.webhookvalidation import webhook_configuration_errors
from bowsprit.controlplane.printing import UNSET, age_of, name_of
from bowsprit.controlplane.statused import StatusedStrategy
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.objects import Obj


class WebhookStrategy(Strategy):
    """MutatingWebhookConfiguration and ValidatingWebhookConfiguration."""

    allow_unconditional_update = False
    has_generation = True

    def default(self, obj: Obj) -> None:
        mutating = obj.get("kind") == "MutatingWebhookConfiguration"
        for hook in obj.get("webhooks") or ():
            default_hook(hook)
            if mutating and hook.get("reinvocationPolicy") is None:
                hook["reinvocationPolicy"] = "Never"

    def validate(self, obj: Obj) -> list[FieldError]:
        return webhook_configuration_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return webhook_configuration_errors(new)


def default_hook(hook: Obj) -> None:
    """One webhook."""
    for field, value in (
        ("failurePolicy", "Fail"),
        ("matchPolicy", "Equivalent"),
        ("timeoutSeconds", 10),
        ("namespaceSelector", {}),
        ("objectSelector", {}),
    ):
        if hook.get(field) is None:
            hook[field] = value
    for rule in hook.get("rules") or ():
        if rule.get("scope") is None:
            rule["scope"] = "*"
    service = (hook.get("clientConfig") or {}).get("service")
    if service is not None and service.get("port") is None:
        service["port"] = 443


def default_match(resources: Obj | None) -> None:
    """matchConstraints of a policy, matchResources of a binding."""
    if resources is None:
        return
    for field, value in (("matchPolicy", "Equivalent"), ("namespaceSelector", {}), ("objectSelector", {})):
        if resources.get(field) is None:
            resources[field] = value
    for rule in [*(resources.get("resourceRules") or ()), *(resources.get("excludeResourceRules") or ())]:
        if rule.get("scope") is None:
            rule["scope"] = "*"


class PolicyStrategy(StatusedStrategy):
    """ValidatingAdmissionPolicy."""

    allow_unconditional_update = False

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("failurePolicy") is None:
            spec["failurePolicy"] = "Fail"
        default_match(spec.get("matchConstraints"))

    def validate(self, obj: Obj) -> list[FieldError]:
        return validating_policy_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return validating_policy_errors(new)


class MutatingPolicyStrategy(Strategy):
    """MutatingAdmissionPolicy has no status."""

    allow_unconditional_update = False
    has_generation = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        if spec.get("failurePolicy") is None:
            spec["failurePolicy"] = "Fail"
        default_match(spec.get("matchConstraints"))

    def validate(self, obj: Obj) -> list[FieldError]:
        return mutating_policy_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return mutating_policy_errors(new)


class PolicyBindingStrategy(Strategy):
    """The bindings of both."""

    allow_unconditional_update = False
    has_generation = True

    def default(self, obj: Obj) -> None:
        spec = obj.setdefault("spec", {})
        default_match(spec.get("matchResources"))
        reference = spec.get("paramRef")
        if (
            reference is not None
            and reference.get("parameterNotFoundAction") is None
            and obj.get("kind", "").startswith("Mutating")
        ):
            reference["parameterNotFoundAction"] = "Deny"

    def validate(self, obj: Obj) -> list[FieldError]:
        mutating = obj.get("kind") == "MutatingAdmissionPolicyBinding"
        return mutating_binding_errors(obj) if mutating else validating_binding_errors(obj)

    def validate_update(self, new: Obj, old: Obj) -> list[FieldError]:
        return self.validate(new)


def webhook_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Webhooks, Age."""
    return [name_of(obj), len(obj.get("webhooks") or ()), age_of(obj, now)]


def validating_policy_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Validations, ParamKind, Age."""
    spec = obj.get("spec") or {}
    return [name_of(obj), len(spec.get("validations") or ()), _param_kind(spec), age_of(obj, now)]


def mutating_policy_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, Mutations, ParamKind, Age."""
    spec = obj.get("spec") or {}
    return [name_of(obj), len(spec.get("mutations") or ()), _param_kind(spec), age_of(obj, now)]


def _param_kind(spec: Obj) -> str:
    kind = spec.get("paramKind")
    return UNSET if not kind else f"{kind.get('apiVersion', '')}/{kind.get('kind', '')}"


def binding_cells(obj: Obj, now: datetime) -> list[Any]:
    """Name, PolicyName, ParamRef, Age."""
    spec = obj.get("spec") or {}
    reference = spec.get("paramRef") or {}
    text = UNSET
    if reference.get("namespace"):
        text = f"{reference['namespace']}/{reference.get('name') or '*'}"
    elif reference:
        text = reference.get("name") or "*"
    return [name_of(obj), spec.get("policyName", ""), text, age_of(obj, now)]
