"""Access decisions: RBAC beside an authorizer that only says yes, tokens beside the bare signature check."""

from __future__ import annotations

import asyncio
import tempfile
import time
from collections.abc import Awaitable, Callable, Iterable
from pathlib import Path
from typing import Any

from bench import Row


def run() -> Iterable[Row]:
    """RBAC decisions with the bootstrap roles and 1,000 more bindings; verification of a ServiceAccount's token."""
    yield from asyncio.run(_rows())


async def _per_second(work: Callable[[], Awaitable[Any]], seconds: float = 1.0) -> float:
    await work()
    count, begun = 0, time.perf_counter()
    while (spent := time.perf_counter() - begun) < seconds:
        for _ in range(100):
            await work()
        count += 100
    return count / spent


async def _rows() -> list[Row]:
    from bowsprit.apiserver.access import AllowAlways, Attributes
    from bowsprit.apiserver.user import UserInfo
    from bowsprit.controlplane.options import APIServerOptions
    from bowsprit.controlplane.server import APIServer
    from bowsprit.machinery.names import GroupResource

    with tempfile.TemporaryDirectory() as folder:
        server = APIServer(APIServerOptions(secure_port=0, cert_dir=Path(folder)))
        await server.start()
        client = server.server.registry.client()
        bindings = GroupResource("rbac.authorization.k8s.io", "rolebindings")
        for number in range(1000):
            subject = {"kind": "User", "apiGroup": bindings.group, "name": f"user-{number}"}
            reference = {"apiGroup": bindings.group, "kind": "ClusterRole", "name": "view"}
            meta = {"name": f"b{number}", "namespace": "default"}
            await client.create(bindings, {"metadata": meta, "roleRef": reference, "subjects": [subject]})
        asked = Attributes(
            UserInfo("system:kube-controller-manager", "", ("system:authenticated",)),
            "get",
            "",
            "v1",
            "configmaps",
            namespace="default",
            name="x",
        )
        ours = await _per_second(lambda: server.server.authorizer.authorize(asked))
        floor = await _per_second(lambda: AllowAlways().authorize(asked))
        row = Row("RBAC decisions against an authorizer that says yes", ours, floor, "1/s", ours / floor)
        rows = [row, await _tokens()]
        await server.stop()
    return rows


async def _tokens() -> Row:
    from cryptography.hazmat.primitives import hashes
    from cryptography.hazmat.primitives.asymmetric import ec

    from bowsprit.apiserver.authentication.serviceaccount import ServiceAccountTokens, TokenIssuer, TokenSettings
    from bowsprit.pki.signing import load_signing_key, new_signing_key

    class Accounts:
        def __init__(self) -> None:
            self.account = {"metadata": {"name": "robot", "namespace": "ns", "uid": "u"}}

        def get(self, namespace: str, name: str) -> dict[str, Any]:
            return self.account

        def list(self, namespace: str | None = None) -> list[dict[str, Any]]:
            return [self.account]

    key = load_signing_key(new_signing_key())
    assert isinstance(key, ec.EllipticCurvePrivateKey)
    settings = TokenSettings(("https://issuer",), ("https://issuer",), key, [key.public_key()])
    accounts = Accounts()
    token = TokenIssuer(settings, lambda _: accounts, time.time).issue("ns", "robot", {"spec": {}})["status"]["token"]
    tokens = ServiceAccountTokens(settings, lambda _: accounts, time.time)
    public, message = key.public_key(), token.rpartition(".")[0].encode()
    signature = key.sign(message, ec.ECDSA(hashes.SHA256()))

    async def bare() -> None:
        public.verify(signature, message, ec.ECDSA(hashes.SHA256()))

    ours = await _per_second(lambda: tokens.authenticate_token(token, ()))
    floor = await _per_second(bare)
    note = "without the ten seconds' memory"
    return Row("token verifications against the bare signature check", ours, floor, "1/s", ours / floor, ">= 0.5", note)
