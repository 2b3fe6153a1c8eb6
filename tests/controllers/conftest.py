"""The stage of the controllers' stories: a real API server, and a cluster in memory behind the client's interface.

The one in memory tells faults of the controllers from faults of the server. It keeps what controllers depend on: resource
versions and conflicts, finalizers, propagation policies, graceful deletion of pods, terminating namespaces, watches in
order. It validates and defaults nothing.
"""

from __future__ import annotations

import asyncio
import itertools
from collections.abc import AsyncGenerator, AsyncIterator, Callable
from contextlib import asynccontextmanager, suppress
from dataclasses import replace
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any, cast

import pytest

from bowsprit.client.cache import object_key
from bowsprit.client.config import RestConfig
from bowsprit.client.informer import Handler, InformerFactory
from bowsprit.client.resources import DEPLOYMENTS, JOBS, NAMESPACES, PODS
from bowsprit.client.rest import PatchType, RestClient, WatchEvent
from bowsprit.controllers.manager import ControllerManager, ControllerManagerOptions
from bowsprit.controlplane.options import APIServerOptions
from bowsprit.controlplane.server import APIServer
from bowsprit.kubelet.kubelet import Kubelet, KubeletOptions
from bowsprit.machinery import errors
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import deep_copy, labels, nested
from bowsprit.machinery.selectors import LabelSelector
from bowsprit.machinery.time import format_time
from bowsprit.pki.authority import Authority
from bowsprit.pki.signing import new_signing_key

Obj = dict[str, Any]

KINDS = {
    "": "pods Pod,services Service,endpoints Endpoints,configmaps ConfigMap,secrets Secret,serviceaccounts ServiceAccount,"
    "events Event,replicationcontrollers ReplicationController,resourcequotas ResourceQuota,"
    "persistentvolumeclaims PersistentVolumeClaim,-nodes Node,-namespaces Namespace,-persistentvolumes PersistentVolume",
    "apps": "deployments Deployment,replicasets ReplicaSet,daemonsets DaemonSet,statefulsets StatefulSet,"
    "controllerrevisions ControllerRevision",
    "batch": "jobs Job,cronjobs CronJob",
    "discovery.k8s.io": "endpointslices EndpointSlice",
    "storage.k8s.io": "-storageclasses StorageClass",
    "coordination.k8s.io": "leases Lease",
    "certificates.k8s.io": "-certificatesigningrequests CertificateSigningRequest",
    "policy": "poddisruptionbudgets PodDisruptionBudget",
    "rbac.authorization.k8s.io": "-clusterroles ClusterRole",
    "apiextensions.k8s.io": "-customresourcedefinitions CustomResourceDefinition",
    "apiregistration.k8s.io": "-apiservices APIService",
}


class Stage(RestClient):
    """What the stories look at, besides the verbs of a client: all objects, and the log of their changes."""

    def __init__(self, config: RestConfig) -> None:
        super().__init__(config)
        self.revision = 100
        self.manager: Any = None
        self.objects: dict[tuple[str, str], dict[str, Obj]] = {}
        self.log: list[tuple[int, tuple[str, str], str, Obj]] = []
        self.changed = asyncio.Event()
        self.kinds = {
            (group, name.lstrip("-").split()[0]): (name.split()[1], not name.startswith("-"))
            for group, names in KINDS.items()
            for name in names.split(",")
        }

    def note(self, kind: tuple[str, str], type_: str, obj: Obj) -> None:
        self.log.append((self.revision, kind, type_, obj))
        self.changed.set()
        self.changed = asyncio.Event()

    def all(self, gvr: GroupVersionResource, namespace: str | None = None) -> list[Obj]:
        items = self.objects.get((gvr.group, gvr.resource), {}).values()
        return [item for item in items if namespace is None or item["metadata"].get("namespace") == namespace]

    def find(self, gvr: GroupVersionResource, name: str, namespace: str = "default") -> Obj | None:
        bucket = self.objects.get((gvr.group, gvr.resource), {})
        return bucket.get(f"{namespace}/{name}") or bucket.get(name)

    async def eventually(self, condition: Callable[[], Any], timeout: float = 15.0) -> Any:
        try:
            async with asyncio.timeout(timeout):
                while not (result := condition()):
                    await asyncio.sleep(0.01)
                return result
        except TimeoutError:
            raise AssertionError("condition not reached in time") from None

    async def settle(self, quiet: float = 0.3, timeout: float = 15.0) -> None:
        """Wait until nothing has been written for a while."""
        async with asyncio.timeout(timeout):
            before = -1
            while before != self.revision:
                before = self.revision
                await asyncio.sleep(quiet)


