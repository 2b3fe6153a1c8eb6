"""The StatefulSet controller: the loop around statefulset_plan's decisions, and the claims of the pods."""

from __future__ import annotations

from bowsprit.client.cache import object_key
from bowsprit.client.errors import ClientError
from bowsprit.client.resources import CONTROLLER_REVISIONS, PERSISTENT_VOLUME_CLAIMS, PODS, STATEFUL_SETS
from bowsprit.controllers.controller import ControllerContext
from bowsprit.controllers.pod_control import namespace_is_terminating, pod_from_template
from bowsprit.controllers.pod_owner import PodOwnerController
from bowsprit.controllers.pods import POD_INDEXERS, is_deleting
from bowsprit.controllers.revisions import HASH_LABEL, RevisionKeeper
from bowsprit.controllers.statefulset_claims import claims_of, owners
from bowsprit.controllers.statefulset_plan import belongs, needs_current, ordinal, plan, revision_of, status_of
from bowsprit.machinery.errors import AlreadyExistsError, NotFoundError, StatusError
from bowsprit.machinery.objects import Obj, nested


class StatefulSetController(PodOwnerController):
    """Keys are StatefulSets."""

    name = "statefulset-controller"
    account = "statefulset-controller"
    component = "statefulset-controller"
    workers = 4
    gvr = STATEFUL_SETS
    kind = "StatefulSet"

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        revisions = context.informers.informer(CONTROLLER_REVISIONS, indexers={"namespace": POD_INDEXERS["namespace"]})
        self._revisions = RevisionKeeper(context.client, revisions, self.gvk)
        self._claims = context.informers.informer(PERSISTENT_VOLUME_CLAIMS)

    async def sync(self, key: str) -> None:
        """See Controller."""
        cached = self.owners.get(key)
        if cached is None:
            self.expectations.forget(key)
            return
        stateful_set = self.typed(cached)
        if is_deleting(stateful_set) or self.selector(stateful_set).is_empty():
            return
        candidates = self.pods.by_index("namespace", stateful_set["metadata"]["namespace"])
        pods = await self.claim(stateful_set, [pod for pod in candidates if belongs(stateful_set, pod)])
        pods.sort(key=ordinal)
        update = await self._revisions.current(stateful_set)
        update_name = update["metadata"]["name"]
        current = self._current(stateful_set) or update
        await self._keep_claims(stateful_set, pods)
        if self.expectations.satisfied(key):
            steps = plan(stateful_set, pods, update_name, self.now())
            self.expectations.expect(key, len(steps.create), [pod["metadata"]["uid"] for pod in steps.delete])
            try:
                for number in steps.create:
                    await self._create(stateful_set, number, current if needs_current(stateful_set, number) else update)
                for pod in steps.delete:
                    await self._delete(stateful_set, pod)
            except Exception as exc:
                self.expectations.forget(key)
                if not namespace_is_terminating(exc):
                    raise
            if steps.wake is not None:
                self.queue.add_after(key, steps.wake + 0.05)
        status = status_of(stateful_set, pods, current["metadata"]["name"], update_name, self.now())
        if status != stateful_set.get("status"):
            try:
                await self.client.update(STATEFUL_SETS, {**stateful_set, "status": status}, subresource="status")
            except NotFoundError:
                return
        live = {revision_of(pod).rpartition("-")[2] for pod in pods}
        live |= {name.rpartition("-")[2] for name in (update_name, current["metadata"]["name"])}
        await self._revisions.truncate(stateful_set, live)

    def _current(self, stateful_set: Obj) -> Obj | None:
        name = nested(stateful_set, "status", "currentRevision")
        return next((item for item in self._revisions.history(stateful_set) if item["metadata"]["name"] == name), None)

    async def _create(self, stateful_set: Obj, number: int, revision: Obj) -> None:
        pod = stateful_pod(stateful_set, number, revision, self.gvk.kind)
        name = pod["metadata"]["name"]
        try:
            for claim in claims_of(stateful_set, number):
                if self._claims.get(object_key(claim)) is None:
                    await self._create_claim(stateful_set, claim, name)
            await self.client.create(PODS, pod)
        except AlreadyExistsError:
            self.expectations.forget(object_key(stateful_set))
            return
        except (StatusError, ClientError) as exc:
            if not namespace_is_terminating(exc):
                self._report(stateful_set, "FailedCreate", f"Create Pod {name}", f"failed error: {exc}")
            raise
        self._report(stateful_set, "SuccessfulCreate", f"Create Pod {name}", "successful")

    async def _create_claim(self, stateful_set: Obj, claim: Obj, pod: str) -> None:
        try:
            await self.client.create(PERSISTENT_VOLUME_CLAIMS, claim)
        except AlreadyExistsError:
            return
        what = f"Create Claim {claim['metadata']['name']} Pod {pod}"
        self._report(stateful_set, "SuccessfulCreate", what, "success")

    async def _keep_claims(self, stateful_set: Obj, pods: list[Obj]) -> None:
        """Give the claims the owners that the retention policy asks for, before any pod goes."""
        for pod in pods:
            for claim in claims_of(stateful_set, ordinal(pod)):
                known = self._claims.get(object_key(claim))
                if known is None or is_deleting(known):
                    continue
                wanted = owners(known, stateful_set, pod)
                if wanted != (known["metadata"].get("ownerReferences") or []):
                    meta = {**known["metadata"], "ownerReferences": wanted}
                    body = {**known, "apiVersion": "v1", "kind": "PersistentVolumeClaim", "metadata": meta}
                    await self.client.update(PERSISTENT_VOLUME_CLAIMS, body)

    async def _delete(self, stateful_set: Obj, pod: Obj) -> None:
        meta = pod["metadata"]
        try:
            await self.client.delete(PODS, meta["name"], namespace=meta["namespace"], uid=meta["uid"])
        except NotFoundError:
            return
        self._report(stateful_set, "SuccessfulDelete", f"Delete Pod {meta['name']}", "successful")

    def _report(self, stateful_set: Obj, reason: str, what: str, outcome: str) -> None:
        type_ = "Warning" if reason.startswith("Failed") else "Normal"
        name = stateful_set["metadata"]["name"]
        self.event(stateful_set, type_, reason, f"{what} in StatefulSet {name} {outcome}")


