"""Stories of custom resources whose versions a webhook converts; the answers of Kubernetes v1.36 are in tests/golden/aggregator."""

from __future__ import annotations

import asyncio
import json
import re
from pathlib import Path
from typing import Any

import aiohttp
from aiohttp import web
from backends import Listener, bundle, issue, serving_context

GROUP = "conv.example.com"
_DEFINITIONS = "/apis/apiextensions.k8s.io/v1/customresourcedefinitions"


class Converter:
    """A conversion webhook: v1's spec.size is v2's spec.width and .height. `mode` makes it misbehave."""

    def __init__(self) -> None:
        self.mode = ""
        self.seen: list[dict[str, Any]] = []

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        review = await request.json()
        asked = review["request"]
        self.seen.append(
            {
                "path": request.raw_path,
                "apiVersion": review["apiVersion"],
                "kind": review["kind"],
                "desired": asked["desiredAPIVersion"],
                "objects": [[item["apiVersion"], item["metadata"].get("name", "")] for item in asked["objects"]],
                "agent": request.headers.get("User-Agent", "").partition("/")[0],
            }
        )
        mode, desired = self.mode, asked["desiredAPIVersion"]
        if mode == "500":
            return web.Response(status=500, text="out of order")
        if mode == "garbage":
            return web.Response(text="no json")
        made = [self._one(item, desired, mode) for item in asked["objects"]]
        result: dict[str, Any] = {"status": "Success"}
        if mode == "failure":
            result = {"status": "Failure", "message": "I do not want to"}
        if mode == "silent":
            result = {"status": "Failure"}
        if mode == "fewer":
            made = []
        response = {"uid": "wrong" if mode == "uid" else asked["uid"], "result": result, "convertedObjects": made}
        if mode == "noresponse":
            return web.json_response({"kind": "ConversionReview", "apiVersion": review["apiVersion"]})
        version = "apiextensions.k8s.io/v9" if mode == "version" else review["apiVersion"]
        return web.json_response({"kind": "ConversionReview", "apiVersion": version, "response": response})

    @staticmethod
    def _one(item: dict[str, Any], desired: str, mode: str) -> dict[str, Any]:
        made = json.loads(json.dumps(item))
        made["apiVersion"] = item["apiVersion"] if mode == "unchanged" else desired
        spec = made.get("spec") or {}
        if desired.endswith("/v2") and "size" in spec:
            width, _, height = spec.pop("size").partition("x")
            spec |= {"width": int(width), "height": int(height or 0)}
        elif desired.endswith("/v1") and "width" in spec:
            spec["size"] = f"{spec.pop('width')}x{spec.pop('height', 0)}"
        if mode == "surplus":
            made["spec"] = {**spec, "surplus": "pruned"}
        meta = made["metadata"]
        meta.setdefault("annotations", {})["converted-to"] = desired
        match mode:
            case "name":
                meta["name"] = "other"
            case "uid-changed":
                meta["uid"] = "other"
            case "labels":
                meta["labels"] = {"bad key!": "x"}
            case "label-type":
                meta["labels"] = {"a": 1}
            case "nometa":
                del made["metadata"]
            case "kind":
                made["kind"] = "Other"
            case "finalizer":
                meta["finalizers"] = ["x.example.com/y"]
        return made


FAILURES = (
    "surplus",
    "500",
    "garbage",
    "failure",
    "silent",
    "fewer",
    "uid",
    "noresponse",
    "version",
    "unchanged",
    "name",
    "uid-changed",
    "labels",
    "label-type",
    "kind",
    "finalizer",
    "nometa",
)


def definition(
    port: int, trust: str, plural: str = "boxes", kind: str = "Box", path: str = "/convert"
) -> dict[str, Any]:
    """v1 is stored; v1 and v2 are served, v3 is as v2 with a default."""

    def version(name: str, properties: dict[str, Any], stored: bool = False) -> dict[str, Any]:
        spec = {"type": "object", "properties": properties}
        schema = {
            "type": "object",
            "properties": {"spec": spec, "status": {"type": "object", "properties": {"n": {"type": "integer"}}}},
        }
        column = {"name": "Spec", "type": "string", "jsonPath": ".spec"}
        return {
            "name": name,
            "served": True,
            "storage": stored,
            "schema": {"openAPIV3Schema": schema},
            "additionalPrinterColumns": [column],
            "subresources": {"status": {}},
        }

    size, number = {"size": {"type": "string", "default": "1x1"}}, {"type": "integer"}
    both = {"width": number, "height": number}
    service = {"namespace": "conv", "name": "hook", "port": port, "path": path}
    return {
        "apiVersion": "apiextensions.k8s.io/v1",
        "kind": "CustomResourceDefinition",
        "metadata": {"name": f"{plural}.{GROUP}"},
        "spec": {
            "group": GROUP,
            "scope": "Namespaced",
            "names": {"plural": plural, "singular": kind.lower(), "kind": kind, "listKind": f"{kind}List"},
            "versions": [
                version("v1", size, stored=True),
                version("v2", both),
                version("v3", {**both, "depth": {"type": "integer", "default": 7}}),
            ],
            "conversion": {
                "strategy": "Webhook",
                "webhook": {
                    "clientConfig": {"service": service, "caBundle": trust},
                    "conversionReviewVersions": ["v1", "v1beta1"],
                },
            },
        },
    }


