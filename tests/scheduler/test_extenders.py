"""Extenders over HTTP: what they are asked, and what their answers do."""

from __future__ import annotations

import asyncio
from base64 import b64encode

import pytest
from aiohttp import web

from bowsprit.pki.authority import Authority
from bowsprit.pki.serving import ServingContext
from bowsprit.scheduler.config.defaults import set_defaults
from bowsprit.scheduler.core import Assigned, Failed, SchedulerCore
from bowsprit.scheduler.driver.extenders import HTTPExtender
from bowsprit.scheduler.preemption import Candidate
from bowsprit.scheduler.registry import registry


class Webhook:
    """An extender that records what it is asked."""

    def __init__(self):
        self.asked = []
        self.answers = {}

    async def handle(self, request):
        body = await request.json()
        verb = request.path.rsplit("/", 1)[-1]
        self.asked.append((verb, body))
        answer = self.answers[verb]
        if answer is None:
            await asyncio.sleep(5)
        return web.json_response(answer)


@pytest.fixture
async def webhook():
    hook = Webhook()
    runner = web.ServerRunner(web.Server(hook.handle), shutdown_timeout=0.1)
    await runner.setup()
    site = web.TCPSite(runner, "127.0.0.1", 0)
    await site.start()
    hook.url = f"http://127.0.0.1:{runner.addresses[0][1]}/x"
    yield hook
    await runner.cleanup()


def core_with(hook, **settings):
    config = set_defaults({"extenders": [{"urlPrefix": hook.url, **settings}]})
    holder = []
    loop = asyncio.get_running_loop()
    extender = HTTPExtender(config["extenders"][0], loop, lambda name: holder[0].cache.nodes.node(name).obj)
    core = SchedulerCore(config, registry(), lambda: 0.0, extenders=[extender])
    holder.append(core)
    for name in ("a", "b", "c"):
        status = {"allocatable": {"cpu": "4", "memory": "8Gi", "pods": "10"}}
        core.set_node({"metadata": {"name": name, "labels": {}}, "status": status})
    return core, extender


async def place(core, uid="u", **resources):
    container = {"name": "c", "image": "x", "resources": {"requests": {"cpu": "1", **resources}}}
    core.set_pod({"metadata": {"name": "p", "namespace": "d", "uid": uid}, "spec": {"containers": [container]}})
    return await asyncio.to_thread(core.run_cycle, core.queue.pop())


async def test_certificates_stand_in_the_configuration(tmp_path):
    authority = Authority.create("extenders")
    authority.issue_server("score", ["score.example"]).save(tmp_path / "cert", tmp_path / "key")
    (tmp_path / "ca").write_bytes(authority.ca_pem)
    serving = ServingContext(
        tmp_path / "cert", tmp_path / "key", client_ca=tmp_path / "ca", require_client=True
    )  # the scheduler must show a certificate
    hook = Webhook()
    hook.answers = {"filter": {"NodeNames": ["b"]}}
    runner = web.ServerRunner(web.Server(hook.handle), shutdown_timeout=0.1)
    await runner.setup()
    await web.TCPSite(runner, "127.0.0.1", 0, ssl_context=serving.context).start()
    hook.url = f"https://127.0.0.1:{runner.addresses[0][1]}/x"
    client = authority.issue_client("scheduler")
    tls = {"caData": authority.ca_pem, "certData": client.cert_pem, "keyData": client.key_pem}
    inline = {key: b64encode(value).decode() for key, value in tls.items()}
    core, extender = core_with(
        hook, filterVerb="filter", nodeCacheCapable=True, tlsConfig={**inline, "serverName": "score.example"}
    )
    result = await place(core)
    assert isinstance(result, Assigned)
    assert result.placement.node == "b"
    await extender.close()
    core, extender = core_with(hook, filterVerb="filter", nodeCacheCapable=True, tlsConfig=inline)  # another name
    assert isinstance(await place(core), Failed)
    await extender.close()
    await runner.cleanup()


