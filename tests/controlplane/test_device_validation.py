"""Claims, classes and slices of devices: what is wrong is named in upstream's words."""

from __future__ import annotations

import copy
from typing import Any

import pytest

from bowsprit.controlplane.resource.adminaccess import ADMIN_ACCESS
from bowsprit.controlplane.resource.claimrules import claim_errors, claim_template_errors, class_errors
from bowsprit.controlplane.resource.claims import (
    ClaimStatusStrategy,
    ClaimStrategy,
    ClaimTemplateStrategy,
)
from bowsprit.controlplane.resource.slicerules import slice_errors
from bowsprit.machinery.fielderrors import FieldError
from bowsprit.machinery.objects import Obj

REQUEST: Obj = {
    "name": "gpu",
    "exactly": {
        "deviceClassName": "gpu.example.com",
        "allocationMode": "ExactCount",
        "count": 1,
        "selectors": [{"cel": {"expression": 'device.driver == "gpu.example.com" && device.attributes["a.b"].ok'}}],
        "tolerations": [{"key": "k", "operator": "Exists"}],
    },
}
CHOICE: Obj = {"name": "any", "firstAvailable": [{**REQUEST["exactly"], "name": "big"}]}
CLAIM: Obj = {
    "spec": {
        "devices": {
            "requests": [REQUEST, CHOICE],
            "constraints": [{"requests": ["gpu", "any/big"], "matchAttribute": "gpu.example.com/model"}],
            "config": [{"requests": ["any"], "opaque": {"driver": "gpu.example.com", "parameters": {"a": 1}}}],
        }
    }
}
SLICE: Obj = {
    "spec": {
        "driver": "gpu.example.com",
        "pool": {"name": "pool", "resourceSliceCount": 1},
        "nodeName": "node-1",
        "devices": [
            {
                "name": "gpu-0",
                "attributes": {"model": {"string": "a"}, "gpu.example.com/version": {"version": "1.2.3"}},
                "allowMultipleAllocations": True,
                "capacity": {
                    "mem": {
                        "value": "10Gi",
                        "requestPolicy": {"default": "1Gi", "validRange": {"min": "1Gi", "max": "8Gi", "step": "1Gi"}},
                    },
                    "cores": {"value": "8", "requestPolicy": {"default": "2", "validValues": ["1", "2", "4"]}},
                },
                "taints": [{"key": "k", "effect": "NoSchedule"}],
            }
        ],
    }
}


def put(obj: Obj, place: str, value: Any) -> Obj:
    """A copy with a value at a dotted place."""
    made: Any = copy.deepcopy(obj)
    *steps, last = [int(step) if step.isdigit() else step for step in place.split(".")]
    at = made
    for step in steps:
        at = at[step]
    at[last] = value
    return dict(made)


def told(errors: list[FieldError], field: str, text: str) -> bool:
    """Whether one of them is about the field and says so."""
    return any(error.field == field and text in error.error_body() for error in errors)


def test_what_is_right_is_taken() -> None:
    assert claim_errors(CLAIM) == []
    assert claim_template_errors({"spec": {"metadata": {"labels": {"a": "b"}}, "spec": CLAIM["spec"]}}) == []
    assert slice_errors(SLICE) == []
    assert class_errors({"spec": {"extendedResourceName": "example.com/gpu"}}) == []


D = "spec.devices"
R, S = f"{D}.requests.0.exactly", f"{D}.requests[0].exactly"


@pytest.mark.parametrize(
    ("place", "value", "field", "text"),
    [
        (f"{D}.requests.1.name", "gpu", f"{D}.requests[1]", '"gpu"'),
        (f"{D}.requests.1.firstAvailable.0.deviceClassName", "", f"{D}.requests[1].firstAvailable[0].deviceClassName", 'Required value'),
        (f"{R}.selectors.0.cel", None, f"{S}.selectors[0].cel", 'Required value'),
        (f"{R}.selectors.0.cel.expression", "1", f"{S}.selectors[0].cel.expression", 'must evaluate to bool or the unknown type, not int'),
        (f"{R}.selectors.0.cel.expression", "device.nope", f"{S}.selectors[0].cel.expression", "undefined field 'nope'"),
        (f"{R}.tolerations.0.value", "x", f"{S}.tolerations[0].value", 'must be empty for operator'),
        (f"{R}.tolerations.0.operator", "Lt", f"{S}.tolerations[0].operator", 'supported values: "Equal", "Exists"'),
        (f"{D}.constraints.0.requests.1", "any/small", f"{D}.constraints[0].requests[1]", 'must be the name of a request in the claim'),
        (f"{D}.constraints.0.matchAttribute", "model", f"{D}.constraints[0].matchAttribute", 'a fully qualified name must be a domain'),
        (f"{D}.config.0.opaque", None, f"{D}.config[0].opaque", 'Required value'),
        (f"{D}.config.0.opaque.parameters", [1], f"{D}.config[0].opaque.parameters", 'must be a valid JSON object'),
        (f"{D}.config", [{}] * 33, f"{D}.config", 'Too many: 33: must have at most 32 items'),
    ],
)  # fmt: skip
def test_claims(place: str, value: Any, field: str, text: str) -> None:
    assert told(claim_errors(put(CLAIM, place, value)), field, text)


def test_templates_and_classes() -> None:
    template = {"spec": {"metadata": {"uid": "x", "finalizers": []}, "spec": CLAIM["spec"]}}
    shown = [str(error) for error in claim_template_errors(template)]
    assert shown == [f"spec.metadata.{field}: Forbidden: cannot be set" for field in ("uID", "finalizers")]
    assert [str(error) for error in class_errors({"spec": {"extendedResourceName": "cpu"}})] == [
        'spec.extendedResourceName: Invalid value: "cpu": must be a valid extended resource name'
    ]