class LiveCluster(Stage):
    """A real API server; its objects are followed with informers."""

    def __init__(self, config: RestConfig) -> None:
        super().__init__(config)
        self.informers = InformerFactory(self)

    async def follow(self) -> None:
        for group, resource in self.kinds:
            bucket = self.objects.setdefault((group, resource), {})
            self.informers.informer(GroupVersionResource(group, "v1", resource)).add_handler(
                self._handler((group, resource), bucket)
            )
        self.informers.start()
        await self.informers.wait_synced(10)

    def _handler(self, kind: tuple[str, str], bucket: dict[str, Obj]) -> Handler:
        def put(type_: str, obj: Obj) -> None:
            self.revision += 1
            bucket[object_key(obj)] = obj
            self.note(kind, type_, obj)

        def gone(obj: Obj) -> None:
            self.revision += 1
            bucket.pop(object_key(obj), None)
            self.note(kind, "DELETED", obj)

        return Handler(lambda obj, _: put("ADDED", obj), lambda _, obj: put("MODIFIED", obj), gone)

    async def create(self, gvr: GroupVersionResource, obj: Obj, **options: Any) -> Obj:
        kind = self.kinds.get((gvr.group, gvr.resource), ("", True))[0]
        if not options.get("subresource"):
            obj = {"apiVersion": gvr.api_version, "kind": kind, **obj}
            obj["metadata"] = {name: value for name, value in obj["metadata"].items() if name != "resourceVersion"}
        created = await super().create(gvr, obj, **options)
        bucket = self.objects.get((gvr.group, gvr.resource))
        if bucket is not None and not options.get("subresource"):
            await self.eventually(lambda: object_key(created) in bucket)
        return created


