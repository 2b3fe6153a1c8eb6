"""Checks 10 to 12: do clients learn what is served: OpenAPI, discovery, one server per group-version?"""

from __future__ import annotations

from typing import Any

from bowsprit.client.resources import CUSTOM_RESOURCE_DEFINITIONS
from bowsprit.extension.apiservices import API_SERVICES
from bowsprit.extension.doctor.finding import Finding, fail, ok, skip, warn
from bowsprit.extension.doctor.subject import Subject
from bowsprit.machinery.codec import DecodeError, decode_json
from bowsprit.machinery.objects import Obj, name, nested

_AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


async def check_openapi(subject: Subject) -> Finding:
    """kubectl validates and applies by the v3 document: PATCH with its kind and the parameter fieldValidation."""
    if not subject.resources:
        return skip("the resources are not known, see discovery")
    path = f"/openapi/v3/apis/{subject.group}/{subject.version}"
    answer = await subject.client.raw("GET", path, timeout=20.0)
    hint = "kubectl create and apply need it: serve /openapi/v3 with all operations"
    if answer.status != 200:
        return fail(f"{path} answers {answer.status}", hint)
    try:
        document = decode_json(answer.body)
    except DecodeError as failure:
        return fail(f"{path} is not JSON: {failure}", hint)
    operations = [each.get("patch") for each in (document.get("paths") or {}).values() if isinstance(each, dict)]
    patched = {_kind_of(operation): operation for operation in operations if operation}
    wanted = [item for item in subject.resources if "patch" in (item.get("verbs") or ())]
    for item in wanted:
        operation = patched.get((subject.group, subject.version, item["kind"]))
        if operation is None:
            return fail(f"{path} has no PATCH operation of kind {item['kind']}", hint)
        if not any(nested(each, "name") == "fieldValidation" for each in _parameters(document, operation)):
            return fail(
                f"{path}: PATCH of kind {item['kind']} has no parameter fieldValidation",
                "without it kubectl validates on its own, by another document",
            )
    if not wanted:
        return ok(f"{path} is served; nothing can be patched")
    return ok(f"{path} describes PATCH of {', '.join(item['kind'] for item in wanted)}")


def _kind_of(operation: Obj) -> tuple[Any, Any, Any]:
    kind = operation.get("x-kubernetes-group-version-kind") or {}
    return kind.get("group"), kind.get("version"), kind.get("kind")


def _parameters(document: Obj, operation: Obj) -> list[Obj]:
    found = list(operation.get("parameters") or ())
    for item in (document.get("paths") or {}).values():
        if isinstance(item, dict) and item.get("patch") is operation:
            found += item.get("parameters") or ()
    return [_resolved(document, each) for each in found]


def _resolved(document: Obj, parameter: Obj) -> Obj:
    reference = parameter.get("$ref", "")
    if not reference.startswith("#/"):
        return parameter
    found: Any = nested(document, *reference[2:].split("/"))
    return found if isinstance(found, dict) else {}


async def check_freshness(subject: Subject) -> Finding:
    """Aggregated discovery has the server's present document."""
    answer = await subject.client.raw("GET", "/apis", headers={"Accept": _AGGREGATED}, timeout=20.0)
    if answer.status != 200:
        return skip(f"the API server has no aggregated discovery ({answer.status})")
    for group in decode_json(answer.body).get("items") or ():
        if nested(group, "metadata", "name") == subject.group:
            for version in group.get("versions") or ():
                if version.get("version") == subject.version:
                    return _judge_freshness(subject, version)
    return fail(
        f"{subject.group}/{subject.version} is missing in aggregated discovery",
        "it is read once a minute; look at the server's answer to GET /apis",
    )


def _judge_freshness(subject: Subject, version: Obj) -> Finding:
    if version.get("freshness") == "Stale":
        return fail(
            f"{subject.group}/{subject.version} is Stale in discovery: clients see an old list or none, and namespaces cannot "
            "be deleted",
            "the server must answer GET /apis (or /apis/<group>/<version>); see available",
        )
    listed = {item["resource"] for item in version.get("resources") or ()}
    missing = [item["name"] for item in subject.resources if item["name"] not in listed]
    if missing:
        return warn(f"aggregated discovery does not name {', '.join(missing)} yet", "it is read again once a minute")
    return ok("aggregated discovery is current")


async def check_overlap(subject: Subject) -> Finding:
    """No CustomResourceDefinition claims the same group-version."""
    listed = await subject.client.list(CUSTOM_RESOURCE_DEFINITIONS)
    same_group = [item for item in listed["items"] if nested(item, "spec", "group") == subject.group]
    for item in same_group:
        versions = nested(item, "spec", "versions", default=[])
        if any(each.get("name") == subject.version and each.get("served") for each in versions):
            return fail(
                f"CustomResourceDefinition {name(item)} has {subject.group}/{subject.version} too: its objects are hidden",
                "delete the definition, or serve it under another group",
            )
    if same_group:
        return warn(
            f"CustomResourceDefinition {name(same_group[0])} is of the same group, in another version",
            "clients that take the group for one API see a part of it only",
        )
    others = await subject.client.list(API_SERVICES)
    for item in others["items"]:
        spec = item["spec"]
        if spec.get("group") == subject.group and name(item) != subject.name and nested(spec, "service") is None:
            return warn(f"{spec['group']}/{spec['version']} of the same group is served by the API server itself")
    return ok("nobody else serves this group")
