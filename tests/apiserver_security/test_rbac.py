"""RBAC: what rules allow, who may grant what, who may act as whom."""

from __future__ import annotations

import pytest
from hypothesis import given
from hypothesis import strategies as st
from multidict import CIMultiDict

from bowsprit.apiserver.access import Attributes, Decision, forbidden_error
from bowsprit.apiserver.authorization.escalation import EscalationCheck
from bowsprit.apiserver.authorization.impersonation import HeaderImpersonator
from bowsprit.apiserver.authorization.modes import authorizer_for
from bowsprit.apiserver.authorization.rbac import RoleResolver
from bowsprit.apiserver.authorization.rules import PolicyRule, missing_rights
from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.errors import ForbiddenError, StatusError

GROUP = "rbac.authorization.k8s.io"
ALICE = UserInfo("alice", "", ("devs", "system:authenticated"))
ROOT = UserInfo("root", "", ("system:masters",))


def role(name: str, *rules: dict, namespace: str = "") -> dict:
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    return {"kind": "Role" if namespace else "ClusterRole", "metadata": meta, "rules": list(rules)}


def rule(verbs: str, groups: str, resources: str, *names: str) -> dict:
    made = {"verbs": verbs.split(), "apiGroups": groups.split(" "), "resources": resources.split()}
    return {**made, "resourceNames": list(names)} if names else made


def binding(name: str, to: str, role_name: str, namespace: str = "", role_kind: str = "ClusterRole") -> dict:
    kind, _, subject = to.partition(":")
    subjects = [{"kind": kind, "name": subject.rpartition("/")[2], "namespace": subject.rpartition("/")[0]}]
    meta = {"name": name, **({"namespace": namespace} if namespace else {})}
    kinds = {"kind": "RoleBinding" if namespace else "ClusterRoleBinding"}
    return {**kinds, "metadata": meta, "subjects": subjects, "roleRef": {"kind": role_kind, "name": role_name}}


@pytest.fixture
def resolver(listers) -> RoleResolver:
    return RoleResolver(listers)


@pytest.fixture
def authorizer(listers, resolver):
    return authorizer_for(("Node", "RBAC"), listers, resolver)


def asks(user: UserInfo, verb: str, resource: str, namespace: str = "", name: str = "", group: str = "") -> Attributes:
    resource, _, subresource = resource.partition("/")
    return Attributes(user, verb, group, "v1", resource, subresource, namespace, name)


async def allowed(authorizer, attributes: Attributes) -> bool:
    return (await authorizer.authorize(attributes))[0] is Decision.ALLOW


async def test_a_role_binding_holds_in_its_namespace_only(listers, authorizer):
    listers.add(f"roles.{GROUP}", role("reader", rule("get list", "", "pods"), namespace="a"))
    listers.add(f"rolebindings.{GROUP}", binding("b", "User:alice", "reader", "a", "Role"))
    decision, reason = await authorizer.authorize(asks(ALICE, "list", "pods", "a"))
    assert decision is Decision.ALLOW
    assert reason == 'RBAC: allowed by RoleBinding "b/a" of Role "reader" to User "alice"'
    assert not await allowed(authorizer, asks(ALICE, "list", "pods", "b"))
    assert not await allowed(authorizer, asks(ALICE, "list", "pods"))
    assert not await allowed(authorizer, asks(ALICE, "watch", "pods", "a"))
    assert not await allowed(authorizer, asks(ALICE, "get", "pods/log", "a"))


async def test_service_accounts_and_groups_are_subjects(listers, authorizer):
    listers.add(f"clusterroles.{GROUP}", role("r", rule("get", "", "nodes")))
    listers.add(f"clusterrolebindings.{GROUP}", binding("g", "Group:devs", "r"))
    listers.add(f"clusterrolebindings.{GROUP}", binding("s", "ServiceAccount:ns/robot", "r"))
    assert await allowed(authorizer, asks(ALICE, "get", "nodes"))
    assert await allowed(authorizer, asks(UserInfo("system:serviceaccount:ns:robot"), "get", "nodes"))
    assert not await allowed(authorizer, asks(UserInfo("system:serviceaccount:other:robot"), "get", "nodes"))
    assert not await allowed(authorizer, asks(UserInfo("devs"), "get", "nodes"))


async def test_a_missing_role_is_told(listers, authorizer):
    listers.add(f"rolebindings.{GROUP}", binding("b", "User:alice", "nope", "a"))
    decision, reason = await authorizer.authorize(asks(ALICE, "list", "pods", "a"))
    assert decision is not Decision.ALLOW
    assert reason == 'RBAC: clusterrole.rbac.authorization.k8s.io "nope" not found'


