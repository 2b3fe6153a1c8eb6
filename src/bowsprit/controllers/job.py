"""The job controller: the loop around job_plan's decisions."""

from __future__ import annotations

from bowsprit.client.informer import Handler
from bowsprit.client.resources import JOBS, PODS
from bowsprit.client.rest import PatchType
from bowsprit.controllers.controller import ControllerContext
from bowsprit.controllers.job_plan import FINALIZER, INDEX, Plan, failure_annotations, is_indexed, look
from bowsprit.controllers.pod_control import namespace_is_terminating, pod_from_template, slow_start
from bowsprit.controllers.pod_owner import PodOwnerController
from bowsprit.controllers.pods import is_deleting
from bowsprit.machinery.errors import InvalidError, NotFoundError
from bowsprit.machinery.objects import Obj, controller_of

_ORPHAN = "orphan:"


class JobController(PodOwnerController):
    """Keys are Jobs, and, with a prefix, pods that have outlived theirs."""

    name = "job-controller"
    account = "job-controller"
    component = "job-controller"
    workers = 5
    gvr = JOBS
    kind = "Job"

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self.pods.add_handler(Handler(lambda pod, _: self._check_orphan(pod), lambda _, pod: self._check_orphan(pod)))
        self.owners.add_handler(Handler(on_delete=self._job_deleted))

    def _job_deleted(self, job: Obj) -> None:
        for pod in self.pods.by_index("owner", job["metadata"]["uid"]):
            self._check_orphan(pod)

    def _check_orphan(self, pod: Obj) -> None:
        """A pod whose Job is gone must not be held back by the Job's finalizer."""
        reference = controller_of(pod)
        if FINALIZER not in (pod["metadata"].get("finalizers") or ()):
            return
        if reference is None or (reference.get("kind") == self.kind and self.owner_key(pod) is None):
            self.queue.add(f"{_ORPHAN}{pod['metadata']['namespace']}/{pod['metadata']['name']}")

    async def sync(self, key: str) -> None:
        """See Controller."""
        if key.startswith(_ORPHAN):
            pod = self.pods.get(key.removeprefix(_ORPHAN))
            if pod is not None and self.owner_key(pod) is None and self.owners.has_synced:
                await self._unfinalize(pod)
            return
        cached = self.owners.get(key)
        if cached is None:
            self.expectations.forget(key)
            return
        job = self.typed(cached)
        if (job["spec"].get("managedBy") or "kubernetes.io/job-controller") != "kubernetes.io/job-controller":
            return
        if not self.expectations.satisfied(key):
            return  # the events still to come queue the key again
        pods = await self.claim(job)
        if is_deleting(job):
            for pod in pods:
                await self._unfinalize(pod)
            return
        plan = look(job, pods, self.now())
        failure = await self._scale(key, job, plan)
        written = await self._write_status(job, plan.status)
        for type_, reason, message in plan.events if written else ():
            self.event(job, type_, reason, message)
        for pod in plan.unfinalize:
            await self._unfinalize(pod)
        if plan.wake is not None:
            self.queue.add_after(key, plan.wake + 0.05)
        if failure is not None:
            raise failure

    async def _scale(self, key: str, job: Obj, plan: Plan) -> Exception | None:
        if not plan.create and not plan.delete:
            return None
        self.expectations.expect(key, len(plan.create), [pod["metadata"]["uid"] for pod in plan.delete])
        for pod in plan.delete:
            try:
                await self.control.delete(pod, job)
            except Exception:
                self.expectations.forget(key)
                raise
        made = [self._pod(job, index, plan) for index in plan.create]
        successes, failure = await slow_start([lambda pod=pod: self.control.create(pod, job) for pod in made])  # type: ignore[misc]
        self.expectations.creation_observed(key, len(made) - successes)
        if failure is not None:
            plan.status["active"] = plan.status.get("active", 0) - (len(made) - successes)
            return None if namespace_is_terminating(failure) else failure
        return None

    def _pod(self, job: Obj, index: int | None, plan: Plan) -> Obj:
        pod = pod_from_template(job["spec"]["template"], job, self.gvk)
        meta, spec = pod["metadata"], pod["spec"]
        meta["finalizers"] = [*meta.get("finalizers", ()), FINALIZER]
        if index is None or not is_indexed(job):
            return pod
        meta["generateName"] = f"{job['metadata']['name']}-{index}-"
        meta.setdefault("annotations", {})[INDEX] = str(index)
        meta.setdefault("labels", {})[INDEX] = str(index)
        if job["spec"].get("backoffLimitPerIndex") is not None:
            meta["annotations"] |= failure_annotations(job, plan.replaced.get(index))
        spec.setdefault("hostname", f"{job['metadata']['name']}-{index}")
        source = {"fieldRef": {"fieldPath": f"metadata.labels['{INDEX}']"}}
        for container in (*spec.get("initContainers", ()), *spec.get("containers", ())):
            env = container.setdefault("env", [])
            if not any(item["name"] == "JOB_COMPLETION_INDEX" for item in env):
                env.append({"name": "JOB_COMPLETION_INDEX", "valueFrom": source})
        return pod

    async def _write_status(self, job: Obj, status: Obj) -> bool:
        if status == job.get("status"):
            return True
        try:
            await self.client.update(JOBS, {**job, "status": status}, subresource="status")
        except NotFoundError:
            return False
        return True

    async def _unfinalize(self, pod: Obj) -> None:
        meta = pod["metadata"]
        finalizers = meta.get("finalizers") or []
        if FINALIZER not in finalizers:
            return
        kept = [name for name in finalizers if name != FINALIZER]
        patch = {
            "metadata": {"uid": meta["uid"], "resourceVersion": meta["resourceVersion"], "finalizers": kept or None}
        }
        try:
            await self.client.patch(PODS, meta["name"], patch, namespace=meta["namespace"], patch_type=PatchType.MERGE)
        except (NotFoundError, InvalidError):
            return
