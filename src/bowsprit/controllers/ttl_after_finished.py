"""Deletes Jobs ``ttlSecondsAfterFinished`` after their end (upstream pkg/controller/ttlafterfinished)."""

from __future__ import annotations

from contextlib import suppress
from datetime import datetime

from bowsprit.client.resources import JOBS
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.pods import is_deleting
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.objects import Obj, find_condition
from bowsprit.machinery.time import parse_time


def seconds_left(job: Obj, now: datetime) -> float | None:
    """Until the Job is to go; None if it is not to go, or not yet finished."""
    ttl = job["spec"].get("ttlSecondsAfterFinished")
    if ttl is None or is_deleting(job):
        return None
    for type_ in ("Complete", "Failed"):
        condition = find_condition(job, type_)
        if condition is not None and condition.get("status") == "True":
            return float(ttl) - (now - parse_time(condition["lastTransitionTime"])).total_seconds()
    return None


class TTLAfterFinishedController(Controller):
    """Keys are Jobs."""

    name = "ttl-after-finished-controller"
    account = "ttl-after-finished-controller"
    workers = 1

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._jobs = context.informers.informer(JOBS)
        self.watch(self._jobs)

    async def sync(self, key: str) -> None:
        """See Controller."""
        job = self._jobs.get(key)
        left = seconds_left(job, self.now()) if job is not None else None
        if job is None or left is None:
            return
        if left > 0:
            self.queue.add_after(key, left)
            return
        meta = job["metadata"]
        with suppress(NotFoundError):
            await self.client.delete(
                JOBS,
                meta["name"],
                namespace=meta["namespace"],
                propagation_policy="Foreground",
                uid=meta["uid"],
                resource_version=meta["resourceVersion"],
            )