async def test_filter_and_prioritize_by_name(webhook):
    webhook.answers = {
        "filter": {"NodeNames": ["b", "c"], "FailedNodes": {"a": "no licence"}},
        "score": [{"Host": "b", "Score": 1}, {"Host": "c", "Score": 9}],
    }
    core, extender = core_with(webhook, filterVerb="filter", prioritizeVerb="score", weight=2, nodeCacheCapable=True)
    result = await place(core)
    assert isinstance(result, Assigned)
    assert result.placement.node == "c"
    (_, asked), (_, scored) = webhook.asked
    assert asked["NodeNames"] == ["a", "b", "c"]
    assert asked["Pod"]["metadata"]["name"] == "p"
    assert scored["NodeNames"] == ["b", "c"]
    await extender.close()


async def test_nodes_are_sent_whole_to_extenders_without_a_cache(webhook):
    webhook.answers = {"filter": {"Nodes": {"items": [{"metadata": {"name": "a"}}]}}}
    core, extender = core_with(webhook, filterVerb="filter")
    assert (await place(core)).placement.node == "a"
    sent = webhook.asked[0][1]["Nodes"]["items"]
    assert [node["metadata"]["name"] for node in sent] == ["a", "b", "c"]
    await extender.close()


async def test_rejections_are_in_the_message(webhook):
    webhook.answers = {
        "filter": {
            "NodeNames": [],
            "FailedNodes": {"a": "busy", "b": "busy"},
            "FailedAndUnresolvableNodes": {"c": "no such device"},
        }
    }
    core, extender = core_with(webhook, filterVerb="filter", nodeCacheCapable=True)
    result = await place(core)
    assert isinstance(result, Failed)
    assert result.message.startswith("0/3 nodes are available: 1 no such device, 2 busy.")
    await extender.close()


@pytest.mark.parametrize("ignorable", [False, True])
async def test_one_that_does_not_answer_fails_the_attempt_unless_it_is_ignorable(webhook, ignorable):
    webhook.answers = {"filter": None}
    core, extender = core_with(
        webhook, filterVerb="filter", nodeCacheCapable=True, httpTimeout="50ms", ignorable=ignorable
    )
    result = await place(core)
    if ignorable:
        assert isinstance(result, Assigned)
    else:
        assert result.reason == "SchedulerError"
        assert webhook.url in result.message
        assert core.queue.sizes()["backoff"] == 1
    await extender.close()


async def test_only_pods_that_ask_for_its_resources_concern_it(webhook):
    webhook.answers = {"filter": {"NodeNames": ["b"]}}
    managed = [{"name": "example.com/fpga", "ignoredByScheduler": True}]
    core, extender = core_with(webhook, filterVerb="filter", nodeCacheCapable=True, managedResources=managed)
    assert (await place(core)).placement.node == "a"
    assert webhook.asked == []
    assert (await place(core, "u2", **{"example.com/fpga": "1"})).placement.node == "b"
    await extender.close()


async def test_preempt_and_bind(webhook):
    webhook.answers = {
        "preempt": {"NodeNameToMetaVictims": {"b": {"Pods": [{"UID": "v2"}], "NumPDBViolations": 0}}},
        "bind": {"Error": "device is gone"},
    }
    core, extender = core_with(webhook, preemptVerb="preempt", bindVerb="bind", nodeCacheCapable=True)

    def pod(uid):
        return core.cache.pod_info(
            {"metadata": {"name": uid, "namespace": "d", "uid": uid}, "spec": {"containers": []}}
        )

    candidates = [Candidate("a", [pod("v1")], 0), Candidate("b", [pod("v2"), pod("v3")], 1)]
    left = await asyncio.to_thread(extender.preempt, pod("p"), candidates)
    assert [(c.node, [v.uid for v in c.victims], c.violations) for c in left] == [("b", ["v2"], 0)]
    asked = webhook.asked[0][1]["NodeNameToMetaVictims"]
    assert asked["b"] == {"Pods": [{"UID": "v2"}, {"UID": "v3"}], "NumPDBViolations": 1}
    status = await extender.bind(pod("p"), "b")
    assert status.message == "device is gone"
    assert webhook.asked[1][1] == {"PodName": "p", "PodNamespace": "d", "PodUID": "p", "Node": "b"}
    await extender.close()
