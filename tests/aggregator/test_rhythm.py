"""How often a backend is asked, and for what: ETags are used, failures back off, whoever is gone is no longer asked."""

from __future__ import annotations

from typing import Any

from backends import RESOURCES

from bowsprit.aggregator.backend import Fetched
from bowsprit.aggregator.discovery import DiscoveryManager
from bowsprit.aggregator.openapi import SecondVersion, ThirdVersion
from bowsprit.apiserver.openapi import OpenAPI
from bowsprit.machinery.codec import encode_json
from bowsprit.machinery.names import GroupVersion

NAME, GV = "v1.back.example.com", GroupVersion("back.example.com", "v1")
PATH = "/apis/back.example.com/v1"
AGGREGATED = "application/json;g=apidiscovery.k8s.io;v=v2;as=APIGroupDiscoveryList"


class PlayedBackend:
    """Answers what the test says; remembers who asked for what."""

    group_version, path, service, available = GV, PATH, ("agg", "back", 443), True
    spec: dict[str, Any] = {"group": GV.group, "version": "v1", "groupPriorityMinimum": 1, "versionPriority": 1}

    def __init__(self) -> None:
        self.asked: list[tuple[str, str, str]] = []
        self.answers: dict[str, Fetched] = {}

    async def ask(self, path: str, fields: Any, user: str, groups: Any, seconds: float) -> Fetched:
        self.asked.append((path, dict(fields).get("If-None-Match", ""), user))
        return self.answers.get(path, Fetched(404, b""))


class Index:
    """Stands in for the server's discovery."""

    def __init__(self) -> None:
        self.versions: dict[GroupVersion, tuple[list[Any], bool]] = {}

    def put_foreign(self, gv: GroupVersion, resources: Any, *, stale: bool = False) -> None:
        self.versions[gv] = (list(resources), stale)

    def drop_foreign(self, gv: GroupVersion) -> None:
        self.versions.pop(gv, None)


def manager() -> tuple[DiscoveryManager, PlayedBackend, Index, dict[str, Any]]:
    backend, index = PlayedBackend(), Index()
    backends: dict[str, Any] = {NAME: backend}
    return DiscoveryManager(backends, index), backend, index, backends  # type: ignore[arg-type]


def discovery_document(etag: str) -> Fetched:
    version = {"version": "v1", "resources": [{"resource": "things", "scope": "Namespaced", "verbs": ["get"]}]}
    listed = {"items": [{"metadata": {"name": GV.group}, "versions": [version]}]}
    return Fetched(200, encode_json(listed), AGGREGATED, etag)


async def test_servers_without_aggregated_discovery_are_asked_for_the_list_of_resources():
    made, backend, index, _ = manager()
    backend.answers[PATH] = Fetched(200, encode_json({"resources": RESOURCES}), "application/json")
    made.changed(NAME)
    await made._sync(NAME)
    assert [item[::2] for item in backend.asked] == [
        ("/apis", "system:kube-aggregator"),
        (PATH, "system:kube-aggregator"),
    ]
    resources, stale = index.versions[GV]
    assert (resources[0]["resource"], resources[0]["subresources"][0]["subresource"], stale) == (
        "things",
        "status",
        False,
    )


async def test_an_unchanged_document_is_kept():
    made, backend, index, _ = manager()
    backend.answers["/apis"] = discovery_document('"1"')
    made.changed(NAME)
    await made._sync(NAME)
    backend.answers["/apis"] = Fetched(304, b"")
    made.changed(NAME)
    await made._sync(NAME)
    assert [item[:2] for item in backend.asked] == [("/apis", ""), ("/apis", '"1"')]
    assert index.versions[GV][0][0]["resource"] == "things"
    assert index.versions[GV][1] is False


async def test_one_document_does_for_all_versions_of_a_service():
    made, backend, index, backends = manager()
    backend.answers["/apis"] = discovery_document('"1"')
    other = PlayedBackend()
    other.group_version = GroupVersion(GV.group, "v2")
    backends["v2.back.example.com"] = other
    made.changed(NAME)
    made.changed("v2.back.example.com")
    await made._sync(NAME)
    await made._sync("v2.back.example.com")
    assert other.asked == []
    assert index.versions[other.group_version] == ([], False)


async def test_what_cannot_be_asked_is_stale_and_asked_again():
    made, backend, index, backends = manager()
    backend.answers["/apis"] = discovery_document('"1"')
    made.changed(NAME)
    await made._sync(NAME)
    backend.answers["/apis"] = Fetched(503, b"service unavailable\n")
    made.changed(NAME)
    await made._sync(NAME)
    assert index.versions[GV] == ([], True)
    assert made._queue.num_requeues(NAME) == 1
    backend.answers["/apis"] = Fetched(200, b"[]", AGGREGATED)
    await made._sync(NAME)
    assert index.versions[GV] == ([], True)
    del backends[NAME]
    made.changed(NAME)
    await made._sync(NAME)
    assert index.versions == {}
    made._queue.shut_down()


SECOND = {"swagger": "2.0", "paths": {f"{PATH}/things": {"get": {"responses": {}}}}, "definitions": {}}


async def test_the_second_version_is_fetched_with_its_etag():
    backend, documents = PlayedBackend(), OpenAPI()
    backends: dict[str, Any] = {NAME: backend}
    made = SecondVersion(backends, documents)
    backend.answers["/openapi/v2"] = Fetched(200, encode_json(SECOND), "application/json", '"v2"')
    await made._sync(NAME)
    backend.answers["/openapi/v2"] = Fetched(304, b"")
    await made._sync(NAME)
    assert backend.asked == [("/openapi/v2", "", "system:aggregator"), ("/openapi/v2", '"v2"', "system:aggregator")]
    own = {"paths": {"/own": {}}, "definitions": {}}
    assert set(made._extended(own)["paths"]) == {"/own", f"{PATH}/things"}
    backend.answers["/openapi/v2"] = Fetched(200, b'{"paths": {"/apis/back.example.com/v1/x": 5}}')
    await made._sync(NAME)
    assert made._queue.num_requeues(NAME) == 1, "what cannot be encoded does not spoil what there is"
    assert set(made._extended(own)["paths"]) == {"/own", f"{PATH}/things"}
    del backends[NAME]
    made.changed(NAME)
    assert set(made._extended(own)["paths"]) == {"/own"}
    made._queue.shut_down()


async def test_a_third_version_is_made_once_for_servers_that_have_none():
    backend, documents = PlayedBackend(), OpenAPI()
    backends: dict[str, Any] = {NAME: backend}
    made = ThirdVersion(backends, documents, None)  # type: ignore[arg-type]
    backend.answers["/openapi/v2"] = Fetched(200, encode_json(SECOND), "application/json", '"v2"')
    await made._sync(NAME)
    await made._sync(NAME)
    assert [item[0] for item in backend.asked] == ["/openapi/v3", "/openapi/v2", "/openapi/v2"]
    foreign = documents._foreign_at(PATH[1:])
    assert foreign is not None
    assert foreign.document is not None
    assert foreign.document.supplier()["openapi"] == "3.0.0"
    del backends[NAME]
    made.changed(NAME)
    assert documents._foreign_at(PATH[1:]) is None
    made._queue.shut_down()
