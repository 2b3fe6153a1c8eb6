"""What the scheduler writes: bindings, pod conditions and nominations, victims' ends, volumes."""

from __future__ import annotations

import asyncio
from collections.abc import Callable
from datetime import UTC, datetime
from typing import Protocol

from bowsprit.client.errors import ClientError
from bowsprit.client.resources import PERSISTENT_VOLUME_CLAIMS, PERSISTENT_VOLUMES, PODS
from bowsprit.client.rest import PatchType
from bowsprit.machinery.errors import NotFoundError, StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj, find_condition
from bowsprit.machinery.time import format_time
from bowsprit.scheduler.framework import Code, Status, failure
from bowsprit.scheduler.objects import ClusterObjects
from bowsprit.scheduler.plugins.volumebinding import BIND_COMPLETED
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.preemption import REASON_PREEMPTION

MAX_CALLS = 256  # bindings, status patches and deletions under way at a time
WRITE_ERRORS = (StatusError, ClientError, TimeoutError, OSError)


class Client(Protocol):
    """What we need of a RestClient."""

    async def create(
        self, gvr: GroupVersionResource, obj: Obj, *, namespace: str | None, name: str | None, subresource: str | None
    ) -> Obj: ...

    async def get(self, gvr: GroupVersionResource, name: str, *, namespace: str | None) -> Obj: ...

    async def update(self, gvr: GroupVersionResource, obj: Obj, *, namespace: str | None) -> Obj: ...

    async def patch(
        self,
        gvr: GroupVersionResource,
        name: str,
        patch: Obj,
        *,
        patch_type: PatchType,
        namespace: str | None,
        subresource: str | None,
    ) -> Obj: ...

    async def delete(self, gvr: GroupVersionResource, name: str, *, namespace: str | None, uid: str | None) -> Obj: ...