class Stage:
    """A server that is watched, the webhook, and a client."""

    def __init__(self, url: str, token: str, folder: Path, session: aiohttp.ClientSession) -> None:
        self.url, self.token, self.folder, self.session = url, token, folder, session
        self.hook = Converter()
        self.listener: Listener | None = None

    async def set_up(self) -> None:
        ca = issue(self.folder, "hook-ca", [])
        issue(self.folder, "hook", ["hook.conv.svc"], ca=ca)
        self.listener = await Listener(self.hook, serving_context(self.folder, "hook")).start()
        await self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": "conv"}})
        port = self.listener.port
        spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
        await self.ask("POST", "/api/v1/namespaces/conv/services", {"metadata": {"name": "hook"}, "spec": spec})
        await self.define(definition(port, bundle(self.folder, "hook-ca")))

    async def define(self, made: dict[str, Any]) -> None:
        status, answer = await self.ask("POST", _DEFINITIONS, made)
        assert status == 201, answer
        plural = made["spec"]["names"]["plural"]
        for version in ("v1", "v2", "v3"):
            for _ in range(100):
                status, _ = await self.ask("GET", f"/apis/{GROUP}/{version}/{plural}?limit=1")
                if status == 200:
                    break
                await asyncio.sleep(0.1)

    async def tear_down(self) -> None:
        if self.listener is not None:
            await self.listener.stop()

    async def ask(
        self, method: str, path: str, body: Any = None, media: str = "application/json", accept: str = ""
    ) -> tuple[int, Any]:
        headers = {"Authorization": f"Bearer {self.token}", "User-Agent": "stories", "Content-Type": media}
        if accept:
            headers["Accept"] = accept
        data = json.dumps(body) if body is not None else None
        async with self.session.request(method, self.url + path, headers=headers, data=data) as answer:
            text = await answer.text()
            try:
                return answer.status, json.loads(text)
            except ValueError:
                return answer.status, text

    async def watch(self, path: str, count: int, meanwhile: Any = None) -> list[Any]:
        """The first events of a watch; `meanwhile` is awaited once it has begun."""
        headers = {"Authorization": f"Bearer {self.token}"}
        found: list[Any] = []
        async with self.session.get(self.url + path, headers=headers) as answer:
            if meanwhile is not None:
                await meanwhile
            with_limit = asyncio.timeout(3)
            try:
                async with with_limit:
                    async for line in answer.content:
                        found.append(json.loads(line))
                        if len(found) >= count:
                            break
            except TimeoutError:
                pass
        return found


def _path(version: str, name: str = "", plural: str = "boxes") -> str:
    base = f"/apis/{GROUP}/{version}/namespaces/conv/{plural}"
    return f"{base}/{name}" if name else base


def box(version: str, name: str, spec: dict[str, Any] | None = None) -> dict[str, Any]:
    made: dict[str, Any] = {"apiVersion": f"{GROUP}/{version}", "kind": "Box", "metadata": {"name": name}}
    return {**made, "spec": spec} if spec is not None else made


TABLE = "application/json;as=Table;v=v1;g=meta.k8s.io"


