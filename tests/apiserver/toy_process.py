"""A server process with the toy kinds on an SQLite file, to be killed: `toy_process.py FILE PORT`."""

from __future__ import annotations

import asyncio
import sys

import uvloop
from apiserver_toys import ADMIN, crates, widgets

from bowsprit.apiserver.access import AllowAlways, FixedUser
from bowsprit.apiserver.server import Server
from bowsprit.store.sqlite import SQLiteStore


async def main(path: str, port: int) -> None:
    store = await SQLiteStore.open(path)
    server = Server(store, authenticator=FixedUser(ADMIN), authorizer=AllowAlways())
    await server.registry.add(widgets())
    await server.registry.add(crates())
    print((await server.start("127.0.0.1", port))[1], flush=True)
    await asyncio.Event().wait()


if __name__ == "__main__":
    with asyncio.Runner(loop_factory=uvloop.new_event_loop) as runner:
        runner.run(main(sys.argv[1], int(sys.argv[2])))
