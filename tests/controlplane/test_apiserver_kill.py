"""kill -9 of `bowsprit apiserver` on SQLite while clients create, update and delete.

Three rounds by default; BOWSPRIT_KILL_WRITES=10000 goes on until so many writes have been acknowledged.
"""

from __future__ import annotations

import asyncio
import json
import os
import random
import ssl
import sys
from asyncio.subprocess import DEVNULL, PIPE, Process
from pathlib import Path
from typing import Any

import aiohttp

WRITES = int(os.environ.get("BOWSPRIT_KILL_WRITES", "0"))
ROUNDS = 3
WRITERS = 8
MAPS = "/api/v1/namespaces/default/configmaps"
FAILURES = (aiohttp.ClientError, ConnectionError, TimeoutError)

Obj = dict[str, Any]


class Server:
    """The process, which may be killed and started again on the same port."""

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._process: Process | None = None
        self.url = ""
        (folder / "tokens.csv").write_text("secret,root,1,system:masters\n")

    async def start(self) -> None:
        port = self.url.rpartition(":")[2] or "0"
        self._process = await asyncio.create_subprocess_exec(
            sys.executable, "-m", "bowsprit", "apiserver", f"--secure-port={port}", f"--cert-dir={self._folder}",
            "--store=sqlite", f"--token-auth-file={self._folder / 'tokens.csv'}", stdout=DEVNULL, stderr=PIPE,
        )  # fmt: skip
        assert self._process.stderr is not None
        async with asyncio.timeout(60):
            line = b""
            while not line.startswith(b"serving securely on "):
                line = await self._process.stderr.readline()
                assert line, "the server has ended"
        self.url = line.decode().split()[-1]

    async def kill(self) -> None:
        assert self._process is not None
        self._process.kill()
        await self._process.wait()

    def session(self) -> aiohttp.ClientSession:
        connector = aiohttp.TCPConnector(ssl=_trusting())
        return aiohttp.ClientSession(self.url, connector=connector, headers={"Authorization": "Bearer secret"})


def _trusting() -> ssl.SSLContext:
    context = ssl.create_default_context()
    context.check_hostname = False
    context.verify_mode = ssl.CERT_NONE
    return context


class Writer:
    """Writes its own objects, and knows what it was told about each; those without an answer are `open`."""

    def __init__(self, number: int) -> None:
        self._rng = random.Random(number)
        self._number = number
        self.known: dict[str, Obj | None] = {}
        self.open: set[str] = set()
        self.acknowledged: list[tuple[int, str]] = []  # revision and name of creations and updates
        self.deleted = 0

    async def run(self, session: aiohttp.ClientSession) -> None:
        """Until the server is gone."""
        while True:
            name = f"w{self._number}-{self._rng.randrange(12)}"
            try:
                await self._step(session, name)
            except FAILURES:
                return

    async def _step(self, session: aiohttp.ClientSession, name: str) -> None:
        if name in self.open:
            await self._find_out(session, name)
        known, text = self.known.get(name), f"{self._rng.randrange(10**9)}:" * self._rng.randrange(1, 400)
        body = {"metadata": {"name": name}, "data": {"text": text, "size": str(len(text))}}
        self.open.add(name)
        if known is None:
            answer = await session.post(MAPS, json=body)
        elif self._rng.random() < 0.25:
            answer = await session.delete(f"{MAPS}/{name}")
        else:
            body["metadata"]["resourceVersion"] = known["metadata"]["resourceVersion"]
            answer = await session.put(f"{MAPS}/{name}", json=body)
        written = await answer.json()
        assert answer.status in (200, 201), written
        self.open.discard(name)
        if written["kind"] == "Status":
            self.known[name] = None
            self.deleted += 1
        else:
            assert written["data"]["text"] == text
            self.known[name] = written
            self.acknowledged.append((int(written["metadata"]["resourceVersion"]), name))

    async def _find_out(self, session: aiohttp.ClientSession, name: str) -> None:
        answer = await session.get(f"{MAPS}/{name}")
        found = await answer.json()
        self.known[name] = found if answer.status == 200 else None
        self.open.discard(name)


