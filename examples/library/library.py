"""Rows of an existing SQL database as kinds: nothing of them lives in etcd, and other programs go on writing the tables.

    sqlite3 library.db < examples/library/library.sql
    LIBRARY_DB=library.db bowsprit extension run examples/library/library.py:app --dev
    kubectl get books --all-namespaces --watch

A book is a row of `books`: its namespace is the branch, its name the ISBN. It can be read, watched and created, and nothing
else, because nothing else is written here; discovery, RBAC and OpenAPI say the same. A member can only be read.
"""

import asyncio
import os
import sqlite3
from collections.abc import AsyncIterator
from contextlib import closing
from pathlib import Path

from bowsprit.extension import AlreadyExists, App, Kind, Model, RequestContext

app = App("library.example.com")
LOOK_SECONDS = 0.3


def connect() -> sqlite3.Connection:
    connection = sqlite3.connect(Path(os.environ.get("LIBRARY_DB", "library.db")).resolve(), timeout=5.0)
    connection.row_factory = sqlite3.Row
    return connection


def rows(statement: str, *values: object) -> list[sqlite3.Row]:
    with closing(connect()) as connection:
        return connection.execute(statement, values).fetchall()


class BookSpec(Model):
    title: str
    author: str
    year: int | None = None
    """When it first appeared."""
    copies: int = 1
    """How many the branch has."""


class Books:
    """The table `books`. Each method is a verb."""

    async def get(self, ctx: RequestContext, namespace: str, name: str) -> "Book | None":
        found = await asyncio.to_thread(rows, "SELECT * FROM books WHERE branch = ? AND isbn = ?", namespace, name)
        return self.book(found[0]) if found else None

    async def list(self, ctx: RequestContext | None, namespace: str) -> "list[Book]":
        statement = "SELECT * FROM books WHERE ? IN ('', branch) ORDER BY branch, isbn"
        return [self.book(row) for row in await asyncio.to_thread(rows, statement, namespace)]

    async def create(self, ctx: RequestContext, obj: "Book") -> "Book":
        await asyncio.to_thread(self.insert, obj)
        return obj

    async def watch(self) -> AsyncIterator[tuple[str, "Book"]]:
        """What anybody changes in the table: SQLite tells whether the file has changed, a comparison what."""
        with closing(connect()) as connection:
            known: dict[tuple[str, str], Book] | None = None
            seen = -1
            while True:
                version = connection.execute("PRAGMA data_version").fetchone()[0]
                if version != seen:
                    seen = version
                    books = {(each.metadata.namespace, each.metadata.name): each for each in await self.list(None, "")}
                    for event in changes(known or {}, books):
                        yield event
                    known = books
                await asyncio.sleep(LOOK_SECONDS)

    @staticmethod
    def insert(obj: "Book") -> None:
        spec = obj.spec
        values = (obj.metadata.namespace, obj.metadata.name, spec.title, spec.author, spec.year, spec.copies)
        with closing(connect()) as connection, connection:
            try:
                connection.execute("INSERT INTO books VALUES (?, ?, ?, ?, ?, ?)", values)
            except sqlite3.IntegrityError as failure:
                raise AlreadyExists() from failure

    @staticmethod
    def book(row: sqlite3.Row) -> "Book":
        spec = BookSpec(title=row["title"], author=row["author"], year=row["year"], copies=row["copies"])
        return Book.model_validate({"metadata": {"namespace": row["branch"], "name": row["isbn"]}, "spec": spec})


def changes(before: "dict[tuple[str, str], Book]", after: "dict[tuple[str, str], Book]") -> "list[tuple[str, Book]]":
    """The events that lead from one state of the table to another."""
    events = [("DELETED", book) for key, book in before.items() if key not in after]
    for key, book in after.items():
        if key not in before:
            events.append(("ADDED", book))
        elif book.spec != before[key].spec:
            events.append(("MODIFIED", book))
    return events


class Members:
    """The table `members`, to be read only."""

    async def list(self, ctx: RequestContext, namespace: str) -> "list[Member]":
        found = await asyncio.to_thread(rows, "SELECT * FROM members ORDER BY number")
        return [
            Member.model_validate(
                {"metadata": {"name": f"member-{row['number']}"}, "name": row["name"], "since": row["since"]}
            )
            for row in found
        ]


@app.kind(
    short_names=["bk"],
    columns={"Title": ".spec.title", "Author": ".spec.author", "Copies": ".spec.copies"},
    selectable=[".spec.author"],
    storage=Books(),
)
class Book(Kind):
    """A book of a branch of the library."""

    spec: BookSpec


@app.kind(scope="Cluster", columns={"Member": ".name", "Since": ".since"}, storage=Members())
class Member(Kind):
    """Somebody who may borrow books."""

    name: str
    since: int
