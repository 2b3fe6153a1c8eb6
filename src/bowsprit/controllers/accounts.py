"""One client per controller, each with the token of its own ServiceAccount in kube-system.

So every controller has only the rights of its role ``system:controller:<account>``. Upstream:
controller-manager/pkg/clientbuilder (SAControllerClientBuilder with TokenRequest).
"""

from __future__ import annotations

import asyncio
import logging
from collections.abc import Iterable
from contextlib import suppress
from dataclasses import replace

from bowsprit.client.errors import ClientError
from bowsprit.client.resources import SERVICE_ACCOUNTS
from bowsprit.client.rest import RestClient
from bowsprit.machinery.errors import AlreadyExistsError, StatusError

log = logging.getLogger(__name__)

NAMESPACE = "kube-system"
_TOKEN_SECONDS = 3600
_RENEW_AFTER = 0.8 * _TOKEN_SECONDS
_RETRY = 10.0


class ServiceAccountClients:
    """The clients by account; tokens are renewed in the background until ``stop``."""

    def __init__(self, root: RestClient) -> None:
        self._root = root
        self._tokens: dict[str, str] = {}
        self.clients: dict[str, RestClient] = {}
        self._renewal: asyncio.Task[None] | None = None

    async def start(self, accounts: Iterable[str]) -> None:
        """Make the accounts that are missing, and a client for each."""
        wanted = sorted(accounts)
        await asyncio.gather(*(self._issue(account) for account in wanted))
        for account in wanted:
            config = replace(
                self._root.config,
                client_certificate_data=b"",
                client_key_data=b"",
                exec_config=None,
                token="",
                token_file=None,
                token_source=lambda account=account: self._tokens[account],  # type: ignore[misc]
                user_agent=f"{self._root.config.user_agent}/{account}",
            )
            self.clients[account] = RestClient(config)
        self._renewal = asyncio.get_running_loop().create_task(self._renew(wanted), name="controller tokens")

    async def stop(self) -> None:
        """Close the clients."""
        if self._renewal is not None:
            self._renewal.cancel()
            await asyncio.gather(self._renewal, return_exceptions=True)
        await asyncio.gather(*(client.close() for client in self.clients.values()))
        self.clients.clear()

    async def _issue(self, account: str) -> None:
        meta = {"name": account, "namespace": NAMESPACE}
        with suppress(AlreadyExistsError):
            await self._root.create(SERVICE_ACCOUNTS, {"apiVersion": "v1", "kind": "ServiceAccount", "metadata": meta})
        request = {
            "apiVersion": "authentication.k8s.io/v1",
            "kind": "TokenRequest",
            "spec": {"expirationSeconds": _TOKEN_SECONDS},
        }
        answer = await self._root.create(
            SERVICE_ACCOUNTS, request, namespace=NAMESPACE, name=account, subresource="token"
        )
        self._tokens[account] = answer["status"]["token"]

    async def _renew(self, accounts: list[str]) -> None:
        while True:
            await asyncio.sleep(_RENEW_AFTER)
            for account in accounts:
                while True:
                    try:
                        await self._issue(account)
                        break
                    except (StatusError, ClientError) as exc:
                        log.warning("token of %s not renewed: %s", account, exc)
                        await asyncio.sleep(_RETRY)
