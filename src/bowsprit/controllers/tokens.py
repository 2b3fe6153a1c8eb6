"""Secrets of the type kubernetes.io/service-account-token: filled with a token that does not expire, deleted with the account.

Upstream: pkg/controller/serviceaccount/tokens_controller.go, pkg/serviceaccount/legacy.go. Nobody makes such secrets unasked.
"""

from __future__ import annotations

import base64
from contextlib import suppress

from bowsprit.apiserver.authentication import jwt
from bowsprit.apiserver.authentication.serviceaccount import legacy_claims
from bowsprit.client.resources import SECRETS, SERVICE_ACCOUNTS
from bowsprit.controllers.controller import Controller, ControllerContext
from bowsprit.controllers.pods import is_deleting
from bowsprit.machinery import objects
from bowsprit.machinery.errors import NotFoundError
from bowsprit.machinery.objects import Obj

TYPE = "kubernetes.io/service-account-token"
NAME = "kubernetes.io/service-account.name"
UID = "kubernetes.io/service-account.uid"


class TokensController(Controller):
    """Keys are secrets. Without a key to sign with it does nothing."""

    name = "serviceaccount-token-controller"
    account = ""  # upstream's acts as the controller manager itself
    workers = 1

    def __init__(self, context: ControllerContext) -> None:
        super().__init__(context)
        self._accounts = context.informers.informer(SERVICE_ACCOUNTS)
        self._secrets = context.informers.informer(SECRETS, field_selector=f"type={TYPE}")
        self._key = context.token_key
        self.watch(self._secrets)
        self.watch(self._accounts, self._account_changed)

    def _account_changed(self, account: Obj) -> None:
        meta = account["metadata"]
        for secret in self._secrets.list(meta["namespace"]):
            if objects.annotations(secret).get(NAME) == meta["name"]:
                self.enqueue(secret)

    async def sync(self, key: str) -> None:
        """See Controller."""
        secret = self._secrets.get(key)
        if secret is None or self._key is None or is_deleting(secret):
            return
        meta, notes = secret["metadata"], objects.annotations(secret)
        try:  # the informer may not have seen the account yet
            account = await self._account(meta["namespace"], notes.get(NAME, ""))
        except NotFoundError:
            account = None
        if account is None or notes.get(UID, account["metadata"]["uid"]) != account["metadata"]["uid"]:
            with suppress(NotFoundError):
                await self.client.delete(SECRETS, meta["name"], namespace=meta["namespace"], uid=meta["uid"])
            return
        data = dict(secret.get("data") or {})
        wanted = {"namespace": _encoded(meta["namespace"].encode())}
        if self.context.root_ca:
            wanted["ca.crt"] = _encoded(self.context.root_ca)
        if not data.get("token"):
            wanted["token"] = _encoded(jwt.sign(legacy_claims(account, meta["name"]), self._key).encode())
        if wanted.items() <= data.items() and notes.get(UID):
            return
        changed = {
            **secret,
            "apiVersion": "v1",
            "kind": "Secret",
            "metadata": {**meta, "annotations": {**notes, UID: account["metadata"]["uid"]}},
            "data": {**data, **wanted},
        }
        with suppress(NotFoundError):
            await self.client.update(SECRETS, changed)

    async def _account(self, namespace: str, name: str) -> Obj:
        known = self._accounts.get(f"{namespace}/{name}")
        return known if known is not None else await self.client.get(SERVICE_ACCOUNTS, name, namespace=namespace)


def _encoded(data: bytes) -> str:
    return base64.b64encode(data).decode()
