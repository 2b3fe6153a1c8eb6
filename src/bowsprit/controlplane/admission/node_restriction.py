"""NodeRestriction: a kubelet writes its own Node, its own pods and its own lease, and nothing else.

Upstream: plugin/pkg/admission/noderestriction.
"""

from __future__ import annotations

from bowsprit.apiserver.admission.chain import CREATE, DELETE, UPDATE, Target
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.authorization.node import NODE_PREFIX, NODES_GROUP
from bowsprit.apiserver.lookup import Listers
from bowsprit.controlplane.admission.refusal import refused
from bowsprit.controlplane.admission.service_account import MIRROR_POD
from bowsprit.machinery.goformat import quote
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import Obj, labels, metadata, nested

PODS = GroupResource("", "pods")
NODES = GroupResource("", "nodes")
ACCOUNTS = GroupResource("", "serviceaccounts")
LEASES = GroupResource("coordination.k8s.io", "leases")
_LEASE_NAMESPACE = "kube-node-lease"
_OWN_LABELS = frozenset(
    {
        "kubernetes.io/hostname",
        "kubernetes.io/arch",
        "kubernetes.io/os",
        "beta.kubernetes.io/arch",
        "beta.kubernetes.io/os",
        "beta.kubernetes.io/instance-type",
        "node.kubernetes.io/instance-type",
        "failure-domain.beta.kubernetes.io/zone",
        "failure-domain.beta.kubernetes.io/region",
        "topology.kubernetes.io/zone",
        "topology.kubernetes.io/region",
    }
)
_OWN_LABEL_DOMAINS = ("kubelet.kubernetes.io", "node.kubernetes.io")
_RESERVED_DOMAINS = ("kubernetes.io", "k8s.io")


class NodeRestriction:
    """See the module's docstring."""

    name = "NodeRestriction"

    def __init__(self, listers: Listers) -> None:
        self._listers = listers

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.resource in (PODS, NODES, ACCOUNTS, LEASES) and target.operation in (CREATE, UPDATE, DELETE)

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Judge what a node writes; other users are not looked at."""
        user = attributes.user
        if NODES_GROUP not in user.groups or not user.name.startswith(NODE_PREFIX):
            return
        node = user.name.removeprefix(NODE_PREFIX)
        match attributes.gvr.gr:
            case gr if gr == PODS:
                self._pod(attributes, node)
            case gr if gr == NODES:
                self._node(attributes, node)
            case gr if gr == LEASES:
                self._lease(attributes, node)
            case _:
                self._token(attributes, node)

    def _pod(self, attributes: AdmissionAttributes, node: str) -> None:
        if attributes.operation is CREATE and attributes.subresource == "eviction":
            pod = self._listers(PODS).get(attributes.namespace, attributes.name)
            if pod is not None and nested(pod, "spec", "nodeName") != node:
                raise refused(attributes, f"node {quote(node)} can only evict pods with spec.nodeName set to itself")
        elif attributes.operation is CREATE and not attributes.subresource:
            pod = attributes.object or {}
            if MIRROR_POD not in (metadata(pod).get("annotations") or {}):
                raise refused(
                    attributes,
                    f"pod does not have {quote(MIRROR_POD)} annotation, node {quote(node)} can only create mirror pods",
                )
            if nested(pod, "spec", "nodeName") != node:
                raise refused(attributes, f"node {quote(node)} can only create pods with spec.nodeName set to itself")
        elif attributes.operation is UPDATE and attributes.subresource == "status":
            if nested(attributes.old_object, "spec", "nodeName") != node:
                text = f"node {quote(node)} can only update pod status for pods with spec.nodeName set to itself"
                raise refused(attributes, text)
            if labels(attributes.object or {}) != labels(attributes.old_object or {}):
                raise refused(attributes, f"node {quote(node)} cannot update labels through pod status")
        elif attributes.operation is DELETE:
            pod = attributes.old_object or self._listers(PODS).get(attributes.namespace, attributes.name) or {}
            if pod and nested(pod, "spec", "nodeName") != node:
                raise refused(attributes, f"node {quote(node)} can only delete pods with spec.nodeName set to itself")
        else:
            what = f" subresource {attributes.subresource}" if attributes.subresource else ""
            raise refused(attributes, f"unexpected operation {quote(attributes.operation.value)} on pod{what}")

    def _node(self, attributes: AdmissionAttributes, node: str) -> None:
        name = attributes.name or str(metadata(attributes.object or {}).get("name") or "")
        if name != node:
            raise refused(attributes, f"node {quote(node)} is not allowed to modify node {quote(name)}")
        new, old = attributes.object or {}, attributes.old_object or {}
        if attributes.operation is CREATE and nested(new, "spec", "configSource"):
            raise refused(attributes, f"node {quote(node)} is not allowed to create pods with a non-nil configSource")
        if attributes.operation is UPDATE and (nested(new, "spec", "taints") or []) != (
            nested(old, "spec", "taints") or []
        ):
            raise refused(attributes, f"node {quote(node)} is not allowed to modify taints")
        if attributes.operation in (CREATE, UPDATE):
            forbidden = _foreign_labels(new, old)
            if forbidden:
                verb = "set the following labels" if attributes.operation is CREATE else "modify labels"
                raise refused(attributes, f"is not allowed to {verb}: {', '.join(forbidden)}")

    def _lease(self, attributes: AdmissionAttributes, node: str) -> None:
        if attributes.namespace != _LEASE_NAMESPACE:
            raise refused(attributes, f"can only access leases in the {quote(_LEASE_NAMESPACE)} system namespace")
        name = attributes.name or str(metadata(attributes.object or {}).get("name") or "")
        if name != node:
            raise refused(attributes, "can only access node lease with the same name as the requesting node")

    def _token(self, attributes: AdmissionAttributes, node: str) -> None:
        if attributes.subresource != "token":
            return
        reference = nested(attributes.object, "spec", "boundObjectRef", default={})
        if reference.get("apiVersion") != "v1" or reference.get("kind") != "Pod" or not reference.get("name"):
            raise refused(attributes, "node requested token not bound to a pod")
        if not reference.get("uid"):
            raise refused(attributes, "node requested token with a pod binding without a uid")
        pod = self._listers(PODS).get(attributes.namespace, reference["name"])
        if pod is None or nested(pod, "metadata", "uid") != reference["uid"]:
            raise refused(
                attributes,
                f"the UID in the bound object reference ({reference['uid']}) does not match the UID in record",
            )
        if nested(pod, "spec", "nodeName") != node:
            raise refused(attributes, "node requested token bound to a pod scheduled on a different node")
        if nested(pod, "spec", "serviceAccountName") != attributes.name:
            text = f"node requested token for {quote(attributes.name)} but the pod uses another service account"
            raise refused(attributes, text)


def _foreign_labels(new: Obj, old: Obj) -> list[str]:
    """Changed labels in Kubernetes' domains that are not a node's own to set."""
    before, after = labels(old), labels(new)
    changed = {key for key in {*before, *after} if before.get(key) != after.get(key)}
    return sorted(key for key in changed if _is_reserved(key) and not _is_own(key))


def _is_reserved(key: str) -> bool:
    domain, slash, _ = key.partition("/")
    return bool(slash) and any(domain == item or domain.endswith("." + item) for item in _RESERVED_DOMAINS)


def _is_own(key: str) -> bool:
    domain = key.partition("/")[0]
    return key in _OWN_LABELS or any(domain == item or domain.endswith("." + item) for item in _OWN_LABEL_DOMAINS)
