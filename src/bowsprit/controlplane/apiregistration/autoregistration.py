"""APIService objects for the groups that this server serves itself (upstream kube-aggregator autoregister).

Built-in group-versions are registered once, at start (``automanaged: onstart``): what is done to these objects afterwards holds
until the next start. Those of CustomResourceDefinitions follow them continuously (``automanaged: "true"``): they are recreated
when deleted and reset when edited. An APIService without the label belongs to somebody else and is left alone.
"""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass

from bowsprit.apiserver.lookup import Listers, LocalClient
from bowsprit.controlplane.schemas import load_data
from bowsprit.machinery.errors import AlreadyExistsError, ConflictError, NotFoundError
from bowsprit.machinery.names import GroupResource, GroupVersion
from bowsprit.machinery.objects import Obj, deep_copy

AUTOMANAGED = "kube-aggregator.kubernetes.io/automanaged"
API_SERVICES = GroupResource("apiregistration.k8s.io", "apiservices")
_CUSTOM_PRIORITY = (1000, 100)
_ON_START = "onstart"


@dataclass(frozen=True, slots=True)
class Wanted:
    """One managed APIService."""

    group_version: GroupVersion
    group_priority: int
    version_priority: int
    automanaged: str

    @property
    def name(self) -> str:
        return f"{self.group_version.version}.{self.group_version.group}"

    def spec(self) -> Obj:
        spec: Obj = {"group": self.group_version.group} if self.group_version.group else {}
        return spec | {
            "version": self.group_version.version,
            "groupPriorityMinimum": self.group_priority,
            "versionPriority": self.version_priority,
        }


def built_in() -> list[Wanted]:
    """The recorded priorities of the built-in group-versions."""
    found = []
    for obj in load_data("bootstrap")["APIService"]:
        spec = obj["spec"]
        group_version = GroupVersion(spec.get("group", ""), spec["version"])
        found.append(Wanted(group_version, spec["groupPriorityMinimum"], spec["versionPriority"], _ON_START))
    return found


def custom(group_versions: Iterable[GroupVersion]) -> list[Wanted]:
    """Those of CustomResourceDefinitions."""
    return [Wanted(group_version, *_CUSTOM_PRIORITY, "true") for group_version in group_versions]


class Autoregistration:
    """Brings the APIService objects in line with what is served."""

    def __init__(self, client: LocalClient, listers: Listers) -> None:
        self._client = client
        self._listers = listers
        self._registered: set[str] = set()  # of those that are registered at start, whoever has been

    async def sync(self, wanted: Iterable[Wanted]) -> None:
        """One pass: create, reset, delete."""
        lister = self._listers(API_SERVICES)
        by_name = {item.name: item for item in wanted}
        for name, item in by_name.items():
            if name in self._registered:
                continue
            found = lister.get("", name)
            if found is None:
                await self._create(item)
            elif AUTOMANAGED in (found["metadata"].get("labels") or {}):
                await self._reset(found, item)
            if item.automanaged == _ON_START:
                self._registered.add(name)
        for found in list(lister.list()):
            label = (found["metadata"].get("labels") or {}).get(AUTOMANAGED)
            if label and found["metadata"]["name"] not in by_name:
                await self._delete(found["metadata"]["name"])

    async def _create(self, item: Wanted) -> None:
        meta = {"name": item.name, "labels": {AUTOMANAGED: item.automanaged}}
        obj = {"apiVersion": "apiregistration.k8s.io/v1", "kind": "APIService", "metadata": meta, "spec": item.spec()}
        try:
            await self._client.create(API_SERVICES, obj)
        except AlreadyExistsError:
            return

    async def _reset(self, found: Obj, item: Wanted) -> None:
        if found["spec"] == item.spec() and found["metadata"]["labels"][AUTOMANAGED] == item.automanaged:
            return
        changed = deep_copy(found)
        changed["spec"] = item.spec()
        changed["metadata"]["labels"][AUTOMANAGED] = item.automanaged
        try:
            await self._client.update(API_SERVICES, changed)
        except (ConflictError, NotFoundError):
            return

    async def _delete(self, name: str) -> None:
        try:
            await self._client.delete(API_SERVICES, "", name)
        except NotFoundError:
            return
