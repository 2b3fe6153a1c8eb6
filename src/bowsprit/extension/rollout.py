"""Waiting for an installed server, one thing after the other, and trying it: what is not there in time is explained."""

from __future__ import annotations

import asyncio
import time
from collections.abc import Awaitable, Callable

from bowsprit.client.resources import DEPLOYMENTS, ENDPOINT_SLICES, PODS
from bowsprit.client.rest import RestClient
from bowsprit.extension.apiservices import API_SERVICES, availability, hint_for
from bowsprit.extension.app import App
from bowsprit.extension.declaration import ServedResource
from bowsprit.extension.errors import ExtensionError
from bowsprit.machinery.codec import decode_json, encode_json
from bowsprit.machinery.names import GroupVersionResource, resource_path
from bowsprit.machinery.objects import Obj, nested

_LOOK_EVERY = 0.2
_HOPELESS = ("ErrImagePull", "ImagePullBackOff", "InvalidImageName", "CreateContainerConfigError", "CrashLoopBackOff")
_NO = (401, 403, 404, 405)


class Rollout:
    """The steps after applying. All raise ExtensionError when their time is over."""

    def __init__(
        self, client: RestClient, app: App, namespace: str, say: Callable[[str, str], None], timeout: float
    ) -> None:
        self._client = client
        self._app = app
        self._namespace = namespace
        self._say = say
        self._timeout = timeout

    async def wait_deployment(self) -> None:
        """Every replica is available."""
        await self._until(self._deployment_problem, "DeploymentNotReady")
        self._say("rollout", f"Deployment {self._namespace}/{self._app.name} is available")

    async def wait_endpoints(self) -> None:
        """The Service has a ready endpoint."""
        await self._until(self._endpoint_problem, "NoEndpoints")
        self._say("endpoints", f"Service {self._namespace}/{self._app.name} has ready endpoints")

    async def wait_available(self) -> None:
        """The API server has reached the server for every group-version."""
        await self._until(self._available_problem, "Unavailable")
        self._say("available", f"Available: {', '.join(gv.api_version for gv in self._app.group_versions)}")

    async def wait_discovery(self) -> None:
        """Discovery names every resource, and OpenAPI describes them."""
        await self._until(self._discovery_problem, "NotDiscovered")
        self._say(
            "discovery",
            f"Discovered and described: {', '.join(dict.fromkeys(each.plural for each in self._app.resources))}",
        )

    async def try_out(self) -> None:
        """A list of every resource that has one, and a create on trial where there is one: answers of the server itself."""
        for resource in self._app.resources:
            if "list" in resource.verbs:
                await self._until(lambda resource=resource: self._list_problem(resource), "ListFailed")  # type: ignore[misc]
            if "create" in resource.verbs:
                await self._until(lambda resource=resource: self._create_problem(resource), "CreateFailed")  # type: ignore[misc]
        self._say("verify", "Every resource answers")

    async def _until(self, problem_of: Callable[[], Awaitable[tuple[str, str]]], reason: str) -> None:
        """Waits until there is no problem; (problem, hint) otherwise."""
        deadline = time.monotonic() + self._timeout
        while True:
            problem, hint = await problem_of()
            if not problem:
                return
            if time.monotonic() > deadline:
                raise ExtensionError(problem, reason=reason, hint=hint)
            await asyncio.sleep(_LOOK_EVERY)

    # -- problems --------------------------------------------------------------------------------------------------------

    async def _deployment_problem(self) -> tuple[str, str]:
        found = await self._client.get(DEPLOYMENTS, self._app.name, namespace=self._namespace)
        wanted = nested(found, "spec", "replicas", default=1)
        status = found.get("status") or {}
        seen = status.get("observedGeneration", 0) >= found["metadata"].get("generation", 0)
        if seen and all(status.get(key, 0) >= wanted for key in ("updatedReplicas", "availableReplicas")):
            return "", ""
        ready = f"{status.get('availableReplicas', 0)} of {wanted} replicas are available"
        why, hint = await self._pod_problem()
        return f"Deployment {self._namespace}/{self._app.name}: {ready}{': ' + why if why else ''}", hint

    async def _pod_problem(self) -> tuple[str, str]:
        """(what the pods say about themselves, a hint)."""
        selector = f"app.kubernetes.io/name={self._app.name}"
        listed = await self._client.list(PODS, namespace=self._namespace, label_selector=selector)
        logs = f"kubectl logs -n {self._namespace} deployment/{self._app.name}"
        describe = f"kubectl describe pods -n {self._namespace}"
        if not listed["items"]:
            return "there is no pod", f"kubectl describe deployment,replicaset -n {self._namespace}"
        for pod in listed["items"]:
            name = pod["metadata"]["name"]
            for container in nested(pod, "status", "containerStatuses", default=[]):
                waiting = nested(container, "state", "waiting", default={})
                if (reason := waiting.get("reason")) in _HOPELESS:
                    text = f"pod {name}: {reason}: {waiting.get('message', '')}"
                    image = nested(pod, "spec", "containers", default=[{}])[0].get("image", "")
                    hint = f"build and push the image {image}, or give --image" if "mage" in reason else logs
                    return text.rstrip(": "), hint
            for condition in nested(pod, "status", "conditions", default=[]):
                if condition.get("type") == "PodScheduled" and condition.get("status") == "False":
                    return f"pod {name}: {condition.get('message', 'not scheduled')}", describe
            node = nested(pod, "spec", "nodeName", default="")
            if not node:
                return f"pod {name}: no scheduler has looked at it", "is a kube-scheduler running?"
            if nested(pod, "status", "phase", default="Pending") == "Pending" and not nested(
                pod, "status", "containerStatuses", default=[]
            ):
                return f"pod {name}: node {node} has not started it", describe
        return "the pods are not ready yet", logs

    async def _endpoint_problem(self) -> tuple[str, str]:
        listed = await self._client.list(
            ENDPOINT_SLICES, namespace=self._namespace, label_selector=f"kubernetes.io/service-name={self._app.name}"
        )
        for item in listed["items"]:
            if any(nested(one, "conditions", "ready", default=True) for one in item.get("endpoints") or ()):
                return "", ""
        hint = f"kubectl get pods,endpointslices -n {self._namespace} --show-labels"
        return f"Service {self._namespace}/{self._app.name} has no ready endpoint", hint

    async def _available_problem(self) -> tuple[str, str]:
        for gv in self._app.group_versions:
            status, reason, message = availability(await self._client.get(API_SERVICES, f"{gv.version}.{gv.group}"))
            if status != "True":
                return f"{gv.api_version} is not available: {reason}: {message}", hint_for(reason, message)
        return "", ""

    async def _discovery_problem(self) -> tuple[str, str]:
        for gv in self._app.group_versions:
            answer = await self._client.raw("GET", f"/apis/{gv.group}/{gv.version}")
            if answer.status != 200:
                return f"/apis/{gv.api_version} answers {answer.status}", "bowsprit extension doctor"
            named = {item["name"] for item in decode_json(answer.body).get("resources") or ()}
            for resource in self._app.resources:
                if resource.gv == gv and resource.plural not in named:
                    return (
                        f"the server does not serve {resource.plural} in {gv.api_version}",
                        "the image holds another version of the app: build it again, and roll out",
                    )
            path = f"/openapi/v3/apis/{gv.group}/{gv.version}"  # kubectl apply and explain go by it
            answer = await self._client.raw("GET", path)
            if answer.status != 200:
                return f"{path} answers {answer.status}", "the API server asks for it once a minute"
        return "", ""

    async def _list_problem(self, resource: ServedResource) -> tuple[str, str]:
        answer = await self._client.raw("GET", _path(resource, ""), params={"limit": "1"})
        return _problem(answer.status, answer.body, f"list {resource.plural}")

    async def _create_problem(self, resource: ServedResource) -> tuple[str, str]:
        body: Obj = {
            "apiVersion": resource.gv.api_version,
            "kind": resource.kind,
            "metadata": {"generateName": "bowsprit-try-"},
        }
        answer = await self._client.raw(
            "POST",
            _path(resource, "default"),
            params={"dryRun": "All"},
            body=encode_json(body),
            headers={"Content-Type": "application/json"},
        )
        # 422: a field is missing, as it may be; the server has judged the object all the same.
        return ("", "") if answer.status == 422 else _problem(answer.status, answer.body, f"create {resource.plural}")


def _path(resource: ServedResource, namespace: str) -> str:
    gvr = GroupVersionResource(resource.group, resource.version, resource.plural)
    return resource_path(gvr, namespace if resource.namespaced else "", "", "")


def _problem(status: int, body: bytes, what: str) -> tuple[str, str]:
    if status < 300:
        return "", ""
    if status == 403 and b"not yet ready" not in body:
        return "", ""  # a policy, or a user without rights: the server has answered
    if status in _NO:
        return f"{what}: the server answers {status}", "bowsprit extension doctor"
    return f"{what}: the server answers {status}: {body[:200].decode('utf-8', 'replace').strip()}", (
        "bowsprit extension doctor"
    )
