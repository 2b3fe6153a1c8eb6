"""Warnings about pods and templates. Texts are recorded from Kubernetes v1.36."""

# ruff: noqa: E501

import pytest

from bowsprit.controlplane.apps.deployment import DeploymentStrategy
from bowsprit.controlplane.core.podwarnings import pod_warnings, template_warnings
from bowsprit.machinery.objects import Obj, deep_copy


@pytest.mark.parametrize(
    ("spec", "expected"),
    [
        ({"nodeSelector": {"beta.kubernetes.io/os": "linux"}}, ['spec.nodeSelector[beta.kubernetes.io/os]: deprecated since v1.14; use "kubernetes.io/os" instead']),
        ({"topologySpreadConstraints": [{"topologyKey": "zone"}]}, ["spec.topologySpreadConstraints[0].labelSelector: a null labelSelector results in matching no pod"]),
        (
            {"containers": [{"name": "c", "resources": {"limits": {"ephemeral-storage": "500m"}, "requests": {"memory": "1"}}}]},
            ['spec.containers[0].resources.limits[ephemeral-storage]: fractional byte value "500m" is invalid, must be an integer'],
        ),
        (
            {"containers": [{"name": "c", "env": [{"name": "A", "value": "1"}, {"name": "A", "value": "$(A) 2"}, {"name": "A", "value": "3"}]}]},
            ['spec.containers[0].env[2]: hides previous definition of "A", which may be dropped when using apply'],
        ),
        ({"volumes": [{"name": "v", "gitRepo": {}}]}, ["spec.volumes[0].gitRepo: deprecated in v1.11, and disabled by default in v1.33+"]),
        ({"imagePullSecrets": [{"name": "a"}, {"name": "a"}, {}]}, ['spec.imagePullSecrets[1].name: duplicate name "a"', 'spec.imagePullSecrets[2].name: invalid empty name ""']),
        ({"hostAliases": [{"ip": "1.1.1.1"}, {"ip": "1.1.1.1"}]}, ['spec.hostAliases[1].ip: duplicate ip "1.1.1.1"']),
        ({"containers": [{"name": "c", "ports": [{"containerPort": 80}, {"containerPort": 80}]}]}, ["spec.containers[0].ports[1]: duplicate port definition with spec.containers[0].ports[0]"]),
        ({"terminationGracePeriodSeconds": -1}, ["spec.terminationGracePeriodSeconds: must be >= 0; negative values are invalid and will be treated as 1"]),
        ({"nodeSelector": {"a": "b"}, "containers": [{"name": "c"}]}, []),
    ],
)  # fmt: skip
def test_pods(spec: Obj, expected: list[str]) -> None:
    assert pod_warnings({"kind": "Pod", "spec": spec}, None) == expected
    assert pod_warnings({"kind": "Pod", "spec": spec}, {"kind": "Pod", "spec": {}}) == [], "machines change pods"


def test_annotations_that_fields_replaced() -> None:
    key = "container.apparmor.security.beta.kubernetes.io/c"
    pod = {"metadata": {"annotations": {key: "unconfined"}}, "spec": {"containers": [{"name": "c"}]}}
    assert pod_warnings({"kind": "Pod", **pod}, None) == [], "warned of when the annotation becomes a field"
    deployment = {"kind": "Deployment", "spec": {"template": pod}}
    assert template_warnings(deployment, None) == [
        f'spec.template.metadata.annotations[{key}]: deprecated since v1.30; use the "appArmorProfile" field instead'
    ]
    pod["spec"]["containers"][0]["securityContext"] = {"appArmorProfile": {"type": "Unconfined"}}
    assert template_warnings(deployment, None) == []


def test_templates_are_looked_at_when_the_spec_changes() -> None:
    deployment = {
        "kind": "Deployment",
        "spec": {"replicas": 1, "template": {"spec": {"topologySpreadConstraints": [{}]}}},
    }
    [text] = template_warnings(deployment, None)
    assert text.startswith("spec.template.spec.topologySpreadConstraints[0].labelSelector:")
    assert template_warnings(deployment, deep_copy(deployment)) == []
    changed = deep_copy(deployment)
    changed["spec"]["replicas"] = 2
    assert DeploymentStrategy().warnings(changed, deployment) == [text]
    cron_job = {"kind": "CronJob", "spec": {"jobTemplate": {"spec": {"template": deployment["spec"]["template"]}}}}
    assert template_warnings(cron_job, None)[0].startswith("spec.jobTemplate.spec.template.spec.topologySpread")
    assert template_warnings({"kind": "Namespace"}, None) == []
