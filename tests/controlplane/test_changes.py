"""What an update may change, kind by kind, and how a refusal shows it."""

from __future__ import annotations

import copy
from typing import Any, cast

import pytest

from bowsprit.controlplane.apps.controllerrevision import ControllerRevisionStrategy
from bowsprit.controlplane.apps.daemonset import TEMPLATE_GENERATION, DaemonSetStrategy
from bowsprit.controlplane.apps.statefulset import StatefulSetStrategy
from bowsprit.controlplane.apps.validation import selector_and_template, stateful_set_errors
from bowsprit.controlplane.batch.jobrules import job_update_errors
from bowsprit.controlplane.core.nodevalidation import node_errors
from bowsprit.controlplane.core.podspec import pull_policy
from bowsprit.controlplane.core.podupdates import validate_pod_update
from bowsprit.controlplane.core.secret import SecretStrategy
from bowsprit.controlplane.core.servicevalidation import validate_service_update
from bowsprit.controlplane.core.storagevalidation import claim_update_errors, persistent_volume_update_errors
from bowsprit.controlplane.gostructs import difference, go_value
from bowsprit.controlplane.networking.policy import ServiceCIDRStrategy
from bowsprit.controlplane.storage.classes import (
    AttributesClassStrategy,
    CapacityStrategy,
    CSIDriverStrategy,
    CSINodeStrategy,
    StorageClassStrategy,
)
from bowsprit.controlplane.storage.validation import storage_class_errors
from bowsprit.machinery.errors import BadRequestError
from bowsprit.machinery.fielderrors import path
from bowsprit.machinery.objects import deep_copy

Obj = dict[str, Any]


def changed(obj: Obj, place: str, value: Any) -> Obj:
    result = deep_copy(obj)
    *steps, last = place.split(".")
    inner: Any = result
    for step in steps:
        inner = inner[int(step)] if step.isdigit() else inner.setdefault(step, {})
    inner[int(last) if last.isdigit() else last] = value
    return result


def said(errors: list[Any]) -> list[str]:
    return [str(error) for error in errors]


# -- Go's structs ----------------------------------------------------------------------------------------------------------


def test_all_members_appear_in_the_order_of_the_struct() -> None:
    shown = go_value("Toleration", {"key": "a"})
    assert list(shown.items()) == [
        ("Key", "a"), ("Operator", ""), ("Value", ""), ("Effect", ""), ("TolerationSeconds", None),
    ]  # fmt: skip
    context = go_value("PodSpec", {"hostNetwork": True, "securityContext": {"fsGroup": 5}})["SecurityContext"]
    assert (context["HostNetwork"], context["FSGroup"], context["HostUsers"]) == (True, 5, None)
    volume = go_value("Volume", {"name": "v", "configMap": {"name": "c"}})
    assert volume["ConfigMap"] == {"Name": "c", "Items": None, "DefaultMode": None, "Optional": None}
    template = go_value("PodTemplateSpec", {"metadata": {"labels": {"a": "b"}, "name": ""}, "spec": {}})
    assert list(template) == ["labels", "Spec"]
    selector = {"matchExpressions": [{"key": "a", "operator": "Exists", "values": []}]}
    term = go_value("PodAffinityTerm", {"labelSelector": selector, "topologyKey": "t"})
    assert term["LabelSelector"] == {"matchExpressions": [{"key": "a", "operator": "Exists"}]}


def test_a_difference_is_a_unified_diff_and_nothing_for_what_means_the_same() -> None:
    old: Obj = {"key": "a", "operator": "Exists"}
    assert difference("Toleration", old, {**old, "value": ""}) == ""
    assert difference("Toleration", old, {**old, "value": "<b>"}) == (
        '@@ -1,7 +1,7 @@\n {\n  "Key": "a",\n  "Operator": "Exists",\n- "Value": "",\n+ "Value": "\\u003cb\\u003e",\n'
        '  "Effect": "",\n  "TolerationSeconds": null\n }\n'
    )


