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
from bowsprit.controlplane.apps.statefulset import StatefulSetStrategy
from bowsprit.controlplane.batch.jobrules import job_errors
from bowsprit.controlplane.certificates.validation import signing_request_errors
from bowsprit.controlplane.coordination.lease import LeaseStrategy
from bowsprit.controlplane.core.nodevalidation import node_errors, node_update_errors
from bowsprit.controlplane.core.podvalidation import pod_spec_errors
from bowsprit.controlplane.core.podwarnings import template_warnings
from bowsprit.controlplane.kinds import built_in_resources
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
        "spec.parameters.kind: Required value",
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
    ("spec", "field", "problem"),
    [
        (
            {"paramKind": {"apiVersion": "a/b/c", "kind": "K"}},
            "paramKind.apiVersion",
            "unexpected GroupVersion string: a/b/c",
        ),
        ({"variables": [{"name": "if", "expression": "1"}]}, "variables[0].name", "must be a valid CEL identifier"),
        (
            {"matchConditions": [{"name": "x", "expression": "object.x"}]},
            "matchConditions[0].expression",
            "must evaluate to bool but got dyn",
        ),
        ({"matchConditions": [{"name": "x", "expression": ""}]}, "matchConditions[0].expression", "Required value"),
        (
            {"validations": [{"expression": "true", "reason": "Nope"}]},
            "validations[0].reason",
            '"Nope": supported values: "Forbidden", "Invalid", "RequestEntityTooLarge"',
        ),
        (
            {"validations": [{"expression": "q.r == 1"}]},
            "validations[0].expression",
            "ERROR: <input>:1:1: undeclared reference to 'q' (in container '')\n",
        ),
        ({"failurePolicy": ""}, "failurePolicy", '"": supported values: "Fail", "Ignore"'),
    ],
)
def test_validating_policies(spec: dict[str, object], field: str, problem: str) -> None:
    obj = {"metadata": {"name": "p"}, "spec": {**POLICY, "validations": [{"expression": "true"}], **spec}}
    [error] = told(validating_policy_errors(obj))
    assert error.startswith(f"spec.{field}: ")
    assert problem in error


@pytest.mark.parametrize(
    ("mutation", "field", "problem"),
    [
        ({"patchType": "Merge"}, "patchType", 'supported values: "ApplyConfiguration", "JSONPatch"'),
        ({"patchType": "JSONPatch"}, "jsonPatch", "Required value: must be specified when patchType is JSONPatch"),
        (
            {"patchType": "JSONPatch", "jsonPatch": {"expression": "[JSONPatch{"}},
            "jsonPatch.expression",
            "Syntax error",
        ),
        (
            {"patchType": "ApplyConfiguration", "applyConfiguration": {"expression": " "}},
            "applyConfiguration.expression",
            "Required value",
        ),
    ],
)
def test_mutating_policies(mutation: dict[str, object], field: str, problem: str) -> None:
    spec = {**POLICY, "reinvocationPolicy": "Never", "mutations": [mutation]}
    [error] = told(mutating_policy_errors({"metadata": {"name": "p"}, "spec": spec}))
    assert error.startswith(f"spec.mutations[0].{field}: ")
    assert problem in error
    config = {"expression": "Object{spec: Object.spec{replicas: 3}}"}
    good = {"patchType": "ApplyConfiguration", "applyConfiguration": config}
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
    supported = '"*", "CONNECT", "CREATE", "UPDATE"'
    place = "spec.matchResources.resourceRules.operations"
    assert f'{place}: Unsupported value: "DELETE": supported values: {supported}' in texts


def test_names_and_finalizers_follow_the_rules_of_their_kind() -> None:
    resources = {str(resource.gr): resource for resource in built_in_resources(lambda: None, {})}

    def judge(resource: str, name: str) -> list[str]:
        return resources[resource].strategy.validate_name(name)

    assert judge("poddisruptionbudgets.policy", "Under_Score") == []
    assert judge("certificatesigningrequests.certificates.k8s.io", "a/b") == ["may not contain '/'"]
    assert judge("statefulsets.apps", "a.b") == ["must not contain dots"]
    assert judge("deployments.apps", "a.b") == []
    assert not resources["leases.coordination.k8s.io"].standard_finalizers
    assert resources["pods"].standard_finalizers


def test_names_that_pods_inherit_are_warned_of() -> None:
    template = {"spec": {"containers": [{"name": "c"}]}}
    job = {"kind": "Job", "metadata": {"name": "a.b"}, "spec": {"template": template}}
    [text] = template_warnings(job, None)
    assert text.startswith("metadata.name: this is used in Pod names and hostnames, ")
    assert text.endswith("; a DNS label is recommended: [must not contain dots]")
    assert template_warnings({**job, "metadata": {"name": "a-b"}}, None) == []


def test_indexed_jobs_must_be_able_to_name_their_pods() -> None:
    def problems(mode: str) -> str:
        spec = {"completionMode": mode, "completions": 3, "template": {"spec": {}}}
        return " ".join(told(job_errors({"metadata": {"name": "a.b"}, "spec": spec})))

    expected = "will not able to create pod with invalid DNS label: a.b-2"
    assert expected in problems("Indexed")
    assert expected not in problems("NonIndexed")


def test_updates_without_a_version_and_of_what_is_not_there() -> None:
    strategies = {str(resource.gr): resource.strategy for resource in built_in_resources(lambda: None, {})}
    group = "admissionregistration.k8s.io"
    for name in (
        "poddisruptionbudgets.policy",
        f"mutatingwebhookconfigurations.{group}",
        f"validatingadmissionpolicies.{group}",
    ):
        assert not strategies[name].allow_unconditional_update, name
    assert strategies["deployments.apps"].allow_unconditional_update
    created = {name.partition(".")[0] for name in strategies if strategies[name].allow_create_on_update}
    roles = {"roles", "clusterroles", "rolebindings", "clusterrolebindings"}
    assert created == {"endpoints", "events", "limitranges", "services", "leases", "runtimeclasses", *roles}


def test_a_stateful_set_is_judged_anew_when_it_changes() -> None:
    spec = {
        "podManagementPolicy": "OrderedReady",
        "updateStrategy": {"type": "RollingUpdate"},
        "template": {"spec": {}},
    }
    strategy = StatefulSetStrategy()
    texts = told(strategy.validate_update({"spec": {**spec, "replicas": -1}}, {"spec": spec}))
    assert "spec.replicas: Invalid value: -1: must be greater than or equal to 0" in texts
