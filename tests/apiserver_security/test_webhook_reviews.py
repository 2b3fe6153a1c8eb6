"""Admission webhooks: what they are asked, which answers are believed, which requests match."""

from __future__ import annotations

import base64
import json
import re
from typing import Any

import pytest

from bowsprit.apiserver.admission.chain import REINVOKE, AdmissionChain
from bowsprit.apiserver.admission.conditions import ConditionError, MatchConditions
from bowsprit.apiserver.admission.hookclient import CallError
from bowsprit.apiserver.admission.matching import Matcher
from bowsprit.apiserver.admission.policy import ValidatingAdmissionPolicy
from bowsprit.apiserver.admission.review import ReviewError, denial, read_verdict
from bowsprit.apiserver.admission.webhooks import MutatingAdmissionWebhook, ValidatingAdmissionWebhook
from bowsprit.apiserver.admit import AdmissionAttributes, Operation
from bowsprit.apiserver.resource import Resource, Version
from bowsprit.apiserver.user import UserInfo
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.names import GroupVersionKind, GroupVersionResource
from bowsprit.machinery.objects import Obj


def attributes(name: str = "x", labels: dict[str, str] | None = None, **more: Any) -> AdmissionAttributes:
    obj = {"kind": "ConfigMap", "apiVersion": "v1", "metadata": {"name": name, "namespace": "ns"}, "data": {"a": "1"}}
    if labels:
        obj["metadata"]["labels"] = labels  # type: ignore[index]
    return AdmissionAttributes(
        more.pop("operation", Operation.CREATE),
        GroupVersionResource("", "v1", "configmaps"),
        GroupVersionKind("", "v1", "ConfigMap"),
        "",
        "ns",
        name,
        obj,
        None,
        {},
        UserInfo("alice", "", ("devs",)),
        **more,
    )


RULE = {"operations": ["CREATE"], "apiGroups": [""], "apiVersions": ["v1"], "resources": ["configmaps"]}


@pytest.mark.parametrize(
    ("change", "matches"),
    [
        ({}, True),
        ({"operations": ["UPDATE"]}, False),
        ({"operations": ["*"]}, True),
        ({"resources": ["*"]}, True),
        ({"resources": ["*/*"]}, True),
        ({"resources": ["configmaps/status"]}, False),
        ({"resources": ["secrets"]}, False),
        ({"apiGroups": ["apps"]}, False),
        ({"scope": "Cluster"}, False),
        ({"scope": "Namespaced"}, True),
    ],
)
def test_rules_match_as_upstream_reads_them(listers, change, matches):
    listers.add("namespaces", {"metadata": {"name": "ns"}})
    found = Matcher(listers).match(attributes(), [{**RULE, **change}], namespaces=None, objects=None, equivalent=True)
    assert (found is not None) is matches


def test_selectors_look_at_namespace_and_object(listers):
    listers.add("namespaces", {"metadata": {"name": "ns", "labels": {"team": "x"}}})
    matcher = Matcher(listers)

    def match(namespaces: Obj | None, objects: Obj | None) -> bool:
        asked = attributes(labels={"a": "b"})
        return matcher.match(asked, [RULE], namespaces=namespaces, objects=objects, equivalent=True) is not None

    assert match({"matchLabels": {"team": "x"}}, {"matchLabels": {"a": "b"}})
    assert not match({"matchLabels": {"team": "y"}}, {})
    assert not match({}, {"matchLabels": {"a": "c"}})


def test_an_equivalent_version_matches_and_is_shown(listers):
    listers.add("namespaces", {"metadata": {"name": "ns"}})

    def version(name: str) -> Version:
        return Version(GroupVersionResource("g", name, "things"), GroupVersionKind("g", name, "Thing"))

    resource = Resource("Thing", "things", [version("v1"), version("v2")], group="g")
    asked = attributes(resource=resource)
    asked.gvr, asked.gvk = resource.versions[1].gvr, resource.versions[1].gvk
    rule = {**RULE, "apiGroups": ["g"], "resources": ["things"]}
    matcher = Matcher(listers)
    found = matcher.match(asked, [rule], namespaces=None, objects=None, equivalent=True)
    assert found is not None
    assert found.gvk.version == "v1"
    assert matcher.match(asked, [rule], namespaces=None, objects=None, equivalent=False) is None


