"""Custom resources whose versions a webhook converts: answers are those of Kubernetes v1.36, the webhook is not asked twice."""

from __future__ import annotations

import gzip
import json
from collections.abc import AsyncIterator
from pathlib import Path
from typing import Any

import conversions
import pytest
from differing import differences

GOLDEN = Path(__file__).resolve().parents[1] / "golden" / "aggregator" / "conversions.json.gz"


@pytest.fixture
async def stage(server: Any, session: Any, tmp_path: Path) -> AsyncIterator[conversions.Stage]:
    made = conversions.Stage(server.url, "admin-token", tmp_path, session)
    await made.set_up()
    yield made
    await made.tear_down()


async def test_versions_are_converted_as_kubernetes_does(stage):
    with gzip.open(GOLDEN, "rt") as file:
        want = json.load(file)
    assert list(differences(want, await conversions.perform(stage))) == []


async def test_a_list_asks_once_for_all_and_then_no_more(stage):
    path = f"/apis/{conversions.GROUP}/v1/namespaces/conv/boxes"
    for number in range(20):
        await stage.ask("POST", path, conversions.box("v1", f"n{number}", {"size": f"{number}x1"}))
    stage.hook.seen.clear()
    for _ in range(3):
        status, listed = await stage.ask("GET", path.replace("/v1/", "/v2/"))
        assert (status, len(listed["items"])) == (200, 20)
    assert [len(seen["objects"]) for seen in stage.hook.seen] == [20]


async def test_a_write_asks_once_for_each_direction(stage):
    path = f"/apis/{conversions.GROUP}/v2/namespaces/conv/boxes"
    stage.hook.seen.clear()
    status, made = await stage.ask("POST", path, conversions.box("v2", "one", {"width": 1, "height": 2}))
    assert status == 201
    assert [seen["desired"].rpartition("/")[2] for seen in stage.hook.seen] == ["v1", "v2"]
    assert made["metadata"]["annotations"]["converted-to"] == f"{conversions.GROUP}/v2"


async def test_the_stored_version_needs_no_webhook(stage):
    stage.hook.mode = "500"
    path = f"/apis/{conversions.GROUP}/v1/namespaces/conv/boxes"
    status, _ = await stage.ask("POST", path, conversions.box("v1", "one", {"size": "1x2"}))
    assert status == 201
    assert (await stage.ask("GET", f"{path}/one"))[0] == 200
    status, answer = await stage.ask("GET", f"{path.replace('/v1/', '/v3/')}/one")
    assert (status, answer["message"].split(":")[0]) == (
        500,
        f"conversion webhook for {conversions.GROUP}/v1, Kind=Box failed",
    )
    stage.hook.mode = ""
    assert (await stage.ask("GET", f"{path.replace('/v1/', '/v3/')}/one"))[0] == 200


async def test_a_failing_webhook_ends_a_watch_with_an_error(stage):
    path = f"/apis/{conversions.GROUP}/v1/namespaces/conv/boxes"
    _, listed = await stage.ask("GET", path)
    revision = listed["metadata"]["resourceVersion"]

    async def break_down() -> None:
        stage.hook.mode = "failure"
        await stage.ask("POST", path, conversions.box("v1", "two", {"size": "3x4"}))

    events = await stage.watch(f"{path.replace('/v1/', '/v2/')}?watch=1&resourceVersion={revision}", 1, break_down())
    assert [event["type"] for event in events] == ["ERROR"]
    assert events[0]["object"]["message"].endswith("I do not want to")


async def test_the_storage_version_changes_through_the_webhook(stage):
    path = f"/apis/{conversions.GROUP}/v1/namespaces/conv/boxes"
    await stage.ask("POST", path, conversions.box("v1", "old", {"size": "3x4"}))
    definition = f"/apis/apiextensions.k8s.io/v1/customresourcedefinitions/boxes.{conversions.GROUP}"
    _, crd = await stage.ask("GET", definition)
    for version in crd["spec"]["versions"]:
        version["storage"] = version["name"] == "v2"
    status, crd = await stage.ask("PUT", definition, crd)
    assert status == 200
    assert crd["status"]["storedVersions"] == ["v1", "v2"]
    crd["status"]["storedVersions"] = ["v2"]
    status, _ = await stage.ask("PUT", f"{definition}/status", crd)
    assert status == 200
    stage.hook.seen.clear()
    for version, spec in (("v2", {"width": 3, "height": 4}), ("v1", {"size": "3x4"})):
        _, obj = await stage.ask("GET", f"{path.replace('/v1/', f'/{version}/')}/old")
        assert obj["spec"] == spec


async def test_what_a_definition_converts_is_in_the_metrics(stage):
    await stage.ask(
        "POST", f"/apis/{conversions.GROUP}/v2/namespaces/conv/boxes", conversions.box("v2", "m", {"width": 1})
    )
    _, text = await stage.ask("GET", "/metrics")
    assert 'apiserver_conversion_webhook_request_total{failure_type="",result="success"}' in text
    assert (
        f'apiserver_crd_conversion_webhook_duration_seconds_count{{crd_name="boxes.{conversions.GROUP}",from_version="v2",'
        'to_version="v1",succeeded="true"} 1' in text
    )
