"""Who owns which field, and what patches lead to, on the whole API server: as Kubernetes v1.36 has answered the same requests."""

from __future__ import annotations

import asyncio
import base64
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

from bowsprit.controlplane.options import APIServerOptions
from bowsprit.controlplane.server import APIServer

Obj = dict[str, Any]
CORE, APPS = "/api/v1/namespaces/default", "/apis/apps/v1/namespaces/default"
REQUESTS = "/apis/certificates.k8s.io/v1/certificatesigningrequests"
MERGE, JSON = "application/merge-patch+json", "application/json-patch+json"
STRATEGIC, APPLY = "application/strategic-merge-patch+json", "application/apply-patch+yaml"
TEMPLATE = {"metadata": {"labels": {"a": "b"}}, "spec": {"containers": [{"name": "c", "image": "i"}]}}
WORKLOAD = {"selector": {"matchLabels": {"a": "b"}}, "template": TEMPLATE}
_ANYTHING = {"type": "object", "x-kubernetes-preserve-unknown-fields": True}


class Client:
    """Requests of an administrator."""

    def __init__(self, url: str, session: aiohttp.ClientSession) -> None:
        self._url, self._session = url, session

    async def __call__(self, method: str, path: str, body: Any = None, media_type: str = "application/json") -> Any:
        headers = {"Authorization": "Bearer admin-token", "Content-Type": media_type, "User-Agent": "test"}
        data = None if body is None else json.dumps(body)
        async with self._session.request(method, self._url + path, data=data, headers=headers) as answer:
            return answer.status, await answer.json(), answer.headers.getall("Warning", [])

    async def post(self, path: str, body: Obj) -> Obj:
        status, made, _ = await self("POST", path, body)
        assert status == 201, made
        return dict(made)

    async def patch(self, path: str, body: Any, media_type: str, manager: str = "m") -> Any:
        sign = "&" if "?" in path else "?"
        return await self("PATCH", f"{path}{sign}fieldManager={manager}", body, media_type)

    async def apply(self, path: str, body: Obj, manager: str = "m") -> Obj:
        status, made, _ = await self.patch(f"{path}?force=true", body, APPLY, manager)
        assert status in (200, 201), made
        return dict(made)


@pytest.fixture
async def client(tmp_path: Path) -> AsyncIterator[Client]:
    (tmp_path / "tokens.csv").write_text('admin-token,admin,1,"system:masters"\n')
    server = APIServer(
        APIServerOptions(
            secure_port=0, store="memory", cert_dir=tmp_path / "state", token_auth_file=tmp_path / "tokens.csv"
        )
    )
    await server.start()
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as session:
        made = Client(server.url, session)
        await made.post(f"{CORE}/serviceaccounts", {"metadata": {"name": "default"}})
        yield made
    await server.stop()


def owned(obj: Obj, manager: str = "test", subresource: str = "") -> Any:
    for entry in obj["metadata"].get("managedFields", []):
        if entry["manager"] == manager and entry.get("subresource", "") == subresource:
            return entry["fieldsV1"]
    return None


def named(kind: str, name: str, **content: Any) -> Obj:
    version = "v1" if kind in ("ConfigMap", "Pod", "Namespace") else "apps/v1"
    return {"apiVersion": version, "kind": kind, "metadata": {"name": name}, **content}


# -- ownership -------------------------------------------------------------------------------------------------------------


async def test_what_conversion_writes_belongs_to_whoever_creates(client: Client) -> None:
    secret = await client.post(f"{CORE}/secrets", {"metadata": {"name": "s"}, "stringData": {"b": "x"}})
    assert owned(secret) == {"f:data": {".": {}, "f:b": {}}, "f:type": {}}
    daemons = await client.post(f"{APPS}/daemonsets", {"metadata": {"name": "d"}, "spec": WORKLOAD})
    generation = "deprecated.daemonset.template.generation"
    assert owned(daemons)["f:metadata"] == {"f:annotations": {".": {}, f"f:{generation}": {}}}
    assert daemons["metadata"]["annotations"] == {generation: "1"}


async def test_raw_data_has_one_owner(client: Client) -> None:
    revision = {"metadata": {"name": "r"}, "data": {"a": {"b": 1}}, "revision": 1}
    assert owned(await client.post(f"{APPS}/controllerrevisions", revision)) == {"f:data": {}, "f:revision": {}}