class MemoryCluster(Stage):
    """The verbs of RestClient on dicts."""

    def __init__(self) -> None:
        super().__init__(RestConfig(server="http://memory"))
        self._numbers = itertools.count(1)

    async def request_json(self, method: str, path: str, **_: Any) -> Obj:
        groups: dict[str, list[Obj]] = {}
        for (group, resource), (kind, namespaced) in self.kinds.items():
            if (path == "/api") == (group == ""):
                verbs = ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]
                groups.setdefault(group, []).append(
                    {
                        "resource": resource,
                        "responseKind": {"kind": kind},
                        "scope": "Namespaced" if namespaced else "Cluster",
                        "verbs": verbs,
                    }
                )
        items = [
            {"metadata": {"name": group}, "versions": [{"version": "v1", "resources": resources}]}
            for group, resources in groups.items()
        ]
        return {"kind": "APIGroupDiscoveryList", "items": items}

    def _bucket(self, gvr: GroupVersionResource) -> dict[str, Obj]:
        if (gvr.group, gvr.resource) not in self.kinds:
            raise errors.generic(404)
        return self.objects.setdefault((gvr.group, gvr.resource), {})

    def _key(self, gvr: GroupVersionResource, name: str, namespace: str | None) -> str:
        return f"{namespace}/{name}" if self.kinds[gvr.group, gvr.resource][1] else name

    def _stored(self, gvr: GroupVersionResource, name: str, namespace: str | None) -> Obj:
        found = self._bucket(gvr).get(self._key(gvr, name, namespace))
        if found is None:
            raise errors.not_found(gvr.gr, name)
        return found

    def _record(self, gvr: GroupVersionResource, type_: str, obj: Obj) -> Obj:
        self.revision += 1
        obj["metadata"]["resourceVersion"] = str(self.revision)
        self.note((gvr.group, gvr.resource), type_, deep_copy(obj))
        return cast("Obj", deep_copy(obj))

    async def get(self, gvr: GroupVersionResource, name: str, *, namespace: str | None = None, **_: Any) -> Obj:
        await asyncio.sleep(0)
        return cast("Obj", deep_copy(self._stored(gvr, name, namespace)))

    async def pages(self, gvr: GroupVersionResource, **options: Any) -> AsyncIterator[Obj]:
        items = [deep_copy(obj) for obj in self._bucket(gvr).values() if selected(obj, options)]
        yield {"kind": "List", "metadata": {"resourceVersion": str(self.revision)}, "items": items}

    async def create(
        self,
        gvr: GroupVersionResource,
        obj: Obj,
        *,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
        **_: Any,
    ) -> Obj:
        await asyncio.sleep(0)
        obj = deep_copy(obj)
        if subresource == "binding":
            pod = self._stored(gvr, str(name), namespace)
            pod["spec"]["nodeName"] = obj["target"]["name"]
            return self._record(gvr, "MODIFIED", pod)
        kind, namespaced = self.kinds[gvr.group, gvr.resource]
        meta = obj["metadata"]
        if namespaced:
            meta["namespace"] = namespace or meta["namespace"]
            home = self._bucket(NAMESPACES).get(meta["namespace"])
            if home is None:
                raise errors.not_found(NAMESPACES.gr, meta["namespace"])
            if home["metadata"].get("deletionTimestamp"):
                cause = errors.cause("NamespaceTerminating", "namespace is being terminated", "metadata.namespace")
                raise errors.forbidden(gvr.gr, meta.get("name", ""), "terminating", causes=[cause])
        if not meta.get("name"):
            meta["name"] = f"{meta['generateName']}{next(self._numbers):05}"
        key = self._key(gvr, meta["name"], meta.get("namespace"))
        if key in self._bucket(gvr):
            raise errors.already_exists(gvr.gr, meta["name"])
        meta |= {
            "uid": f"uid-{next(self._numbers)}",
            "creationTimestamp": format_time(datetime.now(UTC)),
            "generation": 1,
        }
        obj |= {"apiVersion": gvr.api_version, "kind": kind}
        if gvr == NAMESPACES:
            obj.setdefault("spec", {"finalizers": ["kubernetes"]})
            obj["status"] = {"phase": "Active"}
        if gvr == PODS:
            obj["status"] = {"phase": "Pending"}
        if gvr == JOBS and "selector" not in obj["spec"]:
            obj["spec"]["selector"] = {"matchLabels": {"job-name": meta["name"]}}
            obj["spec"]["template"].setdefault("metadata", {}).setdefault("labels", {})["job-name"] = meta["name"]
        self._bucket(gvr)[key] = obj
        return self._record(gvr, "ADDED", obj)

    async def update(
        self,
        gvr: GroupVersionResource,
        obj: Obj,
        *,
        namespace: str | None = None,
        name: str | None = None,
        subresource: str | None = None,
        **_: Any,
    ) -> Obj:
        await asyncio.sleep(0)
        meta = obj["metadata"]
        current = self._stored(gvr, name or meta["name"], namespace or meta.get("namespace"))
        return self._replace(gvr, current, deep_copy(obj), subresource)

    def _replace(self, gvr: GroupVersionResource, current: Obj, new: Obj, subresource: str | None) -> Obj:
        meta = current["metadata"]
        sent = new["metadata"].get("resourceVersion")
        if sent and sent != meta["resourceVersion"]:
            raise errors.conflict(gvr.gr, meta["name"], "the object has been modified")
        if new["metadata"].get("uid", meta["uid"]) != meta["uid"]:
            raise errors.conflict(gvr.gr, meta["name"], "uid mismatch")
        if subresource == "status":
            metadata = dict(current["metadata"])
            if gvr == DEPLOYMENTS and "annotations" in new["metadata"]:  # Kubernetes takes a deployment's here, too
                metadata["annotations"] = new["metadata"]["annotations"]
            new = {**current, "metadata": metadata, "status": new.get("status")}
        elif subresource is None and "status" in current:
            new = {**new, "status": current["status"]}
        kept = ("uid", "creationTimestamp", "deletionTimestamp", "deletionGracePeriodSeconds", "resourceVersion")
        new["metadata"] = {**new["metadata"], **{name: meta[name] for name in kept if name in meta}}
        new["metadata"]["generation"] = meta["generation"] + (new.get("spec") != current.get("spec"))
        if new == current:
            return cast("Obj", deep_copy(current))
        key = self._key(gvr, meta["name"], meta.get("namespace"))
        self._bucket(gvr)[key] = new
        if self._may_go(gvr, new):
            del self._bucket(gvr)[key]
            return self._record(gvr, "DELETED", new)
        return self._record(gvr, "MODIFIED", new)

    @staticmethod
    def _may_go(gvr: GroupVersionResource, obj: Obj) -> bool:
        meta = obj["metadata"]
        if not meta.get("deletionTimestamp") or meta.get("finalizers") or meta.get("deletionGracePeriodSeconds"):
            return False
        return gvr != NAMESPACES or not obj["spec"].get("finalizers")

    async def patch(
        self,
        gvr: GroupVersionResource,
        name: str,
        patch: Any,
        *,
        patch_type: PatchType = PatchType.MERGE,
        namespace: str | None = None,
        subresource: str | None = None,
        **_: Any,
    ) -> Obj:
        await asyncio.sleep(0)
        current = self._stored(gvr, name, namespace)
        new = merged(deep_copy(current), patch, by_type=patch_type is PatchType.STRATEGIC)
        if "resourceVersion" not in (patch.get("metadata") or {}):
            new["metadata"]["resourceVersion"] = current["metadata"]["resourceVersion"]
        return self._replace(gvr, current, new, subresource)

    async def apply(self, gvr: GroupVersionResource, obj: Obj, **_: Any) -> Obj:
        meta = obj["metadata"]
        return await self.patch(gvr, meta["name"], obj, namespace=meta.get("namespace"))

    async def delete(
        self,
        gvr: GroupVersionResource,
        name: str,
        *,
        namespace: str | None = None,
        grace_period_seconds: int | None = None,
        propagation_policy: str | None = None,
        uid: str | None = None,
        resource_version: str | None = None,
        **_: Any,
    ) -> Obj:
        await asyncio.sleep(0)
        current = self._stored(gvr, name, namespace)
        meta = current["metadata"]
        if uid not in (None, meta["uid"]) or resource_version not in (None, meta["resourceVersion"]):
            raise errors.conflict(gvr.gr, name, "precondition failed")
        new = deep_copy(current)
        finalizers = set(meta.get("finalizers") or ())
        for policy, finalizer in (("Foreground", "foregroundDeletion"), ("Orphan", "orphan")):
            if propagation_policy is not None:
                (finalizers.add if propagation_policy == policy else finalizers.discard)(finalizer)
        new["metadata"]["finalizers"] = sorted(finalizers)
        grace = 0
        if gvr == PODS and nested(current, "spec", "nodeName"):
            grace = 30 if grace_period_seconds is None else grace_period_seconds
        if not meta.get("deletionTimestamp") or grace < meta.get("deletionGracePeriodSeconds", 0):
            due = datetime.now(UTC) + timedelta(seconds=grace)
            new["metadata"] |= {"deletionTimestamp": format_time(due), "deletionGracePeriodSeconds": grace}
        if new == current:
            return current
        key = self._key(gvr, name, namespace)
        self._bucket(gvr)[key] = new
        if self._may_go(gvr, new):
            del self._bucket(gvr)[key]
            return self._record(gvr, "DELETED", new)
        return self._record(gvr, "MODIFIED", new)

    async def delete_collection(self, gvr: GroupVersionResource, **options: Any) -> Obj:
        for obj in [obj for obj in self._bucket(gvr).values() if selected(obj, options)]:
            meta = obj["metadata"]
            await self.delete(
                gvr, meta["name"], namespace=meta.get("namespace"), propagation_policy=options.get("propagation_policy")
            )
        return {}

    async def watch(self, gvr: GroupVersionResource, **options: Any) -> AsyncGenerator[WatchEvent, None]:
        position = int(options.get("resource_version") or self.revision)
        if options.get("send_initial_events"):
            position = self.revision
            for obj in list(self._bucket(gvr).values()):
                if selected(obj, options):
                    yield WatchEvent("ADDED", deep_copy(obj))
            mark = {"resourceVersion": str(position), "annotations": {"k8s.io/initial-events-end": "true"}}
            yield WatchEvent("BOOKMARK", {"metadata": mark})
        index = 0
        matched = {key for key, obj in self._bucket(gvr).items() if selected(obj, options)}
        while True:
            changed = self.changed
            while index < len(self.log):
                revision, kind, type_, obj = self.log[index]
                index += 1
                if revision <= position or kind != (gvr.group, gvr.resource):
                    continue
                key = self._key(gvr, obj["metadata"]["name"], obj["metadata"].get("namespace"))
                matches = selected(obj, options) and type_ != "DELETED"
                if matches:
                    yield WatchEvent("MODIFIED" if key in matched else "ADDED", deep_copy(obj))
                    matched.add(key)
                elif key in matched or (type_ == "DELETED" and selected(obj, options)):
                    matched.discard(key)
                    yield WatchEvent("DELETED", deep_copy(obj))
            await changed.wait()


