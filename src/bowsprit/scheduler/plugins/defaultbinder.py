"""DefaultBinder: POST pods/<name>/binding, through whatever client the process has given."""

from __future__ import annotations

from bowsprit.scheduler.framework import CycleState, Status, failure
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.profile import Handle


class DefaultBinder:
    name = "DefaultBinder"

    def __init__(self, handle: Handle):
        self._handle = handle

    async def bind(self, state: CycleState, pod: PodInfo, node_name: str) -> Status | None:
        if self._handle.binder is None:
            return failure("this scheduler has no client to bind with")
        status: Status | None = await self._handle.binder(pod, node_name)
        return status
