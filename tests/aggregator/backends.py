"""Extension API servers as bad as they come, and one that is good: what the aggregator has to live with."""

from __future__ import annotations

import asyncio
import base64
import json
import ssl
from collections.abc import Awaitable, Callable
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

from aiohttp import web
from cryptography import x509
from cryptography.hazmat.primitives import hashes, serialization
from cryptography.hazmat.primitives.asymmetric import ec

RESOURCES = [
    {
        "name": "things",
        "singularName": "thing",
        "namespaced": True,
        "kind": "Thing",
        "verbs": ["get", "list", "create", "watch"],
        "shortNames": ["th"],
    },
    {"name": "things/status", "singularName": "", "namespaced": True, "kind": "Thing", "verbs": ["get", "update"]},
]


def issue(folder: Path, name: str, names: list[str], *, ca: tuple[Any, Any] | None = None, days: int = 30) -> Any:
    """A certificate with its key in the folder; without `ca` one of an authority. `days` < 0: it has expired."""
    key = ec.generate_private_key(ec.SECP256R1())
    subject = x509.Name([x509.NameAttribute(x509.NameOID.COMMON_NAME, name)])
    start = datetime(2024, 1, 1, tzinfo=UTC) if days < 0 else datetime.now(UTC) - timedelta(hours=1)
    builder = (
        x509.CertificateBuilder()
        .subject_name(subject)
        .issuer_name(ca[0].subject if ca else subject)
        .public_key(key.public_key())
        .serial_number(x509.random_serial_number())
        .not_valid_before(start)
        .not_valid_after(start + timedelta(days=abs(days)))
        .add_extension(x509.BasicConstraints(ca=ca is None, path_length=None), critical=True)
    )
    if names:
        builder = builder.add_extension(x509.SubjectAlternativeName([x509.DNSName(item) for item in names]), False)
    certificate = builder.sign(ca[1] if ca else key, hashes.SHA256())
    (folder / f"{name}.crt").write_bytes(certificate.public_bytes(serialization.Encoding.PEM))
    (folder / f"{name}.key").write_bytes(
        key.private_bytes(serialization.Encoding.PEM, serialization.PrivateFormat.PKCS8, serialization.NoEncryption())
    )
    return certificate, key


def bundle(folder: Path, name: str) -> str:
    """A certificate as a caBundle."""
    return base64.b64encode((folder / f"{name}.crt").read_bytes()).decode()


Answerer = Callable[[web.Request], Awaitable[web.StreamResponse]]


def openapi_v2(group: str) -> dict[str, Any]:
    """A Swagger document with a path too many, and a definition that clashes with one of Kubernetes'."""
    definition = f"{'.'.join(reversed(group.split('.')))}.v1.Thing"
    meta = "io.k8s.apimachinery.pkg.apis.meta.v1.ObjectMeta"
    operation = {
        "description": "read a thing",
        "consumes": ["application/json"],
        "produces": ["application/json", "application/yaml"],
        "operationId": "readThing",
        "parameters": [
            {"name": "pretty", "in": "query", "type": "string", "uniqueItems": True},
            {"name": "body", "in": "body", "required": True, "schema": {"$ref": f"#/definitions/{definition}"}},
        ],
        "responses": {"200": {"description": "OK", "schema": {"$ref": f"#/definitions/{definition}"}}},
        "x-kubernetes-action": "get",
    }
    return {
        "swagger": "2.0",
        "info": {"title": "back", "version": "1"},
        "paths": {
            f"/apis/{group}/v1/namespaces/{{namespace}}/things/{{name}}": {
                "post": operation,
                "parameters": [{"name": "name", "in": "path", "required": True, "type": "string"}],
            },
            "/elsewhere/": {
                "get": {"responses": {"200": {"description": "OK", "schema": {"$ref": "#/definitions/Z"}}}}
            },
        },
        "definitions": {
            definition: {
                "type": "object",
                "properties": {
                    "metadata": {"description": "meta", "$ref": f"#/definitions/{meta}"},
                    "size": {"type": "integer", "format": "int32"},
                },
                "x-kubernetes-group-version-kind": [{"group": group, "version": "v1", "kind": "Thing"}],
            },
            meta: {"type": "object", "description": "not the usual one"},
            "Z": {"type": "string"},
        },
    }


def openapi_v3(group: str) -> dict[str, Any]:
    """A small document of the third version."""
    return {
        "openapi": "3.0.0",
        "info": {"title": "back", "version": "1"},
        "paths": {
            f"/apis/{group}/v1/things": {"get": {"operationId": "l", "responses": {"200": {"description": "OK"}}}}
        },
        "components": {"schemas": {"com.example.back.v1.Thing": {"type": "object"}}},
    }