def answer(**response: Any) -> bytes:
    return json.dumps({"apiVersion": "admission.k8s.io/v1", "kind": "AdmissionReview", "response": response}).encode()


@pytest.mark.parametrize(
    ("body", "text"),
    [
        (b"", "unexpected end of JSON input"),
        (b"[]", "no JSON object"),
        (b"{}", "expected webhook response of admission.k8s.io/v1, Kind=AdmissionReview, got /, Kind="),
        (answer(uid="other", allowed=True), 'expected response.uid="u", got "other"'),
        (answer(uid="u", allowed=True, patch="e30="), "response.patch but not response.patchType"),
        (answer(uid="u", allowed=True, patch="e30=", patchType="Merge"), 'invalid response.patchType of "Merge"'),
        (answer(uid="u", allowed=True, patch="!", patchType="JSONPatch"), "malformed patch"),
        (answer(uid="u", allowed=True, patch="e30=", patchType="JSONPatch"), "no list of operations"),
    ],
)
def test_answers_that_are_not_believed(body, text):
    with pytest.raises(ReviewError, match=text.replace("[", r"\[")):
        read_verdict(body, "u", "v1", mutating=True)


@pytest.mark.parametrize(
    ("status", "code", "text"),
    [
        (None, 400, 'admission webhook "h" denied the request without explanation'),
        ({"code": 200, "message": "no"}, 400, 'admission webhook "h" denied the request: no'),
        ({"code": 403, "reason": "Forbidden"}, 403, 'admission webhook "h" denied the request: Forbidden'),
    ],
)
def test_denials(status, code, text):
    refusal = denial("h", status)
    assert (refusal.code, refusal.message) == (code, text)


class FakeClient:
    """Answers reviews with a function."""

    def __init__(self, respond: Any) -> None:
        self.respond = respond
        self.asked: list[Obj] = []

    async def post(self, config: Obj, review: Obj, seconds: float) -> bytes:
        self.asked.append(review["request"])
        response = self.respond(config["url"], review["request"])
        if isinstance(response, Exception):
            raise response
        return answer(uid=review["request"]["uid"], **response)


def hook(name: str, **more: Any) -> Obj:
    return {
        "name": name,
        "clientConfig": {"url": name},
        "rules": [RULE],
        "admissionReviewVersions": ["v1"],
        "sideEffects": "None",
        **more,
    }


def configured(listers: Any, resource: str, *hooks: Obj) -> None:
    listers.add("namespaces", {"metadata": {"name": "ns"}})
    listers.add(f"{resource}.admissionregistration.k8s.io", {"metadata": {"name": "c"}, "webhooks": list(hooks)})


def patch(*operations: Obj) -> Obj:
    encoded = base64.b64encode(json.dumps(operations).encode()).decode()
    return {"allowed": True, "patchType": "JSONPatch", "patch": encoded}


async def test_webhooks_are_asked_again_after_a_change(listers):
    def respond(url: str, request: Obj) -> Obj:
        if url == "labels":
            return patch({"op": "add", "path": "/metadata/labels", "value": {"l": "1"}})
        return {"allowed": True}

    configured(
        listers,
        "mutatingwebhookconfigurations",
        hook("first", reinvocationPolicy="IfNeeded"),
        hook("never"),
        hook("labels"),
    )
    client = FakeClient(respond)
    asked = attributes()
    await AdmissionChain([MutatingAdmissionWebhook(listers, client, lambda: "u")]).mutate(asked)
    assert asked.object is not None
    assert asked.object["metadata"]["labels"] == {"l": "1"}
    assert REINVOKE not in asked.reinvocation
    seen = [request["object"]["metadata"].get("labels") for request in client.asked]
    assert seen == [None, None, None, {"l": "1"}]