@pytest.mark.parametrize(
    ("path", "body", "tracked"),
    [
        (f"{CORE}/pods", {"spec": TEMPLATE["spec"]}, {"labels", "annotations", "finalizers"}),
        (f"{CORE}/services", {"spec": {"ports": [{"port": 80}]}}, {"labels", "annotations", "finalizers", "ownerReferences"}),
        (f"{APPS}/deployments", {"spec": WORKLOAD}, {"annotations", "finalizers", "ownerReferences"}),
        ("/apis/networking.k8s.io/v1/servicecidrs", {"spec": {"cidrs": ["10.9.0.0/24"]}}, set()),
        (
            "/apis/storage.k8s.io/v1/volumeattachments",
            {"spec": {"attacher": "a.b", "nodeName": "n", "source": {"persistentVolumeName": "v"}}},
            set(),
        ),
    ],
)  # fmt: skip
async def test_the_status_endpoint_owns_the_metadata_that_it_changes(
    client: Client, path: str, body: Obj, tracked: set[str]
) -> None:
    await client.post(path, {"metadata": {"name": "x"}, **body})
    owner = {"apiVersion": "v1", "kind": "X", "name": "x", "uid": "u"}
    metadata = {"labels": {"l": "1"}, "annotations": {"n": "1"}, "finalizers": ["a.b/c"], "ownerReferences": [owner]}
    status, changed, _ = await client.patch(f"{path}/x/status", {"metadata": metadata}, MERGE)
    assert status == 200
    fields = owned(changed, "m", "status") or {}
    assert set(fields.get("f:metadata", {})) == {f"f:{name}" for name in tracked}
    kept = {name for name in metadata if "1" in str(changed["metadata"].get(name)) or name in changed["metadata"]}
    assert tracked <= kept


async def test_other_endpoints_own_what_they_are_sent(client: Client) -> None:
    await client.post(f"{CORE}/pods", {"metadata": {"name": "p"}, "spec": TEMPLATE["spec"]})
    more = {"spec": {"ephemeralContainers": [{"name": "e", "image": "x"}]}}
    status, pod, _ = await client.patch(f"{CORE}/pods/p/ephemeralcontainers", more, STRATEGIC)
    assert status == 200
    containers = owned(pod, "m", "ephemeralcontainers")["f:spec"]["f:ephemeralContainers"]
    assert set(containers) == {".", 'k:{"name":"e"}'}
    await client.post("/api/v1/namespaces", {"metadata": {"name": "n", "labels": {"a": "b"}}})
    finalized = named("Namespace", "n", spec={"finalizers": ["kubernetes", "x.y/z"]})
    status, namespace, _ = await client("PUT", "/api/v1/namespaces/n/finalize?fieldManager=m", finalized)
    assert (status, owned(namespace, "m", "finalize")["f:spec"]) == (200, {"f:finalizers": {}})


async def test_nobody_owns_the_spec_of_a_signing_request(client: Client) -> None:
    name = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, "someone")])
    signed = x509.CertificateSigningRequestBuilder().subject_name(name).sign(
        ec.generate_private_key(ec.SECP256R1()), hashes.SHA256()
    )  # fmt: skip
    text = base64.b64encode(signed.public_bytes(serialization.Encoding.PEM)).decode()
    spec = {"signerName": "example.com/x", "usages": ["client auth"], "request": text}
    made = await client.post(REQUESTS, {"metadata": {"name": "r"}, "spec": spec})
    assert "managedFields" not in made["metadata"]
    labelled = await client.post(REQUESTS, {"metadata": {"name": "l", "labels": {"x": "y"}}, "spec": spec})
    assert owned(labelled) == {"f:metadata": {"f:labels": {".": {}, "f:x": {}}}}
    condition = {"type": "Approved", "status": "True", "reason": "r", "message": "m"}
    _, approved, _ = await client.patch(f"{REQUESTS}/l/approval", {"status": {"conditions": [condition]}}, MERGE)
    assert set(owned(approved, "m", "approval")["f:status"]["f:conditions"]) == {".", 'k:{"type":"Approved"}'}


async def custom_kind(client: Client, spec: Obj) -> str:
    """The path of a new namespaced kind with a status."""
    schema = {"type": "object", "properties": {"spec": spec, "status": _ANYTHING, "other": _ANYTHING}}
    version = {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}}
    names = {"plural": "qs", "singular": "q", "kind": "Q"}
    await client.post(
        "/apis/apiextensions.k8s.io/v1/customresourcedefinitions",
        {
            "metadata": {"name": "qs.own.example.com"},
            "spec": {
                "group": "own.example.com",
                "scope": "Namespaced",
                "names": names,
                "versions": [{**version, "subresources": {"status": {}}}],
            },
        },
    )
    return "/apis/own.example.com/v1/namespaces/default/qs"


