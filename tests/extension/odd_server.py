"""Extension servers as others write them: HTTPS, and for every path exactly the answer that a test wants."""

from __future__ import annotations

import asyncio
import json
import ssl
from collections.abc import AsyncIterator
from contextlib import asynccontextmanager
from pathlib import Path
from typing import Any

from aiohttp import web

from bowsprit.extension.certificates import Certificates
from bowsprit.machinery.objects import Obj

PARAMETERS = [{"name": "fieldValidation", "in": "query", "schema": {"type": "string"}}]


def patch_operation(group: str, kind: str, parameters: list[Obj]) -> Obj:
    """A PATCH operation of an OpenAPI document."""
    gvk = {"group": group, "version": "v1", "kind": kind}
    return {
        "x-kubernetes-group-version-kind": gvk,
        "parameters": parameters,
        "responses": {"200": {"description": "OK"}},
    }


def odd_answers(group: str, verbs: str = "create delete get list patch update watch") -> dict[str, Any]:
    """The answers of a small server with the kind Thing that does everything right as far as the checks ask."""
    resource = {"name": "things", "singularName": "thing", "kind": "Thing", "namespaced": True, "verbs": verbs.split()}
    document = {
        "openapi": "3.0.0",
        "info": {"title": "odd", "version": "1"},
        "paths": {f"/apis/{group}/v1/things/{{name}}": {"patch": patch_operation(group, "Thing", PARAMETERS)}},
    }
    return {
        "/readyz": "ok",
        f"/apis/{group}/v1": {
            "kind": "APIResourceList",
            "apiVersion": "v1",
            "groupVersion": f"{group}/v1",
            "resources": [resource],
        },
        f"/apis/{group}/v1/things": {"kind": "ThingList", "apiVersion": f"{group}/v1", "metadata": {}, "items": []},
        f"/apis/{group}/v1/namespaces/default/things": (201, {"kind": "Thing", "apiVersion": f"{group}/v1"}),
        "/openapi/v3": {"paths": {f"apis/{group}/v1": {"serverRelativeURL": f"/openapi/v3/apis/{group}/v1?hash=1"}}},
        f"/openapi/v3/apis/{group}/v1": document,
        "watch": "ignored",
    }


@asynccontextmanager
async def odd_server(answers: dict[str, Any], certificates: Certificates, folder: Path) -> AsyncIterator[int]:
    """Serves until the end of the block; gives the port. A value is a body, or (status, body); else 404."""
    cert, key = folder / "odd.crt", folder / "odd.key"
    certificates.serving.save(cert, key)
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(cert, key)

    async def handle(request: web.Request) -> web.StreamResponse:
        if request.query.get("watch"):
            return await _watch(request, answers["watch"])
        found = answers.get(request.path)
        if found is None:
            return web.json_response(
                {"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 404}, status=404
            )
        status, body = found if isinstance(found, tuple) else (200, found)
        if isinstance(body, str):
            return web.Response(text=body, status=status)
        return web.json_response(body, status=status)

    app = web.Application()
    app.router.add_route("*", "/{path:.*}", handle)
    runner = web.AppRunner(app, shutdown_timeout=0.1)
    await runner.setup()
    try:
        site = web.TCPSite(runner, "0.0.0.0", 0, ssl_context=context)
        await site.start()
        yield runner.addresses[0][1]
    finally:
        await runner.cleanup()


async def _watch(request: web.Request, how: str) -> web.StreamResponse:
    if how == "refused":
        return web.json_response({"kind": "Status", "apiVersion": "v1", "status": "Failure", "code": 422}, status=422)
    response = web.StreamResponse(headers={"Content-Type": "application/json"})
    await response.prepare(request)
    if how == "error":
        status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "no progress", "code": 500}
        await response.write(json.dumps({"type": "ERROR", "object": status}).encode() + b"\n")
        return response
    await asyncio.sleep(60)  # until the client has had enough
    return response