@pytest.mark.parametrize(("policy", "refused"), [("Fail", True), ("Ignore", False)])
async def test_failures_follow_the_policy(listers, policy, refused):
    configured(listers, "validatingwebhookconfigurations", hook("h", failurePolicy=policy))
    plugin = ValidatingAdmissionWebhook(listers, FakeClient(lambda *_: CallError("no route")), lambda: "u")
    if not refused:
        await plugin.validate(attributes())
        return
    with pytest.raises(StatusError) as caught:
        await plugin.validate(attributes())
    assert caught.value.message == (
        'Internal error occurred: failed calling webhook "h": failed to call webhook: no route'
    )


async def test_dry_runs_ask_only_webhooks_without_side_effects(listers):
    configured(listers, "validatingwebhookconfigurations", hook("h", sideEffects="Some"))
    plugin = ValidatingAdmissionWebhook(listers, FakeClient(lambda *_: {"allowed": True}), lambda: "u")
    await plugin.validate(attributes())
    with pytest.raises(StatusError) as caught:
        await plugin.validate(attributes(dry_run=True))
    assert caught.value.message == 'admission webhook "h" does not support dry run'


async def test_match_conditions_choose(listers):
    condition = {"name": "c", "expression": "request.userInfo.username != 'alice'"}
    configured(listers, "validatingwebhookconfigurations", hook("h", matchConditions=[condition]))
    client = FakeClient(lambda *_: {"allowed": False})
    await ValidatingAdmissionWebhook(listers, client, lambda: "u").validate(attributes())
    assert client.asked == []


def test_a_false_condition_outweighs_a_failing_one():
    failing, false = {"expression": "object.nope == 1"}, {"expression": "false"}
    assert MatchConditions([failing, false]).hold({}, {}, None) is False
    with pytest.raises(ConditionError, match="no such key: nope"):
        MatchConditions([failing]).hold({}, {}, None)


def policy(
    listers: Any, spec: Obj, *, actions: tuple[str, ...] = ("Deny",), **binding: Any
) -> ValidatingAdmissionPolicy:
    listers.add("namespaces", {"metadata": {"name": "ns", "labels": {"env": "prod"}}})
    spec = {"matchConstraints": {"resourceRules": [RULE]}, "failurePolicy": "Fail", **spec}
    group = "admissionregistration.k8s.io"
    listers.add(f"validatingadmissionpolicies.{group}", {"metadata": {"name": "p"}, "spec": spec})
    bound = {"policyName": "p", "validationActions": list(actions), **binding}
    listers.add(f"validatingadmissionpolicybindings.{group}", {"metadata": {"name": "b"}, "spec": bound})
    from bowsprit.machinery.names import GroupResource

    return ValidatingAdmissionPolicy(listers, lambda gvk: (GroupResource("", "configmaps"), True))


async def test_variables_params_and_the_namespace_are_seen(listers):
    listers.add("configmaps", {"metadata": {"name": "limits", "namespace": "ns"}, "data": {"max": "0"}})
    spec = {
        "paramKind": {"apiVersion": "v1", "kind": "ConfigMap"},
        "variables": [{"name": "keys", "expression": "size(object.data)"}],
        "validations": [
            {
                "expression": "variables.keys <= int(params.data.max) || namespaceObject.metadata.labels.env != 'prod'",
                "messageExpression": "'too many keys: ' + string(variables.keys)",
            }
        ],
    }
    plugin = policy(listers, spec, paramRef={"name": "limits", "parameterNotFoundAction": "Deny"})
    with pytest.raises(StatusError) as caught:
        await plugin.validate(attributes())
    assert caught.value.code == 422
    assert caught.value.message.endswith("denied request: too many keys: 1")


async def test_missing_parameters_deny_when_asked_to(listers):
    spec = {"paramKind": {"apiVersion": "v1", "kind": "ConfigMap"}, "validations": [{"expression": "true"}]}
    plugin = policy(listers, spec, paramRef={"name": "nope", "parameterNotFoundAction": "Deny"})
    with pytest.raises(StatusError, match="no params found for policy binding"):
        await plugin.validate(attributes())