def custom(spec: Any, **more: Any) -> Obj:
    return {"apiVersion": "own.example.com/v1", "kind": "Q", "metadata": {"name": "x"}, "spec": spec, **more}


async def test_the_status_of_custom_resources_owns_no_metadata(client: Client) -> None:
    path = await custom_kind(client, _ANYTHING)
    await client.post(path, custom({"a": 1}))
    body = {"metadata": {"labels": {"l": "1"}, "finalizers": ["a.b/c"]}, "status": {"c": 1}, "other": {"d": 1}}
    _, changed, _ = await client.patch(f"{path}/x/status", body, MERGE)
    assert owned(changed, "m", "status") == {
        "f:other": {".": {}, "f:d": {}},
        "f:status": {".": {}, "f:c": {}},
    }


@pytest.mark.parametrize(
    ("path", "owners"),
    [
        ("/api/v1/namespaces/default", [("kube-apiserver", "Update", "")]),
        ("/apis/rbac.authorization.k8s.io/v1/clusterroles/admin", [("kube-apiserver", "Update", "")]),
        ("/apis/apiregistration.k8s.io/v1/apiservices/v1.apps", [("kube-apiserver", "Update", "")]),
        (
            "/apis/networking.k8s.io/v1/servicecidrs/kubernetes",
            [("kubernetes-service-cidr-controller", "Apply", "status"), ("kube-apiserver", "Update", "")],
        ),
        (
            "/apis/flowcontrol.apiserver.k8s.io/v1/flowschemas/exempt",
            [
                ("api-priority-and-fairness-config-consumer-v1", "Apply", "status"),
                ("api-priority-and-fairness-config-producer-v1", "Update", ""),
            ],
        ),
    ],
)
async def test_the_server_owns_what_it_makes(client: Client, path: str, owners: list[tuple[str, str, str]]) -> None:
    async with asyncio.timeout(20):
        while True:
            _, obj, _ = await client("GET", path)
            entries = (obj.get("metadata") or {}).get("managedFields") or []
            if owners == [(each["manager"], each["operation"], each.get("subresource", "")) for each in entries]:
                return
            await asyncio.sleep(0.05)


async def test_the_status_of_a_definition_belongs_to_the_server(client: Client) -> None:
    await custom_kind(client, _ANYTHING)
    async with asyncio.timeout(20):
        while True:
            _, crd, _ = await client(
                "GET", "/apis/apiextensions.k8s.io/v1/customresourcedefinitions/qs.own.example.com"
            )
            fields = (owned(crd, "kube-apiserver", "status") or {}).get("f:status", {})
            if {'k:{"type":"Established"}', 'k:{"type":"NamesAccepted"}'} <= set(fields.get("f:conditions", {})):
                break
            await asyncio.sleep(0.05)
    assert set(fields["f:acceptedNames"]) == {"f:kind", "f:listKind", "f:plural", "f:singular"}


async def test_what_another_version_owns_is_not_pruned(client: Client) -> None:
    scaler = {"kind": "HorizontalPodAutoscaler", "metadata": {"name": "h"}}
    target = {"apiVersion": "apps/v1", "kind": "Deployment", "name": "d"}
    both = {"scaleTargetRef": target, "maxReplicas": 9}
    metric = {
        "type": "Resource",
        "resource": {"name": "cpu", "target": {"type": "Utilization", "averageUtilization": 80}},
    }
    one, two = (
        f"/apis/autoscaling/{version}/namespaces/default/horizontalpodautoscalers/h" for version in ("v1", "v2")
    )
    older, newer = ({**scaler, "apiVersion": f"autoscaling/{version}"} for version in ("v1", "v2"))
    await client.apply(one, {**older, "spec": {**both, "targetCPUUtilizationPercentage": 80}}, "m")
    await client.apply(two, {**newer, "spec": {"metrics": [metric]}}, "o")
    left = await client.apply(one, {**older, "spec": both}, "m")
    assert left["spec"]["targetCPUUtilizationPercentage"] == 80
    await client.apply(two, {**newer, "spec": {}}, "o")
    gone = await client.apply(one, {**older, "spec": {**both, "maxReplicas": 8}}, "m")
    assert gone["spec"]["maxReplicas"] == 8


