"""The Node object of a simulated node, and its pods' addresses."""

from __future__ import annotations

from datetime import UTC, datetime

from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.kubelet.kubelet import KubeletOptions
from bowsprit.kubelet.node import AddressPool, NodeProfile, lease_object, node_conditions, node_object

NOW = datetime(2026, 1, 1, tzinfo=UTC)
LATER = datetime(2026, 1, 2, tzinfo=UTC)


def test_a_node_looks_like_one() -> None:
    node = node_object(NodeProfile("node-0", 0, labels={"tier": "x"}), NOW)
    assert node["metadata"]["labels"]["kubernetes.io/hostname"] == "node-0"
    assert node["metadata"]["labels"]["tier"] == "x"
    assert node["spec"] == {"podCIDR": "10.244.0.0/24", "podCIDRs": ["10.244.0.0/24"]}
    status = node["status"]
    assert status["capacity"] == status["allocatable"]
    assert {item["type"]: item["address"] for item in status["addresses"]} == {
        "InternalIP": "172.30.0.2",
        "Hostname": "node-0",
    }
    assert {item["type"]: item["status"] for item in status["conditions"]} == {
        "MemoryPressure": "False",
        "DiskPressure": "False",
        "PIDPressure": "False",
        "Ready": "True",
    }
    lease = lease_object({"metadata": {"name": "node-0", "uid": "u"}}, NOW)
    assert lease["spec"]["holderIdentity"] == "node-0"
    assert lease["metadata"]["ownerReferences"][0]["uid"] == "u"


def test_where_the_endpoint_is_stands_in_the_node() -> None:
    [profile] = KubeletOptions(nodes=("a",)).profiles(40000)
    status = node_object(profile, NOW)["status"]
    assert {"type": "Hostname", "address": "127.0.0.1"} in status["addresses"]
    assert status["daemonEndpoints"] == {"kubeletEndpoint": {"Port": 40000}}


def test_nodes_are_spread_over_zones_and_have_networks_of_their_own() -> None:
    profiles = KubeletOptions(nodes=("a", "b", "c"), zones=("x", "y"), first_index=5).profiles(0)
    assert [profile.labels["topology.kubernetes.io/zone"] for profile in profiles] == ["x", "y", "x"]
    assert len({profile.pod_cidr for profile in profiles} | {profile.ip for profile in profiles}) == 6


def test_heartbeats_keep_the_time_of_the_last_transition_and_others_conditions() -> None:
    first = node_conditions((), NOW)
    other = {"type": "NetworkUnavailable", "status": "False"}
    second = node_conditions([*first, other], LATER)
    assert other in second
    ready = next(item for item in second if item["type"] == "Ready")
    assert ready["lastTransitionTime"] == "2026-01-01T00:00:00Z"
    assert ready["lastHeartbeatTime"] == "2026-01-02T00:00:00Z"


def test_addresses_survive_a_restart_and_run_out() -> None:
    pool = AddressPool("10.244.0.0/29")
    assert pool.address("old", "10.244.0.3") == "10.244.0.3"
    taken = [pool.address(f"p{number}") for number in range(4)]
    assert sorted(taken) == ["10.244.0.2", "10.244.0.4", "10.244.0.5", "10.244.0.6"]
    assert pool.address("one too many") == ""
    pool.release("old")
    assert pool.address("one too many") == "10.244.0.3"


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.integers(0, 12), st.booleans()), max_size=80))
def test_no_two_pods_share_an_address(steps: list[tuple[int, bool]]) -> None:
    pool = AddressPool("10.244.0.0/28")
    held: dict[int, str] = {}
    for number, take in steps:
        if take:
            address = pool.address(str(number))
            assert address
            assert held.setdefault(number, address) == address
        else:
            pool.release(str(number))
            held.pop(number, None)
        assert len(set(held.values())) == len(held)