# -- pods and jobs ---------------------------------------------------------------------------------------------------------

CONTAINER = {
    "name": "c", "image": "i:1", "imagePullPolicy": "IfNotPresent", "terminationMessagePath": "/t",
    "terminationMessagePolicy": "File",
}  # fmt: skip
SPEC: Obj = {
    "containers": [CONTAINER], "restartPolicy": "Never", "dnsPolicy": "Default", "terminationGracePeriodSeconds": 1,
    "schedulerName": "s", "securityContext": {}, "enableServiceLinks": True,
}  # fmt: skip
POD: Obj = {"metadata": {"name": "p", "namespace": "n"}, "spec": SPEC}


def test_only_images_and_a_few_more_change_in_a_pod() -> None:
    assert validate_pod_update(changed(POD, "spec.containers.0.image", "i:2"), POD) == []
    assert validate_pod_update(changed(POD, "spec.activeDeadlineSeconds", 5), POD) == []
    assert validate_pod_update(changed(POD, "spec.tolerations", [{"key": "a", "operator": "Exists"}]), POD) == []
    assert validate_pod_update(changed(POD, "spec.nodeSelector", {}), POD) == []
    [error] = said(validate_pod_update(changed(POD, "spec.hostname", "h"), POD))
    assert error.startswith("spec: Forbidden: pod updates may not change fields other than `spec.containers[*].image`,")
    assert '\n- "Hostname": "",\n+ "Hostname": "h",\n' in error
    assert '"Image"' not in error


def test_a_gated_pod_may_be_steered_and_nothing_else() -> None:
    gated = changed(POD, "spec.schedulingGates", [{"name": "a.b/c"}])
    affinity = {"requiredDuringSchedulingIgnoredDuringExecution": {"nodeSelectorTerms": [{"matchFields": []}]}}
    assert validate_pod_update(changed(gated, "spec.nodeSelector", {"a": "b"}), gated) == []
    assert validate_pod_update(changed(gated, "spec.schedulingGates", []), gated) == []
    assert validate_pod_update(changed(gated, "spec.affinity.nodeAffinity", affinity), gated) == []
    [error] = said(validate_pod_update(changed(gated, "spec.hostname", "h"), gated))
    assert '+ "Hostname": "h"' in error


def job(**status: Any) -> Obj:
    labels = {"a": "b"}
    template = {"metadata": {"labels": labels}, "spec": SPEC}
    spec = {"manualSelector": True, "selector": {"matchLabels": labels}, "template": template, "suspend": True}
    return {"metadata": {"name": "j", "namespace": "n", "uid": "u"}, "spec": spec, "status": status}


@pytest.mark.parametrize(
    ("place", "value"),
    [
        ("nodeSelector", {"a": "b"}),
        ("tolerations", [{"operator": "Exists"}]),
        ("affinity", {"nodeAffinity": {}}),
        ("containers.0.resources", {"requests": {"cpu": "1"}}),
    ],
)
def test_a_job_at_rest_may_say_where_and_with_what_its_pods_run(place: str, value: Any) -> None:
    rested, place = job(), f"spec.template.spec.{place}"
    assert job_update_errors(changed(rested, place, value), rested) == []
    stopped = job(startTime="2026-01-01T00:00:00Z", conditions=[{"type": "Suspended", "status": "True"}])
    assert job_update_errors(changed(stopped, place, value), stopped) == []
    for busy in (job(active=1), job(startTime="2026-01-01T00:00:00Z"), changed(rested, "spec.suspend", False)):
        [error] = said(job_update_errors(changed(busy, place, value), busy))
        assert error.startswith('spec.template: Invalid value: {"labels":{"a":"b"},"Spec":{"Volumes":null,')
        assert error.endswith("}}: field is immutable")
    [error] = said(job_update_errors(changed(rested, "spec.template.spec.hostname", "h"), rested))
    assert error.startswith('spec.template.spec: Invalid value: {"Volumes":null,')


