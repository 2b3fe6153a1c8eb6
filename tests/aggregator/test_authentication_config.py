"""What extension servers are told of whom to believe: values are joined, expired certificates go, damage is repaired."""

from __future__ import annotations

import json
from datetime import UTC, datetime, timedelta
from pathlib import Path
from typing import Any

import pytest
from backends import issue

from bowsprit.apiserver.authentication.front_proxy import FrontProxyHeaders
from bowsprit.controlplane.apiregistration.authenticationconfig import AuthenticationConfig, joined
from bowsprit.machinery.errors import InvalidError, NotFoundError

NOW = datetime.now(UTC)
HEADERS = FrontProxyHeaders(allowed_names=("mine",))


@pytest.fixture(scope="module")
def pems(tmp_path_factory: pytest.TempPathFactory) -> dict[str, str]:
    folder: Path = tmp_path_factory.mktemp("pems")
    issue(folder, "one", [])
    issue(folder, "two", [])
    issue(folder, "old", [], days=-10)
    return {name: (folder / f"{name}.crt").read_text() for name in ("one", "two", "old")}


def test_nothing_is_published_without_authorities():
    assert joined({}, {}, HEADERS, NOW) == {}


def test_client_authorities_alone(pems):
    assert joined({}, {"client-ca-file": pems["one"]}, HEADERS, NOW) == {"client-ca-file": pems["one"]}


def test_what_another_server_wrote_stays(pems):
    theirs = joined(
        {},
        {"requestheader-client-ca-file": pems["two"]},
        FrontProxyHeaders(uid=("X-Uid",), allowed_names=("theirs",)),
        NOW,
    )
    found = joined(theirs, {"requestheader-client-ca-file": pems["one"], "client-ca-file": pems["one"]}, HEADERS, NOW)
    assert found == {
        "client-ca-file": pems["one"],
        "requestheader-client-ca-file": pems["two"] + pems["one"],
        "requestheader-allowed-names": '["theirs","mine"]',
        "requestheader-extra-headers-prefix": '["X-Remote-Extra-"]',
        "requestheader-group-headers": '["X-Remote-Group"]',
        "requestheader-uid-headers": '["X-Uid"]',
        "requestheader-username-headers": '["X-Remote-User"]',
    }
    assert joined(found, {"requestheader-client-ca-file": pems["one"]}, HEADERS, NOW) == found


def test_expired_certificates_go(pems):
    existing = {"client-ca-file": pems["old"] + pems["two"]}
    assert joined(existing, {"client-ca-file": pems["one"]}, HEADERS, NOW) == {
        "client-ca-file": pems["two"] + pems["one"]
    }
    late = NOW + timedelta(days=3650)
    assert joined(existing, {"client-ca-file": pems["one"]}, HEADERS, late) == {}


def test_what_cannot_be_read_is_told(pems):
    with pytest.raises(ValueError, match="no list of strings"):
        joined({"requestheader-group-headers": "{}"}, {"requestheader-client-ca-file": pems["one"]}, HEADERS, NOW)


class _Store:
    """As much of a client as is needed; `problem` is raised by updates."""

    def __init__(self, data: dict[str, str] | None) -> None:
        self.item: dict[str, Any] | None = None
        if data is not None:
            self.item = {
                "metadata": {"name": "extension-apiserver-authentication", "namespace": "kube-system"},
                "data": data,
            }
        self.problem: Exception | None = None
        self.deleted = 0

    def get(self, *_: str) -> dict[str, Any] | None:
        return self.item

    def subscribe(self, _: Any) -> Any:
        return lambda: None

    async def create(self, _: Any, obj: dict[str, Any]) -> dict[str, Any]:
        self.item = obj
        return obj

    async def update(self, _: Any, obj: dict[str, Any]) -> dict[str, Any]:
        if self.problem is not None:
            raise self.problem
        if self.item is None:
            raise NotFoundError("gone")
        self.item = obj
        return obj

    async def delete(self, *_: Any) -> dict[str, Any]:
        self.deleted += 1
        self.item = None
        return {}


def _keeper(store: _Store, pem: str) -> AuthenticationConfig:
    return AuthenticationConfig(
        store,
        lambda _: store,
        lambda: {"client-ca-file": pem},
        HEADERS,
        lambda: NOW,  # type: ignore[arg-type,return-value]
    )


async def test_it_is_made_and_repaired(pems):
    store = _Store(None)
    keeper = _keeper(store, pems["one"])
    await keeper.sync()
    assert store.item is not None
    assert store.item["data"] == {"client-ca-file": pems["one"]}
    store.item["data"] = {"other": "x"}
    await keeper.sync()
    assert store.item["data"] == {"client-ca-file": pems["one"]}


async def test_one_that_has_grown_too_large_is_made_anew(pems):
    store = _Store({"client-ca-file": pems["two"]})
    store.problem = InvalidError('ConfigMap "x" is invalid: []: Too long: may not be more than 1048576 bytes')
    keeper = _keeper(store, pems["one"])
    await keeper.sync()
    assert store.deleted == 1
    await keeper.sync()
    assert store.item is not None
    assert store.item["data"] == {"client-ca-file": pems["one"]}


async def test_one_that_cannot_be_read_is_left_alone(pems):
    store = _Store({"client-ca-file": "no PEM"})
    await _keeper(store, pems["one"]).sync()
    assert store.item is not None
    assert json.dumps(store.item["data"]) == '{"client-ca-file": "no PEM"}'
