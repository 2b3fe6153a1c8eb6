"""The controllers' decisions as pure functions: properties that must hold whatever the cluster looks like."""

from __future__ import annotations

from datetime import UTC, datetime
from typing import Any

import pytest
from hypothesis import example, given, settings
from hypothesis import strategies as st

from bowsprit.controllers import deployment_rollout as rollout
from bowsprit.controllers.daemonset import daemon_tolerations, wants_node
from bowsprit.controllers.endpoint_slices import MAX_ENDPOINTS, Group, SliceMaker, reconcile
from bowsprit.controllers.expectations import TIMEOUT, Expectations
from bowsprit.controllers.gc_graph import Graph, Verdict, decide
from bowsprit.controllers.job_plan import format_indexes, parse_indexes
from bowsprit.controllers.manager import CONTROLLERS, ControllerManager, ControllerManagerOptions, enabled
from bowsprit.controllers.node_health import eviction_delay, wanted_taints
from bowsprit.controllers.ownership import classify
from bowsprit.controllers.pods import deletion_rank, template_hash
from bowsprit.controllers.replicaset import plan
from bowsprit.machinery.names import GroupVersionKind, GroupVersionResource
from bowsprit.machinery.selectors import LabelSelector

Obj = dict[str, Any]
NOW = datetime(2026, 1, 1, tzinfo=UTC)


# Rolling updates


class Rollout:
    """A deployment and its two ReplicaSets, whose pods become available when the test says so."""

    def __init__(self, replicas: int, surge: Any, unavailable: Any) -> None:
        strategy = {"type": "RollingUpdate", "rollingUpdate": {"maxSurge": surge, "maxUnavailable": unavailable}}
        self.deployment: Obj = {
            "metadata": {"name": "d", "generation": 1},
            "spec": {"replicas": replicas, "strategy": strategy, "template": {"spec": {"image": "new"}}},
        }
        self.old = self.replica_set("old", replicas, replicas)
        self.new = self.replica_set("new", 0, 0)

    @staticmethod
    def replica_set(name: str, replicas: int, available: int) -> Obj:
        return {
            "metadata": {"name": name, "creationTimestamp": "2026-01-01T00:00:00Z"},
            "spec": {"replicas": replicas, "template": {"spec": {"image": name}}},
            "status": {"replicas": replicas, "availableReplicas": available},
        }

    def step(self, become_available: int, *, lag: bool = False) -> bool:
        """One round; with `lag` the old set's status does not tell of it yet."""
        seen = rollout.view(self.deployment, [self.old, self.new])
        steps = rollout.roll(seen)
        for step in steps:
            found = self.old if step.replica_set["metadata"]["name"] == "old" else self.new
            found["spec"]["replicas"] = step.replicas
        for item in [self.new] if lag else [self.new, self.old]:
            status, size = item["status"], item["spec"]["replicas"]
            status["replicas"] = size
            status["availableReplicas"] = min(status["availableReplicas"], size)
        status = self.new["status"]
        ready = min(self.new["spec"]["replicas"], status["availableReplicas"] + become_available)
        moved = bool(steps) or lag or ready != status["availableReplicas"]
        status["availableReplicas"] = ready
        return moved


amounts = st.one_of(st.integers(0, 6), st.integers(0, 100).map(lambda percent: f"{percent}%"))


@settings(max_examples=150, deadline=None)
@given(
    replicas=st.integers(0, 20),
    surge=amounts,
    unavailable=amounts,
    pace=st.lists(st.tuples(st.integers(0, 5), st.booleans()), max_size=10),
)
def test_a_rolling_update_keeps_its_bounds_and_ends(
    replicas: int, surge: Any, unavailable: Any, pace: list[tuple[int, bool]]
) -> None:
    story = Rollout(replicas, surge, unavailable)
    most = replicas + rollout.max_surge(story.deployment)
    least = replicas - rollout.max_unavailable(story.deployment)
    for available, lag in [*pace, *[(1, False)] * 200]:
        moved = story.step(available, lag=lag)
        total = story.old["spec"]["replicas"] + story.new["spec"]["replicas"]
        alive = sum(
            min(item["spec"]["replicas"], item["status"]["availableReplicas"]) for item in (story.old, story.new)
        )
        assert total <= most
        assert alive >= least
        if available and not moved:
            break
    assert (story.old["spec"]["replicas"], story.new["spec"]["replicas"]) == (0, replicas)