class Writer:
    """Writes to the API; every call has a deadline."""

    def __init__(
        self,
        client: Client,
        objects: ClusterObjects,
        *,
        now: Callable[[], datetime] = lambda: datetime.now(UTC),
        timeout: float = 60.0,
        retry: float = 1.0,
    ):
        self._client = client
        self._objects = objects
        self._now = now
        self._timeout = timeout
        self._gate = asyncio.Semaphore(MAX_CALLS)
        self._retry = retry

    @property
    def saturated(self) -> bool:
        """Whether as many calls are under way as may be: the scheduling loop waits for `room` then."""
        return self._gate.locked()

    async def room(self) -> None:
        async with self._gate:
            return

    async def bind(self, pod: PodInfo, node_name: str) -> Status | None:
        """POST pods/<name>/binding with the uid, so that a pod of the same name made anew is not bound.

        When the answer is lost, or unclear (5xx), the pod itself tells whether it was bound: giving its room away while
        it may be bound would over-commit the node.
        """
        binding = {
            "apiVersion": "v1",
            "kind": "Binding",
            "metadata": {"name": pod.name, "namespace": pod.namespace, "uid": pod.uid},
            "target": {"kind": "Node", "name": node_name},
        }
        try:
            async with self._gate, asyncio.timeout(self._timeout):
                await self._client.create(PODS, binding, namespace=pod.namespace, name=pod.name, subresource="binding")
        except StatusError as exc:
            if exc.code < 500:
                return failure(str(exc))
            return await self._unclear(pod, node_name, exc)
        except WRITE_ERRORS as exc:
            return await self._unclear(pod, node_name, exc)
        return None

    async def _unclear(self, pod: PodInfo, node_name: str, error: Exception) -> Status | None:
        """What became of a binding whose answer we did not get; asks for as long as a binding may take."""
        text = str(error) or type(error).__name__
        try:
            async with asyncio.timeout(self._timeout):
                while True:
                    await asyncio.sleep(self._retry)
                    try:
                        found = await self._client.get(PODS, pod.name, namespace=pod.namespace)
                    except NotFoundError:
                        return failure(text)
                    except WRITE_ERRORS:
                        continue
                    same = found["metadata"].get("uid") == pod.uid
                    bound = same and (found.get("spec") or {}).get("nodeName") == node_name
                    return None if bound else failure(text)
        except TimeoutError:
            return failure(text)

    async def condition(self, pod: PodInfo, reason: str, message: str, nominated: str | None) -> None:
        """PodScheduled=False with its reason, and the nomination; nothing when nothing changes."""
        status = pod.obj.get("status") or {}
        known = find_condition(pod.obj, "PodScheduled") or {}
        condition: Obj = {
            "type": "PodScheduled",
            "status": "False",
            "reason": reason,
            "message": message,
            "lastProbeTime": None,
            "lastTransitionTime": known.get("lastTransitionTime")
            if known.get("status") == "False"
            else format_time(self._now()),
        }
        if pod.obj["metadata"].get("generation") is not None:
            condition["observedGeneration"] = pod.obj["metadata"]["generation"]
        same = all(known.get(key) == condition[key] for key in ("status", "reason", "message"))
        patch: Obj = {} if same else {"conditions": [condition]}
        if nominated is not None and nominated != (status.get("nominatedNodeName") or ""):
            patch["nominatedNodeName"] = nominated or None
        if patch:
            await self._patch_status(pod, patch)

    async def clear_nomination(self, pod: PodInfo) -> None:
        await self._patch_status(pod, {"nominatedNodeName": None})

    async def evict(self, victim: PodInfo, scheduler_name: str) -> None:
        """Mark a victim and delete it (upstream: PreemptPod)."""
        condition = {
            "type": "DisruptionTarget",
            "status": "True",
            "reason": REASON_PREEMPTION,
            "message": f"{scheduler_name}: preempting to accommodate a higher priority pod",
            "lastProbeTime": None,
            "lastTransitionTime": format_time(self._now()),
        }
        await self._patch_status(victim, {"conditions": [condition]})
        try:
            async with self._gate, asyncio.timeout(self._timeout):
                await self._client.delete(PODS, victim.name, namespace=victim.namespace, uid=victim.uid)
        except NotFoundError:
            return

    async def _patch_status(self, pod: PodInfo, status: Obj) -> None:
        body = {"metadata": {"uid": pod.uid}, "status": status}
        try:
            async with self._gate, asyncio.timeout(self._timeout):
                await self._client.patch(
                    PODS,
                    pod.name,
                    body,
                    patch_type=PatchType.STRATEGIC,
                    namespace=pod.namespace,
                    subresource="status",
                )
        except NotFoundError:
            return

    async def bind_volumes(
        self, volumes: list[Obj], claims: list[Obj], keys: list[str], timeout: float
    ) -> Status | None:
        """PreBind of VolumeBinding: write, then look each second until every claim is bound."""
        try:
            async with asyncio.timeout(max(timeout, 1.0)):
                for volume in volumes:
                    await self._client.update(PERSISTENT_VOLUMES, volume, namespace=None)
                for claim in claims:
                    await self._client.update(PERSISTENT_VOLUME_CLAIMS, claim, namespace=claim["metadata"]["namespace"])
                while not all(map(self._bound, keys)):  # noqa: ASYNC110 (upstream polls; the informer updates the objects)
                    await asyncio.sleep(1.0)
        except TimeoutError:
            return failure("binding volumes: context deadline exceeded")
        except WRITE_ERRORS as exc:
            return Status(Code.ERROR, (f"binding volumes: {exc}",))
        return None

    def _bound(self, key: str) -> bool:
        namespace, _, name = key.partition("/")
        claim = self._objects.get("PersistentVolumeClaim", name, namespace)
        if claim is None:
            return False
        annotations = claim["metadata"].get("annotations") or {}
        return bool((claim.get("spec") or {}).get("volumeName")) and BIND_COMPLETED in annotations
