"""The objects of a second scheduler, as the Kubernetes documentation has them ("Configure Multiple Schedulers")."""

from __future__ import annotations

from bowsprit.machinery.objects import Obj


def _binding(name: str, suffix: str, role: str, namespace: str, cluster: bool = True) -> Obj:
    kind = "ClusterRole" if cluster else "Role"
    metadata: Obj = {"name": f"{name}-{suffix}"}
    if not cluster:
        metadata["namespace"] = namespace
    return {
        "apiVersion": "rbac.authorization.k8s.io/v1",
        "kind": f"{kind}Binding",
        "metadata": metadata,
        "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
        "roleRef": {"apiGroup": "rbac.authorization.k8s.io", "kind": kind, "name": role},
    }


def _lease_role(name: str, namespace: str) -> list[Obj]:
    """The bootstrap role names only the lease kube-scheduler: a scheduler of another name needs a role of its own."""
    role = f"{name}-leader-election"
    rules = [
        {"apiGroups": ["coordination.k8s.io"], "resources": ["leases"], "verbs": ["create"]},
        {
            "apiGroups": ["coordination.k8s.io"],
            "resources": ["leases"],
            "resourceNames": [name],
            "verbs": ["get", "list", "watch", "update"],
        },
    ]
    return [
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "Role",
            "metadata": {"name": role, "namespace": namespace},
            "rules": rules,
        },
        _binding(name, "leader-election", role, namespace, cluster=False),
    ]


def _configuration(name: str, namespace: str, replicas: int) -> str:
    elect = replicas > 1
    lines = [
        "apiVersion: kubescheduler.config.k8s.io/v1",
        "kind: KubeSchedulerConfiguration",
        "profiles:",
        f"  - schedulerName: {name}",
        "leaderElection:",
        f"  leaderElect: {'true' if elect else 'false'}",
    ]
    if elect:
        lines += [f"  resourceName: {name}", f"  resourceNamespace: {namespace}"]
    return "\n".join([*lines, ""])


def _deployment(name: str, namespace: str, image: str, replicas: int) -> Obj:
    labels = {"component": "scheduler", "tier": "control-plane", "scheduler": name}
    probe: Obj = {"httpGet": {"path": "/healthz", "port": 10259, "scheme": "HTTPS"}}
    container = {
        "name": name,
        "image": image,
        "command": ["bowsprit", "scheduler", f"--config=/etc/kubernetes/{name}/{name}-config.yaml"],
        "livenessProbe": {**probe, "initialDelaySeconds": 15},
        "readinessProbe": probe,
        "resources": {"requests": {"cpu": "0.1"}},
        "securityContext": {"privileged": False},
        "volumeMounts": [{"name": "config-volume", "mountPath": f"/etc/kubernetes/{name}"}],
    }
    return {
        "apiVersion": "apps/v1",
        "kind": "Deployment",
        "metadata": {"name": name, "namespace": namespace, "labels": labels},
        "spec": {
            "replicas": replicas,
            "selector": {"matchLabels": labels},
            "template": {
                "metadata": {"labels": labels},
                "spec": {
                    "serviceAccountName": name,
                    "containers": [container],
                    "volumes": [{"name": "config-volume", "configMap": {"name": f"{name}-config"}}],
                },
            },
        },
    }


def second_scheduler(name: str, namespace: str, image: str, replicas: int = 1) -> list[Obj]:
    """ServiceAccount, bindings, ConfigMap and Deployment; with more than one replica also the right to its lease."""
    return [
        {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": name, "namespace": namespace}},
        _binding(name, "as-kube-scheduler", "system:kube-scheduler", namespace),
        _binding(name, "as-volume-scheduler", "system:volume-scheduler", namespace),
        {
            "apiVersion": "rbac.authorization.k8s.io/v1",
            "kind": "RoleBinding",
            "metadata": {"name": f"{name}-extension-apiserver-authentication-reader", "namespace": "kube-system"},
            "subjects": [{"kind": "ServiceAccount", "name": name, "namespace": namespace}],
            "roleRef": {
                "apiGroup": "rbac.authorization.k8s.io",
                "kind": "Role",
                "name": "extension-apiserver-authentication-reader",
            },
        },
        *(_lease_role(name, namespace) if replicas > 1 else ()),
        {
            "apiVersion": "v1",
            "kind": "ConfigMap",
            "metadata": {"name": f"{name}-config", "namespace": namespace},
            "data": {f"{name}-config.yaml": _configuration(name, namespace, replicas)},
        },
        _deployment(name, namespace, image, replicas),
    ]
