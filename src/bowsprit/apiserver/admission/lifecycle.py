"""NamespaceLifecycle: nothing is made in a namespace that is absent or ends; three namespaces never end.

Upstream: k8s.io/apiserver/pkg/admission/plugin/namespace/lifecycle.
"""

from __future__ import annotations

from bowsprit.apiserver.admission.chain import Target
from bowsprit.apiserver.admit import AdmissionAttributes, Operation
from bowsprit.apiserver.lookup import Listers
from bowsprit.machinery.errors import cause, forbidden, not_found
from bowsprit.machinery.names import GroupResource
from bowsprit.machinery.objects import nested

NAMESPACES = GroupResource("", "namespaces")
IMMORTAL = frozenset({"default", "kube-system", "kube-public"})
# Asking what one may do in a namespace tells nothing about whether it exists.
_ACCESS_REVIEW = GroupResource("authorization.k8s.io", "localsubjectaccessreviews")


class NamespaceLifecycle:
    """See the module's docstring."""

    name = "NamespaceLifecycle"

    def __init__(self, listers: Listers) -> None:
        self._listers = listers

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        if target.resource == NAMESPACES:
            return target.operation is Operation.DELETE
        return target.operation in (Operation.CREATE, Operation.UPDATE) and target.resource != _ACCESS_REVIEW

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Refuse early: before the plugins that look for objects in the namespace (upstream Admit)."""
        if attributes.gvr.gr == NAMESPACES:
            if attributes.name in IMMORTAL and not attributes.subresource:
                raise forbidden(NAMESPACES, attributes.name, "this namespace may not be deleted")
            return
        name = attributes.namespace
        if not name:
            return
        namespace = self._listers(NAMESPACES).get("", name)
        if namespace is None:
            raise not_found(NAMESPACES, name)
        if attributes.operation is Operation.CREATE and nested(namespace, "status", "phase") == "Terminating":
            raise forbidden(
                attributes.gvr.gr,
                attributes.name,
                f"unable to create new content in namespace {name} because it is being terminated",
                causes=[cause("NamespaceTerminating", f"namespace {name} is being terminated", "metadata.namespace")],
            )
