"""Makes the modules beside the tests importable, and starts servers with backends."""

from __future__ import annotations

import asyncio
import importlib.util
import sys
from collections.abc import AsyncIterator, Callable
from pathlib import Path
from typing import Any

import aiohttp
import pytest
import uvloop

from bowsprit.controlplane.options import APIServerOptions
from bowsprit.controlplane.server import APIServer
from bowsprit.pki.authority import Authority


def _load(name: str) -> Any:
    spec = importlib.util.spec_from_file_location(name, Path(__file__).with_name(f"{name}.py"))
    assert spec is not None
    assert spec.loader is not None
    module = importlib.util.module_from_spec(spec)
    sys.modules[name] = module
    spec.loader.exec_module(module)
    return module


_load("backends")
_load("differing")
conversions = _load("conversions")
stories = _load("stories")
TOKEN = "admin-token"


def pytest_asyncio_loop_factories(
    config: pytest.Config, item: pytest.Item
) -> dict[str, Callable[[], asyncio.AbstractEventLoop]]:
    """The loop of the program, whose transports differ from asyncio's own."""
    return {"uvloop": uvloop.new_event_loop}


@pytest.fixture
async def session() -> AsyncIterator[aiohttp.ClientSession]:
    async with aiohttp.ClientSession(connector=aiohttp.TCPConnector(ssl=False)) as made:
        yield made


@pytest.fixture
async def front_proxy(tmp_path: Path) -> Authority:
    """The front proxy's authority; front.crt and front.key are the client certificate, front-ca.crt its own."""
    authority = Authority.create("front-proxy-ca")
    authority.issue_client("front-proxy-client").save(tmp_path / "front.crt", tmp_path / "front.key")
    (tmp_path / "front-ca.crt").write_bytes(authority.ca_pem)
    return authority


@pytest.fixture
async def server(tmp_path: Path, front_proxy: Authority) -> AsyncIterator[APIServer]:
    (tmp_path / "tokens.csv").write_text(f'{TOKEN},admin,admin,"system:masters"\nnobody-token,mallory,mallory\n')
    made = APIServer(
        APIServerOptions(
            secure_port=0,
            store="memory",
            cert_dir=tmp_path / "state",
            token_auth_file=tmp_path / "tokens.csv",
            proxy_client_cert_file=tmp_path / "front.crt",
            proxy_client_key_file=tmp_path / "front.key",
        )
    )
    await made.start()
    yield made
    await made.stop()


@pytest.fixture
async def theatre(tmp_path: Path, server: APIServer, session: aiohttp.ClientSession) -> AsyncIterator[Any]:
    made = stories.Theatre(server.url, TOKEN, tmp_path, tmp_path / "front-ca.crt", session)
    yield made
    await made.tear_down()
