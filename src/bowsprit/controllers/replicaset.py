"""ReplicaSets and ReplicationControllers: as many pods as asked for (upstream pkg/controller/replicaset)."""

from __future__ import annotations

from collections import Counter
from collections.abc import Iterable
from dataclasses import dataclass
from datetime import datetime
from typing import ClassVar

from bowsprit.client.resources import REPLICA_SETS, REPLICATION_CONTROLLERS
from bowsprit.controllers import conditions
from bowsprit.controllers.pod_control import BURST, namespace_is_terminating, pod_from_template, slow_start
from bowsprit.controllers.pod_owner import PodOwnerController
from bowsprit.controllers.pods import available_in, deletion_rank, is_active, is_deleting, is_ready
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj, controller_of, labels, nested
from bowsprit.machinery.selectors import LabelSelector


@dataclass(frozen=True, slots=True)
class Scaling:
    """How many pods to create, or which to delete."""

    create: int = 0
    delete: tuple[Obj, ...] = ()


def plan(desired: int, pods: list[Obj], colocated: Counter[str] | None = None) -> Scaling:
    """What brings ``pods`` (active, owned) to ``desired``; never more than BURST at a time."""
    difference = len(pods) - desired
    if difference < 0:
        return Scaling(create=min(-difference, BURST))
    if difference == 0:
        return Scaling()
    ranked = sorted(pods, key=lambda pod: deletion_rank(pod, colocated))
    return Scaling(delete=tuple(ranked[: min(difference, BURST)]))


def status_of(
    owner: Obj, pods: list[Obj], *, terminating: int, failure: Exception | None, difference: int, now: datetime
) -> Obj:
    """The status that the pods add up to; ``failure`` is what stopped this sync from scaling."""
    spec = owner["spec"]
    template_labels = (nested(spec, "template", "metadata", "labels", default={})).items()
    min_ready = int(spec.get("minReadySeconds") or 0)
    current = list(nested(owner, "status", "conditions", default=[]))
    if failure is not None and conditions.find(current, "ReplicaFailure") is None:
        reason = "FailedCreate" if difference < 0 else "FailedDelete"
        current = [*current, conditions.condition("ReplicaFailure", "True", reason, str(failure), now)]
    elif failure is None:
        current = conditions.without_condition(current, "ReplicaFailure")
    status: Obj = {
        "replicas": len(pods),
        "fullyLabeledReplicas": sum(1 for pod in pods if template_labels <= labels(pod).items()),
        "readyReplicas": sum(1 for pod in pods if is_ready(pod)),
        "availableReplicas": sum(1 for pod in pods if available_in(pod, min_ready, now) == 0.0),
        "observedGeneration": owner["metadata"].get("generation", 0),
        "conditions": current,
    }
    if owner.get("kind") == "ReplicaSet":
        status["terminatingReplicas"] = terminating
    return {
        key: value
        for key, value in status.items()
        if value not in (0, []) or key in ("replicas", "terminatingReplicas")
    }


class ReplicaSetController(PodOwnerController):
    """The control loop; ReplicationControllers are the same with another selector."""

    name = "replicaset-controller"
    account = "replicaset-controller"
    component = "replicaset-controller"
    workers = 5
    gvr: ClassVar[GroupVersionResource] = REPLICA_SETS
    kind: ClassVar[str] = "ReplicaSet"

    async def sync(self, key: str) -> None:
        """See Controller."""
        owner = self.owners.get(key)
        if owner is None:
            self.expectations.forget(key)
            return
        owner = self.typed(owner)
        believable = self.expectations.satisfied(key)
        candidates = self.pods.by_index("namespace", owner["metadata"]["namespace"])
        terminating = sum(1 for pod in self.pods.by_index("owner", owner["metadata"]["uid"]) if is_deleting(pod))
        pods = await self.claim(owner, [pod for pod in candidates if is_active(pod)])
        failure: Exception | None = None
        desired = int(owner["spec"].get("replicas", 1))
        if believable and not is_deleting(owner):
            failure = await self._scale(key, owner, desired, pods)
        status = status_of(
            owner, pods, terminating=terminating, failure=failure, difference=len(pods) - desired, now=self.now()
        )
        await self._write_status(owner, status)
        self._wake_for_availability(key, owner, pods)
        if failure is not None:
            raise failure

    def _wake_for_availability(self, key: str, owner: Obj, pods: Iterable[Obj]) -> None:
        min_ready = int(owner["spec"].get("minReadySeconds") or 0)
        waits = [wait for pod in pods if (wait := available_in(pod, min_ready, self.now()))]
        if waits:
            self.queue.add_after(key, min(waits) + 0.05)

    async def _scale(self, key: str, owner: Obj, desired: int, pods: list[Obj]) -> Exception | None:
        scaling = plan(desired, pods, self._colocated(owner, pods))
        if scaling.create:
            self.expectations.expect_creations(key, scaling.create)
            pod = pod_from_template(owner["spec"].get("template") or {}, owner, self.gvk)
            created, failure = await slow_start([lambda: self.control.create(pod, owner)] * scaling.create)
            self.expectations.creation_observed(key, scaling.create - created)
            return None if failure is not None and namespace_is_terminating(failure) else failure
        if scaling.delete:
            uids = [pod["metadata"]["uid"] for pod in scaling.delete]
            self.expectations.expect_deletions(key, uids)
            failures = []
            for pod in scaling.delete:
                try:
                    await self.control.delete(pod, owner)
                except Exception as exc:
                    self.expectations.deletion_observed(key, pod["metadata"]["uid"])
                    failures.append(exc)
            return failures[0] if failures else None
        return None

    def _colocated(self, owner: Obj, pods: list[Obj]) -> Counter[str]:
        """Active pods per node of this set and of those with the same controller, e.g. the other revisions."""
        related = list(pods)
        reference = controller_of(owner)
        if reference is not None and len(pods) > int(owner["spec"].get("replicas", 1)):
            for sibling in self.owners.by_index("owner", reference["uid"]):
                if sibling["metadata"]["uid"] != owner["metadata"]["uid"]:
                    related += [
                        pod for pod in self.pods.by_index("owner", sibling["metadata"]["uid"]) if is_active(pod)
                    ]
        return Counter(str(nested(pod, "spec", "nodeName", default="")) for pod in related)

    async def _write_status(self, owner: Obj, status: Obj) -> None:
        if status == owner.get("status"):
            return
        try:
            await self.client.update(self.gvr, {**owner, "status": status}, subresource="status")
        except NotFoundError:
            return


class ReplicationControllerController(ReplicaSetController):
    """ReplicationControllers: a plain label map selects."""

    name = "replicationcontroller-controller"
    account = "replication-controller"
    component = "replication-controller"
    workers = 2
    gvr = REPLICATION_CONTROLLERS
    kind = "ReplicationController"

    def selector(self, owner: Obj) -> LabelSelector:
        """See ReplicaSetController."""
        return LabelSelector.from_labels(owner["spec"].get("selector") or {})