# -- apply -----------------------------------------------------------------------------------------------------------------


async def test_what_is_applied_empty_stays_empty(client: Client) -> None:
    maps = {"type": "object", "additionalProperties": {"type": "integer"}}
    items = {"type": "object", "required": ["name"], "properties": {"name": {"type": "string"}, "o": maps}}
    listed = {"type": "array", "items": items, "x-kubernetes-list-type": "map", "x-kubernetes-list-map-keys": ["name"]}
    strings = {"type": "array", "items": {"type": "string"}, "x-kubernetes-list-type": "set"}
    properties = {"m": maps, "l": listed, "s": strings, "u": _ANYTHING}
    path = await custom_kind(client, {"type": "object", "properties": properties}) + "/x"
    full = {"m": {"a": 1}, "l": [{"name": "a", "o": {"p": 1}}], "s": ["x"], "u": {"x": {"y": 1}}}
    stories: list[tuple[Obj, Any]] = [
        ({}, {}),
        ({"m": {}, "l": [], "s": [], "u": {}}, {"m": {}, "u": {}}),
        ({"m": None}, {"m": {}}),
        ({"l": None, "s": None}, None),
        ({"l": [{"name": "a", "o": {}}]}, {"l": [{"name": "a", "o": {}}]}),
        ({"u": {"x": None}}, {"u": {"x": {}}}),
        ({"m": {"b": 2}}, {"m": {"b": 2}}),
    ]
    for applied, left in stories:
        await client.apply(path, custom(full))
        assert (await client.apply(path, custom(applied))).get("spec") == left, applied
        await client("DELETE", path)


async def test_nulls_that_are_applied_are_judged(client: Client) -> None:
    numbers = {"type": "array", "items": {"type": "integer"}}
    with_default = {"type": "integer", "default": 5}
    path = await custom_kind(client, {"type": "object", "properties": {"t": numbers, "d": with_default}})
    status, refused, _ = await client.patch(f"{path}/x", custom({"t": None}), APPLY)
    assert status == 422
    assert refused["details"]["causes"][0]["message"].endswith('spec.t in body must be of type array: "null"')
    assert (await client.apply(f"{path}/x", custom({"d": None})))["spec"] == {"d": 5}
    assert (await client.post(path, {**custom({"t": None}), "metadata": {"name": "y"}}))["spec"] == {"d": 5}


async def test_what_go_cannot_read_is_told_as_upstream_tells_it(client: Client) -> None:
    def deployment(**container: Any) -> Obj:
        spec = {"containers": [{**TEMPLATE["spec"]["containers"][0], **container}]}
        return named("Deployment", "d", spec={**WORKLOAD, "template": {**TEMPLATE, "spec": spec}})

    prefix = (
        "failed to convert new object (/d; apps/v1, Kind=Deployment) to proper version: unable to convert unstructured object to "
        "apps/v1, Kind=Deployment: "
    )
    for container, text in [
        ({"resources": {"limits": {"cpu": "zz"}}}, "quantities must match the regular expression"),
        ({"livenessProbe": {"httpGet": {"port": {}}}}, "json: cannot unmarshal object into Go value of type int32"),
    ]:
        status, refused, _ = await client.patch(f"{APPS}/deployments/d", deployment(**container), APPLY)
        assert status == 500
        assert refused["message"].startswith(prefix + text)


async def test_pointers_applied_empty_stay(client: Client) -> None:
    def deployment(**pod: Any) -> Obj:
        template = {**TEMPLATE, "spec": {**TEMPLATE["spec"], **pod}}
        return named("Deployment", "d", spec={**WORKLOAD, "template": template})

    await client.apply(f"{APPS}/deployments/d", deployment(dnsConfig={"nameservers": ["1.2.3.4"]}))
    emptied = await client.apply(f"{APPS}/deployments/d", deployment(dnsConfig={}))
    assert emptied["spec"]["template"]["spec"]["dnsConfig"] == {}
    gone = await client.apply(f"{APPS}/deployments/d", deployment())
    assert "dnsConfig" not in gone["spec"]["template"]["spec"]