async def test_a_failing_expression_follows_the_policy(listers):
    spec = {"validations": [{"expression": "object.spec.x"}], "failurePolicy": "Ignore"}
    await policy(listers, spec).validate(attributes())


async def test_warn_and_audit_do_not_deny(listers):
    told: list[str] = []
    asked = attributes(warn=told.append)
    plugin = policy(listers, {"validations": [{"expression": "false", "message": "m"}]}, actions=("Warn", "Audit"))
    await plugin.validate(asked)
    assert told == ["Validation failed for ValidatingAdmissionPolicy 'p' with binding 'b': m"]
    assert "validation.policy.admission.k8s.io/validation_failure" in asked.annotations


@pytest.mark.parametrize(
    ("written", "read"),
    [
        ('Object{metadata: Object.metadata{labels: {"a": "b"}}}', '{"metadata": {"labels": {"a": "b"}}}'),
        (
            '[JSONPatch{op: "add", path: "/a{b", value: x ? y : z}]',
            '[{"op": "add", "path": "/a{b", "value": x ? y : z}]',
        ),
        ("Object{spec: has(object.a) ? Object.spec{n: 1} : Object.spec{}}", '{"spec": has(object.a) ? {"n": 1} : {}}'),
        ("{key: 'Object{a: 1}'}", "{key: 'Object{a: 1}'}"),
        ("Object{l: object.items.map(i, i)}", '{"l": object.items.map(i, i)}'),
    ],
)
def test_typed_literals_are_read_as_maps(written, read):
    from bowsprit.apiserver.admission.mutation_policy import as_maps

    assert re.sub(r"\s+", " ", as_maps(written)) == read


def mutating(listers: Any, *mutations: Obj, **spec: Any) -> Any:
    from bowsprit.apiserver.admission.mutation_policy import MutatingAdmissionPolicy

    group = "admissionregistration.k8s.io"
    listers.add("namespaces", {"metadata": {"name": "ns"}})
    spec = {"matchConstraints": {"resourceRules": [RULE]}, "mutations": list(mutations), **spec}
    listers.add(f"mutatingadmissionpolicies.{group}", {"metadata": {"name": "p"}, "spec": spec})
    listers.add(f"mutatingadmissionpolicybindings.{group}", {"metadata": {"name": "b"}, "spec": {"policyName": "p"}})
    return MutatingAdmissionPolicy(listers, lambda gvk: None)


def config_map_resource() -> Resource:
    from bowsprit.controlplane.schemas import BuiltinSchema

    gvk = GroupVersionKind("", "v1", "ConfigMap")
    return Resource(
        "ConfigMap", "configmaps", [Version(GroupVersionResource("", "v1", "configmaps"), gvk, BuiltinSchema(gvk))]
    )


async def test_policies_patch_and_apply(listers):
    patched = {
        "patchType": "JSONPatch",
        "jsonPatch": {"expression": '[JSONPatch{op: "add", path: "/data/p", value: object.data.a + "!"}]'},
    }
    applied = {
        "patchType": "ApplyConfiguration",
        "applyConfiguration": {"expression": 'Object{data: {"n": string(size(object.data))}}'},
    }
    asked = attributes(resource=config_map_resource())
    await AdmissionChain([mutating(listers, patched, applied)]).mutate(asked)
    assert asked.object is not None
    assert asked.object["data"] == {"a": "1", "p": "1!", "n": "2"}


@pytest.mark.parametrize(("policy_says", "refused"), [("Fail", True), ("Ignore", False)])
async def test_a_mutation_that_fails_follows_the_policy(listers, policy_says, refused):
    broken = {"patchType": "JSONPatch", "jsonPatch": {"expression": '[JSONPatch{op: "remove", path: "/nope"}]'}}
    plugin = mutating(listers, broken, failurePolicy=policy_says)
    asked = attributes(resource=config_map_resource())
    if refused:
        with pytest.raises(StatusError, match="policy 'p' with binding 'b' denied request"):
            await plugin.mutate(asked)
    else:
        await plugin.mutate(asked)
        assert asked.object is not None
        assert asked.object["data"] == {"a": "1"}
