"""HTTPS: health open to all; metrics and configz behind TokenReview and SubjectAccessReview (component-base)."""

from __future__ import annotations

import ipaddress
import platform
import ssl
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.metadata import version
from pathlib import Path

import orjson
from aiohttp import web

from bowsprit.apiserver.access import Connection
from bowsprit.apiserver.tls import ask_for_client_certificates, peer_certificates
from bowsprit.client.rest import RestClient
from bowsprit.machinery.goformat import float_text
from bowsprit.machinery.objects import Obj
from bowsprit.pki.authority import Authority
from bowsprit.scheduler.core import SchedulerCore
from bowsprit.scheduler.driver.access import Access, AccessOptions
from bowsprit.scheduler.driver.metrics import Metrics
from bowsprit.scheduler.driver.writing import WRITE_ERRORS
from bowsprit.scheduler.requests import pod_limits

EMULATION_VERSION = "1.36"

_VERSIONS = {"": ssl.TLSVersion.TLSv1_2, "VersionTLS12": ssl.TLSVersion.TLSv1_2, "VersionTLS13": ssl.TLSVersion.TLSv1_3}
_CIPHERS = {
    "TLS_AES_128_GCM_SHA256": "",  # those of TLS 1.3 cannot be chosen
    "TLS_AES_256_GCM_SHA384": "",
    "TLS_CHACHA20_POLY1305_SHA256": "",
    **{
        f"TLS_ECDHE_{kind}_WITH_{name}": f"ECDHE-{kind}-{openssl}"
        for kind in ("ECDSA", "RSA")
        for name, openssl in (
            ("AES_128_GCM_SHA256", "AES128-GCM-SHA256"),
            ("AES_256_GCM_SHA384", "AES256-GCM-SHA384"),
            ("CHACHA20_POLY1305", "CHACHA20-POLY1305"),
            ("CHACHA20_POLY1305_SHA256", "CHACHA20-POLY1305"),
            ("AES_128_CBC_SHA", "AES128-SHA"),
            ("AES_256_CBC_SHA", "AES256-SHA"),
        )
    },
}

Checks = Callable[[], Mapping[str, Callable[[], str | None]]]


@dataclass(frozen=True, slots=True)
class ServingOptions:
    """Files of the serving certificate (self-signed in memory when absent); who may read what; flags for /flagz."""

    cert_file: Path | None = None
    key_file: Path | None = None
    cert_dir: Path | None = None  # where a self-signed certificate is kept
    min_version: str = ""  # VersionTLS12 (default) or VersionTLS13
    cipher_suites: tuple[str, ...] = ()  # of TLS 1.2, by their IANA names
    always_allow_paths: tuple[str, ...] = ("/healthz", "/readyz", "/livez")
    access: AccessOptions = field(default_factory=AccessOptions)
    flags: Mapping[str, str] = field(default_factory=dict)


def serving_context(options: ServingOptions, host: str) -> ssl.SSLContext:
    """TLS 1.2 and up; client certificates are asked for, and judged by authentication."""
    context = ssl.SSLContext(ssl.PROTOCOL_TLS_SERVER)
    if options.min_version not in _VERSIONS:
        raise ValueError(f"unknown tls version {options.min_version!r}; one of {', '.join(filter(None, _VERSIONS))}")
    context.minimum_version = _VERSIONS[options.min_version]
    if options.cipher_suites:
        unknown = [name for name in options.cipher_suites if name not in _CIPHERS]
        if unknown:
            raise ValueError(f"Cipher suite {unknown[0]} not supported or doesn't exist")
        context.set_ciphers(":".join(filter(None, (_CIPHERS[name] for name in options.cipher_suites))))
    if options.cert_file and options.key_file:
        context.load_cert_chain(options.cert_file, options.key_file)
    else:
        addresses = ["127.0.0.1"]
        try:
            addresses.append(str(ipaddress.ip_address(host)))
        except ValueError:
            pass
        with tempfile.TemporaryDirectory() as folder:
            where = options.cert_dir or Path(folder)
            where.mkdir(parents=True, exist_ok=True)
            cert, key = where / "kube-scheduler.crt", where / "kube-scheduler.key"
            if not (cert.exists() and key.exists()):
                authority = Authority.create("kube-scheduler-ca")
                authority.issue_server("localhost", ["localhost"], set(addresses)).save(cert, key)
            context.load_cert_chain(cert, key)
    ask_for_client_certificates(context)
    return context


_CHECKS = {
    "healthz": ("leaderElection",),
    "livez": ("ping",),
    "readyz": ("leaderElection", "shutdown", "sched-handler-sync"),
}