def selected(obj: Obj, options: dict[str, Any]) -> bool:
    if options.get("namespace") and obj["metadata"].get("namespace") != options["namespace"]:
        return False
    if options.get("label_selector") and not LabelSelector.parse(options["label_selector"]).matches(labels(obj)):
        return False
    field = options.get("field_selector")
    if field:
        path, equal, value = field.partition("!=") if "!=" in field else field.partition("=")
        return bool((str(nested(obj, *path.split("."), default="")) == value) == (equal == "="))
    return True


def merged(target: Any, patch: Any, *, by_type: bool) -> Any:
    if not isinstance(patch, dict):
        return patch
    result = dict(target) if isinstance(target, dict) else {}
    for key, value in patch.items():
        if value is None:
            result.pop(key, None)
        elif by_type and key == "conditions":
            entries = {item["type"]: item for item in result.get(key) or ()}
            for item in value:
                entries[item["type"]] = merged(entries.get(item["type"]), item, by_type=True)
            result[key] = list(entries.values())
        else:
            result[key] = merged(result.get(key), value, by_type=by_type)
    return result


async def bind_pods(cluster: Stage, nodes: list[str]) -> None:
    """A scheduler: unbound pods go to the nodes in turn."""
    turn = itertools.cycle(nodes)
    while True:
        changed = cluster.changed
        for pod in cluster.all(PODS):
            if not pod["spec"].get("nodeName") and not pod["metadata"].get("deletionTimestamp"):
                node = fixed_node(pod) or next(turn)
                target = {"kind": "Node", "name": node}
                meta = pod["metadata"]
                body = {"apiVersion": "v1", "kind": "Binding", "metadata": {"name": meta["name"]}, "target": target}
                with suppress(errors.StatusError):  # gone, or bound already
                    await cluster.create(
                        PODS, body, namespace=meta["namespace"], name=meta["name"], subresource="binding"
                    )
        await changed.wait()


