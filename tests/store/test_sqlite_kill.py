"""kill -9 at random moments: nothing that was acknowledged is lost, nothing is torn."""

from __future__ import annotations

import random
import signal
import subprocess
import sys
import time
from pathlib import Path

from bowsprit.store.sqlite import SQLiteStore

WRITER = """
import asyncio, random, sys
from bowsprit.store.protocol import RevisionMismatchError, Value
from bowsprit.store.sqlite import SQLiteStore

async def main(path, seed):
    store = await SQLiteStore.open(path)
    out = sys.stdout
    async def worker(number):
        rng = random.Random(seed * 100 + number)
        while True:
            key = f"/r/{number}/{rng.randrange(20)}"
            text = "%d:" % rng.randrange(10**9) * rng.randrange(1, 200)
            if rng.random() < 0.25:
                gone = await store.delete(key, Value(b"gone"))
                if gone is not None:
                    print(gone.revision, key, "-", flush=True)
            else:
                entry = await store.put(key, Value(text.encode() + b"@", b"!"))
                print(entry.revision, key, text, flush=True)
    async def compactor():
        while True:
            await asyncio.sleep(0.03)
            await store.compact(max(store.compacted, store.revision - 50))
    await asyncio.gather(compactor(), *(worker(n) for n in range(8)))

asyncio.run(main(sys.argv[1], int(sys.argv[2])))
"""


def _run_and_kill(path: Path, seed: int, seconds: float) -> dict[str, tuple[int, str]]:
    """Runs the writer until it is killed; gives the newest acknowledged write of each key."""
    with subprocess.Popen([sys.executable, "-c", WRITER, str(path), str(seed)], stdout=subprocess.PIPE) as process:
        assert process.stdout is not None
        first = process.stdout.readline()  # it is running
        time.sleep(seconds)
        process.send_signal(signal.SIGKILL)
        lines = [first, *process.stdout.read().split(b"\n")[:-1]]  # the last piece may be torn
    newest: dict[str, tuple[int, str]] = {}
    for line in lines:
        revision, key, text = line.decode().split()
        newest[key] = max(newest.get(key, (0, "")), (int(revision), text))
    return newest


async def test_no_acknowledged_write_is_lost(tmp_path: Path) -> None:
    path = tmp_path / "state.db"
    rng = random.Random(20)
    acknowledged: dict[str, tuple[int, str]] = {}
    written = 0
    for round_number in range(5):
        newest = _run_and_kill(path, round_number, rng.uniform(0.02, 0.4))
        written += len(newest)
        acknowledged.update(newest)
        store = await SQLiteStore.open(path)
        page = await store.list("/r/")
        present = {entry.key: entry for entry in page.entries}
        for key, entry in present.items():
            text = entry.value.decode()
            assert text.endswith(f"@{entry.revision}!"), key
        vanished = []
        for key, (revision, text) in acknowledged.items():
            entry = present.get(key)
            if entry is not None and entry.revision == revision:
                assert entry.value == b"%b@%d!" % (text.encode(), revision)
            elif entry is not None:
                assert entry.revision > revision, f"{key} went back"
            elif text != "-":
                vanished.append(key.split("/")[2])
        # Each worker waits for its answer: at most its last, unanswered write may be a deletion that reached the disk.
        assert len(vanished) == len(set(vanished)), "acknowledged writes were lost"
        acknowledged = {key: (entry.revision, entry.value.decode().split("@")[0]) for key, entry in present.items()}
        await store.close()
    assert written > 50
