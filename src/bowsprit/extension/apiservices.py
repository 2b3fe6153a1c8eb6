"""APIServices of an app: what they say, whether they are available, and what to do when they are not."""

from __future__ import annotations

from base64 import b64encode

from bowsprit.extension.app import App
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj, find_condition

API_SERVICES = GroupVersionResource("apiregistration.k8s.io", "v1", "apiservices")
GROUP_PRIORITY = 1000  # as for groups of custom resources
VERSION_PRIORITY = 100


def api_services(app: App, *, service: str, namespace: str, port: int, ca_bundle: bytes | None) -> list[Obj]:
    """One APIService per group-version, the most preferred first; `ca_bundle` None leaves trust to somebody else."""
    reference: Obj = {"name": service, "namespace": namespace, "port": port}
    made = []
    for position, gv in enumerate(app.group_versions):
        spec: Obj = {
            "group": gv.group,
            "version": gv.version,
            "service": dict(reference),
            "groupPriorityMinimum": GROUP_PRIORITY,
            "versionPriority": max(VERSION_PRIORITY - position, 1),
        }
        if ca_bundle is not None:
            spec["caBundle"] = b64encode(ca_bundle).decode()
        made.append(
            {
                "apiVersion": "apiregistration.k8s.io/v1",
                "kind": "APIService",
                "metadata": {"name": f"{gv.version}.{gv.group}"},
                "spec": spec,
            }
        )
    return made


def availability(api_service: Obj) -> tuple[str, str, str]:
    """(status, reason, message) of the Available condition; "Unknown" before the aggregation layer has looked."""
    condition = find_condition(api_service, "Available") or {}
    message = str(condition.get("message") or "the aggregation layer has not looked at it yet")
    return str(condition.get("status") or "Unknown"), str(condition.get("reason") or "Pending"), message


_HINTS = {
    "Pending": "wait a moment; if it stays so, the API server runs without its aggregation layer",
    "ServiceNotFound": "create the Service that spec.service names, or correct the name and namespace",
    "ServiceAccessError": "the API server cannot read its Services; look at its log",
    "ServicePortError": "spec.service.port must be a port of the Service (the Service's, not the container's)",
    "EndpointsAccessError": "the API server cannot read its EndpointSlices; look at its log",
    "EndpointsNotFound": "no EndpointSlice belongs to the Service: does its selector match the pods' labels?",
    "MissingEndpoints": "no ready endpoint under the port's name: are the pods ready, do the port names agree?",
}
_PROBE_HINTS = (
    (
        ("x509: certificate is valid for", "x509: certificate is not valid for any names", "doesn't contain any"),
        "the serving certificate needs the DNS name <service>.<namespace>.svc: bowsprit extension rotate-certs",
    ),
    (("legacy Common Name",), "the serving certificate needs DNS names; a common name is not enough"),
    (("unknown authority",), "spec.caBundle must hold the authority of the serving certificate"),
    (("expired", "not yet valid"), "renew the certificate (bowsprit extension rotate-certs), or set the clocks right"),
    (("connection refused",), "nothing listens at that address: is the server running, is targetPort right?"),
    (
        ("deadline exceeded", "i/o timeout", "Timeout"),
        "no answer within 5 s: a firewall, NetworkPolicy or security group in between? (managed control planes: open the "
        "pod's port, or run it with hostNetwork) Or a server that is too slow, or speaks no HTTPS?",
    ),
    (("no route to host", "network is unreachable"), "the control plane has no route to the pods' network"),
    (("bad status from", ": 401"), "the server does not trust the front proxy: see the check front-proxy"),
    (("bad status from", ": 403"), "the server refuses the front proxy's user: may it create SubjectAccessReviews?"),
    (("bad status from", ": 404"), "the server serves another group or version than this APIService names"),
    (("bad status from", ": 30"), "the server redirects, and the aggregation layer follows no redirects"),
    (("bad status from",), "look at the server's log"),
    (("first record does not look like a TLS handshake",), "the server speaks plain HTTP there; it must speak HTTPS"),
    (("no such host",), "the Service's externalName does not resolve for the API server"),
    (("unsupported service type",), "with --enable-aggregator-routing the Service must not be of type ExternalName"),
)


def hint_for(reason: str, message: str) -> str:
    """What to do about an APIService that is not available for this reason."""
    if reason != "FailedDiscoveryCheck":
        return _HINTS.get(reason, "look at the API server's log")
    for marks, hint in _PROBE_HINTS:
        if marks[0] == "bad status from":
            if all(mark in message for mark in marks):
                return hint
        elif any(mark in message for mark in marks):
            return hint
    return "the API server gets no answer from the server: look at both logs"
