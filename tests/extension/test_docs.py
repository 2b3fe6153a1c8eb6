"""The snippets of docs/extension.md run, and do what the page says."""

from __future__ import annotations

import re
from pathlib import Path
from typing import Any

import pytest
from standalone import standalone

from bowsprit.client.rest import RestClient
from bowsprit.extension import App
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj

PAGE = Path(__file__).parents[2] / "docs" / "extension.md"
SNIPPETS = dict(re.findall(r"^```python (\w+)\n(.*?)^```", PAGE.read_text(), re.MULTILINE | re.DOTALL))


def app_of(snippet: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> App:
    """The app of a snippet, loaded from a file as an author's would be."""
    from bowsprit.extension.loading import load_app

    (tmp_path / f"docs_{snippet}.py").write_text(SNIPPETS[snippet])
    monkeypatch.syspath_prepend(str(tmp_path))
    return load_app(f"docs_{snippet}:app", search=tmp_path)


async def create(
    client: RestClient, gvr: GroupVersionResource, kind: str, called: str, /, namespace: str = "default", **rest: Any
) -> Obj:
    obj = {
        "apiVersion": f"{gvr.group}/{gvr.version}",
        "kind": kind,
        "metadata": {"name": called, "namespace": namespace},
        **rest,
    }
    return await client.create(gvr, obj)


def test_every_python_block_is_tried() -> None:
    assert set(SNIPPETS) == {"hello", "orders", "versions", "computed", "streams", "test"}
    assert PAGE.read_text().count("```python") == len(SNIPPETS)
    assert len(SNIPPETS["hello"].splitlines()) <= 25


async def test_hello(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    async with standalone(app_of("hello", tmp_path, monkeypatch)) as client:
        made = await create(client, GroupVersionResource("hello.example.com", "v1", "greetings"), "Greeting", "a")
        assert made["spec"] == {"text": "hello"}


async def test_orders(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    orders = GroupVersionResource("shop.example.com", "v1", "orders")
    async with standalone(app_of("orders", tmp_path, monkeypatch)) as client:
        made = await create(client, orders, "Order", "a", spec={"customerName": "ann", "items": [{"name": "pen"}]})
        assert made["spec"]["items"] == [{"name": "pen", "count": 1}]
        for spec, told in (
            ({"customerName": "ann", "deposit": 2, "price": 1}, "the deposit is more than the price"),
            (
                {"customerName": "ann", "urgency": "high", "items": [{"name": name} for name in "abcd"]},
                "an urgent order has at most three items",
            ),
            ({}, "spec.customerName: Required value"),
        ):
            with pytest.raises(StatusError, match=told):
                await create(client, orders, "Order", "b", spec=spec)
        made["spec"]["customerName"] = "bob"
        with pytest.raises(StatusError, match="must not change"):
            await client.update(orders, made)


async def test_versions(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    new = GroupVersionResource("shop.example.com", "v1", "customers")
    old = GroupVersionResource("shop.example.com", "v1beta1", "customers")
    async with standalone(app_of("versions", tmp_path, monkeypatch)) as client:
        await create(client, old, "Customer", "a", name="Ann Lee")
        found = await client.get(new, "a", namespace="default")
        assert (found["firstName"], found["lastName"]) == ("Ann", "Lee")
        assert (await client.get(old, "a", namespace="default"))["name"] == "Ann Lee"


async def test_computed(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    disks = GroupVersionResource("host.example.com", "v1", "disks")
    async with standalone(app_of("computed", tmp_path, monkeypatch)) as client:
        assert [item["metadata"]["name"] for item in (await client.list(disks))["items"]] == ["root", "temporary"]
        assert (await client.get(disks, "root"))["freeBytes"] > 0
        with pytest.raises(StatusError) as caught:
            await client.get(disks, "other")
        assert caught.value.code == 404


async def test_streams(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    talks = GroupVersionResource("talk.example.com", "v1", "talks")
    async with standalone(app_of("streams", tmp_path, monkeypatch)) as client:
        await create(client, talks, "Talk", "a")
        path = "/apis/talk.example.com/v1/namespaces/default/talks/a"
        assert (await client.raw("GET", f"{path}/log")).body == b"hello\n"
        assert (await client.raw("POST", f"{path}/echo", body=b"abc")).body == b"abc"


def test_the_test_snippet(tmp_path: Path, monkeypatch: pytest.MonkeyPatch, core: Any) -> None:
    from bowsprit.testing.extension import ServedApps

    app = app_of("hello", tmp_path, monkeypatch)
    names: dict[str, Any] = {"app": app}
    exec(SNIPPETS["test"], names)
    apps = ServedApps()
    try:
        names["test_greetings"](lambda served: apps.serve(served, core.kubeconfig), core.kubectl, "default")
    finally:
        apps.close()


def test_the_options_and_commands_of_the_page_exist() -> None:
    from bowsprit.cli.extension import ELSEWHERE, extension

    text = PAGE.read_text()
    run = extension.commands["run"]
    known = {option for parameter in run.params for option in parameter.opts}
    for option in re.findall(r"`(--[a-z-]+)", text):
        assert option in known | {"--bowsprit-url", "--validate"}, option
    for command in re.findall(r"bowsprit extension ([a-z-]+)", text):
        assert command in {*extension.commands, *ELSEWHERE}, command