V = f"{D}[0]"
C = f"{V}.capacity"


@pytest.mark.parametrize(
    ("place", "value", "field", "text"),
    [
        ("spec.nodeName", None, "spec", 'Required value: exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelect'),
        ("spec.allNodes", True, "spec", 'exactly one of `nodeName`, `nodeSelector`, `allNodes`, `perDeviceNodeSelection` is required'),
        ("spec.sharedCounters", [], "spec", 'only one of `sharedCounters` or `devices` is allowed'),
        ("spec.pool.resourceSliceCount", 0, "spec.pool.resourceSliceCount", 'must be greater than zero'),
        (f"{D}.0.nodeName", "x", f"{V}", '`nodeName`, `nodeSelector` and `allNodes` can only be set if `perDeviceNodeSelection` is se'),
        (f"{D}.0.attributes.model.string", "x" * 65, f"{V}.attributes[model].string", 'Too long: may not be more than 64 bytes'),
        (f"{D}.0.attributes.model", {"version": "1"}, f"{V}.attributes[model].version", 'must be a string compatible with semver.org '),
        (f"{D}.0.attributes.model", {}, f"{V}.attributes[model]", 'exactly one value must be specified'),
        (f"{D}.0.attributes", {"/a": {"int": 1}}, f"{V}.attributes", 'the domain must not be empty'),
        (f"{D}.0.taints.0.effect", "No", f"{V}.taints[0].effect", 'supported values: "NoExecute", "NoSchedule", "None"'),
        (f"{D}.0.allowMultipleAllocations", False, f"{C}[mem].requestPolicy", 'allowMultipleAllocations must be true'),
        (f"{D}.0.capacity.mem.requestPolicy.default", "9Gi", f"{C}[mem].requestPolicy.validRange.max", 'default is more than max: 8Gi'),
        (f"{D}.0.capacity.mem.requestPolicy.validRange.step", "3Gi", f"{C}[mem].requestPolicy.validRange.step", 'value is not a multi'),
        (f"{D}.0.capacity.cores.requestPolicy.default", "3", f"{C}[cores].requestPolicy.validValues", 'default value is not valid acc'),
        (f"{D}.0.capacity.cores.requestPolicy.validValues", ["2", "1"], f"{C}[cores].requestPolicy.validValues[1]", 'values must be sorte'),
        (f"{D}.0.consumesCounters", [{"counterSet": "a"}], f"{V}.consumesCounters[0].counters", 'Required value'),
        (f"{D}.0.bindingConditions", ["a"], f"{V}.bindingFailureConditions", 'bindingFailureConditions are required to use bindingCon'),
    ],
)  # fmt: skip
def test_slices(place: str, value: Any, field: str, text: str) -> None:
    assert told(slice_errors(put(SLICE, place, value)), field, text)


def test_a_slice_stays_with_its_driver() -> None:
    moved = put(SLICE, "spec.driver", "other.example.com")
    assert 'spec.driver: Invalid value: "other.example.com": field is immutable' in map(str, slice_errors(moved, SLICE))


def test_the_status_of_a_claim() -> None:
    strategy = ClaimStatusStrategy(ClaimStrategy())
    result = {"request": "gpu", "driver": "gpu.example.com", "pool": "pool", "device": "gpu-0"}
    device = {field: result[field] for field in ("driver", "pool", "device")}
    consumer = {"resource": "pods", "name": "web", "uid": "1"}
    old = {"metadata": {}, **CLAIM, "status": {}}
    good = {
        **old,
        "status": {"allocation": {"devices": {"results": [result]}}, "devices": [device], "reservedFor": [consumer]},
    }
    assert strategy.validate_update(good, old) == []
    bad = {**old, "status": {"devices": [device], "reservedFor": [{"name": "web"}]}}
    assert [str(error) for error in strategy.validate_update(bad, old)] == [
        "status.reservedFor[0].resource: Required value",
        "status.reservedFor[0].uid: Required value",
        'status.devices[0]: Invalid value: "gpu.example.com/pool/gpu-0": must be an allocated device in the claim',
        "status.reservedFor: Forbidden: may not be specified when `allocated` is not set",
    ]
    other = put(good, "status.allocation.devices.results.0.device", "gpu-1")
    assert any("field is immutable" in str(error) for error in strategy.validate_update(other, good))


def test_admin_access_is_for_labelled_namespaces() -> None:
    def named(namespace: str, spec: Obj) -> Obj:
        return {"metadata": {"name": "c", "namespace": namespace}, "spec": spec}

    strategy = ClaimStrategy(lambda namespace: {ADMIN_ACCESS: "true"} if namespace == "ops" else {})
    request = {"name": "r", "exactly": {"deviceClassName": "d", "allocationMode": "All", "adminAccess": True}}
    spec = {"devices": {"requests": [REQUEST, request]}}
    assert strategy.validate(named("ops", spec)) == []
    [error] = map(str, strategy.validate(named("default", spec)))
    assert error.startswith("spec.devices.requests[1].adminAccess: Forbidden: admin access to devices requires the")
    claim_of = ClaimTemplateStrategy(lambda _: {})
    assert [str(found) for found in claim_of.validate(named("default", {"spec": spec}))] == [error]

    status = ClaimStatusStrategy(strategy)
    old = named("default", CLAIM["spec"])
    result = {"request": "gpu", "driver": "gpu.example.com", "pool": "p", "device": "d", "adminAccess": True}
    new = old | {"status": {"allocation": {"devices": {"results": [result]}}}}
    [error] = map(str, status.validate_update(new, old))
    assert error.startswith("status.allocation.devices.results[0].adminAccess: Forbidden")
    assert status.validate_update(new, new) == []
