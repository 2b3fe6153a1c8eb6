"""The deployment controller: the loop around deployment_rollout's decisions."""

from __future__ import annotations

from bowsprit.client.cache import object_key
from bowsprit.client.informer import Handler
from bowsprit.client.resources import DEPLOYMENTS, PODS, REPLICA_SETS
from bowsprit.client.rest import PatchType
from bowsprit.controllers import conditions
from bowsprit.controllers import deployment_rollout as rollout
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.deployment_rollout import HASH_LABEL, REVISION, Scale, View, replicas
from bowsprit.controllers.ownership import OwnershipKeeper
from bowsprit.controllers.pod_control import namespace_is_terminating
from bowsprit.controllers.pods import POD_INDEXERS, is_deleting, phase, template_hash
from bowsprit.machinery import objects
from bowsprit.machinery.errors import AlreadyExistsError, NotFoundError, StatusError
from bowsprit.machinery.objects import Obj, controller_of, deep_copy, labels, nested, new_controller_ref
from bowsprit.machinery.selectors import LabelSelector

_GVK = DEPLOYMENTS.gv.with_kind("Deployment")


class DeploymentController(Controller):
    """Brings deployments' ReplicaSets to what their template and strategy ask for."""

    name = "deployment-controller"
    account = "deployment-controller"
    component = "deployment-controller"
    workers = 5

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._deployments = context.informers.informer(DEPLOYMENTS)
        indexers = {"namespace": POD_INDEXERS["namespace"], "owner": POD_INDEXERS["owner"]}
        self._sets = context.informers.informer(REPLICA_SETS, indexers=indexers)
        self._pods = context.informers.informer(PODS, indexers=POD_INDEXERS)
        self._keeper = OwnershipKeeper(context.client, DEPLOYMENTS, _GVK, REPLICA_SETS)
        self.watch(self._deployments)
        self.watch(self._sets, self._set_changed)
        self._pods.add_handler(Handler(on_update=self._pod_updated, on_delete=self._pod_gone))

    def _set_changed(self, replica_set: Obj) -> None:
        reference = controller_of(replica_set)
        if reference is not None:
            if reference.get("kind") == "Deployment":
                self.queue.add(f"{replica_set['metadata']['namespace']}/{reference['name']}")
            return
        for deployment in self._deployments.list(replica_set["metadata"]["namespace"]):
            selector = LabelSelector.from_obj(deployment["spec"].get("selector"))
            if not selector.is_empty() and selector.matches(labels(replica_set)):
                self.enqueue(deployment)

    def _pod_updated(self, old: Obj, pod: Obj) -> None:
        if phase(pod) in ("Succeeded", "Failed") and phase(old) != phase(pod):
            self._pod_gone(pod)

    def _pod_gone(self, pod: Obj) -> None:
        """A Recreate deployment goes on when its last old pod has gone."""
        reference = controller_of(pod)
        if reference is None or reference.get("kind") != "ReplicaSet":
            return
        owner = self._sets.get(f"{pod['metadata']['namespace']}/{reference['name']}")
        if owner is None or (above := controller_of(owner)) is None:
            return
        key = f"{pod['metadata']['namespace']}/{above['name']}"
        deployment = self._deployments.get(key)
        if deployment is not None and not rollout.is_rolling(deployment):
            self.queue.add(key)

    async def sync(self, key: str) -> None:
        """See Controller."""
        cached = self._deployments.get(key)
        if cached is None:
            return
        deployment = {**cached, "apiVersion": "apps/v1", "kind": "Deployment"}
        selector = LabelSelector.from_obj(deployment["spec"].get("selector"))
        if selector.is_empty():
            self.event(
                deployment,
                "Warning",
                "SelectingAll",
                "This deployment is selecting all pods. A non-empty selector is required.",
            )
            return
        candidates = self._sets.by_index("namespace", deployment["metadata"]["namespace"])
        seen = rollout.view(deployment, await self._keeper.claim(deployment, selector, candidates))
        if is_deleting(deployment):
            await self._write_status(deployment, rollout.basic_status(seen, self.now()))
            return
        if await self._note_pause(seen):
            return  # the changed status comes back as an event
        if deployment["spec"].get("paused") or rollout.is_scaling(seen):
            await self._resize(seen)
        elif rollout.is_rolling(deployment):
            await self._roll(seen)
        else:
            await self._recreate(seen)

    # The three ways

    async def _resize(self, seen: View) -> None:
        if seen.new is not None:
            seen = await self._up_to_date(seen)
        await self._scale_all(seen.deployment, rollout.scale_proportionally(seen))
        if seen.deployment["spec"].get("paused"):
            await self._clean_up(seen)
        await self._write_status(seen.deployment, rollout.basic_status(seen, self.now()))

    async def _roll(self, seen: View) -> None:
        seen = await self._with_new_set(seen)
        if seen.new is None:
            return
        if not await self._scale_all(seen.deployment, rollout.roll(seen)):
            await self._clean_up_if_complete(seen)
        await self._finish(seen)

    async def _recreate(self, seen: View) -> None:
        down = [Scale(item, 0) for item in seen.old if replicas(item)]
        if not await self._scale_all(seen.deployment, down):
            if self._old_pods_are_running(seen):
                await self._finish(seen)
                return
            seen = await self._with_new_set(seen)
            if seen.new is None:
                return
            wanted = replicas(seen.deployment)
            up = [Scale(seen.new, wanted)] if replicas(seen.new) != wanted else []
            if not await self._scale_all(seen.deployment, up):
                await self._clean_up_if_complete(seen)
        await self._finish(seen)

    def _old_pods_are_running(self, seen: View) -> bool:
        return any(
            phase(pod) not in ("Succeeded", "Failed")
            for item in seen.old
            for pod in self._pods.by_index("owner", item["metadata"]["uid"])
        )

    async def _finish(self, seen: View) -> None:
        deployment = seen.deployment
        status = rollout.rollout_status(seen, self.now())
        await self._write_status(deployment, status)
        delay = rollout.stuck_check_in(deployment, status, self.now())
        if delay is not None:
            self.queue.add_after(object_key(deployment), delay)

    # Pause

    async def _note_pause(self, seen: View) -> bool:
        """Keep the Progressing condition truthful about pausing; True if the status was written."""
        deployment = seen.deployment
        if rollout.deadline(deployment) is None:
            return False
        listed = list(nested(deployment, "status", "conditions", default=[]))
        current = conditions.find(listed, "Progressing")
        if current is not None and current["reason"] == "ProgressDeadlineExceeded":
            return False
        was_paused = current is not None and current["reason"] == "DeploymentPaused"
        paused = bool(deployment["spec"].get("paused"))
        if paused == was_paused:
            return False
        reason, message = (
            ("DeploymentPaused", "Deployment is paused") if paused else ("DeploymentResumed", "Deployment is resumed")
        )
        new = rollout.deployment_condition("Progressing", "Unknown", reason, message, self.now())
        status = {**(deployment.get("status") or {}), "conditions": conditions.with_condition(listed, new)}
        return await self._write_status(deployment, status)

    # ReplicaSets

    async def _with_new_set(self, seen: View) -> View:
        """The view with a new set that exists and is annotated; without one if it could not be created just now."""
        if seen.new is not None:
            return await self._up_to_date(seen)
        return await self._create_set(seen)

    async def _up_to_date(self, seen: View) -> View:
        assert seen.new is not None
        deployment, new = seen.deployment, seen.new
        wanted = rollout.replica_set_annotations(
            deployment, objects.annotations(new), rollout.next_revision(seen.old), True
        )
        min_ready = int(deployment["spec"].get("minReadySeconds") or 0)
        if wanted != objects.annotations(new) or min_ready != int(new["spec"].get("minReadySeconds") or 0):
            patch = {"metadata": {"annotations": wanted}, "spec": {"minReadySeconds": min_ready}}
            new = await self._patch_set(new, patch)
        deployment = await self._note_revision(deployment, wanted[REVISION])
        if rollout.deadline(deployment) is not None and objects.find_condition(deployment, "Progressing") is None:
            message = f'Found new replica set "{new["metadata"]["name"]}"'
            deployment = self._with_progress(deployment, "True", "FoundNewReplicaSet", message)
            await self._write_status(deployment, deployment["status"], force=True)
        return View(deployment, new, seen.old)

    async def _create_set(self, seen: View) -> View:
        deployment = seen.deployment
        made = self._new_set(seen)
        name = made["metadata"]["name"]
        try:
            new = await self.client.create(REPLICA_SETS, made)
        except AlreadyExistsError:
            meta = deployment["metadata"]
            existing = await self.client.get(REPLICA_SETS, name, namespace=meta["namespace"])
            reference = controller_of(existing)
            ours = reference is not None and reference["uid"] == meta["uid"]
            if not (ours and rollout.same_template(existing["spec"]["template"], deployment["spec"]["template"])):
                # Another template hashed to the same name: hash with a counter from now on
                collisions = int(nested(deployment, "status", "collisionCount", default=0)) + 1
                status = {**(deployment.get("status") or {}), "collisionCount": collisions}
                await self._write_status(deployment, status)
                return seen
            new = existing
        except StatusError as exc:
            if namespace_is_terminating(exc):
                return seen
            message = f'Failed to create new replica set "{name}": {exc.message}'
            if rollout.deadline(deployment) is not None:
                failed = self._with_progress(deployment, "False", "ReplicaSetCreateError", message)
                await self._write_status(deployment, failed["status"], force=True)
            self.event(deployment, "Warning", "ReplicaSetCreateError", message)
            raise
        else:
            if replicas(new):
                self.event(
                    deployment,
                    "Normal",
                    "ScalingReplicaSet",
                    f"Scaled up replica set {name} from 0 to {replicas(new)}",
                )
        deployment = await self._note_revision(deployment, objects.annotations(new).get(REVISION, "1"))
        if rollout.deadline(deployment) is not None:
            message = f'Created new replica set "{name}"'
            deployment = self._with_progress(deployment, "True", "NewReplicaSetCreated", message)
        return View(deployment, new, seen.old)

    def _new_set(self, seen: View) -> Obj:
        deployment = seen.deployment
        meta, spec = deployment["metadata"], deployment["spec"]
        collisions = nested(deployment, "status", "collisionCount")
        hashed = template_hash(spec["template"], collisions)
        template: Obj = deep_copy(spec["template"])
        template.setdefault("metadata", {}).setdefault("labels", {})[HASH_LABEL] = hashed
        selector: Obj = deep_copy(spec["selector"])
        selector.setdefault("matchLabels", {})[HASH_LABEL] = hashed
        return {
            "apiVersion": "apps/v1",
            "kind": "ReplicaSet",
            "metadata": {
                "name": f"{meta['name']}-{hashed}",
                "namespace": meta["namespace"],
                "labels": dict(template["metadata"]["labels"]),
                "annotations": rollout.replica_set_annotations(deployment, {}, rollout.next_revision(seen.old), False),
                "ownerReferences": [new_controller_ref(deployment, _GVK)],
            },
            "spec": {
                "replicas": rollout.new_replica_set_size(deployment, seen.old, None),
                "minReadySeconds": int(spec.get("minReadySeconds") or 0),
                "selector": selector,
                "template": template,
            },
        }

    async def _scale_all(self, deployment: Obj, steps: list[Scale]) -> bool:
        """Carry out the steps; True if any changed a size."""
        scaled = False
        for step in steps:
            replica_set, size = step.replica_set, step.replicas
            annotations = rollout.replica_annotations(deployment)
            before = replicas(replica_set)
            if before == size and annotations.items() <= objects.annotations(replica_set).items():
                continue
            await self._patch_set(replica_set, {"metadata": {"annotations": annotations}, "spec": {"replicas": size}})
            if before != size:
                scaled = True
                direction = "up" if size > before else "down"
                name = replica_set["metadata"]["name"]
                message = f"Scaled {direction} replica set {name} from {before} to {size}"
                self.event(deployment, "Normal", "ScalingReplicaSet", message)
        return scaled

    async def _clean_up_if_complete(self, seen: View) -> None:
        if rollout.is_complete(seen.deployment, rollout.basic_status(seen, self.now())):
            await self._clean_up(seen)

    async def _clean_up(self, seen: View) -> None:
        for replica_set in rollout.surplus(seen):
            meta = replica_set["metadata"]
            try:
                await self.client.delete(REPLICA_SETS, meta["name"], namespace=meta["namespace"], uid=meta["uid"])
            except NotFoundError:
                continue

    async def _patch_set(self, replica_set: Obj, patch: Obj) -> Obj:
        """Change a set as the cache shows it: its resourceVersion makes a stale view a conflict, not a mistake."""
        meta = replica_set["metadata"]
        patch["metadata"] = {
            **patch.get("metadata", {}),
            "resourceVersion": meta["resourceVersion"],
            "uid": meta["uid"],
        }
        return await self.client.patch(
            REPLICA_SETS, meta["name"], patch, namespace=meta["namespace"], patch_type=PatchType.MERGE
        )

    # The deployment itself

    async def _note_revision(self, deployment: Obj, revision: str) -> Obj:
        if objects.annotations(deployment).get(REVISION) == revision:
            return deployment
        annotations = {**objects.annotations(deployment), REVISION: revision}
        body = {**deployment, "metadata": {**deployment["metadata"], "annotations": annotations}}
        # Through the status: a changed annotation of the whole object would count as a new generation.
        updated = await self.client.update(DEPLOYMENTS, body, subresource="status")
        return {**updated, "apiVersion": "apps/v1", "kind": "Deployment"}

    def _with_progress(self, deployment: Obj, status: str, reason: str, message: str) -> Obj:
        new = rollout.deployment_condition("Progressing", status, reason, message, self.now())
        current = deployment.get("status") or {}
        listed = conditions.with_condition(list(current.get("conditions") or []), new)
        return {**deployment, "status": {**current, "conditions": listed}}

    async def _write_status(self, deployment: Obj, status: Obj, *, force: bool = False) -> bool:
        cached = self._deployments.get(object_key(deployment))
        if not force and cached is not None and (cached.get("status") or {}) == status:
            return False
        try:
            written = await self.client.update(DEPLOYMENTS, {**deployment, "status": status}, subresource="status")
        except NotFoundError:
            return False
        deployment["metadata"] = written["metadata"]
        return True
