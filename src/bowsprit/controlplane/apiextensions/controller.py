"""What happens after a CustomResourceDefinition was written: its names are accepted, it is served, and it goes with its objects.

Upstream's naming, establishing and finalizing controllers and the crdHandler as one loop: every change of a definition leads to
one `sync` of it. Names are compared within the group: the first definition that claims one keeps it.
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import partial

from bowsprit.apiserver.admission.hookclient import HookClient
from bowsprit.apiserver.cacher import Change
from bowsprit.apiserver.collection import Collection
from bowsprit.apiserver.conversion import prepared
from bowsprit.apiserver.localclient import LocalClient
from bowsprit.apiserver.registry import Lister, Registry
from bowsprit.apiserver.resource import Resource
from bowsprit.controlplane.apiextensions.conversion import WebhookConversion
from bowsprit.controlplane.apiextensions.conversionmetrics import ConversionMetrics
from bowsprit.controlplane.apiextensions.serving import custom_resource, hub_version
from bowsprit.machinery.errors import ConflictError, NotFoundError, StatusError
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, deep_copy, find_condition, nested
from bowsprit.machinery.time import format_time
from bowsprit.store.protocol import RevisionMismatchError, StoreError

logger = logging.getLogger(__name__)

DEFINITIONS = GroupResource("apiextensions.k8s.io", "customresourcedefinitions")
CLEANUP = "customresourcecleanup.apiextensions.k8s.io"
RETRY_SECONDS = 1.0
_NAME_FIELDS = ("plural", "singular", "kind", "listKind")


@dataclass(frozen=True, slots=True)
class _Served:
    """What is served of a definition, and as what."""

    gr: GroupResource
    hub: str
    crd: Obj


def _shape(crd: Obj) -> tuple[object, ...]:
    """All of a definition that serving looks at."""
    status, deleted = crd.get("status") or {}, crd["metadata"].get("deletionTimestamp")
    return crd["spec"], status.get("acceptedNames"), status.get("storedVersions"), bool(deleted)


class _Once:
    """Calls back at the next change of a collection."""

    namespace: str | None = None
    count = 0

    def __init__(self, collection: Collection, callback: Callable[[], None]) -> None:
        self._collection = collection
        self._callback = callback

    def push(self, changes: Sequence[Change]) -> None:
        self._collection.cacher.remove(self)
        self._callback()

    def end(self) -> None:
        return None


class DefinitionController:
    """Follows the definitions of a registry. `start` returns when those that exist are served; then `synced` is set.

    Args:
        hooks: how conversion webhooks are asked.
    """

    def __init__(self, registry: Registry, hooks: HookClient) -> None:
        self._registry = registry
        self._hooks = hooks
        self.metrics = ConversionMetrics()
        self._conversions: dict[str, tuple[Obj, WebhookConversion]] = {}
        self._client: LocalClient = registry.client()
        self._queue: dict[str, None] = {}
        self._wake = asyncio.Event()
        self._task: asyncio.Task[None] | None = None
        self._unsubscribe: Callable[[], None] | None = None
        self._served: dict[str, _Served] = {}
        self._claims: dict[str, tuple[str, Obj]] = {}  # definition -> (group, accepted names)
        self.synced = asyncio.Event()

    async def start(self) -> None:
        lister = self._lister()
        self._unsubscribe = lister.subscribe(self._changed)
        for crd in lister.list():
            self._claim(crd)
        for name in list(self._claims):
            await self._sync_safely(name)
        self.synced.set()
        self._task = asyncio.create_task(self._run(), name="crd-controller")

    async def stop(self) -> None:
        if self._unsubscribe is not None:
            self._unsubscribe()
        if self._task is not None:
            self._task.cancel()
            await asyncio.gather(self._task, return_exceptions=True)

    def _lister(self) -> Lister:
        return self._registry.lister(DEFINITIONS)

    def _changed(self, sort: str, obj: Obj, old: Obj | None) -> None:
        name = obj["metadata"]["name"]
        self._add(name)
        before = self._claims.get(name)
        if sort == "DELETED":
            self._claims.pop(name, None)
        else:
            self._claim(obj)
        if self._claims.get(name) != before:
            # Names may have become free for others of the group.
            for other, (group, _) in self._claims.items():
                if group == obj["spec"]["group"]:
                    self._add(other)

    def _claim(self, crd: Obj) -> None:
        names = nested(crd, "status", "acceptedNames") or {}
        self._claims[crd["metadata"]["name"]] = (crd["spec"]["group"], names)

    def _add(self, name: str) -> None:
        self._queue[name] = None
        self._wake.set()

    async def _run(self) -> None:
        while True:
            await self._wake.wait()
            self._wake.clear()
            while self._queue:
                name = next(iter(self._queue))
                del self._queue[name]
                await self._sync_safely(name)

    async def _sync_safely(self, name: str) -> None:
        try:
            await self._sync(name)
        except (StatusError, StoreError) as failure:
            logger.warning("CustomResourceDefinition %s: %s; trying again", name, failure)
            asyncio.get_running_loop().call_later(RETRY_SECONDS, self._add, name)
        except Exception:
            # One bad definition must not stop the others.
            logger.exception("CustomResourceDefinition %s cannot be served", name)

    async def _sync(self, name: str) -> None:
        crd = self._lister().get("", name)
        if crd is None:
            self._withdraw(name)
            return
        wanted = self._status(crd)
        if wanted != (crd.get("status") or {}):
            crd = await self._write_status(name, wanted)
        established = find_condition(crd, "Established")
        if established is not None and established["status"] == "True":
            await self._serve(crd)
        if crd["metadata"].get("deletionTimestamp") and CLEANUP in (crd["metadata"].get("finalizers") or []):
            await self._clean_up(crd)

    async def _write_status(self, name: str, status: Obj) -> Obj:
        def change(live: Obj) -> None:
            live["status"] = {**deep_copy(status), "storedVersions": nested(live, "status", "storedVersions")}

        return await self._client.change(DEFINITIONS, "", name, change, subresource="status")

    # -- names -----------------------------------------------------------------------------------------------------------

    def _status(self, crd: Obj) -> Obj:
        """The status that names and time ask for (upstream NamingConditionController.calculateNamesAndConditions)."""
        status: Obj = deep_copy(crd.get("status") or {})
        if crd["metadata"].get("deletionTimestamp"):
            return status
        taken_resources, taken_kinds = self._taken(crd)
        asked = crd["spec"]["names"]
        accepted: Obj = dict(status.get("acceptedNames") or {})
        problem: tuple[str, str] | None = None

        def claim(field: str, taken: set[str], reason: str) -> None:
            nonlocal problem
            value = asked.get(field) or ""
            if value and value in taken and value != accepted.get(field):
                problem = (reason, f'"{value}" is already in use')
            elif value:
                accepted[field] = value

        claim("plural", taken_resources, "PluralConflict")
        claim("singular", taken_resources, "SingularConflict")
        used = [name for name in asked.get("shortNames") or [] if name in taken_resources]
        if used:
            problem = ("ShortNamesConflict", ", ".join(f'"{name}" is already in use' for name in used))
        elif asked.get("shortNames"):
            accepted["shortNames"] = list(asked["shortNames"])
        claim("kind", taken_kinds, "KindConflict")
        claim("listKind", taken_kinds, "ListKindConflict")
        if asked.get("categories"):
            accepted["categories"] = list(asked["categories"])
        order = ("plural", "singular", "shortNames", "kind", "listKind", "categories")
        status["acceptedNames"] = {key: accepted[key] for key in order if key in accepted or key in ("plural", "kind")}
        for key in ("plural", "kind"):
            status["acceptedNames"].setdefault(key, "")
            accepted.setdefault(key, "")
            status["acceptedNames"][key] = accepted[key]
        conditions: list[Obj] = list(status.get("conditions") or [])
        if problem is None:
            self._set(conditions, "NamesAccepted", "True", "NoConflicts", "no conflicts found")
            self._set(conditions, "Established", "True", "InitialNamesAccepted", "the initial names have been accepted")
        else:
            self._set(conditions, "NamesAccepted", "False", *problem)
            if not any(each["type"] == "Established" for each in conditions):
                self._set(conditions, "Established", "False", "NotAccepted", "not all names are accepted")
        status["conditions"] = conditions
        return status

    def _taken(self, crd: Obj) -> tuple[set[str], set[str]]:
        """Names that other definitions of the group have been given: of resources, of kinds."""
        resources: set[str] = set()
        kinds: set[str] = set()
        for other, (group, names) in self._claims.items():
            if other == crd["metadata"]["name"] or group != crd["spec"]["group"]:
                continue
            resources |= {names.get("plural", ""), names.get("singular", ""), *(names.get("shortNames") or [])}
            kinds |= {names.get("kind", ""), names.get("listKind", "")}
        return resources - {""}, kinds - {""}

    def _set(self, conditions: list[Obj], sort: str, status: str, reason: str, message: str) -> None:
        now = format_time(self._registry.world.now())
        made = {"type": sort, "status": status, "lastTransitionTime": now, "reason": reason, "message": message}
        for position, condition in enumerate(conditions):
            if condition["type"] == sort:
                if condition["status"] == status:
                    if sort == "Established" and status == "True":
                        return
                    made["lastTransitionTime"] = condition["lastTransitionTime"]
                conditions[position] = made
                return
        conditions.append(made)

    # -- serving -----------------------------------------------------------------------------------------------------------

    async def _serve(self, crd: Obj) -> None:
        name = crd["metadata"]["name"]
        before = self._served.get(name)
        if before is not None and _shape(before.crd) == _shape(crd):
            return  # compiling a schema is dear, and a definition changes several times while it is made
        own = deep_copy(crd)
        resource = custom_resource(own, self._conversion(crd))
        hub = hub_version(crd)
        if before is not None and before.hub != hub:
            await self._rewrite(before.gr, resource)
        self._served[name] = _Served(resource.gr, hub, own)
        if before is not None and before.gr != resource.gr:
            self._registry.remove(before.gr)
        await self._registry.update(resource)

    def _conversion(self, crd: Obj) -> WebhookConversion | None:
        """Whoever converts, with what it remembers as long as the definition asks for the same."""
        name, spec = crd["metadata"]["name"], crd["spec"].get("conversion") or {}
        if spec.get("strategy") != "Webhook":
            self._conversions.pop(name, None)
            return None
        asked = {"conversion": spec, "versions": crd["spec"]["versions"]}
        known = self._conversions.get(name)
        if known is None or known[0] != asked:
            made = WebhookConversion(
                name, spec.get("webhook") or {}, self._hooks, self._registry.world.uid, self.metrics
            )
            known = self._conversions[name] = (deep_copy(asked), made)
        return known[1]

    async def _rewrite(self, gr: GroupResource, resource: Resource) -> None:
        """Stores every object in another version (the storage version changed and nothing is said to be in the old one)."""
        collection = self._registry.collection(gr)
        if collection is None:
            return
        versions = {version.gvk.api_version: version for version in resource.versions}
        for item in collection.cacher.items(collection.resource.key_prefix):
            obj = collection.decode(item)
            version = versions.get(obj["apiVersion"])
            if version is not None and version.to_hub is not None and resource.conversion is not None:
                obj = await prepared(partial(version.to_hub, obj))
            obj["apiVersion"] = resource.storage_version
            try:
                await collection.put(obj, item.revision)
            except RevisionMismatchError:
                continue

    def _withdraw(self, name: str) -> None:
        self._conversions.pop(name, None)
        served = self._served.pop(name, None)
        if served is not None:
            self._registry.remove(served.gr)

    # -- the end -----------------------------------------------------------------------------------------------------------

    async def _clean_up(self, crd: Obj) -> None:
        """Deletes the objects; when none is left the definition may go (upstream CRDFinalizer)."""
        name = crd["metadata"]["name"]
        served = self._served.get(name)
        collection = self._registry.collection(served.gr) if served is not None else None
        if served is not None and collection is not None:
            for obj in await self._client.list(served.gr):
                if not obj["metadata"].get("deletionTimestamp"):
                    try:
                        await self._client.delete(
                            served.gr, obj["metadata"].get("namespace", ""), obj["metadata"]["name"]
                        )
                    except (NotFoundError, ConflictError):
                        continue
            if len(collection.cacher):
                collection.cacher.add(_Once(collection, lambda: self._add(name)))
                return

        def finish(live: Obj) -> None:
            meta = live["metadata"]
            meta["finalizers"] = [each for each in meta.get("finalizers") or [] if each != CLEANUP]

        await self._client.change(DEFINITIONS, "", name, finish)