def fixed_node(pod: Obj) -> str | None:
    terms = nested(
        pod, "spec", "affinity", "nodeAffinity", "requiredDuringSchedulingIgnoredDuringExecution", "nodeSelectorTerms"
    )
    for term in terms or ():
        for field in term.get("matchFields") or ():
            return str(field["values"][0])
    return None


@asynccontextmanager
async def memory_stage(_: Path) -> AsyncIterator[Stage]:
    memory = MemoryCluster()
    for name in ("default", "kube-system", "kube-node-lease"):
        await memory.create(NAMESPACES, {"metadata": {"name": name}})
    yield memory


@asynccontextmanager
async def server_stage(folder: Path) -> AsyncIterator[Stage]:
    tokens = folder / "tokens"
    nodes = "".join(f'{name}-token,system:node:{name},{name},"system:nodes"\n' for name in ("node-0", "node-1"))
    manager = "manager-token,system:kube-controller-manager,m\n"
    tokens.write_text('admin-token,admin,1,"system:masters"\n' + manager + nodes)
    server = APIServer(
        APIServerOptions(secure_port=0, cert_dir=folder, token_auth_file=tokens, advertise_address="192.0.2.1")
    )
    await server.start()
    config = RestConfig(
        server=f"https://127.0.0.1:{server.port}", ca_data=server.serving_ca, token="admin-token", qps=0
    )
    async with LiveCluster(config) as live:
        await live.follow()
        yield live
        await live.informers.stop()
    await server.stop()


@pytest.fixture(params=["memory", "server"])
async def cluster(
    request: pytest.FixtureRequest, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> AsyncIterator[Stage]:
    """All controllers, two simulated nodes, pods bound to them; on the cluster in memory, and on a real API server."""
    monkeypatch.setattr("bowsprit.controllers.namespace.NamespaceController.grace", 0.02)
    async with (memory_stage if request.param == "memory" else server_stage)(tmp_path) as stage:
        shared = request.param == "memory"

        def client(token: str) -> RestClient:
            return stage if shared else RestClient(replace(stage.config, token=token))

        signer = Authority.create("signer").pair
        (tmp_path / "signer.crt").write_bytes(signer.cert_pem)
        (tmp_path / "signer.key").write_bytes(signer.key_pem)
        options = ControllerManagerOptions(
            root_ca=b"the CA",
            use_service_account_credentials=not shared,
            service_account_private_key=new_signing_key(),
            cluster_signing_cert_file=tmp_path / "signer.crt",
            cluster_signing_key_file=tmp_path / "signer.key",
        )
        manager = stage.manager = ControllerManager(client("manager-token"), options)
        kubelet = Kubelet(lambda name: client(f"{name}-token"), KubeletOptions(nodes=("node-0", "node-1")))
        await kubelet.start()
        await kubelet.wait_ready(10)
        await manager.start()
        await manager.wait_synced(10)
        scheduler = asyncio.create_task(bind_pods(stage, ["node-0", "node-1"]))
        yield stage
        scheduler.cancel()
        await manager.stop()
        await kubelet.stop()
