"""The Node authorizer: what a kubelet may do (upstream plugin/pkg/auth/authorizer/node).

A node (`system:node:NAME` in `system:nodes`) holds the rules of the role system:node, but secrets, config maps and claims
only while a pod that is bound to it refers to them, and pods' identities only of its own pods.
"""

from __future__ import annotations

from collections.abc import Iterator
from typing import Any

from bowsprit.apiserver.access import Attributes, Decision
from bowsprit.apiserver.authorization.rbac import RoleNotFound, RoleResolver
from bowsprit.apiserver.lookup import Listers
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, nested

NODE_PREFIX = "system:node:"
NODES_GROUP = "system:nodes"
_PODS = GroupResource("", "pods")
_CLAIMS = GroupResource("", "persistentvolumeclaims")
_REFERRED = {"secrets", "configmaps", "persistentvolumeclaims", "persistentvolumes", "serviceaccounts"}


class NodeAuthorizer:
    """`--authorization-mode=Node`."""

    def __init__(self, resolver: RoleResolver, listers: Listers) -> None:
        self._resolver = resolver
        self._listers = listers

    async def authorize(self, attributes: Attributes) -> tuple[Decision, str]:
        """See access.Authorizer."""
        user = attributes.user
        if NODES_GROUP not in user.groups or not user.name.startswith(NODE_PREFIX):
            return Decision.NO_OPINION, ""
        node = user.name.removeprefix(NODE_PREFIX)
        if attributes.resource_request and attributes.group == "" and attributes.resource in _REFERRED:
            return self._referred(node, attributes)
        if attributes.resource_request and attributes.resource == "leases":
            if attributes.namespace == "kube-node-lease" and attributes.name in ("", node):
                return Decision.ALLOW, ""
            return Decision.NO_OPINION, "can only access node lease with the same name as the requesting node"
        try:
            rules = self._resolver.role_rules("ClusterRole", "system:node", "")
        except RoleNotFound:
            return Decision.NO_OPINION, ""
        return (Decision.ALLOW if any(rule.allows(attributes) for rule in rules) else Decision.NO_OPINION), ""

    def _referred(self, node: str, attributes: Attributes) -> tuple[Decision, str]:
        resource, name = attributes.resource, attributes.name
        if resource == "serviceaccounts":
            if attributes.subresource != "token" or attributes.verb != "create":
                return Decision.NO_OPINION, "can only create tokens for individual service accounts"
        elif attributes.verb not in ("get", "list", "watch") or attributes.subresource:
            return Decision.NO_OPINION, "can only read resources of this type"
        if not name:
            return Decision.NO_OPINION, "No Object name found"
        for pod in self._listers(_PODS).list(None if resource == "persistentvolumes" else attributes.namespace):
            if nested(pod, "spec", "nodeName") == node and self._refers(pod, resource, name):
                return Decision.ALLOW, ""
        return Decision.NO_OPINION, f"no relationship found between node '{node}' and this object"

    def _refers(self, pod: Obj, resource: str, name: str) -> bool:
        if resource == "serviceaccounts":
            return bool(nested(pod, "spec", "serviceAccountName") == name)
        if resource == "persistentvolumes":
            namespace = pod["metadata"]["namespace"]
            claims = (self._listers(_CLAIMS).get(namespace, claim) for claim in _names(pod, "persistentvolumeclaims"))
            return any(nested(claim, "spec", "volumeName") == name for claim in claims if claim)
        return name in _names(pod, resource)


def _names(pod: Obj, resource: str) -> set[str]:
    """The names of secrets, config maps or claims that a pod refers to anywhere."""
    return {name for kind, name in _references(pod.get("spec") or {}) if kind == resource}


def _references(value: Any, key: str = "") -> Iterator[tuple[str, str]]:
    if isinstance(value, list):
        for item in value:
            yield from _references(item, key)
        return
    if not isinstance(value, dict):
        return
    if key in ("secretKeyRef", "secretRef", "imagePullSecrets", "nodePublishSecretRef") and value.get("name"):
        yield "secrets", value["name"]
    elif key == "secret" and (name := value.get("secretName") or value.get("name")):
        yield "secrets", name
    elif key in ("configMap", "configMapRef", "configMapKeyRef") and value.get("name"):
        yield "configmaps", value["name"]
    elif key == "persistentVolumeClaim" and value.get("claimName"):
        yield "persistentvolumeclaims", value["claimName"]
    for child, item in value.items():
        yield from _references(item, child)
