"""kill -9 of the server while clients write: nothing acknowledged is lost, nothing is torn, watches resume exactly."""

from __future__ import annotations

import asyncio
import json
import random
import sys
from asyncio.subprocess import PIPE, Process
from pathlib import Path
from typing import Any

import aiohttp
from apiserver_toys import WIDGETS, Client, widget

HERE = Path(__file__).parent
ROUNDS = 4
WRITERS = 6


async def _start(path: Path, port: int) -> tuple[Process, int]:
    process = await asyncio.create_subprocess_exec(
        sys.executable, str(HERE / "toy_process.py"), str(path), str(port), stdout=PIPE
    )
    assert process.stdout is not None
    async with asyncio.timeout(60):
        return process, int(await process.stdout.readline())


class Ledger:
    """What was acknowledged: the newest state of each object, None for deleted; and what a writer was waiting for."""

    def __init__(self) -> None:
        self.states: dict[str, tuple[int, dict[str, Any] | None]] = {}
        self.unanswered: set[str] = set()
        self.acknowledged = 0

    def note(self, name: str, revision: int, obj: dict[str, Any] | None) -> None:
        self.acknowledged += 1
        if revision >= self.states.get(name, (0, None))[0]:
            self.states[name] = (revision, obj)


async def _write(client: Client, number: int, ledger: Ledger, rng: random.Random) -> None:
    while True:
        name = f"w{number}-{rng.randrange(8)}"
        known = ledger.states.get(name, (0, None))
        ledger.unanswered.add(name)
        try:
            if known[1] is None:
                reply = await client.post(
                    WIDGETS, widget(name, size=rng.randrange(1000), text="x" * rng.randrange(3000))
                )
            elif rng.random() < 0.3:
                reply = await client.delete(f"{WIDGETS}/{name}")
            else:
                reply = await client.put(f"{WIDGETS}/{name}", widget(name, size=rng.randrange(1000)))
        except (aiohttp.ClientError, ConnectionError):
            return
        ledger.unanswered.discard(name)
        if reply.status in (200, 201) and reply.body["kind"] == "Widget":
            ledger.note(name, int(reply.body["metadata"]["resourceVersion"]), reply.body)
        elif reply.status == 200:
            ledger.note(name, known[0] + 1, None)
        elif reply.status == 409:  # an unanswered creation of an earlier round has happened
            found = await client.get(f"{WIDGETS}/{name}")
            ledger.note(name, int(found.body["metadata"]["resourceVersion"]), found.body)
        else:  # an unanswered deletion has
            assert reply.status == 404, reply.body
            ledger.note(name, known[0] + 1, None)


async def _follow(client: Client, seen: list[tuple[int, str, str]]) -> None:
    """Watches on from the last revision seen, until the connection breaks."""
    since = seen[-1][0] if seen else 1
    try:
        async with client.session.get(f"{client.base}{WIDGETS}?watch=1&resourceVersion={since}") as response:
            async for line in response.content:
                event = json.loads(line)
                assert event["type"] != "ERROR", event
                meta = event["object"]["metadata"]
                seen.append((int(meta["resourceVersion"]), meta["name"], event["type"]))
    except (aiohttp.ClientError, ConnectionError, json.JSONDecodeError):
        return


async def test_kill_at_random_moments(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    rng = random.Random(7)
    ledger = Ledger()
    seen: list[tuple[int, str, str]] = []
    process, port = await _start(path, 0)
    for round_number in range(ROUNDS):
        async with aiohttp.ClientSession() as session:
            client = Client(f"http://127.0.0.1:{port}", session)
            tasks = [asyncio.ensure_future(_follow(client, seen))]
            tasks += [
                asyncio.ensure_future(_write(client, number, ledger, random.Random(round_number * 100 + number)))
                for number in range(WRITERS)
            ]
            enough = ledger.acknowledged + rng.randrange(30, 150)
            async with asyncio.timeout(60):
                while ledger.acknowledged < enough:
                    await asyncio.sleep(rng.uniform(0.001, 0.01))
            process.kill()
            await process.wait()
            await asyncio.gather(*tasks)
        process, port = await _start(path, 0)
        async with aiohttp.ClientSession() as session:
            client = Client(f"http://127.0.0.1:{port}", session)
            stored = {item["metadata"]["name"]: item for item in (await client.get(WIDGETS)).body["items"]}
        for name, (revision, obj) in ledger.states.items():
            if name in ledger.unanswered:
                continue
            if obj is None:
                assert name not in stored, f"{name} rose from the dead"
            else:
                assert stored[name]["metadata"]["resourceVersion"] == str(revision)
                assert stored[name]["spec"] == obj["spec"]
        assert all(isinstance(item["spec"]["size"], int) for item in stored.values())
        for name in ledger.unanswered:
            if name in stored:
                ledger.states[name] = (int(stored[name]["metadata"]["resourceVersion"]), stored[name])
            else:
                ledger.states.pop(name, None)
        ledger.unanswered.clear()
    async with aiohttp.ClientSession() as session:
        client = Client(f"http://127.0.0.1:{port}", session)
        last = int((await client.get(WIDGETS)).body["metadata"]["resourceVersion"])
        following = asyncio.ensure_future(_follow(client, seen))
        async with asyncio.timeout(60):
            while not seen or seen[-1][0] < last:
                await asyncio.sleep(0.01)
        process.kill()
        await process.wait()
        await following
    # Only widgets are written, so that the watch must have seen every revision, once and in order.
    assert [revision for revision, _, _ in seen] == list(range(2, last + 1))