def stateful_pod(stateful_set: Obj, number: int, revision: Obj, kind: str) -> Obj:
    """The pod of an ordinal, made from the template of a revision, with its identity and its claims."""
    meta = stateful_set["metadata"]
    name = f"{meta['name']}-{number}"
    template = nested(revision, "data", "spec", "template", default={})
    template = {key: value for key, value in template.items() if key != "$patch"}
    pod = pod_from_template(template, stateful_set, STATEFUL_SETS.gv.with_kind(kind), name)
    pod["metadata"].setdefault("labels", {}).update(
        {
            "statefulset.kubernetes.io/pod-name": name,
            "apps.kubernetes.io/pod-index": str(number),
            HASH_LABEL: revision["metadata"]["name"],
        }
    )
    spec = pod["spec"]
    spec["hostname"] = name
    spec["subdomain"] = stateful_set["spec"].get("serviceName") or ""
    claimed = {
        template["metadata"]["name"]: claim["metadata"]["name"]
        for template, claim in zip(
            stateful_set["spec"].get("volumeClaimTemplates") or (), claims_of(stateful_set, number), strict=True
        )
    }
    volumes = [volume for volume in spec.get("volumes") or () if volume["name"] not in claimed]
    volumes += [
        {"name": volume, "persistentVolumeClaim": {"claimName": claim, "readOnly": False}}
        for volume, claim in claimed.items()
    ]
    if volumes:
        spec["volumes"] = volumes
    return pod
