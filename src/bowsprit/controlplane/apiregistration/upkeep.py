"""Keeps the APIService objects and the order of discovery in step with what is served, for as long as the server runs."""

from __future__ import annotations

import asyncio
import contextlib
import logging

from bowsprit.apiserver.lookup import Listers, LocalClient
from bowsprit.apiserver.server import Server
from bowsprit.controlplane.apiregistration.autoregistration import API_SERVICES, Autoregistration, built_in, custom
from bowsprit.machinery.names import GroupVersion
from bowsprit.machinery.objects import Obj

logger = logging.getLogger(__name__)

_PAUSE = 0.05  # changes come in bunches
_RETRY = 1.0
_OWN_PRIORITY = 20001  # of this very group, which has no APIService: more than any may have


class APIServiceUpkeep:
    """One task that works whenever a kind or an APIService comes, changes or goes."""

    def __init__(self, server: Server, client: LocalClient, listers: Listers) -> None:
        self._server = server
        self._registration = Autoregistration(client, listers)
        self._listers = listers
        self._wanted = asyncio.Event()
        self._known: dict[str, tuple[GroupVersion, int, int]] = {}
        self._task: asyncio.Task[None] | None = None
        server.registry.on_change(self._wanted.set)

    async def start(self) -> None:
        """Do the first pass, and go on in the background."""
        await self._pass()
        subscribed = self._server.registry.lister(API_SERVICES).subscribe(self._changed)
        self._task = asyncio.create_task(self._run(), name="apiservice-upkeep")
        self._task.add_done_callback(lambda _: subscribed())

    async def stop(self) -> None:
        """End the background task."""
        if self._task is not None:
            self._task.cancel()
            with contextlib.suppress(asyncio.CancelledError):
                await self._task

    def _changed(self, _: str, __: Obj, ___: Obj | None) -> None:
        self._wanted.set()

    async def _run(self) -> None:
        while True:
            await self._wanted.wait()
            self._wanted.clear()
            await asyncio.sleep(_PAUSE)
            try:
                await self._pass()
            except Exception:
                logger.exception("APIServices could not be brought in line; trying again")
                await asyncio.sleep(_RETRY)
                self._wanted.set()

    async def _pass(self) -> None:
        await self._registration.sync([*built_in(), *custom(self._custom_versions())])
        self._prefer()

    def _custom_versions(self) -> list[GroupVersion]:
        found: dict[GroupVersion, None] = {}
        for collection in self._server.registry.collections():
            if collection.resource.custom:
                found |= dict.fromkeys(version.gvr.gv for version in collection.resource.versions if version.served)
        return list(found)

    def _prefer(self) -> None:
        """Order groups by the highest groupPriorityMinimum of their APIServices, versions by versionPriority."""
        discovery = self._server.discovery
        known: dict[str, tuple[GroupVersion, int, int]] = {}
        groups = {API_SERVICES.group: _OWN_PRIORITY}
        for item in self._listers(API_SERVICES).list():
            spec = item["spec"]
            group_version = GroupVersion(spec.get("group", ""), spec["version"])
            group, version = spec.get("groupPriorityMinimum", 0), spec.get("versionPriority", 0)
            known[item["metadata"]["name"]] = (group_version, group, version)
            groups[group_version.group] = max(group, groups.get(group_version.group, 0))
        for name, (group_version, _, _) in self._known.items():
            if name not in known:
                discovery.drop_priorities(group_version)
        for group_version, _, version in known.values():
            discovery.set_version_priority(group_version, version)
        for name, priority in groups.items():
            discovery.set_group_priority(name, priority)
        own = [gv for gv in self._server.registry.group_versions() if gv.group == API_SERVICES.group]
        discovery.announce([*own, *(group_version for group_version, _, _ in known.values())])
        self._known = known