@pytest.mark.parametrize(
    ("image", "policy"),
    [
        ("busybox", "Always"),
        ("busybox:latest", "Always"),
        ("localhost:5000/a/b", "Always"),
        ("Host/a", "Always"),
        ("a:latest@sha256:" + "0" * 64, "Always"),
        ("localhost:5000/a:v1", "IfNotPresent"),
        ("a@sha256:" + "0" * 64, "IfNotPresent"),
        ("Busybox", "IfNotPresent"),
        ("", "IfNotPresent"),
        ("0" * 64, "IfNotPresent"),
    ],
)
def test_images_are_pulled_always_unless_they_name_a_version_or_nothing(image: str, policy: str) -> None:
    assert pull_policy(image) == policy


# -- secrets and services --------------------------------------------------------------------------------------------------


def test_a_changed_secret_is_checked_as_a_new_one() -> None:
    secret = {"metadata": {"name": "s"}, "type": "Opaque", "data": {"a": "eA=="}}
    assert SecretStrategy().validate_update(secret, secret) == []
    assert [
        error.field for error in SecretStrategy().validate_update(changed(secret, "data", {"a/b": ""}), secret)
    ] == ["data[a/b]"]
    given = {**secret, "data": {"a": None}}
    SecretStrategy().default(given)
    assert given["data"] == {"a": ""}


SERVICE: Obj = {
    "metadata": {"name": "s"},
    "spec": {
        "type": "ClusterIP", "ports": [{"port": 1, "targetPort": 1, "protocol": "TCP"}], "sessionAffinity": "None",
        "clusterIP": "10.0.0.1", "clusterIPs": ["10.0.0.1"], "ipFamilies": ["IPv4"], "ipFamilyPolicy": "SingleStack",
        "internalTrafficPolicy": "Cluster",
    },
}  # fmt: skip


def service(**spec: Any) -> Obj:
    result = copy.deepcopy(SERVICE)
    result["spec"].update(spec)
    return result


BOTH = service(clusterIPs=["10.0.0.1", "fd00::1"], ipFamilies=["IPv4", "IPv6"], ipFamilyPolicy="RequireDualStack")


@pytest.mark.parametrize(
    ("new", "old", "errors"),
    [
        (service(), SERVICE, []),
        (BOTH, SERVICE, []),
        (SERVICE, BOTH, []),
        (
            service(clusterIP="10.0.0.2", clusterIPs=["10.0.0.2"]),
            SERVICE,
            ['spec.clusterIPs[0]: Invalid value: ["10.0.0.2"]: may not change once set'],
        ),
        (
            service(clusterIPs=["10.0.0.2"]),
            SERVICE,
            ['spec.clusterIPs: Invalid value: ["10.0.0.2"]: first value must match `clusterIP`'],
        ),
        (
            service(ipFamilyPolicy="RequireDualStack"),
            BOTH,
            [
                f"spec.ipFamilyPolicy: Invalid value: \"RequireDualStack\": must be set to 'SingleStack' when releasing the secondary {one}"
                for one in ("clusterIP", "ipFamily")
            ],
        ),
    ],
)
def test_the_first_address_of_a_service_stays(new: Obj, old: Obj, errors: list[str]) -> None:
    assert said(validate_service_update(new, old)) == errors


# -- storage ---------------------------------------------------------------------------------------------------------------

CLAIM: Obj = {
    "metadata": {"name": "c"},
    "spec": {
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "2Gi"}},
        "volumeMode": "Filesystem",
    },
    "status": {"phase": "Bound", "capacity": {"storage": "2Gi"}},
}
_BETA = "volume.beta.kubernetes.io/storage-class"


