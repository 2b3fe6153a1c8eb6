"""What the built-in admission plugins add to objects and refuse."""

from __future__ import annotations

import asyncio
import importlib.util
from pathlib import Path
from typing import Any

import pytest

from bowsprit.apiserver.access import Attributes, Decision
from bowsprit.apiserver.admission.chain import AdmissionChain
from bowsprit.apiserver.admit import AdmissionAttributes, Operation
from bowsprit.apiserver.user import UserInfo
from bowsprit.controlplane.admission.plugins import DEFAULT_ON, KNOWN, Surroundings, build_chain, check_names
from bowsprit.controlplane.admission.pod_security_checks import violations
from bowsprit.machinery.errors import ConflictError, ForbiddenError, StatusError
from bowsprit.machinery.names import GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj, deep_copy

_spec = importlib.util.spec_from_file_location(
    "security_conftest", Path(__file__).parents[1] / "apiserver_security" / "conftest.py"
)
assert _spec is not None
assert _spec.loader is not None
_module = importlib.util.module_from_spec(_spec)
_spec.loader.exec_module(_module)
FakeListers = _module.FakeListers


class Nobody:
    """An authorizer that allows nothing."""

    async def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        return Decision.NO_OPINION, ""


class World:
    """A namespace with a service account, and the chain over it."""

    def __init__(self) -> None:
        self.listers = FakeListers()
        self.listers.add("namespaces", {"metadata": {"name": "ns"}, "status": {"phase": "Active"}})
        self.listers.add("serviceaccounts", {"metadata": {"name": "default", "namespace": "ns"}})
        self.written: list[Obj] = []
        self.conflicts = 0

    async def write_quota(self, quota: Obj) -> None:
        await asyncio.sleep(0)
        if self.conflicts:
            self.conflicts -= 1
            raise ConflictError("changed meanwhile")
        self.written.append(quota)
        quotas = self.listers(_gr("resourcequotas")).objects
        quotas[:] = [quota if item["metadata"]["name"] == quota["metadata"]["name"] else item for item in quotas]

    async def make_namespace(self, name: str) -> None:
        self.listers.add("namespaces", {"metadata": {"name": name}})

    def chain(self, enabled: tuple[str, ...] = (), disabled: tuple[str, ...] = ()) -> AdmissionChain:
        surroundings = Surroundings(self.listers, Nobody(), lambda: "abcde", self.write_quota, self.make_namespace, {})
        return build_chain(surroundings, enabled, disabled)


def _gr(resource: str) -> Any:
    from bowsprit.machinery.names import GroupResource

    return GroupResource.parse(resource)


@pytest.fixture
def world() -> World:
    return World()


def attributes(
    obj: Obj | None,
    resource: str = "pods",
    operation: Operation = Operation.CREATE,
    old: Obj | None = None,
    group: str = "",
    **more: Any,
) -> AdmissionAttributes:
    source = obj or old or {}
    meta = source.get("metadata", {})
    kind = source.get("kind", "Pod")
    return AdmissionAttributes(
        operation,
        GroupVersionResource(group, "v1", resource),
        GroupVersionKind(group, "v1", kind),
        more.pop("subresource", ""),
        more.pop("namespace", "ns"),
        meta.get("name", ""),
        obj,
        old,
        {},
        more.pop("user", UserInfo("alice")),
        **more,
    )


def pod(**spec: Any) -> Obj:
    containers = [{"name": "c", "image": "nginx", "resources": {}}]
    return {"kind": "Pod", "metadata": {"name": "p", "namespace": "ns"}, "spec": {"containers": containers, **spec}}


async def admit(chain: AdmissionChain, request: AdmissionAttributes) -> Obj:
    await chain.mutate(request)
    await chain.validate(request)
    return request.object or {}


async def test_a_pod_gets_account_token_priority_and_tolerations(world):
    made = await admit(world.chain(), attributes(pod()))
    spec = made["spec"]
    assert spec["serviceAccountName"] == spec["serviceAccount"] == "default"
    assert [volume["name"] for volume in spec["volumes"]] == ["kube-api-access-abcde"]
    mount = {
        "name": "kube-api-access-abcde",
        "readOnly": True,
        "mountPath": "/var/run/secrets/kubernetes.io/serviceaccount",
    }
    assert spec["containers"][0]["volumeMounts"] == [mount]
    assert (spec["priority"], spec["preemptionPolicy"]) == (0, "PreemptLowerPriority")
    assert [item["key"] for item in spec["tolerations"]] == [
        "node.kubernetes.io/not-ready",
        "node.kubernetes.io/unreachable",
    ]
    again = deep_copy(made)
    assert await admit(world.chain(), attributes(again)) == made


