"""Claims that are bound when their first pod is placed."""

from __future__ import annotations

import pytest

from bowsprit.scheduler.simulation import replay

ZONE = "topology.kubernetes.io/zone"


def node(name, zone):
    labels = {"kubernetes.io/hostname": name, ZONE: zone}
    allocatable = {"cpu": "4", "memory": "8Gi", "pods": "110"}
    return {"metadata": {"name": name, "labels": labels}, "spec": {}, "status": {"allocatable": allocatable}}


def pod(name):
    spec = {
        "schedulerName": "default-scheduler",
        "containers": [{"name": "c", "image": "registry.test/app:1"}],
        "volumes": [{"name": "data", "persistentVolumeClaim": {"claimName": "data"}}],
    }
    return {"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec}


def scenario(plugins):
    storage_class = {
        "kind": "StorageClass",
        "metadata": {"name": "dynamic"},
        "provisioner": "csi.test.x",
        "volumeBindingMode": "WaitForFirstConsumer",
    }
    claim_spec = {
        "storageClassName": "dynamic",
        "accessModes": ["ReadWriteOnce"],
        "resources": {"requests": {"storage": "1Gi"}},
    }
    claim = {"kind": "PersistentVolumeClaim", "metadata": {"name": "data", "namespace": "default"}, "spec": claim_spec}
    return {
        "config": {"profiles": [{"schedulerName": "default-scheduler", "plugins": plugins}]},
        "nodes": [node("a", "z-1"), node("b", "z-2"), node("c", "z-2")],
        "objects": [storage_class, claim],
        "pods": [pod("first"), pod("second")],
    }


@pytest.mark.parametrize(
    ("plugins", "feasible"),
    [({}, 1), ({"filter": {"disabled": [{"name": "VolumeBinding"}, {"name": "VolumeZone"}]}}, 3)],
    ids=["bound with the first pod", "not examined, so not bound"],
)
def test_a_claim_is_bound_where_its_nodes_were_examined(plugins, feasible):
    first, second = replay(scenario(plugins))
    assert first["node"] == "a"
    assert second["feasibleNodes"] == feasible
