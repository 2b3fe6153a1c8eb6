"""Checks 3 to 5: does a request find its way to the server?"""

from __future__ import annotations

from bowsprit.extension.apiservices import hint_for
from bowsprit.extension.doctor.finding import Finding, fail, ok, skip, warn
from bowsprit.extension.doctor.subject import Subject
from bowsprit.machinery.objects import nested

_UNREACHED = (
    "deadline exceeded",
    "i/o timeout",
    "Timeout",
    "timed out",
    "connection refused",
    "no route to host",
    "network is unreachable",
    "no such host",
)


async def check_available(subject: Subject) -> Finding:
    """The condition, with its reason in words."""
    status, reason, message = subject.availability
    if status == "True":
        return ok(f"Available ({reason}: {message})")
    return fail(f"not available ({reason}): {message}", hint_for(reason, message))


async def check_endpoints(subject: Subject) -> Finding:
    """The Service exists and has the port; slices have it under the same name, with a ready endpoint."""
    namespace, service = subject.service_key
    where = f"Service {namespace}/{service}"
    if subject.service is None:
        return fail(f"{where} does not exist", hint_for("ServiceNotFound", ""))
    kind = nested(subject.service, "spec", "type") or "ClusterIP"
    if kind == "ExternalName":
        target = nested(subject.service, "spec", "externalName")
        return warn(f"{where} is an ExternalName ({target}): refused with --enable-aggregator-routing")
    port_name = subject.port_name()
    if port_name is None:
        ports = ", ".join(str(port.get("port")) for port in nested(subject.service, "spec", "ports", default=[]))
        return fail(
            f"{where} has no port {subject.service_port}, but {ports or 'none'}", hint_for("ServicePortError", "")
        )
    if not subject.slices:
        hint = hint_for("EndpointsNotFound", "")
        return fail(f"no EndpointSlice belongs to {where}", f"{hint} {_selector(subject)}".strip())
    names = {str(port.get("name") or "") for item in subject.slices for port in item.get("ports") or ()}
    if names and port_name not in names:
        told = ", ".join(repr(name) for name in sorted(names))
        return fail(
            f"port {subject.service_port} of {where} is named {port_name!r}, in its EndpointSlices {told}",
            "give the port the same name in both (the aggregation layer matches names, not numbers)",
        )
    if not subject.addresses():
        return fail(f"{where} has no ready endpoint{_unready(subject)}", hint_for("MissingEndpoints", ""))
    return ok(f"{where} port {subject.service_port} ({port_name or 'unnamed'}) has ready endpoints")


def _selector(subject: Subject) -> str:
    wanted = nested(subject.service, "spec", "selector")
    return f"(selector: {wanted})" if wanted else "(it has no selector: somebody must keep its EndpointSlices)"


def _unready(subject: Subject) -> str:
    for pod in subject.pods:
        for container in nested(pod, "status", "containerStatuses", default=[]):
            waiting = nested(container, "state", "waiting", default={})
            if waiting.get("reason"):
                return (
                    f": pod {pod['metadata']['name']} waits: {waiting['reason']} {waiting.get('message', '')}".rstrip()
                )
    if subject.pods:
        return f": none of its {len(subject.pods)} pods is ready"
    return ": there is no pod for it" if nested(subject.service, "spec", "selector") else ""


async def check_reachable(subject: Subject) -> Finding:
    """The API server can open connections to the server: what its condition tells."""
    status, reason, message = subject.availability
    if status == "True":
        return ok("the API server reaches the server")
    if reason != "FailedDiscoveryCheck":
        return skip("nothing was dialled, see available")
    if any(mark in message for mark in _UNREACHED):
        where = ", ".join(f"{host}:{port}" for host, port in subject.addresses()) or "the server"
        return fail(f"the API server does not reach {where}: {message}", hint_for(reason, message))
    return ok("the API server reaches the server, which answers wrongly, see available")
