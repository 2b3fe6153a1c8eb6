"""Check 8: may the server's account ask the core what it must ask?"""

from __future__ import annotations

from bowsprit.client.errors import ClientError
from bowsprit.client.rest import RestClient
from bowsprit.extension.doctor.finding import Finding, fail, ok, skip, warn
from bowsprit.extension.doctor.subject import Subject
from bowsprit.extension.permissions import DELEGATED, followed
from bowsprit.extension.trust import NAME, NAMESPACE
from bowsprit.machinery.codec import decode_json
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.names import GroupResource, GroupVersionResource
from bowsprit.machinery.objects import Obj

_REVIEWS = GroupVersionResource("authorization.k8s.io", "v1", "subjectaccessreviews")
_GO_ONLY = ("flowschemas", "prioritylevelconfigurations")
_FLOW = "flowcontrol.apiserver.k8s.io"


async def check_permissions(subject: Subject) -> Finding:
    """TokenReviews and SubjectAccessReviews, the ConfigMap, list and watch of all that admission goes by."""
    accounts = subject.accounts()
    if not accounts:
        return skip("no pod belongs to the Service, so its account is not known")
    try:
        served = await _served(subject.client)
        for namespace, name in accounts:
            finding = await _judge(subject.client, namespace, name, served)
            if finding is not None:
                return finding
    except (StatusError, ClientError) as failure:
        return skip(
            f"rights cannot be looked at: {failure}", "run doctor as somebody who may create subjectaccessreviews"
        )
    told = ", ".join(f"{namespace}/{name}" for namespace, name in accounts)
    return ok(f"ServiceAccount {told} has all rights that the library needs")


async def _judge(client: RestClient, namespace: str, name: str, served: set[tuple[str, str]]) -> Finding | None:
    who = f"ServiceAccount {namespace}/{name}"
    missing = [
        resource.resource for verb, resource in DELEGATED if not await _may(client, namespace, name, verb, resource)
    ]
    if missing:
        return fail(
            f"{who} may not create {' and '.join(missing)}", f"bind it to ClusterRole system:auth-delegator{_GIVE}"
        )
    config = GroupResource("", "configmaps")
    lacking = [
        verb
        for verb in ("get", "list", "watch")
        if not await _may(client, namespace, name, verb, config, NAMESPACE, NAME)
    ]
    if lacking:
        return fail(
            f"{who} may not {', '.join(lacking)} ConfigMap {NAMESPACE}/{NAME}",
            f"bind it to Role extension-apiserver-authentication-reader in {NAMESPACE}{_GIVE}",
        )
    unread = []
    for resource in [*followed(), *(GroupResource(_FLOW, each) for each in _GO_ONLY)]:
        if (resource.group, resource.resource) in served:
            for verb in ("list", "watch"):
                if not await _may(client, namespace, name, verb, resource):
                    unread.append(resource)
                    break
    hard = [str(each) for each in unread if each.group != _FLOW]
    if hard:
        return fail(
            f"{who} may not list and watch {', '.join(hard)}",
            "grant get, list and watch of them: without that Go servers refuse every write after 10 s, and others do not "
            f"honour the core's admission{_GIVE}",
        )
    # Priority and fairness is a matter of servers written in Go, which are also well with it switched off.
    if unread and not await _is_ours(client, namespace, name):
        return warn(
            f"{who} may not list and watch {', '.join(str(each) for each in unread)}",
            "a Go server needs it unless it runs with --enable-priority-and-fairness=false",
        )
    return None


_GIVE = " (bowsprit extension manifests prints all of it)"


async def _is_ours(client: RestClient, namespace: str, name: str) -> bool:
    found = await client.raw("GET", f"/api/v1/namespaces/{namespace}/serviceaccounts/{name}")
    return b'"bowsprit.dev/extension"' in found.body


async def _may(
    client: RestClient,
    namespace: str,
    name: str,
    verb: str,
    resource: GroupResource,
    where: str = "",
    which: str = "",
) -> bool:
    attributes = {
        "verb": verb,
        "group": resource.group,
        "resource": resource.resource,
        "namespace": where,
        "name": which,
    }
    review: Obj = {
        "apiVersion": "authorization.k8s.io/v1",
        "kind": "SubjectAccessReview",
        "spec": {
            "user": f"system:serviceaccount:{namespace}:{name}",
            "groups": ["system:serviceaccounts", f"system:serviceaccounts:{namespace}", "system:authenticated"],
            "resourceAttributes": {key: value for key, value in attributes.items() if value},
        },
    }
    answer = await client.create(_REVIEWS, review)
    return bool(answer["status"].get("allowed"))


async def _served(client: RestClient) -> set[tuple[str, str]]:
    """(group, resource) of what of this the core has at all: older ones lack some kinds."""
    found = {("", "namespaces")}
    for group in ("admissionregistration.k8s.io", _FLOW):
        answer = await client.raw("GET", f"/apis/{group}")
        versions = decode_json(answer.body).get("versions") or () if answer.status == 200 else ()
        for version in versions:
            listed = await client.raw("GET", f"/apis/{version['groupVersion']}")
            if listed.status == 200:
                found |= {(group, item["name"]) for item in decode_json(listed.body).get("resources") or ()}
    return found