async def test_a_token_is_mounted_only_where_it_is_wanted(world):
    made = await admit(world.chain(), attributes(pod(automountServiceAccountToken=False)))
    assert "volumes" not in made["spec"]


async def test_unknown_accounts_classes_and_namespaces_are_refused(world):
    for spec, text in (
        ({"serviceAccountName": "x"}, 'error looking up service account ns/x: serviceaccount "x" not found'),
        ({"priorityClassName": "x"}, "no PriorityClass with name x was found"),
        ({"priority": 7}, "the integer value of priority (7) must not be provided in pod spec"),
        ({"runtimeClassName": "x"}, 'pod rejected: RuntimeClass "x" not found'),
    ):
        with pytest.raises(ForbiddenError) as caught:
            await admit(world.chain(), attributes(pod(**spec)))
        assert caught.value.message.startswith(f'pods "p" is forbidden: {text}')
    with pytest.raises(StatusError) as caught_status:
        await admit(world.chain(), attributes(pod(), namespace="nowhere"))
    assert caught_status.value.code == 404


async def test_nothing_is_made_in_a_namespace_that_ends(world):
    world.listers(_gr("namespaces")).objects[0]["status"]["phase"] = "Terminating"
    with pytest.raises(ForbiddenError) as caught:
        await admit(world.chain(), attributes(pod()))
    assert caught.value.causes[0]["reason"] == "NamespaceTerminating"
    await admit(world.chain(), attributes(None, "configmaps", Operation.DELETE, old=pod()))


async def test_the_default_priority_class_and_only_one(world):
    classes = [{"metadata": {"name": "high"}, "value": 5, "globalDefault": True, "preemptionPolicy": "Never"}]
    world.listers.add("priorityclasses.scheduling.k8s.io", *classes)
    made = await admit(world.chain(), attributes(pod()))
    assert (made["spec"]["priorityClassName"], made["spec"]["priority"]) == ("high", 5)
    second = {"kind": "PriorityClass", "metadata": {"name": "b"}, "value": 1, "globalDefault": True}
    with pytest.raises(ForbiddenError, match="already marked as default"):
        await admit(world.chain(), attributes(second, "priorityclasses", group="scheduling.k8s.io", namespace=""))


