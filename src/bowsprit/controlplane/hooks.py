"""Post-start hooks: what a server does right after it has begun to listen, each with its own health check.

Upstream: k8s.io/apiserver/pkg/server/hooks.go. A check `poststarthook/<name>` fails until its hook is done. The names are
upstream's, so that probes and dashboards find them; those whose work is part of starting here have no step of their own.
"""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Mapping

from bowsprit.apiserver.health import Health

Step = Callable[[], Awaitable[None]]

NAMES = (
    "start-apiserver-admission-initializer",
    "generic-apiserver-start-informers",
    "priority-and-fairness-config-consumer",
    "priority-and-fairness-filter",
    "storage-object-count-tracker-hook",
    "start-apiextensions-informers",
    "start-apiextensions-controllers",
    "crd-informer-synced",
    "start-system-namespaces-controller",
    "peer-endpoint-reconciler-controller",
    "start-cluster-authentication-info-controller",
    "start-kube-apiserver-identity-lease-controller",
    "start-kube-apiserver-identity-lease-garbage-collector",
    "storage-readiness",
    "start-legacy-token-tracking-controller",
    "start-service-ip-repair-controllers",
    "rbac/bootstrap-roles",
    "scheduling/bootstrap-system-priority-classes",
    "priority-and-fairness-config-producer",
    "bootstrap-controller",
    "start-kubernetes-service-cidr-controller",
    "aggregator-reload-proxy-client-cert",
    "start-kube-aggregator-informers",
    "apiservice-status-local-available-controller",
    "apiservice-status-remote-available-controller",
    "apiservice-registration-controller",
    "apiservice-wait-for-first-sync",
    "apiservice-discovery-controller",
    "kube-apiserver-autoregistration",
    "apiservice-openapi-controller",
    "apiservice-openapiv3-controller",
)
_AUTOREGISTRATION = "kube-apiserver-autoregistration"


class PostStartHooks:
    """Runs the steps, the namespaces' first: everything else may live in one."""

    def __init__(self, steps: Mapping[str, Step], health: Health) -> None:
        unknown = set(steps) - set(NAMES)
        if unknown:
            raise ValueError(f"unknown post-start hooks: {', '.join(sorted(unknown))}")
        self._steps = dict(steps)
        self._complete: dict[str, Callable[[], None]] = {}
        self._registered = False
        for name in NAMES:
            self._complete[name] = health.add_post_start_hook(name)
            if name == _AUTOREGISTRATION:
                health.add("autoregister-completion", self._check_registered)

    async def run(self) -> None:
        """Do all steps. The first failure stops the others and is raised."""
        first = "start-system-namespaces-controller"
        await self._run_one(first)
        try:
            async with asyncio.TaskGroup() as group:
                for name in NAMES:
                    if name != first:
                        group.create_task(self._run_one(name), name=f"poststarthook/{name}")
        except BaseExceptionGroup as failures:
            raise failures.exceptions[0] from None

    async def _run_one(self, name: str) -> None:
        step = self._steps.get(name)
        if step is not None:
            await step()
        self._complete[name]()
        if name == _AUTOREGISTRATION:
            self._registered = True

    async def _check_registered(self) -> None:
        if not self._registered:
            raise RuntimeError("not finished")