def test_what_of_a_claim_may_change() -> None:
    assert claim_update_errors(changed(CLAIM, "spec.volumeName", "v"), CLAIM) == []
    assert claim_update_errors(changed(CLAIM, "spec.resources.requests.storage", "3Gi"), CLAIM) == []
    assert claim_update_errors(changed(CLAIM, "spec.storageClassName", "late"), CLAIM) == []
    old = changed(CLAIM, "metadata.annotations", {_BETA: "a"})
    assert claim_update_errors(changed(old, "spec.storageClassName", "a"), old) == []
    assert [error.field for error in claim_update_errors(changed(old, "spec.storageClassName", "b"), old)] == ["spec"]
    moved = said(claim_update_errors(changed(CLAIM, "metadata.annotations", {_BETA: "a"}), CLAIM))
    assert moved == [f'metadata.annotations.{_BETA}: Invalid value: "a": field is immutable']
    [smaller] = said(claim_update_errors(changed(CLAIM, "spec.resources.requests.storage", "1Gi"), CLAIM))
    assert smaller == "spec.resources.requests.storage: Forbidden: field can not be less than status.capacity"
    unbound = changed(CLAIM, "status", {})
    [error] = said(claim_update_errors(changed(unbound, "spec.resources.requests.storage", "3Gi"), unbound))
    assert '-   "storage": "2Gi"\n+   "storage": "3Gi"\n' in error
    classed = changed(
        changed(CLAIM, "status.currentVolumeAttributesClassName", "x"), "spec.volumeAttributesClassName", "x"
    )
    assert said(claim_update_errors(changed(classed, "spec.volumeAttributesClassName", None), classed)) == [
        "spec.volumeAttributesClassName: Forbidden: update to nil is forbidden when "
        "status.currentVolumeAttributesClassName is not nil"
    ]


def test_where_a_volume_is_stays() -> None:
    beta, grown = "failure-domain.beta.kubernetes.io/zone", "topology.kubernetes.io/zone"
    terms = [{"matchExpressions": [{"key": beta, "operator": "In", "values": ["z"]}]}]
    spec = {
        "capacity": {"storage": "1Gi"}, "accessModes": ["ReadWriteOnce"], "csi": {"driver": "d", "volumeHandle": "h"},
        "persistentVolumeReclaimPolicy": "Retain", "volumeMode": "Filesystem",
        "nodeAffinity": {"required": {"nodeSelectorTerms": terms}},
    }  # fmt: skip
    old = {"metadata": {"name": "v"}, "spec": spec}
    key = "spec.nodeAffinity.required.nodeSelectorTerms.0.matchExpressions.0.key"
    assert persistent_volume_update_errors(changed(old, key, grown), old) == []
    assert [error.field for error in persistent_volume_update_errors(changed(old, key, "x"), old)] == ["nodeAffinity"]
    secret = {"name": "s", "namespace": "n"}
    assert persistent_volume_update_errors(changed(old, "spec.csi.controllerExpandSecretRef", secret), old) == []
    [error] = said(persistent_volume_update_errors(changed(old, "spec.csi.volumeHandle", "g"), old))
    assert '\n-  "VolumeHandle": "h",\n+  "VolumeHandle": "g",\n' in error


