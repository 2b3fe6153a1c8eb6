"""CustomResourceDefinitions as clients meet them: names, serving, versions, columns, cleanup, restart."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator
from typing import Any

import aiohttp
import pytest

from bowsprit.apiserver.access import AllowAlways, FixedUser
from bowsprit.apiserver.admission.hookclient import HookClient
from bowsprit.apiserver.resource import Resource, StatusSubresource, Version
from bowsprit.apiserver.server import Server
from bowsprit.apiserver.user import UserInfo
from bowsprit.controlplane.apiextensions.controller import DEFINITIONS, DefinitionController
from bowsprit.controlplane.apiextensions.strategy import DefinitionStatusStrategy, DefinitionStrategy
from bowsprit.controlplane.schemas import BuiltinSchema
from bowsprit.machinery.names import GroupVersionKind, GroupVersionResource
from bowsprit.store.memory import MemoryStore
from bowsprit.store.protocol import Store

CRDS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"
TABLE = {"Accept": "application/json;as=Table;v=v1;g=meta.k8s.io"}


def definition(plural: str, kind: str, **version: Any) -> dict[str, Any]:
    schema = {
        "type": "object",
        "properties": {
            "spec": {
                "type": "object",
                "properties": {
                    "size": {"type": "integer", "minimum": 1},
                    "mode": {"type": "string", "default": "fast"},
                },
            },
            "status": {"type": "object", "x-kubernetes-preserve-unknown-fields": True},
        },
    }
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.toys.example"},
        "spec": {
            "group": "toys.example",
            "scope": "Namespaced",
            "names": {"plural": plural, "kind": kind},
            "versions": [
                {"name": "v1", "served": True, "storage": True, "schema": {"openAPIV3Schema": schema}, **version}
            ],
        },
    }


def _definitions() -> Resource:
    gvk = GroupVersionKind(DEFINITIONS.group, "v1", "CustomResourceDefinition")
    strategy = DefinitionStrategy()
    return Resource(
        gvk.kind,
        DEFINITIONS.resource,
        [Version(GroupVersionResource(DEFINITIONS.group, "v1", DEFINITIONS.resource), gvk, schema=BuiltinSchema(gvk))],
        group=DEFINITIONS.group,
        namespaced=False,
        strategy=strategy,
        subresources={"status": StatusSubresource(DefinitionStatusStrategy(strategy))},
    )


async def _nowhere(namespace: str, name: str, port: int) -> tuple[str, int]:
    raise LookupError("no services here")


class Api:
    """A server with nothing but definitions, and a client."""

    def __init__(self, store: Store) -> None:
        self.server = Server(
            store,
            authenticator=FixedUser(UserInfo("admin", groups=("system:masters",))),
            authorizer=AllowAlways(),
        )
        self.controller: DefinitionController | None = None
        self.session = aiohttp.ClientSession()
        self.base = ""

    async def start(self) -> None:
        await self.server.registry.add(_definitions())
        self.controller = DefinitionController(self.server.registry, HookClient(_nowhere))
        await self.controller.start()
        host, port = await self.server.start("127.0.0.1", 0)
        self.base = f"http://{host}:{port}"

    async def stop(self) -> None:
        assert self.controller is not None
        await self.session.close()
        await self.controller.stop()
        await self.server.stop()

    async def call(self, method: str, path: str, body: Any = None, **headers: str) -> tuple[int, Any]:
        send = {"Content-Type": "application/merge-patch+json"} if method == "PATCH" else {}
        async with self.session.request(method, self.base + path, json=body, headers={**headers, **send}) as response:
            text = await response.text()
            return response.status, (await response.json() if text.startswith("{") else text)

    async def define(self, crd: dict[str, Any]) -> None:
        status, body = await self.call("POST", CRDS, crd)
        assert status == 201, body
        await self.until(
            f"{CRDS}/{crd['metadata']['name']}", lambda code, body: _condition(body, "NamesAccepted") != ""
        )

    async def until(self, path: str, good: Any) -> Any:
        async with asyncio.timeout(5):
            while True:
                code, body = await self.call("GET", path)
                if good(code, body):
                    return body
                await asyncio.sleep(0.01)


def _condition(crd: Any, sort: str) -> str:
    found = [each["status"] for each in (crd.get("status") or {}).get("conditions") or [] if each["type"] == sort]
    return found[0] if found else ""


@pytest.fixture
async def api() -> AsyncIterator[Api]:
    api = Api(MemoryStore())
    await api.start()
    yield api
    await api.stop()


THINGS = "/apis/toys.example/v1/namespaces/ns/things"


def _thing(name: str, **spec: Any) -> dict[str, Any]:
    return {"apiVersion": "toys.example/v1", "kind": "Thing", "metadata": {"name": name}, "spec": spec}


async def test_a_definition_is_served_and_found(api: Api) -> None:
    await api.define(definition("things", "Thing"))
    code, made = await api.call("POST", THINGS, _thing("a", size=3, unknown=1))
    assert (code, made["spec"], made["metadata"]["generation"]) == (201, {"size": 3, "mode": "fast"}, 1)
    code, bad = await api.call("POST", THINGS, _thing("b", size=0))
    assert (code, bad["details"]["causes"][0]["field"]) == (422, "spec.size")
    _, listed = await api.call("GET", THINGS)
    assert (listed["kind"], listed["metadata"]["continue"], listed["items"]) == ("ThingList", "", [made])
    _, discovered = await api.call("GET", "/apis/toys.example/v1")
    assert discovered["resources"][0]["verbs"][0] == "delete"
    code, _ = await api.call("PUT", f"{THINGS}/a", _thing("a", size=4))
    assert code == 422  # custom resources have no unconditional update


async def test_names_belong_to_the_first(api: Api) -> None:
    await api.define(definition("things", "Thing"))
    await api.define(definition("things2", "Thing"))
    _, second = await api.call("GET", f"{CRDS}/things2.toys.example")
    assert (_condition(second, "NamesAccepted"), _condition(second, "Established")) == ("False", "False")
    assert (await api.call("GET", "/apis/toys.example/v1/things2"))[0] == 404
    await api.call("DELETE", f"{CRDS}/things.toys.example")
    await api.until(f"{CRDS}/things2.toys.example", lambda code, body: _condition(body, "Established") == "True")
    await api.until("/apis/toys.example/v1/things2", lambda code, body: code == 200)


async def test_status_scale_columns_and_fields(api: Api) -> None:
    await api.define(
        definition(
            "things",
            "Thing",
            subresources={
                "status": {},
                "scale": {"specReplicasPath": ".spec.size", "statusReplicasPath": ".status.size"},
            },
            additionalPrinterColumns=[{"name": "Size", "type": "integer", "jsonPath": ".spec.size"}],
            selectableFields=[{"jsonPath": ".spec.mode"}],
        )
    )
    await api.call("POST", THINGS, {**_thing("a", size=3), "status": {"size": 9}})
    _, patched = await api.call("PATCH", f"{THINGS}/a/status", {"spec": {"size": 8}, "status": {"size": 3}})
    assert (patched["spec"]["size"], patched["status"]) == (3, {"size": 3})
    _, scaled = await api.call("PATCH", f"{THINGS}/a/scale", {"spec": {"replicas": 5}})
    assert (scaled["spec"], scaled["status"]) == ({"replicas": 5}, {"replicas": 3})
    code, refused = await api.call("PATCH", f"{THINGS}/a/scale", {"spec": {"replicas": 0}})
    assert (code, refused["details"]["kind"]) == (422, "Thing")
    _, table = await api.call("GET", THINGS, **TABLE)
    assert [column["name"] for column in table["columnDefinitions"]] == ["Name", "Size"]
    assert table["rows"][0]["cells"] == ["a", 5]
    _, selected = await api.call("GET", f"{THINGS}?fieldSelector=spec.mode%3Dslow")
    assert selected["items"] == []


async def test_two_versions_of_one_object(api: Api) -> None:
    crd = definition("things", "Thing", deprecated=True)
    newer = {
        "name": "v2",
        "served": True,
        "storage": False,
        "schema": {
            "openAPIV3Schema": {
                "type": "object",
                "properties": {"spec": {"type": "object", "properties": {"size": {"type": "integer"}}}},
            }
        },
    }
    crd["spec"]["versions"].append(newer)
    await api.define(crd)
    await api.call("POST", THINGS, _thing("a", size=3))
    _, other = await api.call("GET", THINGS.replace("/v1/", "/v2/") + "/a")
    assert (other["apiVersion"], other["spec"]) == ("toys.example/v2", {"size": 3})
    async with api.session.get(api.base + THINGS) as response:
        assert response.headers["Warning"] == '299 - "toys.example/v1 Thing is deprecated; use toys.example/v2 Thing"'
    crd["spec"]["versions"][0]["storage"], newer["storage"] = False, True
    await api.call("PATCH", f"{CRDS}/things.toys.example", {"spec": crd["spec"]})
    await api.call("PATCH", f"{CRDS}/things.toys.example/status", {"status": {"storedVersions": ["v2"]}})
    collection = api.server.registry.collection(DEFINITIONS.__class__("toys.example", "things"))
    assert collection is not None
    async with asyncio.timeout(5):
        while not collection.cacher.items(collection.resource.key_prefix)[0].value.startswith(
            b'{"apiVersion":"toys.example/v2"'
        ):
            await asyncio.sleep(0.01)
    _, again = await api.call("GET", f"{THINGS}/a")
    assert (again["apiVersion"], again["spec"]["size"]) == ("toys.example/v1", 3)


async def test_a_deleted_definition_takes_its_objects_along(api: Api) -> None:
    await api.define(definition("things", "Thing"))
    held = _thing("held", size=1)
    held["metadata"]["finalizers"] = ["toys.example/f"]
    await api.call("POST", THINGS, held)
    await api.call("POST", THINGS, _thing("free", size=1))
    code, marked = await api.call("DELETE", f"{CRDS}/things.toys.example")
    assert (code, _condition(marked, "Terminating")) == (200, "True")
    assert "deletionGracePeriodSeconds" not in marked["metadata"]
    await api.until(f"{THINGS}/free", lambda code, body: code == 404)
    code, refused = await api.call("POST", THINGS, _thing("late", size=1))
    assert (code, "while custom resource definition is terminating" in refused["message"]) == (403, True)
    await api.call("PATCH", f"{THINGS}/held", {"metadata": {"finalizers": None}})
    await api.until(f"{CRDS}/things.toys.example", lambda code, body: code == 404)
    await api.until(THINGS, lambda code, body: code == 404)


async def test_a_restart_serves_what_was_defined() -> None:
    store = MemoryStore()
    first = Api(store)
    await first.start()
    await first.define(definition("things", "Thing"))
    await first.call("POST", THINGS, _thing("a", size=1))
    await first.stop()
    second = Api(store)
    await second.start()
    _, found = await second.call("GET", f"{THINGS}/a")
    assert found["spec"]["size"] == 1
    await second.stop()