class GoodServer:
    """Serves a group's `things`, and remembers what it was asked."""

    def __init__(self, group: str, *, v3: bool = True, aggregated: bool = False) -> None:
        self.group = group
        self.v3 = v3
        self.aggregated = aggregated
        self.seen: list[dict[str, Any]] = []
        self.release = asyncio.Event()

    async def __call__(self, request: web.Request) -> web.StreamResponse:
        body = await request.text() if request.body_exists else ""
        subject = request.transport.get_extra_info("peercert") if request.transport else None
        names = [value for part in (subject or {}).get("subject", ()) for key, value in part if key == "commonName"]
        headers: dict[str, Any] = {}
        for name, value in request.headers.items():
            headers[name] = [*headers[name], value] if name in headers else [value]
        self.seen.append(
            {
                "method": request.method,
                "path": request.raw_path,
                "headers": {name: values[0] if len(values) == 1 else values for name, values in headers.items()},
                "clientCert": names[0] if names else "",
                "body": body,
            }
        )
        return await self._answer(request)

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        path = request.path
        if path == "/apis" and self.aggregated:
            return self._discovery(request)
        if path == f"/apis/{self.group}/v1":
            listed = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{self.group}/v1"}
            return web.json_response({**listed, "resources": RESOURCES})
        if path == "/openapi/v2":
            return self._with_etag(request, openapi_v2(self.group), '"v2"')
        if path == "/openapi/v3" and self.v3:
            url = f"/openapi/v3/apis/{self.group}/v1?hash=0123456789ABCDEF"
            return web.json_response({"paths": {f"apis/{self.group}/v1": {"serverRelativeURL": url}}})
        if path == f"/openapi/v3/apis/{self.group}/v1" and self.v3:
            return self._with_etag(request, openapi_v3(self.group), '"v3doc"')
        if not path.startswith(f"/apis/{self.group}/"):
            return web.Response(status=404, text="404 page not found\n")
        return await self._thing(request, path.rpartition("/")[2])

    def _discovery(self, request: web.Request) -> web.Response:
        version = {
            "version": "v1",
            "freshness": "Current",
            "resources": [
                {"resource": "things", "scope": "Namespaced", "singularResource": "thing", "verbs": ["get"]},
            ],
        }
        listed = {"kind": "APIGroupDiscoveryList", "apiVersion": "apidiscovery.k8s.io/v2", "metadata": {}}
        made = self._with_etag(
            request, {**listed, "items": [{"metadata": {"name": self.group}, "versions": [version]}]}, '"disco"'
        )
        made.headers["Content-Type"] = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
        return made

    @staticmethod
    def _with_etag(request: web.Request, document: Any, etag: str) -> web.Response:
        if request.headers.get("If-None-Match") == etag:
            return web.Response(status=304, headers={"ETag": etag})
        return web.json_response(document, headers={"ETag": etag})

    async def _thing(self, request: web.Request, name: str) -> web.StreamResponse:
        meta = {"kind": "Thing", "apiVersion": f"{self.group}/v1", "metadata": {"name": "t"}}
        match name:
            case "err":
                status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "backend says no"}
                warn = {"Warning": '299 - "careful"'}
                return web.json_response({**status, "reason": "InternalError", "code": 500}, status=500, headers=warn)
            case "redirect":
                return web.Response(status=302, headers={"Location": "https://elsewhere.example.com/"})
            case "notmodified":
                return web.Response(status=304)
            case "slow":
                answer = web.StreamResponse(headers={"Content-Type": "application/json"})
                await answer.prepare(request)
                for number in range(3):
                    await answer.write(json.dumps({"n": number}).encode() + b"\n")
                    await asyncio.sleep(0.05)
                return answer
            case "big":
                response = web.json_response({**meta, "filler": "z" * 300_000})
                response.enable_compression(web.ContentCoding.gzip)
                return response
            case "cut":
                answer = web.StreamResponse(headers={"Content-Length": "1000"})
                await answer.prepare(request)
                await answer.write(b"{")
                assert request.transport is not None
                request.transport.close()
                return answer
            case "drop":
                assert request.transport is not None
                request.transport.abort()
                return web.Response()
            case "hang":
                await self.release.wait()
                return web.Response(text="at last")
            case "cors":
                return web.json_response(meta, headers={"Access-Control-Allow-Origin": "*", "X-Backend": "yes"})
            case "ws":
                return web.json_response(meta)
            case "noway":
                return web.json_response({"kind": "Status", "message": "no upgrade"}, status=403)
        headers = {"X-Backend": "yes", "Audit-Id": "the-backends-own", "Cache-Control": "max-age=5"}
        return web.json_response({**meta, "path": request.raw_path}, headers=headers)


def always(status: int, headers: dict[str, str] | None = None) -> Answerer:
    """A server with one answer."""

    async def answer(_: web.Request) -> web.Response:
        return web.Response(status=status, headers=headers, text="nothing here\n")

    return answer


async def never(_: web.Request) -> web.Response:
    """A server that takes its time."""
    await asyncio.sleep(3600)
    return web.Response()


async def hang_up(request: web.Request) -> web.Response:
    """A server that closes the connection instead of an answer."""
    assert request.transport is not None
    request.transport.abort()
    return web.Response()


class Listener:
    """One server on a port of its own."""

    def __init__(self, answer: Answerer, context: ssl.SSLContext | None) -> None:
        self._context = context
        self._server = web.Server(answer, auto_decompress=False)  # type: ignore[arg-type]
        self._listener: asyncio.Server | None = None
        self.port = 0

    async def start(self, host: str = "127.0.0.1") -> Listener:
        loop = asyncio.get_running_loop()
        self._listener = await loop.create_server(self._server, host, self.port, ssl=self._context)
        self.port = self._listener.sockets[0].getsockname()[1]
        return self

    async def stop(self) -> None:
        if self._listener is not None:
            self._listener.close()
        await self._server.shutdown(0.1)


def serving_context(folder: Path, name: str, front_proxy: Path | None = None) -> ssl.SSLContext:
    """TLS with one of the folder's certificates; with `front_proxy` clients must show one of that authority."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.load_cert_chain(folder / f"{name}.crt", folder / f"{name}.key")
    if front_proxy is not None:
        context.load_verify_locations(front_proxy)
        context.verify_mode = ssl.CERT_REQUIRED
    return context