@pytest.mark.parametrize(
    ("strategy", "old", "place", "value", "errors"),
    [
        (
            StorageClassStrategy(), {"provisioner": "a", "reclaimPolicy": "Delete", "volumeBindingMode": "Immediate"},
            "reclaimPolicy", "Retain", ['reclaimPolicy: Invalid value: "Retain": field is immutable'],
        ),
        (
            CSIDriverStrategy(), {"spec": {"attachRequired": True}}, "spec.attachRequired", False,
            ["spec.attachedRequired: Invalid value: false: field is immutable"],
        ),
        (
            CSIDriverStrategy(), {"spec": {}}, "spec.nodeAllocatableUpdatePeriodSeconds", 9,
            [
                "spec.nodeAllocatableUpdatePeriodSeconds: Invalid value: 9: must be greater than or equal to 10 seconds",
            ],
        ),
        (
            CSINodeStrategy(), {"spec": {"drivers": [{"name": "d", "nodeID": "n"}]}}, "spec.drivers.0.nodeID", "m",
            [
                'spec.drivers: Invalid value: {"Name":"d","NodeID":"m","TopologyKeys":null,"Allocatable":null}: '
                "field is immutable",
            ],
        ),
        (
            CSINodeStrategy(), {"spec": {"drivers": [{"name": "d", "nodeID": "n"}]}}, "spec.drivers.0.allocatable",
            {"count": 3}, [],
        ),
        (
            CapacityStrategy(), {"storageClassName": "a"}, "storageClassName", "b",
            ['storageClassName: Invalid value: "b": field is immutable'],
        ),
        (
            AttributesClassStrategy(), {"driverName": "d", "parameters": {"a": "b"}}, "parameters", {"a": "c"},
            ["parameters: Forbidden: updates to parameters are forbidden."],
        ),
        (
            ServiceCIDRStrategy(), {"spec": {"cidrs": ["10.0.0.0/8"]}}, "spec.cidrs", ["11.0.0.0/8"],
            ['spec.cidrs[0]: Invalid value: "11.0.0.0/8": field is immutable'],
        ),
        (ServiceCIDRStrategy(), {"spec": {"cidrs": ["10.0.0.0/8"]}}, "spec.cidrs", ["10.0.0.0/8", "fd00::/108"], []),
        (
            ServiceCIDRStrategy(), {"spec": {"cidrs": ["10.0.0.0/8", "fd00::/108"]}}, "spec.cidrs", ["10.0.0.0/8"],
            ['spec.cidrs: Invalid value: ["10.0.0.0/8"]: field is immutable'],
        ),
    ],
)  # fmt: skip
def test_what_stays_in_smaller_kinds(strategy: Any, old: Obj, place: str, value: Any, errors: list[str]) -> None:
    old = {"metadata": {"name": "x"}, **old}
    assert strategy.validate_update(old, old) == []
    assert said(strategy.validate_update(changed(old, place, value), old)) == errors


# -- what else depends on the change ---------------------------------------------------------------------------------------


def test_claim_templates_are_judged_when_they_are_new() -> None:
    claim = {"metadata": {"name": "d"}, "spec": {"accessModes": ["Bad"], "resources": {"requests": {"storage": "1Gi"}}}}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
    obj = {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template, "volumeClaimTemplates": [claim]}}
    StatefulSetStrategy().default(obj)
    wrong = 'spec.volumeClaimTemplates[0].spec.accessModes: Unsupported value: "Bad"'
    assert any(error.startswith(wrong) for error in said(stateful_set_errors(obj, created=True)))
    assert not any(error.startswith(wrong) for error in said(stateful_set_errors(obj, created=False)))


def test_volumes_of_claim_templates_take_the_place_of_others() -> None:
    claim = {
        "metadata": {"name": "d"},
        "spec": {"accessModes": ["ReadWriteOnce"], "resources": {"requests": {"storage": "1"}}},
    }
    volumes = [{"name": name, "persistentVolumeClaim": {}} for name in ("w", "d", "v")]
    pod = {"containers": [{"name": "c", "image": "i"}], "volumes": volumes}
    template = {"metadata": {"labels": {"a": "b"}}, "spec": pod}
    obj = {"spec": {"selector": {"matchLabels": {"a": "b"}}, "template": template, "volumeClaimTemplates": [claim]}}
    StatefulSetStrategy().default(obj)
    errors = [error for error in said(stateful_set_errors(obj, created=False)) if "claimName" in error]
    assert errors == [
        f"spec.template.spec.volumes[{index}].persistentVolumeClaim.claimName: Required value" for index in (1, 2)
    ]


