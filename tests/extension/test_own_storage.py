"""Kinds whose objects live in an author's object: which verbs are served, and how the library's features hold for them."""

from __future__ import annotations

import asyncio
from collections.abc import AsyncIterator, Iterable
from typing import Any

import pytest
from standalone import standalone

from bowsprit.client.rest import PatchType
from bowsprit.extension import AlreadyExists, App, ExtensionError, Kind, Model, NotFound, RequestContext, Unavailable
from bowsprit.extension import backed as backed_module
from bowsprit.machinery.errors import StatusError
from bowsprit.machinery.names import GroupVersionResource
from bowsprit.machinery.objects import Obj

GROUP = "books.example.com"
BOOKS = GroupVersionResource(GROUP, "v1", "books")


class BookSpec(Model):
    title: str = ""
    pages: int = 1


class Book(Kind):
    """A book."""

    spec: BookSpec = BookSpec()


def book(name: str, namespace: str = "default", **spec: Any) -> Book:
    return Book.model_validate(
        {"metadata": {"name": name, "namespace": namespace, "labels": {"first": name[0]}}, "spec": spec}
    )


def body(name: str, **spec: Any) -> Obj:
    return {
        "apiVersion": f"{GROUP}/v1",
        "kind": "Book",
        "metadata": {"name": name, "namespace": "default"},
        "spec": spec,
    }


def library(storage: object, **options: Any) -> App:
    app = App(GROUP)
    app.kind(columns={"Title": ".spec.title"}, selectable=[".spec.title"], storage=storage, **options)(Book)
    return app


class Computed:
    """Only lists."""

    def list(self, ctx: RequestContext, namespace: str) -> Iterable[Book]:
        return [book("a", title="Anna"), book("b", "other", title="Berta"), book("c", title="Carl")]


class Shelf:
    """Everything but watch."""

    def __init__(self) -> None:
        self.books: dict[tuple[str, str], Book] = {}
        self.calls: list[str] = []

    async def get(self, ctx: RequestContext, namespace: str, name: str) -> Book | None:
        return self.books.get((namespace, name))

    async def list(self, ctx: RequestContext, namespace: str) -> list[Book]:
        return [each for each in self.books.values() if namespace in ("", each.metadata.namespace)]

    async def create(self, ctx: RequestContext, obj: Book) -> Book:
        self.calls.append(f"create {obj.metadata.name}")
        self.books[obj.metadata.namespace, obj.metadata.name] = obj
        return obj

    async def update(self, ctx: RequestContext, obj: Book, old: Book) -> Book:
        self.calls.append(f"update {old.spec.pages} to {obj.spec.pages}")
        self.books[obj.metadata.namespace, obj.metadata.name] = obj
        return obj

    async def delete(self, ctx: RequestContext, obj: Book) -> None:
        self.calls.append(f"delete {obj.metadata.name}")
        del self.books[obj.metadata.namespace, obj.metadata.name]


class Watched(Shelf):
    """Tells of changes, also those made past the API."""

    def __init__(self) -> None:
        super().__init__()
        self.listeners: list[asyncio.Queue[tuple[str, Book]]] = []

    async def watch(self) -> AsyncIterator[tuple[str, Book]]:
        queue: asyncio.Queue[tuple[str, Book]] = asyncio.Queue()
        self.listeners.append(queue)
        while True:
            yield await queue.get()

    def put(self, sort: str, each: Book) -> None:
        key = (each.metadata.namespace, each.metadata.name)
        if sort == "DELETED":
            self.books.pop(key, None)
        else:
            self.books[key] = each
        for queue in self.listeners:
            queue.put_nowait((sort, each))


class Echo:
    """Only creates."""

    def create(self, ctx: RequestContext, obj: Book) -> Book:
        obj.spec.title = f"{obj.spec.title} by {ctx.user.name}"
        return obj


@pytest.mark.parametrize(
    ("storage", "verbs"),
    [
        (Computed(), ["list"]),
        (Echo(), ["create"]),
        (Shelf(), ["create", "delete", "deletecollection", "get", "list", "patch", "update"]),
        (Watched(), ["create", "delete", "deletecollection", "get", "list", "patch", "update", "watch"]),
    ],
)
async def test_discovery_and_openapi_show_exactly_the_verbs_that_are_implemented(
    storage: object, verbs: list[str]
) -> None:
    async with standalone(library(storage)) as client:
        listed = await client.request_json("GET", f"/apis/{GROUP}/v1")
        assert listed["resources"][0]["verbs"] == verbs
        document = await client.request_json("GET", f"/openapi/v3/apis/{GROUP}/v1")
        actions = {
            operation["x-kubernetes-action"]
            for path in document["paths"].values()
            for operation in path.values()
            if isinstance(operation, dict) and "x-kubernetes-action" in operation
        }
        shown = {"post": "create", "put": "update"}
        assert {shown.get(action, action) for action in actions} == set(verbs) - {"watch"}  # a parameter of lists


