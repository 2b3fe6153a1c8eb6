"""Apps of tests, served in this process."""

from __future__ import annotations

import asyncio
import time
from collections.abc import AsyncIterator, Awaitable, Callable
from contextlib import asynccontextmanager
from dataclasses import dataclass
from pathlib import Path

from pydantic import BaseModel

from bowsprit.extension.app import App
from bowsprit.extension.certificates import Certificates
from bowsprit.extension.kind import Kind
from bowsprit.extension.options import ExtensionOptions
from bowsprit.extension.server import ExtensionServer


class GreetingSpec(BaseModel):
    text: str = "hello"


def greetings(group: str, *versions: str) -> App:
    """An app with the kind Greeting in one or more versions."""
    app = App(group)
    for version in versions or ("v1",):

        class Greeting(Kind):
            """A greeting."""

            spec: GreetingSpec = GreetingSpec()

        app.kind(version=version, short_names=["gr"], columns={"Text": ".spec.text"})(Greeting)
    return app


@dataclass(frozen=True, slots=True)
class Served:
    """A running server; it listens on every address of this host."""

    server: ExtensionServer
    port: int
    certificates: Certificates


@asynccontextmanager
async def served(
    app: App, certificates: Certificates, folder: Path, kubeconfig: Path, **options: object
) -> AsyncIterator[Served]:
    """Serves an app with a certificate until the end of the block."""
    cert, key = folder / "tls.crt", folder / "tls.key"
    certificates.serving.save(cert, key)
    given = ExtensionOptions(
        secure_port=0,
        tls_cert_file=cert,
        tls_private_key_file=key,
        kubeconfig=kubeconfig,
        shutdown_timeout=1.0,
        **options,  # type: ignore[arg-type]
    )
    server = ExtensionServer(app, given)
    _, port = await server.start()
    try:
        yield Served(server, port, certificates)
    finally:
        await server.stop()


async def eventually(met: Callable[[], Awaitable[bool]], seconds: float = 20.0) -> None:
    """Return when it is met; fail when it is not in time."""
    deadline = time.monotonic() + seconds
    while not await met():
        assert time.monotonic() < deadline, "not met in time"
        await asyncio.sleep(0.05)
