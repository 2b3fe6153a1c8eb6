"""``pods/binding`` and the older ``bindings``: a scheduler assigns a pod to a node (upstream pkg/registry/core/pod/storage)."""

from __future__ import annotations

from collections.abc import Callable

from bowsprit.apiserver.collection import Collection
from bowsprit.apiserver.mutation import precondition_failed
from bowsprit.apiserver.request import RequestContext
from bowsprit.controlplane.storedupdate import update_stored
from bowsprit.machinery import fielderrors
from bowsprit.machinery.errors import bad_request, conflict, unknown
from bowsprit.machinery.fielderrors import FieldError, path
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj

PODS = GroupResource("", "pods")
_BINDING = GroupResource("", "pods/binding")
SUCCESS: Obj = {"kind": "Status", "apiVersion": "v1", "metadata": {}, "status": "Success", "code": 201}


class PodBinding:
    """Binds pods.

    Args:
        pods: gives the pods' collection.
    """

    def __init__(self, pods: Callable[[], Collection]) -> None:
        self._pods = pods

    async def bind(self, ctx: RequestContext, name: str, body: Obj) -> Obj:
        """Answer a Binding posted to a pod."""
        if (body.get("metadata") or {}).get("name", "") != name:
            raise bad_request("name in URL does not match name in Binding object")
        await self._bind(ctx, name, body)
        return dict(SUCCESS)

    async def create(self, ctx: RequestContext, body: Obj) -> Obj:
        """Answer a Binding posted to the collection ``bindings``; it names the pod itself."""
        name = str((body.get("metadata") or {}).get("name") or "")
        if not name:
            raise bad_request("Name parameter required.")
        await self._bind(ctx, name, body)
        return dict(SUCCESS)

    async def _bind(self, ctx: RequestContext, name: str, body: Obj) -> None:
        if errors := _validate(body):
            raise unknown(fielderrors.aggregate(errors))
        meta, node = body.get("metadata") or {}, body["target"]["name"]
        pods, namespace = self._pods(), ctx.info.namespace

        def assign(pod: Obj) -> None:
            _check_precondition(pod, "UID", str(meta.get("uid") or ""), pod["metadata"]["uid"])
            version = str(meta.get("resourceVersion") or "")
            _check_precondition(pod, "ResourceVersion", version, pod["metadata"]["resourceVersion"])
            _check_assignable(pod, name)
            spec = pod["spec"]
            spec["nodeName"] = node
            for field in ("annotations", "labels"):
                if meta.get(field):
                    pod["metadata"].setdefault(field, {}).update(meta[field])
            _set_scheduled(pod, ctx.timestamp)

        if ctx.dry_run:
            item = pods.item(namespace, name)
            if item is not None:
                assign(pods.decode(item))
                return
        await update_stored(pods, namespace, name, assign)


def _validate(body: Obj) -> list[FieldError]:
    target = body.get("target") or {}
    errors = []
    if target.get("kind") not in (None, "", "Node", "Minion"):
        errors.append(fielderrors.not_supported(path("target", "kind"), target["kind"], ["Node", "<empty>"]))
    if not target.get("name"):
        errors.append(fielderrors.required(path("target", "name")))
    return errors


def _check_precondition(pod: Obj, what: str, wanted: str, have: str) -> None:
    if wanted and wanted != have:
        meta = pod["metadata"]
        key = f"/registry/pods/{meta['namespace']}/{meta['name']}"
        raise conflict(PODS, meta["name"], precondition_failed(key, what, wanted, have))


def _check_assignable(pod: Obj, name: str) -> None:
    if pod["metadata"].get("deletionTimestamp"):
        raise conflict(_BINDING, name, f"pod {name} is being deleted, cannot be assigned to a host")
    if node := pod["spec"].get("nodeName"):
        raise conflict(_BINDING, name, f'pod {name} is already assigned to node "{node}"')
    if pod["spec"].get("schedulingGates"):
        raise conflict(_BINDING, name, f"pod {name} has non-empty .spec.schedulingGates")


def _set_scheduled(pod: Obj, now: str) -> None:
    conditions = pod.setdefault("status", {}).setdefault("conditions", [])
    scheduled = {"type": "PodScheduled", "status": "True", "lastProbeTime": None, "lastTransitionTime": now}
    generation = pod["metadata"].get("generation")
    for index, condition in enumerate(conditions):
        if condition.get("type") == "PodScheduled":
            if condition.get("status") == "True":
                scheduled["lastTransitionTime"] = condition.get("lastTransitionTime")
            if generation and "observedGeneration" in condition:
                scheduled["observedGeneration"] = generation
            conditions[index] = scheduled
            return
    conditions.append(scheduled)