async def _follow(session: aiohttp.ClientSession, seen: list[tuple[int, str, str]]) -> None:
    """Watch on from the last revision seen, until the connection breaks."""
    query = {"watch": "1", "resourceVersion": str(seen[-1][0])}
    try:
        async with session.get(MAPS, params=query, timeout=aiohttp.ClientTimeout(total=None)) as response:
            async for line in response.content:
                event = json.loads(line)
                assert event["type"] != "ERROR", event
                meta = event["object"]["metadata"]
                seen.append((int(meta["resourceVersion"]), meta["name"], event["type"]))
    except (*FAILURES, json.JSONDecodeError):
        return


def _written(writers: list[Writer]) -> int:
    return sum(len(writer.acknowledged) + writer.deleted for writer in writers)


def _check(stored: dict[str, Obj], writers: list[Writer]) -> None:
    for writer in writers:
        for name, known in writer.known.items():
            if name in writer.open:
                continue
            if known is None:
                assert name not in stored, f"{name} rose from the dead"
            else:
                assert stored.get(name) is not None, f"{name} is lost"
                assert stored[name]["data"] == known["data"]
                assert stored[name]["metadata"]["resourceVersion"] == known["metadata"]["resourceVersion"]
    for item in stored.values():
        if item["metadata"]["name"].startswith("w"):
            assert item["data"]["size"] == str(len(item["data"]["text"])), "torn"


async def test_nothing_acknowledged_is_lost_and_watches_go_on(tmp_path: Path) -> None:
    server, rng = Server(tmp_path), random.Random(11)
    writers = [Writer(number) for number in range(WRITERS)]
    await server.start()
    seen: list[tuple[int, str, str]] = []
    rounds = 0
    while rounds < ROUNDS or _written(writers) < WRITES:
        async with server.session() as session:
            if not seen:
                begun = await (await session.get(MAPS)).json()
                seen.append((int(begun["metadata"]["resourceVersion"]), "", ""))
            tasks = [asyncio.ensure_future(_follow(session, seen))]
            tasks += [asyncio.ensure_future(writer.run(session)) for writer in writers]
            enough = _written(writers) + rng.randrange(20, 300)
            async with asyncio.timeout(120):
                while _written(writers) < enough:
                    await asyncio.sleep(rng.uniform(0.001, 0.01))
            await server.kill()
            await asyncio.gather(*tasks)
        await server.start()
        async with server.session() as session:
            listed = await (await session.get(MAPS)).json()
        _check({item["metadata"]["name"]: item for item in listed["items"]}, writers)
        rounds += 1
    async with server.session() as session:
        last = int(
            (await (await session.post(MAPS, json={"metadata": {"name": "end"}})).json())["metadata"]["resourceVersion"]
        )
        following = asyncio.ensure_future(_follow(session, seen))
        async with asyncio.timeout(60):
            while seen[-1][0] < last:
                await asyncio.sleep(0.01)
        following.cancel()
        await asyncio.gather(following, return_exceptions=True)
        listed = await (await session.get(MAPS)).json()
    await server.kill()
    revisions = [revision for revision, _, _ in seen]
    assert revisions == sorted(set(revisions)), "an event came twice, or out of order"
    events = {(revision, name) for revision, name, _ in seen}
    missed = {item for writer in writers for item in writer.acknowledged} - events
    assert not missed, "acknowledged writes that the watch has not seen"
    alive = {
        name
        for name, kind in {name: kind for _, name, kind in seen if name.startswith("w")}.items()
        if kind != "DELETED"
    }
    assert alive == {item["metadata"]["name"] for item in listed["items"] if item["metadata"]["name"].startswith("w")}
    print(f"{_written(writers)} writes acknowledged in {rounds} rounds")
