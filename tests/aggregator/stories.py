"""Stories that are told to a server with an aggregator: what it says of good and bad backends, and what these get to see.

The answers of Kubernetes v1.36 are in tests/golden/aggregator/stories.json.gz.
"""

from __future__ import annotations

import asyncio
import json
import re
from collections.abc import Callable
from pathlib import Path
from typing import Any

import aiohttp
import backends
from backends import GoodServer, Listener, always, bundle, hang_up, issue, never, serving_context
from yarl import URL

from bowsprit.net.ports import free_port

NAMESPACE = "agg"
API_SERVICES = "/apis/apiregistration.k8s.io/v1/apiservices"
DISCOVERY = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"
_PATIENCE = 16.0


class Theatre:
    """The backends on this machine, the objects that point to them, and a client of the server that is watched.

    Args:
        ask: the server's URL, the token of an administrator.
        front_proxy: the authority that the server's front-proxy certificate comes from.
    """

    def __init__(self, url: str, token: str, folder: Path, front_proxy: Path, session: aiohttp.ClientSession) -> None:
        self.url, self.token, self.folder, self.session = url, token, folder, session
        self._front_proxy = front_proxy
        self.listeners: dict[str, Listener] = {}
        self.good = GoodServer("good.example.com")
        self.second = GoodServer("second.example.com", v3=False)
        self.modern = GoodServer("modern.example.com", aggregated=True)

    async def set_up(self) -> None:
        """Start the backends and register them."""
        folder = self.folder
        ca = issue(folder, "backend-ca", [])
        issue(folder, "other-ca", [])
        names = [
            f"{name}.{NAMESPACE}.svc"
            for name in ("good", "second", "modern", "e500", "e404", "moved", "slow", "hangup")
        ]
        issue(folder, "right", names, ca=ca)
        issue(folder, "wrongsan", ["elsewhere.example.com", "other.example.com"], ca=ca)
        issue(folder, "nosan", [], ca=ca)
        issue(folder, "expired", [f"expired.{NAMESPACE}.svc"], ca=ca, days=-10)
        own = serving_context(folder, "right")
        demanding = serving_context(folder, "right", self._front_proxy)
        plans: dict[str, tuple[backends.Answerer, Any]] = {
            "good": (self.good, demanding),
            "second": (self.second, own),
            "modern": (self.modern, own),
            "e500": (always(500), own),
            "e404": (always(404), own),
            "moved": (always(301, {"Location": "https://elsewhere.example.com/"}), own),
            "slow": (never, own),
            "hangup": (hang_up, own),
            "wrongsan": (always(200), serving_context(folder, "wrongsan")),
            "nosan": (always(200), serving_context(folder, "nosan")),
            "expired": (always(200), serving_context(folder, "expired")),
            "wrongca": (always(200), own),
            "plain": (always(200), None),
        }
        for name, (answer, context) in plans.items():
            self.listeners[name] = await Listener(answer, context).start()
        dead = free_port()
        await self.ask("POST", "/api/v1/namespaces", {"metadata": {"name": NAMESPACE}})
        for name in [*plans, "dead", "badbundle"]:
            port = self.listeners[name].port if name in self.listeners else dead
            await self.register(name, port)
        await self.register_without_network()

    async def register(self, name: str, port: int) -> None:
        spec = {"type": "ExternalName", "externalName": "localhost", "ports": [{"port": port}]}
        await self.ask("POST", f"/api/v1/namespaces/{NAMESPACE}/services", {"metadata": {"name": name}, "spec": spec})
        trust = {"caBundle": bundle(self.folder, "other-ca" if name == "wrongca" else "backend-ca")}
        if name == "badbundle":
            trust = {"caBundle": "bm8gUEVN"}
        if name == "modern":
            trust = {"insecureSkipTLSVerify": True}  # type: ignore[dict-item]
        await self.api_service(name, {"namespace": NAMESPACE, "name": name, "port": port}, trust)

    async def register_without_network(self) -> None:
        """What fails before anybody is dialled."""
        services = f"/api/v1/namespaces/{NAMESPACE}/services"
        slices = f"/apis/discovery.k8s.io/v1/namespaces/{NAMESPACE}/endpointslices"
        port = {"name": "https", "port": 443}
        await self.ask("POST", services, {"metadata": {"name": "noslices"}, "spec": {"ports": [port]}})
        await self.ask("POST", services, {"metadata": {"name": "unready"}, "spec": {"ports": [port]}})
        endpoint = {"addresses": ["10.9.8.7"], "conditions": {"ready": False}}
        meta = {"name": "unready-1", "labels": {"kubernetes.io/service-name": "unready"}}
        made = {
            "metadata": meta,
            "addressType": "IPv4",
            "endpoints": [endpoint],
            "ports": [{"name": "https", "port": 1}],
        }
        await self.ask("POST", slices, made)
        await self.ask("POST", services, {"metadata": {"name": "named"}, "spec": {"ports": [port]}})
        other = {**made, "metadata": {"name": "named-1", "labels": {"kubernetes.io/service-name": "named"}}}
        ready = {"addresses": ["10.9.8.7"], "conditions": {"ready": True}}
        await self.ask("POST", slices, {**other, "endpoints": [ready], "ports": [{"name": "web", "port": 1}]})
        await self.ask(
            "POST",
            services,
            {"metadata": {"name": "headless"}, "spec": {"clusterIP": "None", "ports": [port]}},
        )
        third = {**made, "metadata": {"name": "headless-1", "labels": {"kubernetes.io/service-name": "headless"}}}
        await self.ask("POST", slices, {**third, "endpoints": [ready], "ports": [{"name": "https", "port": 1}]})
        for name in ("nowhere", "noslices", "unready", "named", "headless"):
            await self.api_service(name, {"namespace": NAMESPACE, "name": name}, {"insecureSkipTLSVerify": True})
        await self.api_service("badport", {"namespace": NAMESPACE, "name": "noslices", "port": 99}, {})
        local = {"group": "local.example.com", "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10}
        await self.ask("POST", API_SERVICES, {"metadata": {"name": "v1.local.example.com"}, "spec": local})

    async def api_service(self, name: str, service: dict[str, Any], trust: dict[str, Any]) -> None:
        group = f"{name}.example.com"
        spec = {"group": group, "version": "v1", "groupPriorityMinimum": 100, "versionPriority": 10}
        made = {"metadata": {"name": f"v1.{group}"}, "spec": {**spec, **trust, "service": service}}
        status, answer = await self.ask("POST", API_SERVICES, made)
        assert status == 201, answer

    async def tear_down(self) -> None:
        for server in (self.good, self.second, self.modern):
            server.release.set()
        for listener in self.listeners.values():
            await listener.stop()

    # -- asking --------------------------------------------------------------------------------------------------------

    async def ask(self, method: str, path: str, body: Any = None) -> tuple[int, Any]:
        status, _, text = await self.send(method, path, {}, body)
        try:
            return status, json.loads(text)
        except ValueError:
            return status, text

    async def send(
        self, method: str, path: str, headers: dict[str, Any] | None = None, body: Any = None
    ) -> tuple[int, list[tuple[str, str]], str]:
        """Status, headers and body of an answer; 0 when the connection broke."""
        sent = [("Authorization", f"Bearer {self.token}"), ("User-Agent", "stories")]
        given = {name.lower() for name in headers or {}}
        if "accept" not in given:
            sent.append(("Accept", "application/json"))
        for name, value in (headers or {}).items():
            sent += [(name, item) for item in (value if isinstance(value, list) else [value])]
        data = None
        if body is not None:
            data = json.dumps(body).encode()
            sent.append(("Content-Type", "application/json"))
        try:
            async with self.session.request(
                method,
                URL(self.url + path, encoded=True),
                headers=sent,
                data=data,
                allow_redirects=False,
                skip_auto_headers=["Accept-Encoding", "Content-Type"],
            ) as answer:
                text = await answer.text()
                return answer.status, list(answer.headers.items()), text
        except aiohttp.ClientError:
            return 0, [], ""

    async def condition(self, name: str) -> dict[str, Any]:
        """What is said of an APIService; without its time."""
        _, item = await self.ask("GET", f"{API_SERVICES}/v1.{name}.example.com")
        conditions = (item.get("status") or {}).get("conditions") or []
        return {
            key: value for key, value in (conditions[0] if conditions else {}).items() if key != "lastTransitionTime"
        }

    async def settled(self, wanted: Callable[[dict[str, Any]], bool], name: str) -> dict[str, Any]:
        """The condition once it is as wanted, or the last one after a while."""
        loop = asyncio.get_running_loop()
        end = loop.time() + _PATIENCE
        while True:
            found = await self.condition(name)
            if wanted(found) or loop.time() > end:
                return found
            await asyncio.sleep(0.1)


CONDITIONS = (
    "good",
    "second",
    "modern",
    "e500",
    "e404",
    "moved",
    "slow",
    "hangup",
    "wrongsan",
    "nosan",
    "expired",
    "wrongca",
    "plain",
    "dead",
    "nowhere",
    "noslices",
    "unready",
    "named",
    "headless",
    "badport",
    "local",
)

_T = "/apis/good.example.com/v1/namespaces/agg/things"
UPGRADE = {"Connection": "Upgrade", "Upgrade": "websocket", "Sec-WebSocket-Key": "dGhlIHNhbXBsZSBub25jZQ=="}
# name: (method, path, headers, body)
REQUESTS: dict[str, tuple[str, str, dict[str, Any], Any]] = {
    "get": ("GET", f"{_T}/t", {}, None),
    "query": ("GET", f"{_T}/t?z=1&a=b%20c&a=%2F&empty&q=%C3%A4", {}, None),
    "escaped": ("GET", f"{_T}/a%2Fb", {}, None),
    "escaped-more": ("GET", f"{_T}/a%20b%3Fc%C3%A4(x)'*~", {}, None),
    "slash": ("GET", "/apis/good.example.com/v1/", {}, None),
    "discovery": ("GET", "/apis/good.example.com/v1", {}, None),
    "post": ("POST", _T, {}, {"a": 1}),
    "put": ("PUT", f"{_T}/t", {}, {"a": 1}),
    "empty-post": ("POST", _T, {}, None),
    "delete": ("DELETE", f"{_T}/t", {}, {"kind": "DeleteOptions", "apiVersion": "v1"}),
    "head": ("HEAD", f"{_T}/t", {}, None),
    "options": ("OPTIONS", f"{_T}/t", {}, None),
    "spoof": (
        "GET",
        f"{_T}/t",
        {
            "x-remote-user": "evil",
            "x-remote-group": "system:masters",
            "x-remote-extra-a": "b",
            "x-forwarded-for": "1.2.3.4",
            "x-forwarded-host": "evil.example.com",
            "x-custom-header": "kept",
            "connection": "keep-alive, x-secret",
            "x-secret": "gone",
        },
        None,
    ),
    "impersonated": (
        "GET",
        f"{_T}/t",
        {
            "Impersonate-User": "jane",
            "Impersonate-Group": ["system:masters", "g 2"],
            "Impersonate-Uid": "u-1",
            "Impersonate-Extra-example.com%2fscope": ["a", "b"],
        },
        None,
    ),
    "accept": ("GET", f"{_T}/t", {"Accept": "text/x-y", "Accept-Encoding": "identity", "Cookie": "a=b"}, None),
    "te": ("GET", f"{_T}/t", {"TE": "trailers", "Proxy-Connection": "keep-alive", "Keep-Alive": "timeout=5"}, None),
    "error": ("GET", f"{_T}/err", {}, None),
    "redirect": ("GET", f"{_T}/redirect", {}, None),
    "not-modified": ("GET", f"{_T}/notmodified", {}, None),
    "stream": ("GET", f"{_T}/slow", {}, None),
    "big": ("GET", f"{_T}/big", {}, None),
    "cut": ("GET", f"{_T}/cut", {}, None),
    "drop": ("GET", f"{_T}/drop", {}, None),
    "drop-post": ("POST", f"{_T}/drop", {}, {"a": 1}),
    "cors": ("GET", f"{_T}/cors", {}, None),
    "upgrade-ignored": ("GET", f"{_T}/ws", UPGRADE, None),
    "upgrade-refused": ("GET", f"{_T}/noway", UPGRADE, None),
    "group": ("GET", "/apis/good.example.com", {}, None),
    "unknown-version": ("GET", "/apis/good.example.com/v2/things", {}, None),
    "v3-document": ("GET", "/openapi/v3/apis/good.example.com/v1", {}, None),
    "v3-not-modified": ("GET", "/openapi/v3/apis/good.example.com/v1", {"If-None-Match": '"v3doc"'}, None),
    "v3-converted": ("GET", "/openapi/v3/apis/second.example.com/v1", {}, None),
    "dead-group": ("GET", "/apis/dead.example.com", {}, None),
    "dead-version": ("GET", "/apis/dead.example.com/v1", {}, None),
    "dead-thing": ("GET", "/apis/dead.example.com/v1/namespaces/agg/things", {}, None),
    "dead-upgrade": ("GET", "/apis/dead.example.com/v1/namespaces/agg/things", UPGRADE, None),
    "badbundle-thing": ("GET", "/apis/badbundle.example.com/v1/namespaces/agg/things", {}, None),
    "local-group": ("GET", "/apis/local.example.com", {}, None),
    "local-version": ("GET", "/apis/local.example.com/v1", {}, None),
    "local-thing": ("GET", "/apis/local.example.com/v1/namespaces/agg/things", {}, None),
}


async def perform(theatre: Theatre) -> dict[str, Any]:
    """Everything that is compared."""
    await theatre.settled(lambda it: it.get("status") == "True", "good")
    await theatre.settled(lambda it: it.get("status") == "True", "modern")
    await theatre.settled(bool, "slow")
    told: dict[str, Any] = {"conditions": {}, "requests": {}, "documents": {}}
    for name in CONDITIONS:
        told["conditions"][name] = await theatre.settled(bool, name)
    told["conditions"]["badbundle"] = await theatre.condition("badbundle")
    told["documents"] = await _documents(theatre)
    for name, (method, path, headers, body) in REQUESTS.items():
        theatre.good.seen.clear()
        status, fields, text = await theatre.send(method, path, headers, body)
        own = [item for item in theatre.good.seen if not _is_own(item)][-1:]  # how often is tried again varies
        told["requests"][name] = {"status": status, "headers": _by_name(fields), "text": text, "seen": own}
    ports = {str(listener.port): f"<{name}>" for name, listener in theatre.listeners.items()}
    text = json.dumps(told)
    for port, shown in ports.items():
        text = re.sub(rf"(localhost:|\b127\.0\.0\.1:|\[::1\]:){port}\b", rf"localhost:{shown}", text)
    text = re.sub(r"localhost:\d+", "localhost:<dead>", text)
    text = re.sub(r"dial tcp (127\.0\.0\.1|\[::1\]):\d+", "dial tcp <dead>", text)
    text = text.replace("net/http: request canceled (Client", "context deadline exceeded (Client")  # Go says either
    text = re.sub(r"\d{4}-\d\d-\d\dT\d\d:\d\d:\d\dZ is after", "<now> is after", text)
    text = re.sub(r"[0-9a-f]{8}(-[0-9a-f]{4}){3}-[0-9a-f]{12}", "<uuid>", text)
    made: dict[str, Any] = json.loads(re.sub(r"[0-9A-F]{128}", "<hash>", text))
    return made


def _is_own(item: dict[str, Any]) -> bool:
    user = item["headers"].get("X-Remote-User")
    return user in ("system:kube-aggregator", "system:aggregator")


def _by_name(fields: list[tuple[str, str]]) -> dict[str, list[str]]:
    found: dict[str, list[str]] = {}
    for name, value in fields:
        if name.lower() not in ("date", "last-modified", "content-length", "transfer-encoding", "server", "connection"):
            found.setdefault(name.lower(), []).append(value)
    return found


async def _documents(theatre: Theatre) -> dict[str, Any]:
    """The parts of discovery and OpenAPI that are about the backends."""
    loop = asyncio.get_running_loop()
    end = loop.time() + _PATIENCE
    while True:
        found = await _documents_now(theatre)
        modern = next((item for item in found["aggregated"] if item["metadata"]["name"] == "modern.example.com"), {})
        complete = (
            "second" in json.dumps(found["v3"])
            and "second" in json.dumps(found["v2"]["paths"])
            and "Current" in json.dumps(modern)
        )
        if complete or loop.time() > end:
            return found
        await asyncio.sleep(0.2)


async def _documents_now(theatre: Theatre) -> dict[str, Any]:
    _, legacy = await theatre.ask("GET", "/apis")
    _, _, text = await theatre.send("GET", "/apis", {"Accept": DISCOVERY})
    _, third = await theatre.ask("GET", "/openapi/v3")
    _, second = await theatre.ask("GET", "/openapi/v2")
    ours = ("example.com", "com.example")
    kept = {
        name: item
        for name, item in second["definitions"].items()
        if name.startswith("com.example") or name.endswith("_v2") or name == "Z"
    }
    return {
        "legacy": [item for item in legacy["groups"] if item["name"].endswith(ours[0])],
        "aggregated": [item for item in json.loads(text)["items"] if item["metadata"]["name"].endswith(ours[0])],
        "v3": {path: item for path, item in third["paths"].items() if ours[0] in path},
        "v2": {
            "paths": {path: item for path, item in second["paths"].items() if ours[0] in path or "elsewhere" in path},
            "definitions": kept,
        },
    }
