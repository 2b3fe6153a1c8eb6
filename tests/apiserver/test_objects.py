"""Objects in and out: create, read, change, delete, as clients of Kubernetes expect it."""

from __future__ import annotations

from apiserver_toys import WIDGETS, Client, widget


async def test_a_created_object_has_what_the_server_gives_it(client: Client) -> None:
    reply = await client.post(WIDGETS, {**widget("a"), "status": {"x": 1}})
    assert reply.status == 201
    meta = reply.body["metadata"]
    assert list(reply.body) == ["kind", "apiVersion", "metadata", "spec"]
    assert list(meta) == ["name", "namespace", "uid", "resourceVersion", "generation", "creationTimestamp"]
    assert meta["generation"] == 1
    assert reply.body["spec"] == {"size": 1}
    read = await client.get(f"{WIDGETS}/a")
    assert read.body == reply.body
    assert read.headers["Audit-Id"]
    assert read.headers["Cache-Control"] == "no-cache, private"
    assert "Server" not in read.headers
