"""The ``default`` ServiceAccount of every namespace (upstream serviceaccounts_controller)."""

from __future__ import annotations

from bowsprit.client.resources import NAMESPACES, SERVICE_ACCOUNTS
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.pod_control import namespace_is_terminating
from bowsprit.machinery.errors import AlreadyExistsError, ForbiddenError, NotFoundError
from bowsprit.machinery.objects import Obj, nested


class ServiceAccountController(Controller):
    """Creates what is missing; a namespace without it cannot have pods."""

    name = "serviceaccount-controller"
    account = "service-account-controller"
    workers = 1

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._namespaces = context.informers.informer(NAMESPACES)
        self._accounts = context.informers.informer(SERVICE_ACCOUNTS)
        self.watch(self._namespaces)
        self.watch(self._accounts, self._account_changed)

    def _account_changed(self, account: Obj) -> None:
        if account["metadata"]["name"] == "default":
            self.queue.add(account["metadata"]["namespace"])

    async def sync(self, key: str) -> None:
        """See Controller."""
        namespace = self._namespaces.get(key)
        if (
            namespace is None
            or nested(namespace, "status", "phase") != "Active"
            or self._accounts.get(f"{key}/default")
        ):
            return
        account = {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": {"name": "default", "namespace": key}}
        try:
            await self.client.create(SERVICE_ACCOUNTS, account)
        except (AlreadyExistsError, NotFoundError):
            return
        except ForbiddenError as exc:
            if not namespace_is_terminating(exc):
                raise