async def perform(stage: Stage) -> dict[str, Any]:
    """Everything that is compared."""
    told: dict[str, Any] = {}
    ask = stage.ask

    async def note(name: str, *args: Any, **named: Any) -> Any:
        told[name] = await ask(*args, **named)
        return told[name][1]

    await note("create-stored", "POST", _path("v1"), box("v1", "a", {"size": "2x3"}))
    await note("create-other", "POST", _path("v2"), box("v2", "b", {"width": 4, "height": 5}))
    await note("create-third", "POST", _path("v3"), box("v3", "c", {"width": 6, "height": 7}))
    await note("create-invalid", "POST", _path("v2"), box("v2", "d", {"width": "x"}))
    for version in ("v1", "v2", "v3"):
        for name in ("a", "b", "c"):
            await note(f"get-{version}-{name}", "GET", _path(version, name))
        await note(f"list-{version}", "GET", _path(version))
        await note(f"table-{version}", "GET", _path(version), accept=TABLE)
    await note("selected", "GET", _path("v2") + "?fieldSelector=metadata.name%3Da")
    await note("paged", "GET", _path("v2") + "?limit=2")
    live = await note("before-put", "GET", _path("v2", "a"))
    await note("put", "PUT", _path("v2", "a"), {**live, "spec": {"width": 20, "height": 30}})
    await note("put-same", "PUT", _path("v2", "a"), (await ask("GET", _path("v2", "a")))[1])
    await note("put-seen", "GET", _path("v1", "a"))
    merge = "application/merge-patch+json"
    apply = "application/apply-patch+yaml"
    await note("merge", "PATCH", _path("v2", "b"), {"spec": {"width": 44}}, media=merge)
    await note(
        "json",
        "PATCH",
        _path("v3", "c"),
        [{"op": "replace", "path": "/spec/height", "value": 8}],
        media="application/json-patch+json",
    )
    apply = "application/apply-patch+yaml"
    await note(
        "apply-new",
        "PATCH",
        _path("v2", "e") + "?fieldManager=one",
        box("v2", "e", {"width": 1, "height": 2}),
        media=apply,
    )
    await note(
        "apply-other", "PATCH", _path("v1", "e") + "?fieldManager=two", box("v1", "e", {"size": "1x2"}), media=apply
    )
    await note(
        "apply-conflict", "PATCH", _path("v1", "e") + "?fieldManager=two", box("v1", "e", {"size": "3x4"}), media=apply
    )
    await note(
        "apply-again", "PATCH", _path("v2", "e") + "?fieldManager=one", box("v2", "e", {"width": 5}), media=apply
    )
    await note("status", "PATCH", _path("v2", "a", "boxes") + "/status", {"status": {"n": 3}}, media=merge)
    await note("dry-run", "POST", _path("v2") + "?dryRun=All", box("v2", "dry", {"width": 1, "height": 1}))
    await note(
        "generated", "POST", _path("v2"), {**box("v2", "", {"width": 1, "height": 1}), "metadata": {"name": "g"}}
    )
    revision = (await ask("GET", _path("v1")))[1]["metadata"]["resourceVersion"]
    changes = asyncio.gather(asyncio.sleep(0))

    async def change() -> None:
        await ask("POST", _path("v1"), box("v1", "w", {"size": "8x9"}))
        await ask("PATCH", _path("v1", "w"), {"spec": {"size": "9x9"}}, media=merge)
        await ask("DELETE", _path("v1", "w"))

    await changes
    told["watch"] = await stage.watch(_path("v2") + f"?watch=1&resourceVersion={revision}", 3, change())
    told["watch-initial"] = await stage.watch(_path("v2") + "?watch=1&fieldSelector=metadata.name%3Da", 1)
    await note("delete", "DELETE", _path("v2", "b"))
    await _fail(stage, told)
    text = json.dumps(told)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>", text)
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\d(\.\d+)?Z", "<time>", text)
    text = re.sub(r'("resourceVersion": ")\d+', r"\1<n>", text)
    text = re.sub(r'("continue": ")[^"]+', r"\1<token>", text)
    text = re.sub(r"dial tcp \S+: connect", "dial tcp <hook>: connect", text)
    text = re.sub(r"(hook\.conv\.svc|localhost):\d+", r"\1:<port>", text)
    made: dict[str, Any] = json.loads(text)
    return made


async def _fail(stage: Stage, told: dict[str, Any]) -> None:
    """Misbehaviour: each with an object of its own, for nobody must have asked about it before."""
    ask, hook = stage.ask, stage.hook
    for number, mode in enumerate(FAILURES):
        hook.mode = mode
        made = {**box("v2", f"bad{number}", {"width": number, "height": 1})}
        told[f"fail-{mode}"] = await ask("POST", _path("v2"), made)
        hook.mode = ""
        await ask("DELETE", _path("v1", f"bad{number}"))
    assert stage.listener is not None
    await stage.listener.stop()
    told["fail-dead"] = await ask("POST", _path("v2"), box("v2", "dead", {"width": 99, "height": 1}))