async def test_changes_take_effect_at_once(listers, authorizer):
    listers.add(f"clusterroles.{GROUP}", role("r", rule("get", "", "nodes")))
    listers.add(f"clusterrolebindings.{GROUP}", binding("b", "User:alice", "r"))
    assert await allowed(authorizer, asks(ALICE, "get", "nodes"))
    for lister in listers.values():
        if lister.objects and lister.objects[0].get("roleRef"):
            lister.objects.clear()
    assert not await allowed(authorizer, asks(ALICE, "get", "nodes"))


@pytest.mark.parametrize(
    ("pattern", "path", "matches"),
    [("/healthz", "/healthz", True), ("/healthz", "/healthz/x", False), ("/api/*", "/api/v1", True), ("*", "/x", True)],
)
async def test_paths(listers, authorizer, pattern, path, matches):
    listers.add(f"clusterroles.{GROUP}", role("r", {"verbs": ["get"], "nonResourceURLs": [pattern]}))
    listers.add(f"clusterrolebindings.{GROUP}", binding("b", "User:alice", "r"))
    asked = Attributes(ALICE, "get", path=path, resource_request=False)
    assert await allowed(authorizer, asked) is matches


async def test_masters_may_do_everything(authorizer):
    assert await allowed(authorizer, asks(ROOT, "delete", "nodes"))


@pytest.fixture
def escalation(resolver, authorizer) -> EscalationCheck:
    return EscalationCheck(resolver, authorizer)


async def test_nobody_grants_more_than_they_hold(listers, escalation):
    listers.add(f"clusterroles.{GROUP}", role("r", rule("get list", "", "pods")))
    listers.add(f"rolebindings.{GROUP}", binding("b", "User:alice", "r", "a"))
    await escalation.check_role(ALICE, role("x", rule("get", "", "pods"), namespace="a"), None)
    with pytest.raises(ForbiddenError) as caught:
        await escalation.check_role(ALICE, role("x", rule("get delete", "", "pods secrets"), namespace="a"), None)
    assert caught.value.message == (
        'roles.rbac.authorization.k8s.io "x" is forbidden: user "alice" (groups=["devs" "system:authenticated"]) '
        "is attempting to grant RBAC permissions not currently held:\n"
        '{APIGroups:[""], Resources:["pods"], Verbs:["delete"]}\n'
        '{APIGroups:[""], Resources:["secrets"], Verbs:["get" "delete"]}'
    )
    with pytest.raises(ForbiddenError):
        await escalation.check_role(ALICE, role("x", rule("get", "", "pods"), namespace="elsewhere"), None)
    await escalation.check_role(ROOT, role("x", rule("*", "*", "*")), None)


async def test_escalate_and_bind_lift_the_check(listers, escalation):
    power = role("p", rule("escalate", GROUP, "roles"), rule("bind", GROUP, "clusterroles", "admin"))
    listers.add(f"clusterroles.{GROUP}", power, role("admin", rule("*", "*", "*")))
    listers.add(f"rolebindings.{GROUP}", binding("b", "User:alice", "p", "a"))
    await escalation.check_role(ALICE, role("x", rule("*", "*", "*"), namespace="a"), None)
    await escalation.check_binding(ALICE, binding("y", "User:eve", "admin", "a"), None)
    with pytest.raises(ForbiddenError):
        await escalation.check_binding(ALICE, binding("y", "User:eve", "p", "b"), None)


async def test_an_unchanged_role_is_not_checked(escalation):
    same = role("x", rule("*", "*", "*"), namespace="a")
    await escalation.check_role(ALICE, same, same)


names = st.sampled_from(["a", "b", "*"])
policy_rules = st.builds(
    PolicyRule,
    st.lists(names, min_size=1, max_size=2).map(tuple),
    st.lists(names, min_size=1, max_size=2).map(tuple),
    st.lists(names, min_size=1, max_size=2).map(tuple),
    st.lists(st.sampled_from(["n", "m"]), max_size=2).map(tuple),
)


@given(st.lists(policy_rules, max_size=3), st.lists(policy_rules, max_size=3))
def test_what_is_covered_is_allowed(owned, wanted):
    """If no right is missing, every concrete request that the wanted rules allow is allowed by the owned ones."""
    if missing_rights(owned, wanted):
        return
    for verb in "ab":
        for group in "ab":
            for resource in "ab":
                for name in ("", "n", "m"):
                    asked = Attributes(ALICE, verb, group, "v1", resource, name=name)
                    if any(item.allows(asked) for item in wanted):
                        assert any(item.allows(asked) for item in owned)


