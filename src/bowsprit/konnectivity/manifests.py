"""The objects of the Konnectivity tutorial: server, agents, RBAC, egress configuration; and the server's credentials."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

from bowsprit.client.kubeconfig import render
from bowsprit.machinery.codec import encode_yaml
from bowsprit.machinery.objects import Obj
from bowsprit.pki.authority import Authority
from bowsprit.pki.files import write_private

USER = "system:konnectivity-server"
SOCKET_DIR = "/etc/kubernetes/konnectivity-server"
SOCKET = f"{SOCKET_DIR}/konnectivity-server.socket"
SERVER_CONF = "/etc/kubernetes/konnectivity-server.conf"
AGENT_PORT, ADMIN_PORT, HEALTH_PORT = 8132, 8133, 8134
CERTIFICATE_DAYS = 375
_TOKEN_DIR = "/var/run/secrets/tokens"  # noqa: S105 - a path
_TOKEN = "konnectivity-agent-token"  # noqa: S105 - a name
_ADDON = {"addonmanager.kubernetes.io/mode": "Reconcile"}


@dataclass(frozen=True, slots=True, kw_only=True)
class ManifestOptions:
    """What varies: images, the server's address for agents, the mode, the kinds of workload."""

    server_host: str
    server_image: str = "bowsprit:latest"
    agent_image: str = "bowsprit:latest"
    mode: str = "grpc"
    server_kind: str = "Pod"
    agent_kind: str = "DaemonSet"
    server_count: int = 1
    count_leases: bool = False


def egress_configuration(options: ManifestOptions) -> Obj:
    """For ``--egress-selector-config-file``; not an object of the API."""
    protocol = "GRPC" if options.mode == "grpc" else "HTTPConnect"
    connection = {"proxyProtocol": protocol, "transport": {"uds": {"udsName": SOCKET}}}
    return {
        "apiVersion": "apiserver.k8s.io/v1beta1",
        "kind": "EgressSelectorConfiguration",
        "egressSelections": [{"name": "cluster", "connection": connection}],
    }


def server(options: ManifestOptions) -> Obj:
    """A static pod, or a DaemonSet of control plane nodes."""
    labels = {"k8s-app": "konnectivity-server"}
    spec = _server_pod(options)
    if options.server_kind == "Pod":
        metadata = {"name": "konnectivity-server", "namespace": "kube-system", "labels": labels}
        return {"apiVersion": "v1", "kind": "Pod", "metadata": metadata, "spec": spec}
    spec["nodeSelector"] = {"node-role.kubernetes.io/control-plane": ""}
    spec["tolerations"] = [
        {"key": "node-role.kubernetes.io/control-plane", "operator": "Exists", "effect": "NoSchedule"}
    ]
    return _workload("DaemonSet", "konnectivity-server", labels, spec)


def _server_pod(options: ManifestOptions) -> Obj:
    arguments = [
        "--logtostderr=true",
        f"--uds-name={SOCKET}",
        "--cluster-cert=/etc/kubernetes/pki/apiserver.crt",
        "--cluster-key=/etc/kubernetes/pki/apiserver.key",
        f"--mode={options.mode}",
        "--server-port=0",
        f"--agent-port={AGENT_PORT}",
        f"--admin-port={ADMIN_PORT}",
        f"--health-port={HEALTH_PORT}",
        "--agent-namespace=kube-system",
        "--agent-service-account=konnectivity-agent",
        f"--kubeconfig={SERVER_CONF}",
        f"--authentication-audience={USER}",
        f"--server-count={options.server_count}",
        "--graceful-shutdown-timeout=15s",
    ]
    if options.count_leases:
        arguments.append("--enable-lease-controller")
    ports = {"agentport": AGENT_PORT, "adminport": ADMIN_PORT, "healthport": HEALTH_PORT}
    mounts = [
        ("k8s-certs", "/etc/kubernetes/pki", True),
        ("kubeconfig", SERVER_CONF, True),
        ("konnectivity-uds", SOCKET_DIR, False),
    ]
    container = {
        "name": "konnectivity-server-container",
        "image": options.server_image,
        "command": ["proxy-server"],
        "args": arguments,
        "livenessProbe": _probe("/healthz", 30, host="127.0.0.1"),
        "ports": [{"name": name, "containerPort": port, "hostPort": port} for name, port in ports.items()],
        "volumeMounts": [{"name": name, "mountPath": path, "readOnly": readonly} for name, path, readonly in mounts],
    }
    volumes = [
        {"name": "k8s-certs", "hostPath": {"path": "/etc/kubernetes/pki"}},
        {"name": "kubeconfig", "hostPath": {"path": SERVER_CONF, "type": "FileOrCreate"}},
        {"name": "konnectivity-uds", "hostPath": {"path": SOCKET_DIR, "type": "DirectoryOrCreate"}},
    ]
    return {
        "priorityClassName": "system-cluster-critical",
        "hostNetwork": True,
        "containers": [container],
        "volumes": volumes,
    }