async def test_limit_ranges_default_and_bound(world):
    limits = [{"type": "Container", "max": {"cpu": "2"}, "min": {"cpu": "100m"}, "default": {"cpu": "500m"}}]
    limits[0]["defaultRequest"] = {"memory": "64Mi"}  # type: ignore[assignment]
    world.listers.add("limitranges", {"metadata": {"name": "l", "namespace": "ns"}, "spec": {"limits": limits}})
    small = pod()
    small["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "200m"}}
    made = await admit(world.chain(), attributes(small))
    assert made["spec"]["containers"][0]["resources"] == {
        "requests": {"cpu": "200m", "memory": "64Mi"},
        "limits": {"cpu": "500m"},
    }
    assert made["metadata"]["annotations"]["kubernetes.io/limit-ranger"] == (
        "LimitRanger plugin set: memory request for container c; cpu limit for container c"
    )
    big = pod()
    big["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "3"}, "limits": {"cpu": "3"}}
    with pytest.raises(ForbiddenError, match="maximum cpu usage per Container is 2, but limit is 3"):
        await admit(world.chain(), attributes(big))


def quota(hard: dict[str, str], used: dict[str, str], **spec: Any) -> Obj:
    status = {"hard": hard, "used": used}
    return {"metadata": {"name": "q", "namespace": "ns"}, "spec": {"hard": hard, **spec}, "status": status}


async def test_the_last_place_is_taken_once(world):
    world.listers.add("resourcequotas", quota({"pods": "1"}, {"pods": "0"}))
    chain = world.chain()
    outcomes = await asyncio.gather(*(admit(chain, attributes(pod())) for _ in range(5)), return_exceptions=True)
    refused = [item for item in outcomes if isinstance(item, ForbiddenError)]
    assert len(refused) == 4
    assert "exceeded quota: q, requested: pods=1, used: pods=1, limited: pods=1" in str(refused[0])
    assert world.written[-1]["status"]["used"]["pods"] == "1"


async def test_a_quota_written_by_another_server_is_read_again(world):
    world.listers.add("resourcequotas", quota({"pods": "2"}, {"pods": "0"}))
    world.conflicts = 2
    await admit(world.chain(), attributes(pod()))
    assert len(world.written) == 1


async def test_dry_runs_are_checked_and_not_counted(world):
    world.listers.add("resourcequotas", quota({"pods": "1"}, {"pods": "0"}))
    await admit(world.chain(), attributes(pod(), dry_run=True))
    assert world.written == []


async def test_quotas_on_compute_want_every_container_to_say(world):
    world.listers.add("resourcequotas", quota({"requests.cpu": "1", "limits.memory": "1Gi"}, {"requests.cpu": "0"}))
    with pytest.raises(
        ForbiddenError, match=r"failed quota: q: must specify limits.memory for: c; requests.cpu for: c"
    ):
        await admit(world.chain(), attributes(pod()))


async def test_scopes_choose_pods(world):
    world.listers.add("resourcequotas", quota({"pods": "0"}, {"pods": "0"}, scopes=["NotBestEffort"]))
    await admit(world.chain(), attributes(pod()))
    demanding = pod()
    demanding["spec"]["containers"][0]["resources"] = {"requests": {"cpu": "1"}}
    with pytest.raises(ForbiddenError):
        await admit(world.chain(), attributes(demanding))


async def test_growing_and_shrinking_claims_count_the_difference(world):
    hard = {"requests.storage": "10Gi"}
    world.listers.add("resourcequotas", quota(hard, {"requests.storage": "5Gi"}))
    world.listers.add("storageclasses.storage.k8s.io", {"metadata": {"name": "s"}, "allowVolumeExpansion": True})

    def claim(size: str) -> Obj:
        spec = {"resources": {"requests": {"storage": size}}, "storageClassName": "s"}
        meta = {"name": "c", "namespace": "ns"}
        return {"kind": "PersistentVolumeClaim", "metadata": meta, "spec": spec, "status": {"phase": "Bound"}}

    resource = "persistentvolumeclaims"
    await admit(world.chain(), attributes(claim("8Gi"), resource, Operation.UPDATE, claim("5Gi")))
    assert world.written[-1]["status"]["used"]["requests.storage"] == "8Gi"
    with pytest.raises(ForbiddenError, match="exceeded quota"):
        await admit(world.chain(), attributes(claim("20Gi"), resource, Operation.UPDATE, claim("8Gi")))


async def test_a_resize_needs_a_class_that_allows_it(world):
    def claim(size: str, phase: str) -> Obj:
        spec = {"resources": {"requests": {"storage": size}}, "storageClassName": "fixed"}
        return {"kind": "PersistentVolumeClaim", "metadata": {"name": "c"}, "spec": spec, "status": {"phase": phase}}

    for phase, text in (("Pending", "Only bound"), ("Bound", "only dynamically provisioned pvc can be resized")):
        request = attributes(claim("2Gi", phase), "persistentvolumeclaims", Operation.UPDATE, claim("1Gi", phase))
        with pytest.raises(ForbiddenError, match=text):
            await admit(world.chain(), request)


RESTRICTED: Obj = {
    "securityContext": {"runAsNonRoot": True, "seccompProfile": {"type": "RuntimeDefault"}},
    "containers": [
        {
            "name": "c",
            "securityContext": {"allowPrivilegeEscalation": False, "capabilities": {"drop": ["ALL"]}},
        }
    ],
}


def test_the_message_that_everybody_knows():
    spec = {"containers": [{"name": "nginx"}], "hostNetwork": True}
    assert ", ".join(violations("restricted", {}, spec)) == (
        'host namespaces (hostNetwork=true), allowPrivilegeEscalation != false (container "nginx" must set '
        'securityContext.allowPrivilegeEscalation=false), unrestricted capabilities (container "nginx" must set '
        'securityContext.capabilities.drop=["ALL"]), runAsNonRoot != true (pod or container "nginx" must set '
        'securityContext.runAsNonRoot=true), seccompProfile (pod or container "nginx" must set '
        'securityContext.seccompProfile.type to "RuntimeDefault" or "Localhost")'
    )


@pytest.mark.parametrize(
    ("level", "change", "word"),
    [
        ("baseline", {"hostPID": True}, "host namespaces"),
        ("baseline", {"volumes": [{"name": "v", "hostPath": {"path": "/"}}]}, "hostPath volumes"),
        ("baseline", {"containers": [{"name": "c", "securityContext": {"privileged": True}}]}, "privileged"),
        ("baseline", {"containers": [{"name": "c", "ports": [{"hostPort": 80}]}]}, "hostPort"),
        (
            "baseline",
            {"containers": [{"name": "c", "securityContext": {"capabilities": {"add": ["NET_ADMIN"]}}}]},
            "non-default capabilities",
        ),
        ("baseline", {"securityContext": {"sysctls": [{"name": "kernel.msgmax"}]}}, "forbidden sysctls"),
        ("baseline", {"securityContext": {"seccompProfile": {"type": "Unconfined"}}}, "seccompProfile"),
        ("baseline", {"securityContext": {"seLinuxOptions": {"type": "spc_t"}}}, "seLinuxOptions"),
        ("restricted", {"volumes": [{"name": "v", "nfs": {}}]}, "restricted volume types"),
        ("restricted", {"securityContext": {**RESTRICTED["securityContext"], "runAsUser": 0}}, "runAsUser=0"),
    ],
)
def test_each_standard_is_checked(level, change, word):
    good = RESTRICTED if level == "restricted" else {"containers": [{"name": "c"}]}
    assert violations(level, {}, good) == []
    assert [text.partition(" (")[0] for text in violations(level, {}, {**good, **change})] == [word]


async def test_namespace_labels_enforce_and_warn(world):
    namespace = world.listers(_gr("namespaces")).objects[0]
    namespace["metadata"]["labels"] = {"pod-security.kubernetes.io/enforce": "baseline"}
    with pytest.raises(ForbiddenError, match='violates PodSecurity "baseline:latest": host namespaces'):
        await admit(world.chain(), attributes(pod(hostNetwork=True)))
    warnings: list[str] = []
    deployment = {
        "kind": "Deployment",
        "metadata": {"name": "d", "namespace": "ns"},
        "spec": {"template": {"spec": {"hostNetwork": True, "containers": [{"name": "c"}]}}},
    }
    await admit(world.chain(), attributes(deployment, "deployments", group="apps", warn=warnings.append))
    assert warnings == ['would violate PodSecurity "baseline:latest": host namespaces (hostNetwork=true)']


async def test_wrong_namespace_labels_are_invalid(world):
    labels = {"pod-security.kubernetes.io/enforce": "strict"}
    namespace = {"kind": "Namespace", "metadata": {"name": "x", "labels": labels}}
    with pytest.raises(StatusError) as caught:
        await admit(world.chain(), attributes(namespace, "namespaces", namespace="x"))
    assert caught.value.code == 422


async def test_a_node_changes_only_what_is_its_own(world):
    node = UserInfo("system:node:n1", "", ("system:nodes",))
    chain = world.chain(("NodeRestriction",))
    own = {"kind": "Node", "metadata": {"name": "n1", "labels": {"a": "b"}}}
    await admit(chain, attributes(own, "nodes", namespace="", user=node))
    for wrong in (
        attributes({"kind": "Node", "metadata": {"name": "n2"}}, "nodes", namespace="", user=node),
        attributes(
            {"kind": "Node", "metadata": {"name": "n1", "labels": {"node-restriction.kubernetes.io/x": "y"}}},
            "nodes",
            namespace="",
            user=node,
        ),
        attributes(pod(nodeName="n1"), user=node),
        attributes(None, operation=Operation.DELETE, old=pod(nodeName="n2"), user=node),
    ):
        with pytest.raises(ForbiddenError):
            await chain.validate(wrong)


def test_plugins_can_be_switched(world):
    assert "NodeRestriction" not in DEFAULT_ON
    names = world.chain(("NodeRestriction",), ("PodSecurity",)).names
    assert "NodeRestriction" in names
    assert "PodSecurity" not in names
    assert list(names) == [name for name in KNOWN if name in names]
    assert check_names(("Nope",), ("Priority",)) == ['enable-admission-plugins plugin "Nope" is unknown']
