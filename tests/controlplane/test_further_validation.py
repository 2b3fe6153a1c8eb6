"""Mistakes in kinds of which few were recorded: each field that is wrong is named, with upstream's words."""

from __future__ import annotations

from typing import Any

import pytest

from bowsprit.controlplane.admissionregistration.validation import (
    mutating_binding_errors,
    mutating_policy_errors,
    validating_policy_errors,
)
from bowsprit.controlplane.admissionregistration.webhookvalidation import webhook_configuration_errors
from bowsprit.controlplane.certificates.validation import signing_request_errors
from bowsprit.controlplane.coordination.lease import LeaseStrategy
from bowsprit.controlplane.core.nodevalidation import node_errors, node_update_errors
from bowsprit.controlplane.core.podvalidation import pod_spec_errors
from bowsprit.controlplane.networking.validation import ingress_class_errors
from bowsprit.controlplane.storage.drivervalidation import (
    attributes_class_errors,
    capacity_errors,
    csi_driver_errors,
    csi_node_errors,
)
from bowsprit.machinery.fielderrors import path

HOOK = {
    "name": "check.ships.example.com",
    "admissionReviewVersions": ["v1"],
    "sideEffects": "None",
    "clientConfig": {"url": "https://hooks.example.com/check"},
    "rules": [{"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["pods"]}],
}


def told(errors: list[Any]) -> list[str]:
    return [str(error) for error in errors]


def hooks(**changes: Any) -> list[str]:
    return told(
        webhook_configuration_errors({"kind": "ValidatingWebhookConfiguration", "webhooks": [{**HOOK, **changes}]})
    )


@pytest.mark.parametrize(
    ("changes", "message"),
    [
        ({}, None),
        ({"name": ""}, "webhooks[0].name: Required value"),
        (
            {"name": "a.b"},
            'webhooks[0].name: Invalid value: "a.b": should be a domain with at least three segments separated by dots',
        ),
        (
            {"admissionReviewVersions": []},
            "webhooks[0].admissionReviewVersions: Required value: must specify one of v1, v1beta1",
        ),
        (
            {"sideEffects": "Some"},
            'webhooks[0].sideEffects: Unsupported value: "Some": supported values: "None", "NoneOnDryRun"',
        ),
        (
            {"timeoutSeconds": 31},
            "webhooks[0].timeoutSeconds: Invalid value: 31: the timeout value must be between 1 and 30 seconds",
        ),
        ({"clientConfig": {}}, "webhooks[0].clientConfig: Required value: exactly one of url or service is required"),
        (
            {"clientConfig": {"url": "http://x"}},
            "webhooks[0].clientConfig.url: Invalid value: \"http\": 'https' is the only allowed URL scheme; "
            "desired format: https://host[/path]",
        ),
        (
            {"rules": [{**HOOK["rules"][0], "resources": ["*", "pods"]}]},  # type: ignore[dict-item]
            'webhooks[0].rules[0].resources: Invalid value: ["*","pods"]: if \'*\' is present, must not specify other '
            "resources without subresources",
        ),
    ],
)
def test_webhooks(changes: dict[str, Any], message: str | None) -> None:
    assert hooks(**changes) == ([message] if message else [])


def test_two_webhooks_of_one_name() -> None:
    errors = webhook_configuration_errors({"kind": "MutatingWebhookConfiguration", "webhooks": [HOOK, HOOK]})
    assert told(errors) == ['webhooks[1].name: Duplicate value: "check.ships.example.com"']


def test_nodes() -> None:
    taints = [
        {"key": "a", "effect": "NoSchedule"},
        {"key": "a", "effect": "NoSchedule"},
        {"key": "b", "effect": "Never"},
    ]
    errors = told(node_errors({"spec": {"taints": taints}, "status": {"capacity": {"cpu": "-1"}}}))
    assert errors[0].startswith("metadata.taints[1]: Duplicate value: ")
    assert errors[0].endswith(": taints must be unique by key and effect pair")
    assert errors[1].startswith('metadata.taints[2].effect: Unsupported value: "Never": supported values: ')
    assert errors[2:] == ['status.capacity.cpu: Invalid value: "-1": must be greater than or equal to 0']


def test_what_a_node_was_given_stays() -> None:
    old = {"spec": {"podCIDRs": ["10.1.0.0/24"], "providerID": "a"}}
    assert node_update_errors(old, {"spec": {}}) == []
    assert told(node_update_errors({"spec": {}}, old)) == [
        'spec.podCIDRs: Forbidden: node updates may not change podCIDR except from "" to valid',
        'spec.providerID: Forbidden: node updates may not change providerID except from "" to valid',
    ]


def test_leases() -> None:
    errors = LeaseStrategy().validate({"spec": {"leaseDurationSeconds": 0, "leaseTransitions": -1}})
    assert told(errors) == [
        "spec.leaseDurationSeconds: Invalid value: 0: must be greater than 0",
        "spec.leaseTransitions: Invalid value: -1: must be greater than or equal to 0",
    ]


def test_signing_requests() -> None:
    spec = {"request": "eA==", "signerName": "x", "usages": ["sailing"], "expirationSeconds": 1}
    fields = [error.field for error in signing_request_errors({"spec": spec})]
    assert fields == ["spec.request", "spec.usages[0]", "spec.signerName", "spec.expirationSeconds"]


def test_storage() -> None:
    requests = [{"audience": "a", "expirationSeconds": 1}, {"audience": "a"}]
    assert told(csi_driver_errors({"spec": {"tokenRequests": requests}})) == [
        "spec.tokenRequests[0].expirationSeconds: Invalid value: 1: may not specify a duration less than 10 minutes",
        'spec.tokenRequests[1].audience: Duplicate value: "a"',
    ]
    assert told(csi_node_errors({"spec": {"drivers": [{"name": "a", "nodeID": ""}]}})) == [
        "spec.drivers[0].nodeID: Required value"
    ]
    assert told(capacity_errors({"storageClassName": "x", "capacity": "-1"})) == [
        'capacity: Invalid value: "-1": must be greater than or equal to 0'
    ]
    assert told(attributes_class_errors({"driverName": "d.example.com"})) == [
        "parameters: Required value: must contain at least one key/value pair"
    ]


def test_ingress_classes() -> None:
    parameters = {"kind": "", "name": "x", "scope": "Cluster", "namespace": "n"}
    assert told(ingress_class_errors({"spec": {"controller": "x", "parameters": parameters}})) == [
        'spec.controller: Invalid value: "x": must be a domain-prefixed path (such as "acme.io/foo")',
        "spec.parameters.kind: Required value: kind is required",
        "spec.parameters.namespace: Forbidden: `parameters.scope` is set to 'Cluster'",
    ]


def test_sysctls_and_probes() -> None:
    container = {
        "name": "c",
        "image": "a",
        "imagePullPolicy": "Always",
        "terminationMessagePolicy": "File",
        "readinessProbe": {
            "httpGet": {"path": "/", "port": 80, "scheme": "HTTP", "httpHeaders": [{"name": "a b"}]},
            "terminationGracePeriodSeconds": 5,
        },
    }
    spec = {
        "containers": [container],
        "restartPolicy": "Always",
        "dnsPolicy": "ClusterFirst",
        "securityContext": {"sysctls": [{"name": "A b"}], "supplementalGroupsPolicy": "Loose"},
    }
    fields = {error.field for error in pod_spec_errors(spec, path("spec"))}
    assert fields == {
        "spec.containers[0].readinessProbe.httpGet.httpHeaders",
        "spec.containers[0].readinessProbe.terminationGracePeriodSeconds",
        "spec.securityContext.sysctls[0].name",
        "spec.securityContext.supplementalGroupsPolicy",
    }


POLICY = {
    "failurePolicy": "Fail",
    "matchConstraints": {
        "matchPolicy": "Equivalent",
        "resourceRules": [{"apiGroups": [""], "apiVersions": ["v1"], "operations": ["CREATE"], "resources": ["pods"]}],
    },
}


@pytest.mark.parametrize(
    ("spec", "problem"),
    [
        ({"paramKind": {"apiVersion": "a/b/c", "kind": "K"}}, 'spec.paramKind.apiVersion: Invalid value: "a/b/c": unexpected GroupVersion string: a/b/c'),
        ({"variables": [{"name": "if", "expression": "1"}]}, 'spec.variables[0].name: Invalid value: "if": must be a valid CEL identifier'),
        ({"matchConditions": [{"name": "x", "expression": "object.x"}]}, 'spec.matchConditions[0].expression: Invalid value: "object.x": must evaluate to bool but got dyn'),
        ({"matchConditions": [{"name": "x", "expression": ""}]}, "spec.matchConditions[0].expression: Required value"),
        ({"validations": [{"expression": "true", "reason": "Nope"}]}, 'spec.validations[0].reason: Unsupported value: "Nope": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge"'),
        ({"validations": [{"expression": "q.r == 1"}]}, "ERROR: <input>:1:1: undeclared reference to 'q' (in container '')\n"),
        ({"failurePolicy": ""}, 'spec.failurePolicy: Unsupported value: "": supported values: "Fail", "Ignore"'),
    ],
)  # fmt: skip
def test_validating_policies(spec: dict[str, object], problem: str) -> None:
    obj = {"metadata": {"name": "p"}, "spec": {**POLICY, "validations": [{"expression": "true"}], **spec}}
    [error] = validating_policy_errors(obj)
    assert problem in str(error)


@pytest.mark.parametrize(
    ("mutation", "problem"),
    [
        ({"patchType": "Merge"}, 'spec.mutations[0].patchType: Unsupported value: "Merge": supported values: "ApplyConfiguration", "JSONPatch"'),
        ({"patchType": "JSONPatch"}, "spec.mutations[0].jsonPatch: Required value: must be specified when patchType is JSONPatch"),
        ({"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{"}}, "spec.mutations[0].jsonPatch.expression: Invalid value"),
        ({"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": " "}}, "spec.mutations[0].applyConfiguration.expression: Required value"),
    ],
)  # fmt: skip
def test_mutating_policies(mutation: dict[str, object], problem: str) -> None:
    spec = {**POLICY, "reinvocationPolicy": "Never", "mutations": [mutation]}
    [error] = mutating_policy_errors({"metadata": {"name": "p"}, "spec": spec})
    assert problem in str(error)
    good = {
        "patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": "Object{spec: Object.spec{replicas: 3}}"},
    }
    assert mutating_policy_errors({"metadata": {"name": "p"}, "spec": {**spec, "mutations": [good]}}) == []


def test_bindings_choose_parameters_by_name_or_by_selector() -> None:
    rule = {
        "apiGroups": ["*"],
        "apiVersions": ["*"],
        "operations": ["DELETE"],
        "resources": ["*"],
        "resourceNames": ["a", "a"],
    }
    spec = {
        "policyName": "p",
        "paramRef": {"name": "n", "selector": {}, "parameterNotFoundAction": "Deny"},
        "matchResources": {"matchPolicy": "Exact", "excludeResourceRules": [{}], "resourceRules": [rule]},
    }
    texts = [str(error) for error in mutating_binding_errors({"spec": spec})]
    assert "spec.paramRef.name: Forbidden: name and selector are mutually exclusive" in texts
    assert "spec.matchResources.excludeResourceRules[0].operations: Required value" in texts
    assert 'spec.matchResources.resourceRules[0].resourceNames[1]: Duplicate value: "a"' in texts
    unsupported = 'spec.matchResources.resourceRules.operations: Unsupported value: "DELETE": supported values: "*", "CONNECT", "CREATE", "UPDATE"'
    assert unsupported in texts
