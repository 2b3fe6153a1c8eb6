"""When an APIService is available, and what it is called when it is not."""

from __future__ import annotations

from typing import Any

import pytest

from bowsprit.aggregator.availability import PASSED, Condition, judge, unreachable, with_condition
from bowsprit.aggregator.discovery import discovery_entries

REFERENCE = {"namespace": "ns", "name": "svc", "port": 443}


def service(**spec: Any) -> dict[str, Any]:
    return {"spec": {"type": "ClusterIP", "ports": [{"name": "https", "port": 443}], **spec}}


def endpoints(name: str = "https", ready: bool | None = True) -> dict[str, Any]:
    conditions = {} if ready is None else {"ready": ready}
    return {
        "ports": [{"name": name, "port": 8443}],
        "endpoints": [{"addresses": ["10.0.0.1"], "conditions": conditions}],
    }


def judged(found: Any, slices: Any) -> Condition | None:
    return judge(REFERENCE, lambda *_: found, lambda *_: slices)


@pytest.mark.parametrize(
    ("found", "slices", "reason", "message"),
    [
        (None, [], "ServiceNotFound", 'service/svc in "ns" is not present'),
        (service(ports=[{"port": 80}]), [], "ServicePortError", 'service/svc in "ns" is not listening on port 443'),
        (service(), [], "EndpointsNotFound", 'cannot find endpointslices for service/svc in "ns"'),
        (
            service(),
            [endpoints("other"), endpoints(ready=False)],
            "MissingEndpoints",
            'endpointslices for service/svc in "ns" have no addresses with port name "https"',
        ),
    ],
)
def test_the_first_rule_that_fails_is_told(found, slices, reason, message):
    condition = judged(found, slices)
    assert condition is not None
    assert (condition.status, condition.reason, condition.message) == ("False", reason, message)


@pytest.mark.parametrize(
    ("found", "slices"),
    [(service(), [endpoints()]), (service(), [endpoints(ready=None)]), (service(type="ExternalName"), [])],
)
def test_what_may_be_asked(found, slices):
    assert judged(found, slices) is None


def test_what_cannot_be_looked_at_is_unknown():
    def fails(*_: str) -> Any:
        raise LookupError("the cache is gone")

    assert judge(REFERENCE, fails, fails) == Condition(
        "Unknown", "ServiceAccessError", 'service/svc in "ns" cannot be checked due to: the cache is gone'
    )
    assert judge(REFERENCE, lambda *_: service(), fails) == Condition(
        "Unknown", "EndpointsAccessError", 'service/svc in "ns" cannot be checked due to: the cache is gone'
    )


def test_the_time_changes_with_the_status_only():
    item = with_condition({"metadata": {}}, unreachable("a"), "t1")
    assert item is not None
    assert with_condition(item, unreachable("a"), "t2") is None
    other = with_condition(item, unreachable("b"), "t3")
    assert other is not None
    assert other["status"]["conditions"][0]["lastTransitionTime"] == "t1"
    good = with_condition(other, PASSED, "t4")
    assert good is not None
    assert good["status"]["conditions"] == [
        {
            "type": "Available",
            "status": "True",
            "lastTransitionTime": "t4",
            "reason": "Passed",
            "message": "all checks passed",
        }
    ]


def test_legacy_discovery_becomes_aggregated_discovery():
    listed = [
        {"name": "things/status", "namespaced": True, "kind": "Thing", "verbs": ["get"]},
        {
            "name": "things",
            "singularName": "thing",
            "namespaced": True,
            "kind": "Thing",
            "verbs": ["get"],
            "shortNames": ["th"],
        },
    ]
    kind = {"group": "", "version": "", "kind": "Thing"}
    assert discovery_entries(listed) == [
        {
            "resource": "things",
            "responseKind": kind,
            "scope": "Namespaced",
            "singularResource": "thing",
            "verbs": ["get"],
            "shortNames": ["th"],
            "subresources": [{"subresource": "status", "responseKind": kind, "verbs": ["get"]}],
        }
    ]
