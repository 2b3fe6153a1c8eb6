"""Extenders over HTTP (pkg/scheduler/extender.go): filter, prioritize, preempt and bind by webhooks.

Calls are made from the cycle's thread; the requests run on the event loop. The types on the wire have Go's field names as
keys; answers are read in either case, as Go's decoder does.
"""

from __future__ import annotations

import asyncio
import ssl
from base64 import b64decode
from collections.abc import Callable
from pathlib import Path
from typing import Any

import orjson

from bowsprit.client.config import RestConfig, tls_context
from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.config.duration import seconds
from bowsprit.scheduler.framework import Status, failure
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.preemption import Candidate

_LIMIT = 16 * 1024 * 1024


class ExtenderError(Exception):
    """An extender that did not answer, or answered with an error."""


class HTTPExtender:
    """One configured extender. `node_of` gives the Node object of a name, for extenders without a cache of their own."""

    def __init__(self, config: Obj, loop: asyncio.AbstractEventLoop, node_of: Callable[[str], Obj]):
        self._config = config
        self._loop = loop
        self._url = str(config.get("urlPrefix") or "").rstrip("/")
        self.weight = int(config.get("weight") or 0)
        self.ignorable = bool(config.get("ignorable"))
        self.is_filter = bool(config.get("filterVerb"))
        self.is_prioritizer = bool(config.get("prioritizeVerb"))
        self.is_binder = bool(config.get("bindVerb"))
        self.is_preempter = bool(config.get("preemptVerb"))
        self._cached_nodes = bool(config.get("nodeCacheCapable"))
        managed = config.get("managedResources") or ()
        self._managed = frozenset(item["name"] for item in managed)
        self.ignored_resources = frozenset(item["name"] for item in managed if item.get("ignoredByScheduler"))
        self._timeout = seconds(config.get("httpTimeout") or "5s")
        self._node_of = node_of
        self._session: Any = None
        self._context = self._tls()

    @property
    def name(self) -> str:
        return self._url

    def _tls(self) -> ssl.SSLContext | None:
        tls = self._config.get("tlsConfig") or {}
        if not self._config.get("enableHTTPS") and not self._url.startswith("https"):
            return None

        def data(name: str) -> bytes:  # of rest.TLSClientConfig: what stands in the configuration wins over files
            if inline := tls.get(f"{name}Data"):
                return b64decode(inline)
            return Path(tls[f"{name}File"]).read_bytes() if tls.get(f"{name}File") else b""

        authority = data("ca")
        return tls_context(
            RestConfig(
                server=self._url,
                ca_data=authority,
                insecure_skip_tls_verify=bool(tls.get("insecure")) or not authority,
                client_certificate_data=data("cert"),
                client_key_data=data("key"),
            )
        )

    def is_interested(self, pod: PodInfo) -> bool:
        """Whether the pod asks for a resource that this extender manages (all pods when it manages none)."""
        if not self._managed:
            return True
        spec = pod.obj.get("spec") or {}
        for container in (*(spec.get("containers") or ()), *(spec.get("initContainers") or ())):
            resources = container.get("resources") or {}
            if self._managed & {*(resources.get("requests") or ()), *(resources.get("limits") or ())}:
                return True
        return False

    # calls, from the cycle's thread

    def filter(self, pod: PodInfo, names: list[str]) -> tuple[list[str], dict[str, str], dict[str, str]]:
        """(nodes that are left, failed, failed and unresolvable with their messages)."""
        answer = self._call(self._config["filterVerb"], self._arguments(pod, names))
        if answer.get("Error") or answer.get("error"):
            raise ExtenderError(str(answer.get("Error") or answer.get("error")))
        kept = answer.get("NodeNames") or answer.get("nodenames")
        if kept is None:
            nodes = answer.get("Nodes") or answer.get("nodes") or {}
            kept = [node["metadata"]["name"] for node in nodes.get("items") or nodes.get("Items") or ()]
        known = set(names)
        for name in kept:
            if name not in known:
                raise ExtenderError(
                    f'extender "{self.name}" claims a filtered node "{name}" which is not found in the input node list'
                )
        failed = answer.get("FailedNodes") or answer.get("failedNodes") or {}
        unresolved = answer.get("FailedAndUnresolvableNodes") or answer.get("failedAndUnresolvableNodes") or {}
        return list(kept), dict(failed), dict(unresolved)

    def prioritize(self, pod: PodInfo, names: list[str]) -> dict[str, int]:
        """Scores 0..10 by node."""
        answer = self._call(self._config["prioritizeVerb"], self._arguments(pod, names))
        return {
            item.get("Host") or item.get("host"): int(item.get("Score") or item.get("score") or 0) for item in answer
        }

    def preempt(self, pod: PodInfo, candidates: list[Candidate]) -> list[Candidate]:
        """The candidates that the extender leaves, with the victims that it leaves."""
        body: Obj = {"Pod": pod.obj}
        if self._cached_nodes:
            body["NodeNameToMetaVictims"] = {
                c.node: {"Pods": [{"UID": v.uid} for v in c.victims], "NumPDBViolations": c.violations}
                for c in candidates
            }
        else:
            body["NodeNameToVictims"] = {
                c.node: {"Pods": [v.obj for v in c.victims], "NumPDBViolations": c.violations} for c in candidates
            }
        answer = self._call(self._config["preemptVerb"], body)
        left = answer.get("NodeNameToMetaVictims") or answer.get("nodeNameToMetaVictims") or {}
        by_node = {candidate.node: candidate for candidate in candidates}
        result = []
        for node, victims in left.items():
            candidate = by_node.get(node)
            if candidate is None:
                raise ExtenderError(f'extender "{self.name}" returned node "{node}" that was not a candidate')
            kept = {item.get("UID") or item.get("uid") for item in victims.get("Pods") or victims.get("pods") or ()}
            violations = int(victims.get("NumPDBViolations") or victims.get("numPDBViolations") or 0)
            result.append(Candidate(node, [v for v in candidate.victims if v.uid in kept], violations))
        return result

    async def bind(self, pod: PodInfo, node_name: str) -> Status | None:
        body = {"PodName": pod.name, "PodNamespace": pod.namespace, "PodUID": pod.uid, "Node": node_name}
        try:
            answer = await self._post(self._config["bindVerb"], body)
        except ExtenderError as exc:
            return failure(str(exc))
        message = answer.get("Error") or answer.get("error")
        return failure(str(message)) if message else None

    def _arguments(self, pod: PodInfo, names: list[str]) -> Obj:
        body: Obj = {"Pod": pod.obj}
        if self._cached_nodes:
            body["NodeNames"] = names
        else:
            body["Nodes"] = {
                "kind": "NodeList",
                "apiVersion": "v1",
                "metadata": {},
                "items": [self._node_of(n) for n in names],
            }
        return body

    def _call(self, verb: str, body: Obj) -> Any:
        future = asyncio.run_coroutine_threadsafe(self._post(verb, body), self._loop)
        return future.result(self._timeout + 5.0)

    async def _post(self, verb: str, body: Obj) -> Any:
        import aiohttp

        if self._session is None:
            self._session = aiohttp.ClientSession(timeout=aiohttp.ClientTimeout(total=self._timeout))
        url = f"{self._url}/{verb}"
        headers = {"Content-Type": "application/json"}
        server_name = (self._config.get("tlsConfig") or {}).get("serverName") or None
        try:
            async with self._session.post(
                url, data=orjson.dumps(body), headers=headers, ssl=self._context or True, server_hostname=server_name
            ) as answer:
                data = await answer.content.read(_LIMIT)
                if answer.status != 200:
                    raise ExtenderError(f"failed {verb} with extender at URL {self._url}, code {answer.status}")
                return orjson.loads(data)
        except (aiohttp.ClientError, TimeoutError, OSError, ValueError) as exc:
            raise ExtenderError(f'Post "{url}": {exc or type(exc).__name__}') from exc

    async def close(self) -> None:
        if self._session is not None:
            await self._session.close()


def check_files(config: Obj) -> None:
    """Raise OSError for TLS files that cannot be read, when the configuration is loaded."""
    for extender in config.get("extenders") or ():
        tls = extender.get("tlsConfig") or {}
        for key in ("caFile", "certFile", "keyFile"):
            if tls.get(key):
                Path(tls[key]).open("rb").close()