def test_a_template_without_labels_matches_nothing() -> None:
    template = {"spec": {"containers": [{"name": "c", "image": "i"}]}}
    mismatch = "spec.template.metadata.labels: Invalid value: null: `selector` does not match template `labels`"
    for kind, missing in (("Deployment", True), ("DaemonSet", False)):
        found = said(selector_and_template({"template": template}, path("spec"), kind))
        assert mismatch in found
        assert ("spec.selector: Required value" in found) == missing


def test_drivers_count_their_changes_and_warn_of_new_tokens() -> None:
    strategy, context = CSIDriverStrategy(), cast("Any", None)
    old = {"metadata": {}, "spec": {"tokenRequests": [{"audience": "a"}]}}
    same = deep_copy(old)
    strategy.prepare_for_update(same, old, context)
    assert (same["metadata"], strategy.warnings(same, old)) == ({}, [])
    new = changed(old, "spec.tokenRequests", [{"audience": "b"}])
    strategy.prepare_for_update(new, old, context)
    assert new["metadata"] == {"generation": 1}
    assert strategy.warnings(new, old) == strategy.warnings(old, None) != []


def test_data_of_revisions_is_an_object_that_stays() -> None:
    strategy = ControllerRevisionStrategy()
    assert said(strategy.validate({"revision": 1, "data": [1]})) == [
        "data: Required value: data must be a valid JSON object"
    ]
    assert said(strategy.validate({"revision": 1})) == ["data: Required value: data is mandatory"]
    found = said(strategy.validate_update({"revision": 2}, {"revision": 1, "data": {"a": 1}}))
    assert found == ["data: Invalid value: null: field is immutable"]


def test_no_topology_term_is_empty() -> None:
    errors = said(storage_class_errors({"provisioner": "p", "allowedTopologies": [{}]}))
    assert 'allowedTopologies[0].matchLabelExpressions: Duplicate value: ""' in errors


@pytest.mark.parametrize(
    ("text", "problem"),
    [("1x", "invalid syntax"), ("", "invalid syntax"), ("9" * 20, "value out of range")],
)
def test_a_wrong_template_generation_is_the_clients_mistake(text: str, problem: str) -> None:
    with pytest.raises(BadRequestError) as caught:
        DaemonSetStrategy().default({"metadata": {"annotations": {TEMPLATE_GENERATION: text}}, "spec": {}})
    assert str(caught.value).endswith(
        f'cannot be handled as a DaemonSet: strconv.ParseInt: parsing "{text}": {problem}'
    )


def test_each_new_scheduling_gate_is_refused() -> None:
    spec = {"containers": [{"name": "c", "image": "i"}], "schedulingGates": [{"name": "a"}]}
    old = {"metadata": {"name": "p"}, "spec": spec}
    new = changed(old, "spec.schedulingGates", [{"name": name} for name in ("a", "b", "c")])
    found = [error for error in said(validate_pod_update(new, old)) if "only deletion" in error]
    assert found == [
        f"spec.schedulingGates[{index}].name: Forbidden: only deletion is allowed, but found new scheduling gate '{name}'"
        for index, name in ((1, "b"), (2, "c"))
    ]


def test_families_of_broken_pod_ranges_are_unknown() -> None:
    found = said(node_errors({"spec": {"podCIDRs": ["10.1.0.0/24", "x"]}}))
    assert (
        found[-1]
        == 'spec.podCIDRs: Invalid value: ["10.1.0.0/24","x"]: may specify no more than one CIDR for each IP family'
    )
    assert "dual stack with error:invalid CIDR[1]: <nil> (invalid CIDR address: x)" in found[-2]


def test_selectors_are_shown_in_the_order_of_their_struct() -> None:
    expression = {"key": "tier", "values": ["a"], "operator": ""}
    found = said(selector_and_template({"selector": {"matchExpressions": [expression]}}, path("spec"), "Deployment"))
    shown = '{"matchExpressions":[{"key":"tier","operator":"","values":["a"]}]}'
    assert f"spec.selector: Invalid value: {shown}: invalid label selector" in found
