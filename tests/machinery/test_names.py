"""Names and REST paths."""

import pytest

from bowsprit.machinery import objects
from bowsprit.machinery.names import (
    GroupKind,
    GroupResource,
    GroupVersion,
    GroupVersionKind,
    GroupVersionResource,
    resource_path,
)


@pytest.mark.parametrize("text", ["v1", "apps/v1", ""])
def test_group_versions_round_trip(text: str) -> None:
    assert GroupVersion.parse(text).api_version == text


def test_a_group_version_with_two_slashes_is_refused() -> None:
    with pytest.raises(ValueError, match="unexpected GroupVersion string: a/b/c"):
        GroupVersion.parse("a/b/c")


def test_texts() -> None:
    assert str(GroupKind("apps", "Deployment")) == "Deployment.apps"
    assert str(GroupResource("", "pods")) == "pods"
    assert GroupResource.parse("widgets.a.example.com") == GroupResource("a.example.com", "widgets")
    assert str(GroupVersionKind("", "v1", "Pod")) == "/v1, Kind=Pod"
    assert str(GroupVersionResource("apps", "v1", "deployments")) == "apps/v1, Resource=deployments"


def test_paths() -> None:
    deployments = GroupVersionResource("apps", "v1", "deployments")
    assert resource_path(deployments, "ns", "web", "scale") == "/apis/apps/v1/namespaces/ns/deployments/web/scale"
    assert resource_path(GroupVersionResource("", "v1", "nodes")) == "/api/v1/nodes"


def test_object_accessors() -> None:
    obj: objects.Obj = {"apiVersion": "apps/v1", "kind": "ReplicaSet", "metadata": None}
    assert objects.name(obj) == ""
    assert objects.labels(obj) == {}
    objects.metadata(obj).update(name="a", uid="u")
    reference = objects.new_controller_ref(obj, objects.gvk(obj))
    child: objects.Obj = {"metadata": {"ownerReferences": [reference]}}
    assert objects.controller_of(child) == {
        "apiVersion": "apps/v1",
        "kind": "ReplicaSet",
        "name": "a",
        "uid": "u",
        "controller": True,
        "blockOwnerDeletion": True,
    }
    objects.set_nested(child, 3, "spec", "replicas")
    assert objects.nested(child, "spec", "replicas") == 3
    assert objects.nested(child, "spec", "replicas", "x", default=0) == 0
    copy = objects.deep_copy(child)
    copy["metadata"]["ownerReferences"].clear()
    assert child["metadata"]["ownerReferences"] == [reference]
