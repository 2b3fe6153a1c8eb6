"""HTTPS: health open to all; metrics and configz behind TokenReview and SubjectAccessReview (component-base)."""

from __future__ import annotations

import ipaddress
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import orjson
from aiohttp import web

from bowsprit.client.rest import RestClient
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj
from bowsprit.pki.authority import Authority
from bowsprit.scheduler.core import SchedulerCore
from bowsprit.scheduler.driver.metrics import Metrics
from bowsprit.scheduler.driver.writing import WRITE_ERRORS

TOKEN_REVIEWS = GroupVersionResource("authentication.k8s.io", "v1", "tokenreviews")
ACCESS_REVIEWS = GroupVersionResource("authorization.k8s.io", "v1", "subjectaccessreviews")
_REMEMBER = 10.0
_MAX_REMEMBERED = 1000

Checks = Callable[[], Mapping[str, Callable[[], str | None]]]


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """Files of the serving certificate (self-signed in memory when absent) and the CA of client certificates."""

    cert_file: Path | None = None
    key_file: Path | None = None
    client_ca_file: Path | None = None
    always_allow_paths: tuple[str, ...] = ("/healthz", "/readyz", "/livez")
    skip_lookup: bool = False


def serving_context(options: ServingOptions, host: str) -> ssl.SSLContext:
    """TLS 1.2 and up; client certificates are asked for when there is a CA to check them with."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    context.minimum_version = ssl.TLSVersion.TLSv1_2
    if options.cert_file and options.key_file:
        context.load_cert_chain(options.cert_file, options.key_file)
    else:
        addresses = ["127.0.0.1"]
        try:
            addresses.append(str(ipaddress.ip_address(host)))
        except ValueError:
            pass
        pair = Authority.create("kube-scheduler-ca").issue_server("localhost", ["localhost"], set(addresses))
        with tempfile.TemporaryDirectory() as folder:
            cert, key = Path(folder) / "tls.crt", Path(folder) / "tls.key"
            pair.save(cert, key)
            context.load_cert_chain(cert, key)
    if options.client_ca_file:
        context.load_verify_locations(options.client_ca_file)
        context.verify_mode = ssl.CERT_OPTIONAL
    return context


class SchedulerServer:
    """The secure port of a scheduler."""

    def __init__(
        self,
        options: ServingOptions,
        config: Obj,
        metrics: Metrics,
        checks: Checks,
        client: RestClient,
        core: SchedulerCore,
    ):
        self._options = options
        self._config = config
        self._metrics = metrics
        self._checks = checks
        self._client = client
        self._core = core
        self._runner: web.ServerRunner | None = None
        self._remembered: dict[tuple[str, ...], tuple[float, Any]] = {}
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=serving_context(self._options, host)).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()

    async def _handle(self, request: web.BaseRequest) -> web.StreamResponse:
        path = request.path
        if not any(path == allowed or path.startswith(allowed + "/") for allowed in self._options.always_allow_paths):
            refused = await self._refuse(request)
            if refused is not None:
                return refused
        root = path.lstrip("/").split("/", 1)[0]
        if root in ("healthz", "livez", "readyz"):
            return self._health(request, root)
        if request.method not in ("GET", "HEAD"):
            return _text(405, "Method Not Allowed\n")
        if path == "/metrics":
            self._metrics.sizes(self._core)
            return web.Response(body=self._metrics.text(), headers={"Content-Type": "text/plain; version=0.0.4"})
        if path == "/metrics/resources":
            return _text(200, resource_metrics(self._core))
        if path == "/configz":
            return web.Response(
                body=orjson.dumps({"componentconfig": self._config}), headers={"Content-Type": "application/json"}
            )
        return _text(404, "404 page not found\n")

    # health

    def _health(self, request: web.BaseRequest, root: str) -> web.Response:
        every: dict[str, Callable[[], str | None]] = {"ping": lambda: None, "log": lambda: None}
        names = {
            "healthz": ("leaderElection",),
            "livez": ("leaderElection",),
            "readyz": ("leaderElection", "shutdown", "sched-handler-sync"),
        }[root]
        known = self._checks()
        every.update({name: known[name] for name in names})
        single = request.path.lstrip("/").partition("/")[2]
        if single:
            if single not in every:
                return _text(404, "404 page not found\n")
            every = {single: every[single]}
        excluded = set(request.query.getall("exclude", []))
        lines, failed = [], False
        for name, check in every.items():
            if name in excluded:
                lines.append(f"[+]{name} excluded: ok")
            elif check() is None:
                lines.append(f"[+]{name} ok")
            else:
                failed = True
                lines.append(f"[-]{name} failed: reason withheld")
        for name in sorted(excluded - set(every)):
            lines.append(f'warn: some health checks cannot be excluded: no matches for "{name}"')
        if failed:
            return _text(500, "\n".join([*lines, f"{root} check failed", ""]))
        if "verbose" in request.query:
            return _text(200, "\n".join([*lines, f"{root} check passed", ""]))
        return _text(200, "ok")

    # access

    async def _refuse(self, request: web.BaseRequest) -> web.Response | None:
        """None when the caller may read the path; else 401, 403 or 500."""
        try:
            user, groups = await self._who(request)
        except WRITE_ERRORS as exc:
            return _status(500, "InternalError", f"Internal error occurred: {exc}")
        if not user:
            return _status(401, "Unauthorized", "Unauthorized")
        if "system:masters" in groups:
            return None
        verb = "get" if request.method in ("GET", "HEAD") else request.method.lower()
        try:
            allowed = await self._may(user, groups, verb, request.path)
        except WRITE_ERRORS as exc:
            return _status(500, "InternalError", f"Internal error occurred: {exc}")
        if allowed:
            return None
        return _status(403, "Forbidden", f'forbidden: User "{user}" cannot {verb} path "{request.path}"')

    async def _who(self, request: web.BaseRequest) -> tuple[str, tuple[str, ...]]:
        transport = request.transport
        certificate = transport.get_extra_info("peercert") if transport is not None else None
        if certificate:
            subject = [pair for rdn in certificate.get("subject", ()) for pair in rdn]
            name = next((value for key, value in subject if key == "commonName"), "")
            groups = tuple(value for key, value in subject if key == "organizationName")
            if name:
                return name, (*groups, "system:authenticated")
        scheme, _, token = request.headers.get("Authorization", "").partition(" ")
        if not token:
            return "system:anonymous", ("system:unauthenticated",)
        if scheme.lower() != "bearer" or self._options.skip_lookup:
            return "", ()
        known = self._recall(("token", token))
        if known is None:
            body = {"apiVersion": "authentication.k8s.io/v1", "kind": "TokenReview", "spec": {"token": token}}
            review = await self._client.create(TOKEN_REVIEWS, body)
            status = review.get("status") or {}
            user = status.get("user") or {}
            known = (
                (user.get("username", ""), tuple(user.get("groups") or ())) if status.get("authenticated") else ("", ())
            )
            self._remember(("token", token), known)
        found: tuple[str, tuple[str, ...]] = known
        return found

    async def _may(self, user: str, groups: tuple[str, ...], verb: str, path: str) -> bool:
        key = ("access", user, *groups, verb, path)
        known = self._recall(key)
        if known is None:
            spec = {"user": user, "groups": list(groups), "nonResourceAttributes": {"path": path, "verb": verb}}
            body = {"apiVersion": "authorization.k8s.io/v1", "kind": "SubjectAccessReview", "spec": spec}
            review = await self._client.create(ACCESS_REVIEWS, body)
            known = bool((review.get("status") or {}).get("allowed"))
            self._remember(key, known)
        return bool(known)

    def _recall(self, key: tuple[str, ...]) -> Any:
        known = self._remembered.get(key)
        return known[1] if known is not None and known[0] > time.monotonic() else None

    def _remember(self, key: tuple[str, ...], value: Any) -> None:
        if len(self._remembered) >= _MAX_REMEMBERED:
            self._remembered.clear()
        self._remembered[key] = (time.monotonic() + _REMEMBER, value)


def _text(code: int, text: str) -> web.Response:
    return web.Response(status=code, text=text, headers={"X-Content-Type-Options": "nosniff"})


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
        "code": code,
    }  # fmt: skip
    return web.Response(status=code, body=orjson.dumps(body), headers={"Content-Type": "application/json"})


def resource_metrics(core: SchedulerCore) -> str:
    """kube_pod_resource_request of bound pods (/metrics/resources)."""
    name = "kube_pod_resource_request"
    lines = [
        f"# HELP {name} [STABLE] Resources requested by workloads on the cluster, broken down by pod.",
        f"# TYPE {name} gauge",
    ]
    for pod in core.cache.pods.values():
        for resource, amount in pod.shape.requests.items():
            unit = (
                "cores" if resource == "cpu" else "bytes" if resource != "pods" and "/" not in resource else "integer"
            )
            value = amount / 1000 if resource == "cpu" else amount
            lines.append(
                f'{name}{{namespace="{pod.namespace}",node="{pod.node_name}",pod="{pod.name}",priority="{pod.priority}",'
                f'resource="{resource}",scheduler="{pod.scheduler_name}",unit="{unit}"}} {value:g}'
            )
    return "\n".join([*lines, ""])
