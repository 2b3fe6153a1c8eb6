"""The extension API server that the recordings of `apiservices` talked to, and what else was there at the time.

It listens on a port of this machine; a dialer makes the recorded address lead there.
"""

from __future__ import annotations

import asyncio
import base64
import json
import socket
import ssl
import uuid
from pathlib import Path
from typing import Any

from aiohttp import web

from bowsprit.net.dial import DirectDialer
from bowsprit.pki.authority import Authority

ADDRESS = ("192.0.2.2", 28443)
GROUP = "back.example.com"
NAMESPACE = "golden-agg"
PLACEHOLDER = "<base64 of a PEM certificate>"
_SERVICES = f"/api/v1/namespaces/{NAMESPACE}/services"
_SLICES = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
_API_SERVICE = f"/apis/apiregistration.k8s.io/v1/apiservices/v1.{GROUP}"
_PORT = [{"name": "https", "port": 443, "targetPort": ADDRESS[1]}]


def _slice(service: str, endpoints: list[dict[str, Any]]) -> dict[str, Any]:
    meta = {"name": f"{service}-1", "labels": {"kubernetes.io/service-name": service}}
    ports = [{"name": "https", "port": ADDRESS[1], "protocol": "TCP"}]
    return {"metadata": meta, "addressType": "IPv4", "endpoints": endpoints, "ports": ports}


# What had been done before a case, beside the cases.
STAGE: dict[str, list[tuple[str, str, Any]]] = {
    "apiservices/basic/noep-create": [
        ("POST", _SERVICES, {"metadata": {"name": "noep"}, "spec": {"ports": _PORT}}),
    ],
    "apiservices/basic/noaddr-status": [("POST", _SLICES, _slice("noep", []))],
    "apiservices/backend/wrong-ca": [
        ("POST", _SERVICES, {"metadata": {"name": "back"}, "spec": {"ports": _PORT}}),
        ("POST", _SLICES, _slice("back", [{"addresses": [ADDRESS[0]], "conditions": {"ready": True}}])),
    ],
    "apiservices/proxy/down-path": [("DELETE", f"{_SLICES}/back-1", None)],
    "apiservices/removal/delete-apiservice": [("DELETE", _API_SERVICE, None)],
}
# These need an hour glass: the recorded server waited for a minute.
UNREPEATABLE = frozenset({"apiservices/proxy/drop"})


class RecordedNetwork:
    """A dialer for which the recorded address is the backend's."""

    def __init__(self, backend: RecordedBackend) -> None:
        self._backend = backend
        self._direct = DirectDialer()

    async def open(self, host: str, port: int) -> socket.socket:
        """See Dialer.open."""
        if (host, port) == ADDRESS:
            host, port = "127.0.0.1", self._backend.port
        return await self._direct.open(host, port)


