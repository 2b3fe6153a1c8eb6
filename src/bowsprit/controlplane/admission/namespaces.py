"""Plugins about namespaces that are off by default: NamespaceExists, NamespaceAutoProvision; AlwaysAdmit and AlwaysDeny.

Upstream: plugin/pkg/admission/{namespace,admit,deny}.
"""

from __future__ import annotations

from collections.abc import Awaitable, Callable

from bowsprit.apiserver.admission.chain import CREATE, UPDATE, Target
from bowsprit.apiserver.admission.lifecycle import NAMESPACES
from bowsprit.apiserver.admit import AdmissionAttributes
from bowsprit.apiserver.lookup import Listers
from bowsprit.controlplane.admission.refusal import refused
from bowsprit.machinery.errors import AlreadyExistsError, not_found


class NamespaceExists:
    """Refuses writes in namespaces that do not exist."""

    name = "NamespaceExists"

    def __init__(self, listers: Listers) -> None:
        self._listers = listers

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.resource != NAMESPACES and target.operation in (CREATE, UPDATE)

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Look it up."""
        if attributes.namespace and self._listers(NAMESPACES).get("", attributes.namespace) is None:
            raise not_found(NAMESPACES, attributes.namespace)


class NamespaceAutoProvision:
    """Makes the namespace that a create needs."""

    name = "NamespaceAutoProvision"

    def __init__(self, listers: Listers, create: Callable[[str], Awaitable[None]]) -> None:
        self._listers = listers
        self._create = create

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return target.resource != NAMESPACES and target.operation is CREATE

    async def mutate(self, attributes: AdmissionAttributes) -> None:
        """Create it; a race with another request is no failure."""
        name = attributes.namespace
        if not name or attributes.dry_run or self._listers(NAMESPACES).get("", name) is not None:
            return
        try:
            await self._create(name)
        except AlreadyExistsError:
            return


class AlwaysAdmit:
    """Judges nothing."""

    name = "AlwaysAdmit"

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return False


class AlwaysDeny:
    """Refuses everything."""

    name = "AlwaysDeny"

    def concerns(self, target: Target) -> bool:
        """See chain.Plugin."""
        return True

    async def validate(self, attributes: AdmissionAttributes) -> None:
        """Refuse."""
        raise refused(attributes, "admission control is denying all modifications")