def agent(options: ManifestOptions) -> Obj:
    """A DaemonSet, or a Deployment of two."""
    arguments = [
        "--logtostderr=true",
        "--ca-cert=/var/run/secrets/kubernetes.io/serviceaccount/ca.crt",
        f"--proxy-server-host={options.server_host}",
        f"--proxy-server-port={AGENT_PORT}",
        f"--admin-server-port={ADMIN_PORT}",
        f"--health-server-port={HEALTH_PORT}",
        f"--service-account-token-path={_TOKEN_DIR}/{_TOKEN}",
    ]
    if options.count_leases:
        arguments.append("--count-server-leases")
    container = {
        "name": "konnectivity-agent",
        "image": options.agent_image,
        "command": ["proxy-agent"],
        "args": arguments,
        "volumeMounts": [{"mountPath": _TOKEN_DIR, "name": _TOKEN}],
        "livenessProbe": _probe("/healthz", 15),
        "readinessProbe": _probe("/readyz", 1),
    }
    source = {"serviceAccountToken": {"path": _TOKEN, "audience": USER}}
    spec = {
        "priorityClassName": "system-cluster-critical",
        "tolerations": [{"key": "CriticalAddonsOnly", "operator": "Exists"}],
        "containers": [container],
        "serviceAccountName": "konnectivity-agent",
        "volumes": [{"name": _TOKEN, "projected": {"sources": [source]}}],
    }
    labels = {"k8s-app": "konnectivity-agent"}
    return _workload(options.agent_kind, "konnectivity-agent", labels, spec)


def rbac(options: ManifestOptions) -> list[Obj]:
    """Who may review tokens and, with Leases, who may keep and count them."""
    service = {"kubernetes.io/cluster-service": "true", **_ADDON}
    account = {"name": "konnectivity-agent", "namespace": "kube-system"}
    objects = [
        _binding(
            "ClusterRoleBinding", {"name": USER, "labels": service}, "ClusterRole", "system:auth-delegator", _user()
        ),
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {**account, "labels": service}},
    ]
    if options.count_leases:
        verbs = {
            USER: ["get", "list", "watch", "create", "update", "delete"],
            "system:konnectivity-agent": ["get", "list", "watch"],
        }
        subjects = {USER: _user(), "system:konnectivity-agent": {"kind": "ServiceAccount", **account}}
        for name, allowed in verbs.items():
            metadata = {"name": name, "namespace": "kube-system", "labels": service}
            rule = {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": allowed}
            objects.append(
                {"apiVersion": "rbac.authorization.k8s.io/v1", "kind": "Role", "metadata": metadata, "rules": [rule]}
            )
            objects.append(_binding("RoleBinding", metadata, "Role", name, subjects[name]))
    return objects


def documents(options: ManifestOptions) -> str:
    """All objects as YAML, the egress configuration first."""
    everything = [egress_configuration(options), server(options), *rbac(options), agent(options)]
    return "---\n".join(encode_yaml(obj) for obj in everything)


def write_credentials(ca_cert: Path, ca_key: Path, api_server: str, target: Path) -> None:
    """The server's kubeconfig (0600): a certificate for ``system:konnectivity-server``, good for 375 days.

    Raises PKIError.
    """
    authority = Authority.load(ca_cert, ca_key)
    pair = authority.issue_client(USER, days=CERTIFICATE_DAYS)
    document = render(USER, server=api_server, ca_pem=authority.ca_pem, cert_pem=pair.cert_pem, key_pem=pair.key_pem)
    write_private(target, encode_yaml(document).encode())


def _probe(path: str, delay: int, host: str = "") -> Obj:
    get: Obj = {"port": HEALTH_PORT, "path": path, "scheme": "HTTP"}
    if host:
        get["host"] = host
    return {"httpGet": get, "initialDelaySeconds": delay, "timeoutSeconds": 15}


def _workload(kind: str, name: str, labels: Obj, spec: Obj) -> Obj:
    body: Obj = {"selector": {"matchLabels": labels}, "template": {"metadata": {"labels": labels}, "spec": spec}}
    if kind == "Deployment":
        body["replicas"] = 2
    metadata = {"name": name, "namespace": "kube-system", "labels": {**labels, **_ADDON}}
    return {"apiVersion": "apps/v1", "kind": kind, "metadata": metadata, "spec": body}


def _user() -> Obj:
    return {"apiGroup": "rbac.authorization.k8s.io", "kind": "User", "name": USER}


def _binding(kind: str, metadata: Obj, role_kind: str, role: str, subject: Obj) -> Obj:
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": kind,
        "metadata": metadata,
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": role_kind, "name": role},
        "subjects": [subject],
    }
