"""Creating and deleting pods on behalf of a controller, with the events that users look for (RealPodControl)."""

from __future__ import annotations

import asyncio
from collections.abc import Awaitable, Callable, Sequence

from bowsprit.client.errors import ClientError
from bowsprit.client.resources import PODS
from bowsprit.client.rest import RestClient
from bowsprit.machinery.errors import NotFoundError, StatusError
from bowsprit.machinery.names import GroupVersionKind
from bowsprit.machinery.objects import Obj, deep_copy, new_controller_ref

BURST = 500  # pods a controller creates or deletes in one sync
EventFunction = Callable[[Obj, str, str, str], None]


def pod_from_template(template: Obj, owner: Obj, gvk: GroupVersionKind, name: str = "") -> Obj:
    """A pod made of a template, controlled by ``owner``; without a name it is generated from the owner's."""
    meta = template.get("metadata") or {}
    made: Obj = {
        "labels": dict(meta.get("labels") or {}),
        "annotations": dict(meta.get("annotations") or {}),
        "finalizers": list(meta.get("finalizers") or []),
        "ownerReferences": [new_controller_ref(owner, gvk)],
        "namespace": owner["metadata"]["namespace"],
    }
    made = {key: value for key, value in made.items() if value}
    if name:
        made["name"] = name
    else:
        made["generateName"] = f"{owner['metadata']['name']}-"
    return {"apiVersion": "v1", "kind": "Pod", "metadata": made, "spec": deep_copy(template.get("spec") or {})}


class PodControl:
    """Writes pods; every failure is an event on the owner and is raised."""

    def __init__(self, client: RestClient, event: EventFunction) -> None:
        self._client = client
        self._event = event

    async def create(self, pod: Obj, owner: Obj) -> Obj:
        """Create a pod for its owner."""
        try:
            created = await self._client.create(PODS, pod)
        except (StatusError, ClientError) as exc:
            if not namespace_is_terminating(exc):
                self._event(owner, "Warning", "FailedCreate", f"Error creating: {exc}")
            raise
        self._event(owner, "Normal", "SuccessfulCreate", f"Created pod: {created['metadata']['name']}")
        return created

    async def delete(self, pod: Obj, owner: Obj) -> None:
        """Delete a pod of its owner; one that is gone already counts as deleted."""
        meta = pod["metadata"]
        try:
            await self._client.delete(PODS, meta["name"], namespace=meta["namespace"], uid=meta.get("uid"))
        except NotFoundError:
            return
        except (StatusError, ClientError) as exc:
            self._event(owner, "Warning", "FailedDelete", f"Error deleting: {exc}")
            raise
        self._event(owner, "Normal", "SuccessfulDelete", f"Deleted pod: {meta['name']}")


def namespace_is_terminating(exc: Exception) -> bool:
    """Whether an error says that nothing can be created because the namespace is going away."""
    return isinstance(exc, StatusError) and exc.has_cause("NamespaceTerminating")


async def slow_start(work: Sequence[Callable[[], Awaitable[object]]], initial: int = 1) -> tuple[int, Exception | None]:
    """Run in batches of 1, 2, 4, ..., stopping after the first batch with a failure (upstream slowStartBatch).

    A template that the server refuses costs one failed request, not hundreds. Answers successes and the first failure.
    """
    successes = 0
    position = 0
    size = initial
    while position < len(work):
        batch = work[position : position + size]
        results = await asyncio.gather(*(call() for call in batch), return_exceptions=True)
        failures = [result for result in results if isinstance(result, BaseException)]
        successes += len(batch) - len(failures)
        for failure in failures:
            if not isinstance(failure, Exception):
                raise failure
        if failures:
            assert isinstance(failures[0], Exception)
            return successes, failures[0]
        position += len(batch)
        size *= 2
    return successes, None