@settings(max_examples=100, deadline=None)
@given(sizes=st.lists(st.integers(0, 20), min_size=1, max_size=5), wanted=st.integers(0, 40), surge=st.integers(0, 5))
@example(sizes=[2, 2, 2, 2], wanted=2, surge=0)
def test_a_resize_in_mid_rollout_is_shared_and_adds_up(sizes: list[int], wanted: int, surge: int) -> None:
    story = Rollout(wanted, surge, 1)
    before = sum(sizes)
    sets = [Rollout.replica_set(f"rs-{number}", size, 0) for number, size in enumerate(sizes)]
    for item in sets:
        item["metadata"]["annotations"] = {rollout.DESIRED: str(before), rollout.MAX: str(before + surge)}
    sets[-1]["spec"]["template"] = story.deployment["spec"]["template"]
    steps = rollout.scale_proportionally(rollout.view(story.deployment, sets))
    assert all(step.replicas >= 0 for step in steps)
    active = [item for item in sets if item["spec"]["replicas"]]
    if len(active) > 1:
        assert sum(step.replicas for step in steps) == (wanted + surge if wanted else 0)


def test_percentages_and_the_case_of_two_zeros() -> None:
    assert rollout.fenceposts(Rollout(10, "25%", "25%").deployment) == (3, 2)
    assert rollout.fenceposts(Rollout(3, 0, 0).deployment) == (0, 1)
    assert rollout.fenceposts(Rollout(10, 2, "0%").deployment) == (2, 0)


def test_a_template_is_the_same_whatever_the_server_filled_in() -> None:
    one = {"metadata": {"labels": {"a": "b", "pod-template-hash": "x"}}, "spec": {"volumes": [], "c": 1}}
    other = {"metadata": {"labels": {"a": "b"}, "creationTimestamp": None}, "spec": {"c": 1}}
    assert rollout.same_template(one, other)
    assert not rollout.same_template(one, {**other, "spec": {"c": 2}})
    assert template_hash(other) == template_hash({**other, "status": {}})
    assert template_hash(other) != template_hash(other, 1)
    assert set(template_hash(other)) <= set("bcdfghjklmnpqrstvwxz2456789")


# ReplicaSets