class RecordedBackend:
    """The server: `seen` is what it was asked since that was last cleared, but for the aggregator's own requests."""

    def __init__(self, folder: Path) -> None:
        self.seen: list[dict[str, Any]] = []
        self.port = 0
        self._folder = folder
        self._right, self._wrong = Authority.create("backend-ca"), Authority.create("wrong-ca")
        front_proxy = Authority.create("front-proxy-ca")
        front_proxy.issue_client("front-proxy-client").save(folder / "front.crt", folder / "front.key")
        (folder / "front-ca.crt").write_bytes(front_proxy.ca_pem)
        self._runner: web.ServerRunner | None = None

    def bundle(self, case: dict[str, Any]) -> str:
        """The caBundle that a case stands for."""
        authority = self._wrong if case["id"].endswith("wrong-ca") else self._right
        return base64.b64encode(authority.ca_pem).decode()

    async def start(self) -> None:
        folder = self._folder
        self._right.issue_server("back", [f"back.{NAMESPACE}.svc"]).save(folder / "back.crt", folder / "back.key")
        context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
        context.load_cert_chain(folder / "back.crt", folder / "back.key")
        context.load_verify_locations(folder / "front-ca.crt")
        context.verify_mode = ssl.CERT_OPTIONAL
        self._runner = web.ServerRunner(web.Server(self._answer))  # type: ignore[arg-type]
        await self._runner.setup()
        site = web.TCPSite(self._runner, "127.0.0.1", 0, ssl_context=context)
        await site.start()
        self.port = site._server.sockets[0].getsockname()[1]  # type: ignore[union-attr]

    async def stop(self) -> None:
        if self._runner is not None:
            await self._runner.cleanup()

    async def _answer(self, request: web.Request) -> web.StreamResponse:
        body = await request.text() if request.body_exists else ""
        if not request.headers.get("X-Remote-User", "").startswith(("system:kube-aggregator", "system:aggregator")):
            self.seen.append(_described(request, body))
        answer = await self._made(request)
        if not answer.prepared:
            answer.headers["Server"] = "BaseHTTP/0.6 Python/3.11.7"
        return answer

    async def _made(self, request: web.Request) -> web.StreamResponse:
        path, resource = request.path, {"name": "things", "singularName": "thing", "namespaced": True, "kind": "Thing"}
        verbs = ["get", "list", "create", "watch"]
        if path == f"/apis/{GROUP}/v1":
            listed = {"kind": "APIResourceList", "apiVersion": "v1", "groupVersion": f"{GROUP}/v1"}
            return _json({**listed, "resources": [{**resource, "verbs": verbs}]})
        if path == "/openapi/v3":
            url = f"/openapi/v3/apis/{GROUP}/v1?hash=0123456789ABCDEF"
            return _json({"paths": {f"apis/{GROUP}/v1": {"serverRelativeURL": url}}})
        if path == f"/openapi/v3/apis/{GROUP}/v1":
            operation = {"operationId": "listThing", "responses": {"200": {"description": "OK"}}}
            document = {
                "openapi": "3.0.0",
                "info": {"title": "back", "version": "1"},
                "paths": {f"/apis/{GROUP}/v1/namespaces/{{namespace}}/things": {"get": operation}},
                "components": {"schemas": {"com.example.back.v1.Thing": {"type": "object"}}},
            }
            return _json(document, headers={"Etag": '"v3doc"'})
        if not path.startswith(f"/apis/{GROUP}/v1/"):
            return web.Response(status=404)
        return await self._thing(request)

    @staticmethod
    async def _thing(request: web.Request) -> web.StreamResponse:
        match request.path.rpartition("/")[2]:
            case "err":
                status = {"kind": "Status", "apiVersion": "v1", "status": "Failure", "message": "backend says no"}
                return _json(
                    {**status, "reason": "InternalError", "code": 500},
                    status=500,
                    headers={"Warning": '299 - "careful"', "X-Backend": "yes"},
                )
            case "redirect":
                return web.Response(status=302, headers={"Location": "https://192.0.2.2:1/elsewhere"})
            case "slow":
                answer = web.StreamResponse(headers={"Content-Type": "application/json"})
                answer.headers["Server"] = "BaseHTTP/0.6 Python/3.11.7"
                await answer.prepare(request)
                for number in range(3):
                    await answer.write(b'{"n": %d}\n' % number)
                    await asyncio.sleep(0.02)
                return answer
        thing = {"kind": "Thing", "apiVersion": f"{GROUP}/v1", "metadata": {"name": "t"}, "path": request.raw_path}
        headers = {"X-Backend": "yes", "Cache-Control": "max-age=5", "Audit-Id": str(uuid.uuid4())}
        return _json(thing, headers=headers)


def _json(document: Any, status: int = 200, headers: dict[str, str] | None = None) -> web.Response:
    body = json.dumps(document).encode()
    return web.Response(body=body, status=status, headers={"Content-Type": "application/json", **(headers or {})})


def _described(request: web.Request, body: str) -> dict[str, Any]:
    """A request as the recordings tell of it."""
    headers: dict[str, Any] = {}
    for name in dict.fromkeys(request.headers):
        values = request.headers.getall(name)
        shown = "-".join(part.capitalize() for part in name.split("-"))  # the parser has a spelling of its own for some
        headers[shown] = values[0] if len(values) == 1 else values
    headers["Audit-Id"] = "<uuid>"
    certificate = request.transport.get_extra_info("peercert") if request.transport else None
    names = [value for part in (certificate or {}).get("subject", ()) for key, value in part if key == "commonName"]
    told = {
        "method": request.method,
        "path": request.raw_path,
        "http": "HTTP/1.1",
        "headers": headers,
        "clientCertSubject": {"commonName": names[0] if names else ""},
    }
    return {**told, "body": body} if body else told