def headers(**values: str | list[str]) -> CIMultiDict[str]:
    found: CIMultiDict[str] = CIMultiDict()
    for key, value in values.items():
        for item in value if isinstance(value, list) else [value]:
            found.add(key.replace("_", "-"), item)
    return found


REQUEST = Attributes(ALICE, "list", "", "v1", "pods", namespace="a")


async def test_impersonation_needs_every_right(listers, authorizer):
    impersonator = HeaderImpersonator(authorizer, forbidden_error)
    listers.add(f"clusterroles.{GROUP}", role("i", rule("impersonate", "", "users", "jane")))
    listers.add(f"clusterrolebindings.{GROUP}", binding("b", "User:alice", "i"))
    found = await impersonator.impersonate(ALICE, headers(Impersonate_User="jane"), REQUEST)
    assert found == UserInfo("jane", "", ("system:authenticated",))
    for refused in (
        headers(Impersonate_User="john"),
        headers(Impersonate_User="jane", Impersonate_Group="system:masters"),
        headers(Impersonate_User="jane", Impersonate_Uid="1"),
        headers(Impersonate_User="jane", Impersonate_Extra_Scopes="x"),
    ):
        with pytest.raises(ForbiddenError):
            await impersonator.impersonate(ALICE, refused, REQUEST)


async def test_impersonation_without_a_user_is_a_bad_request(authorizer):
    with pytest.raises(StatusError) as caught:
        await HeaderImpersonator(authorizer, forbidden_error).impersonate(
            ROOT, headers(Impersonate_Group="system:masters"), REQUEST
        )
    assert caught.value.code == 400


async def test_an_impersonated_service_account_has_its_groups(authorizer):
    found = await HeaderImpersonator(authorizer, forbidden_error).impersonate(
        ROOT, headers(Impersonate_User="system:serviceaccount:ns:robot"), REQUEST
    )
    assert found is not None
    assert found.groups == ("system:serviceaccounts", "system:serviceaccounts:ns", "system:authenticated")


async def test_a_node_reads_only_what_its_pods_refer_to(listers, authorizer):
    node = UserInfo("system:node:n1", "", ("system:nodes", "system:authenticated"))
    volume = {"name": "v", "secret": {"secretName": "mine"}}
    listers.add(
        "pods",
        {"metadata": {"name": "p", "namespace": "a", "uid": "1"}, "spec": {"nodeName": "n1", "volumes": [volume]}},
    )
    listers.add(
        "pods",
        {
            "metadata": {"name": "q", "namespace": "a", "uid": "2"},
            "spec": {"nodeName": "n2", "volumes": [{"name": "v", "secret": {"secretName": "theirs"}}]},
        },
    )
    assert await allowed(authorizer, asks(node, "get", "secrets", "a", "mine"))
    assert not await allowed(authorizer, asks(node, "get", "secrets", "a", "theirs"))
    assert not await allowed(authorizer, asks(node, "get", "secrets", "b", "mine"))
    assert not await allowed(authorizer, asks(node, "delete", "secrets", "a", "mine"))
    assert not await allowed(authorizer, asks(node, "list", "secrets", "a"))


@pytest.mark.parametrize("modes", [(), ("Magic",), ("RBAC", "RBAC")])
def test_wrong_modes_are_refused(listers, resolver, modes):
    with pytest.raises(ValueError, match="mode"):
        authorizer_for(modes, listers, resolver)


async def test_what_is_remembered_goes_with_the_version(listers, authorizer):
    resources = [f"{kind}.{GROUP}" for kind in ("roles", "rolebindings", "clusterroles", "clusterrolebindings")]
    for resource in resources:
        listers.add(resource)
    for lister in listers.values():
        lister.version = 1
    asked = asks(ALICE, "get", "nodes")
    assert not await allowed(authorizer, asked)
    listers.add(f"clusterroles.{GROUP}", role("r", rule("get", "", "nodes")))
    listers.add(f"clusterrolebindings.{GROUP}", binding("b", "User:alice", "r"))
    for lister in listers.values():
        lister.version = 2
    assert await allowed(authorizer, asked)
    assert not await allowed(authorizer, asks(UserInfo("bob"), "get", "nodes"))
    next(item for item in listers.values() if item.objects and "rules" in item.objects[0]).objects.clear()
    for lister in listers.values():
        lister.version = 3
    assert not await allowed(authorizer, asked)