def _ping() -> str | None:
    return None


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
        self._core = core
        self._access = Access(options.access, client)
        self._started = time.time()
        self._runner: web.ServerRunner | None = None
        self.port = 0

    async def start(self, host: str, port: int) -> None:
        await self._access.start()
        self._runner = web.ServerRunner(web.Server(self._handle, access_log=None), shutdown_timeout=1.0)
        await self._runner.setup()
        await web.TCPSite(self._runner, host, port, ssl_context=serving_context(self._options, host)).start()
        self.port = int(self._runner.addresses[0][1])

    async def stop(self) -> None:
        if self._runner is not None:
            runner, self._runner = self._runner, None
            await runner.cleanup()
        await self._access.close()

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
            return _metrics_text(self._metrics.text().decode())
        if path == "/metrics/resources":
            return _metrics_text(resource_metrics(self._core))
        if path == "/metrics/slis":
            return _metrics_text(self._slis())
        if path == "/statusz":
            return _text(200, self._statusz())
        if path == "/flagz":
            lines = [f"{name}={value}" for name, value in sorted(self._options.flags.items())]
            return _text(200, "\n".join([*_header("flagz"), *lines, ""]))
        if path == "/configz":
            return web.Response(
                body=orjson.dumps({"componentconfig": self._config}), headers={"Content-Type": "application/json"}
            )
        return _text(404, "404 page not found\n")

    def _statusz(self) -> str:
        up = int(time.time() - self._started)
        started = time.strftime("%a %b %d %H:%M:%S UTC %Y", time.gmtime(self._started))
        lines = [
            f"Started: {started}",
            f"Up: {up // 3600} hr {up // 60 % 60:02} min {up % 60:02} sec",
            f"Python version: {platform.python_version()}",
            f"Binary version: {version('bowsprit')}",
            f"Emulation version: {EMULATION_VERSION}",
            "Paths: /configz /flagz /healthz /livez /metrics /readyz",
        ]
        return "\n".join([*_header("statusz"), *lines, ""])

    def _slis(self) -> str:
        """kubernetes_healthcheck: what each check of each endpoint says now."""
        name, known = "kubernetes_healthcheck", {"ping": _ping, **self._checks()}
        lines = [
            f"# HELP {name} [STABLE] This metric records the result of a single healthcheck.",
            f"# TYPE {name} gauge",
        ]
        lines += sorted(
            f'{name}{{name="{check}",type="{root}"}} {int(known[check]() is None)}'
            for root, checks in _CHECKS.items()
            for check in checks
            if check in known
        )
        return "\n".join([*lines, ""])

    # health

    def _health(self, request: web.BaseRequest, root: str) -> web.Response:
        known = {"ping": _ping, **self._checks()}
        every = {name: known[name] for name in _CHECKS[root] if name in known}
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
        transport = request.transport
        leaf, others = peer_certificates(transport.get_extra_info("ssl_object") if transport is not None else None)
        user = await self._access.who(request.headers, Connection(leaf, others))
        if user is None:
            return _status(401, "Unauthorized", "Unauthorized")
        verb = request.method.lower()
        try:
            allowed = await self._access.may(user, verb, request.path)
        except WRITE_ERRORS as exc:
            return _text(500, f'Internal Server Error: "{request.path}": {exc}\n')
        if allowed:
            return None
        return _status(403, "Forbidden", f'forbidden: User "{user.name}" cannot {verb} path "{request.path}"')


def _header(page: str) -> list[str]:
    warning = (
        "Warning: This endpoint is not meant to be machine parseable, has no formatting compatibility guarantees and is "
        "for debugging purposes only."
    )
    return ["", f"kube-scheduler {page}", warning, ""] if page == "statusz" else ["", f"kube-scheduler {page}", warning]


def _metrics_text(text: str) -> web.Response:
    kind = "text/plain; version=0.0.4; charset=utf-8; escaping=underscores"
    return web.Response(body=text.encode(), headers={"Content-Type": kind})


def _text(code: int, text: str) -> web.Response:
    return web.Response(status=code, text=text, headers={"X-Content-Type-Options": "nosniff"})


def _status(code: int, reason: str, message: str) -> web.Response:
    body = {
        "kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Failure", "message": message, "reason": reason,
        "details": {}, "code": code,
    }  # fmt: skip
    return web.Response(status=code, body=orjson.dumps(body), headers={"Content-Type": "application/json"})


def resource_metrics(core: SchedulerCore) -> str:
    """Requests and limits of all pods that have not ended (/metrics/resources)."""
    help_text = (
        "by workloads on the cluster, broken down by pod. This shows the resource usage the scheduler and kubelet expect "
        "per pod for resources along with the unit for the resource if any."
    )
    known = {pod.uid: pod for pod in (*core.queue.pods(), *core.cache.pods.values())}
    pods = sorted(known.values(), key=lambda pod: pod.key)
    lines: list[str] = []
    for kind, verb in (("request", "requested"), ("limit", "limit")):
        name = f"kube_pod_resource_{kind}"
        found = [
            f'{name}{{namespace="{pod.namespace}",node="{pod.node_name}",pod="{pod.name}",priority="{pod.priority}",'
            f'resource="{resource}",scheduler="{pod.scheduler_name}",unit="{_unit(resource)}"}} {_amount(resource, amount)}'
            for pod in pods
            for resource, amount in sorted(
                (pod.shape.requests if kind == "request" else pod_limits(pod.obj.get("spec") or {})).items()
            )
            if amount
        ]
        if found:
            told = f"Resources requested {help_text}" if kind == "request" else f"Resources {verb} {help_text}"
            lines += [f"# HELP {name} [STABLE] {told}", f"# TYPE {name} gauge", *found]
    return "\n".join([*lines, ""])


def _unit(resource: str) -> str:
    if resource == "cpu":
        return "cores"
    if resource in ("memory", "ephemeral-storage") or resource.startswith(("hugepages-", "attachable-volumes-")):
        return "integer" if resource.startswith("attachable") else "bytes"
    return "integer"


def _amount(resource: str, amount: int) -> str:
    value = amount / 1000 if resource == "cpu" else float(amount)
    return str(int(value)) if value.is_integer() and value < 1e6 else float_text(value)