async def test_a_kind_that_only_lists_serves_selectors_tables_and_pages() -> None:
    async with standalone(library(Computed())) as client:
        everything = await client.list(BOOKS)
        assert [item["metadata"]["name"] for item in everything["items"]] == ["a", "c", "b"]
        assert everything["items"][0]["kind"] == "Book"
        assert everything["metadata"]["resourceVersion"].isdigit()
        one = await client.list(BOOKS, namespace="other")
        assert [item["metadata"]["name"] for item in one["items"]] == ["b"]
        assert len((await client.list(BOOKS, label_selector="first=c"))["items"]) == 1
        assert len((await client.list(BOOKS, field_selector="spec.title=Anna"))["items"]) == 1
        assert len((await client.list(BOOKS, limit=1))["items"]) == 3
        accept = "application/json;as=Table;v=v1;g=meta.k8s.io"
        table = await client.request_json("GET", f"/apis/{GROUP}/v1/books", headers={"Accept": accept})
        assert [row["cells"][1] for row in table["rows"]] == ["Anna", "Carl", "Berta"]
        for call in (client.get(BOOKS, "a", namespace="default"), client.create(BOOKS, body("x"))):
            with pytest.raises(StatusError) as caught:
                await call
            assert caught.value.code == 405


async def test_uids_and_revisions_of_computed_objects_are_stable() -> None:
    async with standalone(library(Computed())) as client:
        first, second = await client.list(BOOKS), await client.list(BOOKS)
        assert [item["metadata"] for item in first["items"]] == [item["metadata"] for item in second["items"]]
        assert len({item["metadata"]["uid"] for item in first["items"]}) == 3


async def test_a_kind_that_only_creates_answers_what_the_author_makes() -> None:
    async with standalone(library(Echo())) as client:
        made = await client.create(BOOKS, body("a", title="Faust"))
        assert made["spec"]["title"] == "Faust by system:apiserver"


@pytest.mark.parametrize("sort", [Shelf, Watched])
async def test_all_writing_verbs_reach_the_author(sort: type[Shelf]) -> None:
    shelf = sort()
    async with standalone(library(shelf)) as client:
        made = await client.create(BOOKS, body("a", title="Faust"))
        assert made["spec"] == {"title": "Faust", "pages": 1}
        assert made["metadata"]["uid"]
        assert (await client.get(BOOKS, "a", namespace="default"))["metadata"] == made["metadata"]
        made["spec"]["pages"] = 2
        changed = await client.update(BOOKS, made)
        with pytest.raises(StatusError) as caught:
            await client.update(BOOKS, made)
        assert caught.value.code == 409
        assert changed["metadata"]["resourceVersion"] != made["metadata"]["resourceVersion"]
        await client.patch(BOOKS, "a", {"spec": {"pages": 3}}, namespace="default")
        await client.patch(BOOKS, "a", {"spec": {"pages": 9}}, namespace="default", dry_run=True)
        applied = await client.apply(BOOKS, body("a", pages=4), field_manager="me", force=True)
        assert applied["spec"]["pages"] == 4
        await client.patch(
            BOOKS, "b", body("b", title="Neu"), patch_type=PatchType.APPLY, namespace="default", field_manager="me"
        )
        with pytest.raises(StatusError) as caught:
            await client.create(BOOKS, body("a"))
        assert caught.value.reason == "AlreadyExists"
        await client.delete(BOOKS, "a", namespace="default")
        with pytest.raises(StatusError) as caught:
            await client.get(BOOKS, "a", namespace="default")
        assert caught.value.code == 404
        await client.delete_collection(BOOKS, namespace="default")
        assert (await client.list(BOOKS))["items"] == []
    assert shelf.calls == [
        "create a", "update 1 to 2", "update 2 to 3", "update 3 to 4", "create b", "delete a", "delete b",
    ]  # fmt: skip


async def test_changes_past_the_api_reach_watchers_lists_and_gets() -> None:
    shelf = Watched()
    shelf.books["default", "a"] = book("a", title="Anna")
    async with standalone(library(shelf)) as client:
        listed = await client.list(BOOKS)
        events = client.watch(BOOKS, resource_version=listed["metadata"]["resourceVersion"])
        shelf.put("ADDED", book("b", title="Berta"))
        seen = [await anext(events)]
        await client.create(BOOKS, body("c", title="Carl"))
        shelf.put("MODIFIED", book("a", title="Anne"))
        shelf.put("DELETED", book("b", title="Berta"))
        seen += [await anext(events) for _ in range(3)]
        assert [(event.type, event.object["metadata"]["name"], event.object["spec"]["title"]) for event in seen] == [
            ("ADDED", "b", "Berta"),
            ("ADDED", "c", "Carl"),
            ("MODIFIED", "a", "Anne"),
            ("DELETED", "b", "Berta"),
        ]
        await events.aclose()
        assert (await client.get(BOOKS, "a", namespace="default"))["spec"]["title"] == "Anne"
        resumed = client.watch(BOOKS, resource_version=seen[1].object["metadata"]["resourceVersion"])
        assert [(await anext(resumed)).object["metadata"]["name"] for _ in range(2)] == ["a", "b"]
        await resumed.aclose()


