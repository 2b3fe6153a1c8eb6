"""OpenAPI documents: what kubectl and the generators of clients ask of them."""

from __future__ import annotations

import gzip
import hashlib
import json
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import aiohttp
import pytest

from bowsprit.controlplane import kinds, schemas
from bowsprit.controlplane.openapi import publish_kind
from bowsprit.controlplane.options import APIServerOptions
from bowsprit.controlplane.server import APIServer
from bowsprit.machinery import openapi_custom
from bowsprit.machinery.names import GroupVersion, GroupVersionKind
from bowsprit.machinery.openapi_v2 import merged
from bowsprit.machinery.openapi_v3 import REF, ServedKind, document

RECORDED = Path(__file__).resolve().parents[1] / "golden" / "apiserver"
GOLDEN = RECORDED / "cases" / "openapi.jsonl.gz"


def recorded(name: str) -> Any:
    with gzip.open(GOLDEN, "rt") as lines:
        return next(case["response"]["body"] for case in map(json.loads, lines) if case["id"] == name)


def built_in(group: str, version: str) -> dict[str, Any]:
    served = [
        publish_kind(resource, each)
        for resource in kinds.built_in_resources(lambda: None, {})
        for each in resource.versions
        if (each.gvk.group, each.gvk.version) == (group, version)
    ]
    return document(GroupVersion(group, version), served, schemas.definitions().get)


async def test_every_document_is_the_recorded_one(tmp_path: Path) -> None:
    """Recorded are the hashes of all documents of a Kubernetes v1.36 server with its default settings."""
    tokens = tmp_path / "tokens.csv"
    tokens.write_text("secret,admin,admin,system:masters\n")
    options = APIServerOptions(secure_port=0, store="memory", cert_dir=tmp_path, token_auth_file=tokens)
    server = APIServer(options)
    await server.start()
    try:
        headers = {"Authorization": "Bearer secret", "Accept": "application/json"}
        connector = aiohttp.TCPConnector(ssl=False)
        async with aiohttp.ClientSession(server.url, headers=headers, connector=connector) as session:
            for path, recorded_hash in json.loads((RECORDED / "openapi-hashes.json").read_text()).items():
                async with session.get(path) as answer:
                    body = await answer.json()
                text = json.dumps(body, sort_keys=True, separators=(",", ":"))
                assert hashlib.sha256(text.encode()).hexdigest() == recorded_hash, path
    finally:
        await server.stop()


def references(value: Any) -> Iterator[str]:
    if isinstance(value, dict):
        if isinstance(value.get("$ref"), str):
            yield value["$ref"]
        for item in value.values():
            yield from references(item)
    elif isinstance(value, list):
        for item in value:
            yield from references(item)


@pytest.mark.parametrize("group", ["coordination.k8s.io", "scheduling.k8s.io"])
def test_a_document_of_built_in_kinds_is_the_recorded_one(group: str) -> None:
    assert built_in(group, "v1") == recorded(f"openapi/v3-apis-{group}-v1")


@pytest.mark.parametrize(("group", "version"), [("", "v1"), ("apps", "v1"), ("autoscaling", "v2"), ("batch", "v1")])
def test_every_reference_leads_somewhere_and_operation_ids_are_unique(group: str, version: str) -> None:
    made = built_in(group, version)
    known = {REF + name for name in made["components"]["schemas"]}
    assert set(references(made)) <= known
    ids = [
        operation["operationId"]
        for item in made["paths"].values()
        for method, operation in item.items()
        if method != "parameters"
    ]
    assert len(ids) == len(set(ids))


def test_kubectl_finds_that_the_server_validates_fields_and_takes_strategic_merges() -> None:
    path = built_in("apps", "v1")["paths"]["/apis/apps/v1/namespaces/{namespace}/deployments/{name}"]
    patch = path["patch"]
    assert patch["x-kubernetes-group-version-kind"] == {"group": "apps", "version": "v1", "kind": "Deployment"}
    assert "fieldValidation" in {parameter["name"] for parameter in patch["parameters"]}
    assert "application/strategic-merge-patch+json" in patch["requestBody"]["content"]


def test_a_custom_kind_publishes_its_schema_and_takes_no_strategic_merges() -> None:
    gvk = GroupVersionKind("ships.example.com", "v1", "Sail")
    source = {
        "type": "object",
        "properties": {
            "area": {"x-kubernetes-int-or-string": True},
            "spare": {"type": "object", "x-kubernetes-embedded-resource": True},
        },
    }
    own = openapi_custom.definitions(gvk, "SailList", "sails", source, [{"jsonPath": ".area"}])
    assert set(own) == {"com.example.ships.v1.Sail", "com.example.ships.v1.SailList"}
    sail = own["com.example.ships.v1.Sail"]
    assert sail["properties"]["area"]["anyOf"] == [{"type": "integer"}, {"type": "string"}]
    assert sail["properties"]["spare"]["required"] == ["kind", "apiVersion"]
    assert sail["x-kubernetes-selectable-fields"] == [{"fieldPath": "area"}]
    assert "metadata" not in source["properties"], "the definition's own schema is left alone"
    served = ServedKind(
        gvk,
        "sails",
        False,
        ("get", "list", "patch"),
        "com.example.ships.v1.Sail",
        "com.example.ships.v1.SailList",
        custom=True,
    )
    made = document(
        GroupVersion("ships.example.com", "v1"), [served], lambda name: own.get(name) or schemas.definitions().get(name)
    )
    patch = made["paths"]["/apis/ships.example.com/v1/sails/{name}"]["patch"]
    assert "application/strategic-merge-patch+json" not in patch["requestBody"]["content"]
    assert "/apis/ships.example.com/v1/watch/sails" not in made["paths"]


def test_v2_says_what_v3_says_as_far_as_it_can() -> None:
    made = merged([built_in("coordination.k8s.io", "v1")])
    want = recorded("openapi/v2-coordination")
    for part in ("paths", "definitions"):
        got = {name: item for name, item in made[part].items() if name in want[part]}
        assert got == {name: item for name, item in want[part].items() if name in got}
    assert made["parameters"] == want["parameters"]