def pod(name: str = "p", **fields: Any) -> Obj:
    made = {
        "metadata": {"name": name, "uid": name, "namespace": "default", "creationTimestamp": "2026-01-01T00:00:00Z"},
        "spec": {"nodeName": "n"},
        "status": {
            "phase": "Running",
            "conditions": [{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T00:00:00Z"}],
        },
    }
    for path, value in fields.items():
        target = made
        *parents, last = path.split("__")
        for key in parents:
            target = target.setdefault(key, {})
        target[last] = value
    return made


def test_what_matters_least_is_deleted_first() -> None:
    best = pod("best")
    order = [
        pod("unassigned", spec__nodeName=""),
        pod("pending", status__phase="Pending"),
        pod("not-ready", status__conditions=[]),
        pod("cheap", metadata__annotations={"controller.kubernetes.io/pod-deletion-cost": "-5"}),
        pod("doubled", spec__nodeName="crowded"),
        pod(
            "just-ready",
            status__conditions=[{"type": "Ready", "status": "True", "lastTransitionTime": "2026-01-01T09:00:00Z"}],
        ),
        pod("restarted", status__containerStatuses=[{"restartCount": 3}]),
        pod("young", metadata__creationTimestamp="2026-01-01T05:00:00Z"),
        best,
    ]
    colocated = {"crowded": 3, "n": 1}
    shuffled = [*order[1::2], *order[::2]]
    ranked = sorted(shuffled, key=lambda item: deletion_rank(item, colocated))
    assert [item["metadata"]["name"] for item in ranked] == [item["metadata"]["name"] for item in order]


@given(desired=st.integers(0, 1200), present=st.integers(0, 30))
def test_a_plan_goes_towards_the_desired_number(desired: int, present: int) -> None:
    pods = [pod(str(number)) for number in range(present)]
    made = plan(desired, pods)
    after = present + made.create - len(made.delete)
    assert not (made.create and made.delete)
    assert after == desired or made.create == 500
    assert made.create <= 500


def test_expectations_hold_until_seen_or_too_old() -> None:
    clock = [0.0]
    expectations = Expectations(lambda: clock[0])
    expectations.expect("k", 2, ["u"])
    assert not expectations.satisfied("k")
    expectations.creation_observed("k", 2)
    assert not expectations.satisfied("k")
    expectations.deletion_observed("k", "u")
    assert expectations.satisfied("k")
    expectations.expect_creations("k", 1)
    clock[0] = TIMEOUT + 1
    assert expectations.satisfied("k")


def test_what_is_adopted_released_or_left_alone() -> None:
    owner = {"metadata": {"uid": "me"}}
    mine = [{"uid": "me", "controller": True}]
    candidates = [
        pod("owned", metadata__labels={"a": "b"}, metadata__ownerReferences=mine),
        pod("strayed", metadata__labels={"a": "c"}, metadata__ownerReferences=mine),
        pod("orphan", metadata__labels={"a": "b"}),
        pod("dying", metadata__labels={"a": "b"}, metadata__deletionTimestamp="x"),
        pod("theirs", metadata__labels={"a": "b"}, metadata__ownerReferences=[{"uid": "you", "controller": True}]),
        pod("other", metadata__labels={}),
    ]
    claim = classify(owner, LabelSelector.parse("a=b"), candidates)
    names = [[item["metadata"]["name"] for item in group] for group in (claim.owned, claim.adopt, claim.release)]
    assert names == [["owned"], ["orphan"], ["strayed"]]
    dying = classify({"metadata": {"uid": "me", "deletionTimestamp": "x"}}, LabelSelector.parse("a=b"), candidates)
    assert (len(dying.owned), dying.adopt, dying.release) == (1, [], [])


# Garbage collection

CONFIG_MAPS = GroupVersionResource("", "v1", "configmaps")


def node(uid: str, *owners: str, **meta: Any) -> Obj:
    references = [
        {"apiVersion": "v1", "kind": "ConfigMap", "name": owner, "uid": owner, "blockOwnerDeletion": True}
        for owner in owners
    ]
    return {
        "kind": "ConfigMap",
        "metadata": {"name": uid, "uid": uid, "namespace": "ns", "ownerReferences": references, **meta},
    }


def build(*objects: Obj) -> Graph:
    graph = Graph()
    for obj in objects:
        graph.put(obj, CONFIG_MAPS)
    return graph


DYING = {"deletionTimestamp": "x", "finalizers": ["foregroundDeletion"]}


@pytest.mark.parametrize(
    ("objects", "absent", "verdict"),
    [
        ([node("o"), node("c", "o")], [], Verdict.KEEP),
        ([node("c", "o")], ["o"], Verdict.DELETE_BACKGROUND),
        ([node("c", "o", finalizers=["orphan"])], ["o"], Verdict.DELETE_ORPHAN),
        ([node("c", "o", finalizers=["foregroundDeletion"])], ["o"], Verdict.DELETE_FOREGROUND),
        ([node("a"), node("c", "o", "a")], ["o"], Verdict.DROP_REFERENCES),
        ([node("o", **DYING), node("c", "o")], [], Verdict.DELETE_BACKGROUND),
        ([node("o", **DYING), node("c", "o"), node("g", "c")], [], Verdict.DELETE_FOREGROUND),
        ([node("o", **DYING), node("a"), node("c", "o", "a")], [], Verdict.DROP_REFERENCES),
        ([node("c", **DYING)], [], Verdict.FINISH_FOREGROUND),
        ([node("c", **DYING), node("g", "c")], [], Verdict.KEEP),
        ([node("c", deletionTimestamp="x", finalizers=["orphan"])], [], Verdict.ORPHAN_DEPENDENTS),
        ([node("c", "o", deletionTimestamp="x")], ["o"], Verdict.KEEP),
        ([node("c")], [], Verdict.KEEP),
    ],
)
def test_what_becomes_of_an_object(objects: list[Obj], absent: list[str], verdict: Verdict) -> None:
    graph = build(*objects)
    assert decide(graph, graph.nodes["c"], absent).verdict is verdict


def test_an_owner_of_another_namespace_kind_or_name_does_not_hold() -> None:
    graph = build(node("o"), node("c", "o"))
    child, owner = graph.nodes["c"], graph.nodes["c"].owners[0]
    assert graph.holds(owner, child) is True
    graph.nodes["o"].namespace = "elsewhere"
    assert graph.holds(owner, child) is False
    graph.nodes["o"].namespace = ""
    assert graph.holds(owner, child) is True
    graph.nodes["o"].name = "renamed"
    assert graph.holds(owner, child) is False
    assert Graph().holds(owner, child) is None


def test_deleting_an_owner_makes_its_dependents_due() -> None:
    graph = build(node("o"), node("c", "o"), node("d", "o"), node("x"))
    assert {found.uid for found in graph.remove("o")} == {"c", "d"}
    assert graph.remove("o") == []
    assert graph.put(node("c"), CONFIG_MAPS) == []


@settings(max_examples=60, deadline=None)
@given(st.lists(st.tuples(st.sampled_from("abcde"), st.sets(st.sampled_from("abcde")), st.booleans()), max_size=40))
def test_the_graph_stays_consistent(steps: list[tuple[str, set[str], bool]]) -> None:
    graph = Graph()
    owners: dict[str, set[str]] = {}
    for uid, refs, remove in steps:
        if remove:
            graph.remove(uid)
            owners.pop(uid, None)
        else:
            graph.put(node(uid, *sorted(refs)), CONFIG_MAPS)
            owners[uid] = refs
        for owner in "abcde":
            assert {found.uid for found in graph.dependents(owner)} == {
                uid for uid, refs in owners.items() if owner in refs
            }


# Endpoint slices


@settings(max_examples=80, deadline=None)
@given(st.lists(st.sets(st.integers(0, 400)), min_size=1, max_size=6))
def test_slices_hold_exactly_the_endpoints_and_are_changed_sparingly(rounds: list[set[int]]) -> None:
    owner = {"metadata": {"name": "svc", "namespace": "ns", "uid": "u"}}
    maker = SliceMaker(owner, GroupVersionKind("", "v1", "Service"), {"l": "1"})
    ports = [{"name": "http", "port": 80, "protocol": "TCP"}]
    existing: list[Obj] = []
    count = 0
    for wanted in rounds:
        endpoints = [
            {"addresses": [f"10.0.0.{number}"], "targetRef": {"uid": str(number)}} for number in sorted(wanted)
        ]
        changes = reconcile(maker, [Group("IPv4", ports if wanted else [], endpoints)], existing)
        assert not (changes.create and changes.delete), "readers would see both"
        by_name = {item["metadata"]["name"]: item for item in existing}
        for item in changes.delete:
            del by_name[item["metadata"]["name"]]
        for item in changes.update:
            by_name[item["metadata"]["name"]] = item
        for item in changes.create:
            count += 1
            item["metadata"]["name"] = f"s{count}"
            by_name[item["metadata"]["name"]] = item
        existing = list(by_name.values())
        found = [endpoint["targetRef"]["uid"] for item in existing for endpoint in item["endpoints"]]
        assert sorted(found) == sorted(str(number) for number in wanted)
        assert all(len(item["endpoints"]) <= MAX_ENDPOINTS for item in existing)
        assert existing
        again = reconcile(maker, [Group("IPv4", ports if wanted else [], endpoints)], existing)
        assert (again.create, again.update, again.delete) == ([], [], [])


# Nodes


def test_taints_follow_conditions_and_cordoning_and_leave_others_alone() -> None:
    own = {"key": "dedicated", "value": "x", "effect": "NoSchedule"}
    sick = {
        "spec": {"taints": [own], "unschedulable": True},
        "status": {"conditions": [{"type": "Ready", "status": "Unknown"}, {"type": "DiskPressure", "status": "True"}]},
    }
    taints = wanted_taints(sick, NOW)
    assert {(taint["key"].rpartition("/")[2], taint["effect"]) for taint in taints} == {
        ("dedicated", "NoSchedule"),
        ("unreachable", "NoSchedule"),
        ("unreachable", "NoExecute"),
        ("disk-pressure", "NoSchedule"),
        ("unschedulable", "NoSchedule"),
    }
    assert wanted_taints({**sick, "spec": {"taints": taints, "unschedulable": True}}, NOW) == taints
    well = {"spec": {"taints": taints}, "status": {"conditions": [{"type": "Ready", "status": "True"}]}}
    assert wanted_taints(well, NOW) == [own]


def test_when_a_pod_is_evicted() -> None:
    taint = {"key": "k", "effect": "NoExecute"}
    exists = {"key": "k", "operator": "Exists"}
    assert eviction_delay({"spec": {}}, [taint]) == 0.0
    assert eviction_delay({"spec": {"tolerations": [exists]}}, [taint]) is None
    tolerations = [{**exists, "tolerationSeconds": 30}, {**exists, "tolerationSeconds": 10}]
    assert eviction_delay({"spec": {"tolerations": tolerations}}, [taint]) == 10
    assert eviction_delay({"spec": {}}, [{"key": "k", "effect": "NoSchedule"}]) is None


@pytest.mark.parametrize(
    ("spec", "node_fields", "expected"),
    [
        ({}, {}, (True, True)),
        ({"nodeSelector": {"disk": "ssd"}}, {}, (False, False)),
        ({"nodeSelector": {"disk": "ssd"}}, {"labels": {"disk": "ssd"}}, (True, True)),
        ({}, {"taints": [{"key": "x", "effect": "NoSchedule"}]}, (False, True)),
        ({}, {"taints": [{"key": "x", "effect": "NoExecute"}]}, (False, False)),
        ({}, {"taints": [{"key": "x", "effect": "PreferNoSchedule"}]}, (True, True)),
        ({}, {"taints": [{"key": "node.kubernetes.io/not-ready", "effect": "NoExecute"}]}, (True, True)),
        ({}, {"taints": [{"key": "node.kubernetes.io/unschedulable", "effect": "NoSchedule"}]}, (True, True)),
        ({"nodeName": "other"}, {}, (False, False)),
    ],
)
def test_where_a_daemon_wants_to_run(spec: Obj, node_fields: Obj, expected: tuple[bool, bool]) -> None:
    daemon_set = {"spec": {"template": {"spec": spec}}}
    labels, taints = node_fields.get("labels", {}), node_fields.get("taints", [])
    assert wants_node(daemon_set, {"metadata": {"name": "n", "labels": labels}, "spec": {"taints": taints}}) == expected


def test_only_daemons_on_the_host_network_tolerate_a_missing_network() -> None:
    assert len(daemon_tolerations({"hostNetwork": True})) == len(daemon_tolerations({})) + 1


@given(st.sets(st.integers(0, 60)))
def test_index_lists_survive_being_written(indexes: set[int]) -> None:
    assert parse_indexes(format_indexes(indexes)) == indexes


def test_index_lists_are_written_as_upstream_does() -> None:
    assert format_indexes([1, 3, 4, 5, 7]) == "1,3-5,7"
    assert format_indexes([0, 1]) == "0,1"


# The manager


def test_choosing_controllers() -> None:
    assert enabled("a", ["*"])
    assert not enabled("a", ["*", "-a"])
    assert enabled("a", ["a"])
    assert not enabled("b", ["a"])
    assert len({kind.name for kind in CONTROLLERS}) == len(CONTROLLERS)
    with pytest.raises(ValueError, match="nonsense"):
        ControllerManager(None, ControllerManagerOptions(controllers=("*", "-nonsense")))  # type: ignore[arg-type]