async def test_polled_lists_can_be_watched() -> None:
    shelf = Shelf()
    async with standalone(library(shelf, poll=0.02)) as client:
        events = client.watch(BOOKS, send_initial_events=True)
        assert (await anext(events)).type == "BOOKMARK"
        shelf.books["default", "a"] = book("a", title="Anna")
        event = await anext(events)
        assert (event.type, event.object["spec"]["title"]) == ("ADDED", "Anna")
        del shelf.books["default", "a"]
        assert (await anext(events)).type == "DELETED"
        await events.aclose()


async def test_a_watch_that_breaks_is_taken_up_again_and_shows_in_health(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backed_module, "BACKOFF_SECONDS", (0.01, 0.02))

    class Flaky(Watched):
        broken = True

        async def list(self, ctx: RequestContext, namespace: str) -> list[Book]:
            if self.broken:
                raise ConnectionError("the database is away")
            return await super().list(ctx, namespace)

    monkeypatch.setattr(backed_module, "SYNC_SECONDS", 0.05)
    shelf = Flaky()
    async with standalone(library(shelf)) as client:
        with pytest.raises(StatusError) as caught:
            await client.list(BOOKS)
        assert caught.value.code == 503
        assert "the database is away" in caught.value.message
        for path, check in (("/readyz", b"[-]storage-sync-books"), ("/healthz", b"[-]storage-books")):
            told = await client.raw("GET", path, params={"verbose": ""})
            assert (told.status, check + b".books.example.com" in told.body) == (500, True)
        monkeypatch.setattr(backed_module, "SYNC_SECONDS", 5.0)
        shelf.broken = False
        shelf.books["default", "a"] = book("a")
        assert len((await client.list(BOOKS))["items"]) == 1
        assert (await client.raw("GET", "/readyz")).status == 200


async def test_a_slow_storage_is_given_up(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(backed_module, "CALL_SECONDS", 0.05)

    class Slow:
        async def list(self, ctx: RequestContext, namespace: str) -> list[Book]:
            await asyncio.Event().wait()
            return []

    async with standalone(library(Slow())) as client:
        with pytest.raises(StatusError) as caught:
            await client.list(BOOKS)
        assert caught.value.code == 504


@pytest.mark.parametrize(
    ("raised", "code", "reason"),
    [
        (NotFound(), 404, "NotFound"),
        (AlreadyExists(), 409, "AlreadyExists"),
        (Unavailable("the disk is full"), 503, "ServiceUnavailable"),
        (RuntimeError("boom"), 500, "InternalError"),
    ],
)
async def test_refusals_of_the_author_become_statuses(raised: Exception, code: int, reason: str) -> None:
    class Refusing:
        def create(self, ctx: RequestContext, obj: Book) -> Book:
            raise raised

    async with standalone(library(Refusing())) as client:
        with pytest.raises(StatusError) as caught:
            await client.create(BOOKS, body("a"))
        assert (caught.value.code, caught.value.reason) == (code, reason)
        assert "boom" not in caught.value.message


@pytest.mark.parametrize(
    ("methods", "told"),
    [
        ({}, "none of the methods"),
        ({"watch": lambda self: None}, "watch needs list"),
        ({"update": lambda self, ctx, obj, old: obj}, "update and delete need get or list"),
    ],
)
def test_storage_that_cannot_work_is_refused_when_it_is_declared(methods: dict[str, Any], told: str) -> None:
    with pytest.raises(ExtensionError, match=told):
        library(type("Storage", (), methods)())


async def test_objects_of_the_author_may_be_dicts_and_have_their_own_revisions() -> None:
    class Rows:
        def get(self, ctx: RequestContext, namespace: str, name: str) -> Obj:
            return {"metadata": {"name": name, "resourceVersion": "77"}, "spec": {"title": "T"}}

    async with standalone(library(Rows())) as client:
        found = await client.get(BOOKS, "a", namespace="default")
        assert found["metadata"]["resourceVersion"] == "77"
        assert found["metadata"]["namespace"] == "default"
        assert (found["kind"], found["apiVersion"]) == ("Book", f"{GROUP}/v1")