async def test_conflicts_name_what_is_here_before_what_is_below(client: Client) -> None:
    scope = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "Exists"}]}
    quota = {"metadata": {"name": "q"}, "spec": {"hard": {"pods": "1"}, "scopeSelector": scope}}
    await client.post(f"{CORE}/resourcequotas", quota)
    other = {"matchExpressions": [{"scopeName": "PriorityClass", "operator": "DoesNotExist"}]}
    body = {
        "apiVersion": "v1",
        "kind": "ResourceQuota",
        **quota,
        "spec": {"hard": {"pods": "2"}, "scopeSelector": other},
    }
    status, refused, _ = await client.patch(f"{CORE}/resourcequotas/q", body, APPLY)
    assert status == 409
    assert [cause["field"] for cause in refused["details"]["causes"]] == [".spec.scopeSelector", ".spec.hard.pods"]


# -- patches ---------------------------------------------------------------------------------------------------------------


async def test_a_refused_patch_shows_the_object_as_go_writes_it(client: Client) -> None:
    await client.post(f"{APPS}/deployments", {"metadata": {"name": "d"}, "spec": WORKLOAD})
    status, refused, _ = await client.patch(f"{APPS}/deployments/d", {"spec": {"replicas": "<x>"}}, MERGE)
    assert status == 422
    shown = refused["details"]["causes"][0]["message"]
    # The levels that the patch opened are sorted, the others are in the order of the structs.
    assert r'"{\"apiVersion\":\"apps/v1\",\"kind\":\"Deployment\",\"metadata\":{\"name\":\"d\",\"namespace\":' in shown
    assert r"\"spec\":{\"progressDeadlineSeconds\":600,\"replicas\":\"\\u003cx\\u003e\"," in shown
    assert (
        r"\"template\":{\"metadata\":{\"labels\":{\"a\":\"b\"}},\"spec\":{\"containers\":[{\"name\":\"c\",\"image\":"
        in shown
    )
    assert r"\"strategy\":{\"type\":\"RollingUpdate\",\"rollingUpdate\":{\"maxUnavailable\":" in shown


@pytest.mark.parametrize("body", [[{"op": "remove", "path": "/apiVersion"}], {"apiVersion": None}])
async def test_a_patch_that_takes_the_version_leaves_nothing(client: Client, body: Any) -> None:
    await client.post(f"{CORE}/configmaps", {"metadata": {"name": "c"}, "data": {"a": "b"}})
    media_type = JSON if isinstance(body, list) else MERGE
    status, refused, warnings = await client.patch(f"{CORE}/configmaps/c", body, media_type)
    assert (status, refused["message"]) == (
        400,
        "the name of the object (c based on URL) was undeterminable: name must be provided",
    )
    assert [text.partition('"')[2] for text in warnings] == [r'unknown field \"data\""', r'unknown field \"metadata\""']
    status, refused, _ = await client.patch(f"{CORE}/configmaps/c?fieldValidation=Strict", body, media_type)
    assert status == 422
    assert refused["message"].endswith('strict decoding error: unknown field "data", unknown field "metadata"')


async def test_a_patch_makes_no_other_kind(client: Client) -> None:
    path = f"{await custom_kind(client, _ANYTHING)}/x"
    await client.apply(path, custom({}))
    for body, text in [
        ({"kind": "Other"}, "must be Q"),
        ({"apiVersion": "v9"}, "must be own.example.com/v1"),
        ({"apiVersion": "a/b/c"}, "unexpected GroupVersion string: a/b/c"),
        ({"kind": 5}, "json: cannot unmarshal number into Go struct field .kind of type string"),
        ({"kind": None}, "Object 'Kind' is missing in"),
        ({"apiVersion": None}, "Object 'apiVersion' is missing in"),
    ]:
        status, refused, _ = await client.patch(path, body, MERGE)
        assert status == 422, body
        assert text in refused["message"]
    await client.post(f"{APPS}/deployments", {"metadata": {"name": "d"}, "spec": WORKLOAD})
    status, refused, _ = await client.patch(f"{APPS}/deployments/d/scale", {"kind": "ConfigMap"}, MERGE)
    assert status == 422
    assert 'no kind "ConfigMap" is registered for version "autoscaling/v1"' in refused["message"]


async def test_the_namespace_is_judged_before_the_name(client: Client) -> None:
    await client.post(f"{CORE}/configmaps", {"metadata": {"name": "c"}})
    elsewhere = named("ConfigMap", "other")
    elsewhere["metadata"]["namespace"] = "elsewhere"
    for method, media_type in (("PUT", "application/json"), ("PATCH", MERGE), ("PATCH", APPLY)):
        path = f"{CORE}/configmaps/c?fieldManager=m"
        status, refused, _ = await client(method, path, elsewhere, media_type)
        assert status == 400
        assert refused["message"].startswith("the namespace of the provided object does not match")
