"""Informers see every change once and in order, whatever the server and the network do."""

from __future__ import annotations

import asyncio
from typing import Any

import pytest

from bowsprit.client.informer import Handler, Informer, InformerFactory
from bowsprit.client.resources import CONFIG_MAPS
from bowsprit.client.rest import RestClient


@pytest.fixture(autouse=True)
def quick(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr("bowsprit.client.reflector._BACKOFF_BASE", 0.01)
    monkeypatch.setattr("bowsprit.client.reflector._BACKOFF_MAX", 0.05)
    monkeypatch.setattr("bowsprit.client.reflector._WATCH_LIST_PATIENCE", 0.2)


class Journal:
    """What the handlers were told."""

    def __init__(self) -> None:
        self.lines: list[str] = []

    def handler(self) -> Handler:
        def text(obj: Any) -> str:
            return f"{obj['metadata']['name']}={obj.get('data', {}).get('v', '')}"

        return Handler(
            lambda obj, initial: self.lines.append(f"add {text(obj)}{' initial' if initial else ''}"),
            lambda old, new: self.lines.append(f"update {text(old)} {text(new)}"),
            lambda obj: self.lines.append(f"delete {text(obj)}"),
        )


@pytest.mark.parametrize("mode", ["watch list", "refused", "ignored"])
async def test_the_start_is_consistent_with_every_kind_of_server(
    server: Any, client: RestClient, mode: str, eventually: Any
) -> None:
    server.knows_watch_list = mode != "refused"
    server.ignores_watch_list = mode == "ignored"
    server.put("a", v="1")
    server.put("b", v="1")
    journal = Journal()
    informer = Informer(client, CONFIG_MAPS, namespace="default")
    informer.add_handler(journal.handler())
    informer.start()
    await informer.wait_synced(10)
    assert journal.lines == ["add a=1 initial", "add b=1 initial"]
    server.put("a", v="2")
    server.remove("b")
    server.put("c", v="1")
    await server.notify()
    await eventually(lambda: len(journal.lines) == 5)
    assert journal.lines[2:] == ["update a=1 a=2", "delete b=1", "add c=1"]
    a = informer.get("default/a")
    assert a is not None
    assert (a["kind"], a["apiVersion"]) == ("ConfigMap", "v1")
    assert "managedFields" not in a["metadata"]
    await informer.stop()


async def test_a_broken_watch_resumes_without_gap_or_duplicate(
    server: Any, client: RestClient, eventually: Any
) -> None:
    journal = Journal()
    informer = Informer(client, CONFIG_MAPS, namespace="default")
    informer.add_handler(journal.handler())
    informer.start()
    await informer.wait_synced(10)
    for number in range(30):
        server.put(f"c{number}", v=str(number))
        await (server.drop_watches() if number % 7 == 0 else server.notify())
        await asyncio.sleep(0.002)
    await eventually(lambda: len(informer.list()) == 30)
    assert journal.lines == [f"add c{number}={number}" for number in range(30)]
    assert informer.last_resource_version == str(server.revision)
    await informer.stop()


async def test_lost_history_becomes_differences(server: Any, client: RestClient, eventually: Any) -> None:
    server.put("kept", v="1")
    server.put("gone", v="1")
    server.put("renewed", v="1")
    journal = Journal()
    informer = Informer(client, CONFIG_MAPS, namespace="default")
    informer.add_handler(journal.handler())
    informer.start()
    await informer.wait_synced(10)
    journal.lines.clear()
    server.remove("gone")
    server.remove("renewed")
    server.put("renewed", v="2")
    server.put("new", v="1")
    server.history.clear()
    server.compacted = server.revision
    await server.drop_watches()
    await eventually(lambda: informer.get("default/new"))
    assert sorted(journal.lines) == ["add new=1", "add renewed=2", "delete gone=1", "delete renewed=1"]
    await informer.stop()


async def test_a_late_handler_and_a_late_index_see_what_is_there(server: Any, client: RestClient) -> None:
    server.put("a", v="x")
    server.put("b", v="y")
    factory = InformerFactory(client)
    informer = factory.informer(CONFIG_MAPS)
    factory.start()
    await factory.wait_synced(10)
    assert factory.informer(CONFIG_MAPS, indexers={"v": lambda obj: [obj["data"]["v"]]}) is informer
    assert [obj["metadata"]["name"] for obj in informer.by_index("v", "y")] == ["b"]
    journal = Journal()
    informer.add_handler(journal.handler())
    assert journal.lines == ["add a=x initial", "add b=y initial"]
    assert factory.existing(CONFIG_MAPS) is informer
    await factory.stop()


async def test_a_failing_handler_does_not_stop_the_others(server: Any, client: RestClient) -> None:
    server.put("a", v="1")

    def fail(obj: Any, initial: bool) -> None:
        raise ValueError("handler")

    journal = Journal()
    informer = Informer(client, CONFIG_MAPS)
    informer.add_handler(Handler(on_add=fail))
    informer.add_handler(journal.handler())
    informer.start()
    await informer.wait_synced(10)
    assert journal.lines == ["add a=1 initial"]
    await informer.stop()


async def test_an_unreachable_server_leaves_the_informer_unsynced() -> None:
    from bowsprit.client.config import RestConfig

    async with RestClient(RestConfig(server="http://127.0.0.1:1")) as client:
        informer = Informer(client, CONFIG_MAPS)
        informer.start()
        with pytest.raises(TimeoutError):
            await informer.wait_synced(0.05)
        assert not informer.has_synced
        await informer.stop()
