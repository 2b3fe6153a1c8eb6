"""Columns and nodes agree: what is kept, shared and updated equals what a loop over the nodes computes anew."""

from __future__ import annotations

import heapq
import random

import numpy as np
import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from bowsprit.scheduler.config import default_config
from bowsprit.scheduler.core import Assigned, SchedulerCore
from bowsprit.scheduler.framework import CycleState
from bowsprit.scheduler.nodetree import NodeTree
from bowsprit.scheduler.order import NodeHeap, best
from bowsprit.scheduler.registry import registry

ZONE, HOST = "topology.kubernetes.io/zone", "kubernetes.io/hostname"


def random_node(rng, name):
    labels = {HOST: name}
    if rng.random() < 0.8:
        labels[ZONE] = rng.choice("abc")
    if rng.random() < 0.5:
        labels["disk"] = rng.choice(("ssd", "hdd"))
    spec = {}
    if rng.random() < 0.3:
        effect = rng.choice(("NoSchedule", "PreferNoSchedule", "NoExecute"))
        spec["taints"] = [{"key": "dedicated", "value": rng.choice("xy"), "effect": effect}]
    if rng.random() < 0.1:
        spec["unschedulable"] = True
    resources = {"cpu": rng.choice(("2", "4", "7500m")), "memory": rng.choice(("4Gi", "9G")), "pods": "6"}
    if rng.random() < 0.3:
        resources["example.com/gpu"] = "2"
    if rng.random() < 0.05:
        del resources["memory"]
    images = [{"names": ["app:v1"], "sizeBytes": 700_000_000}] if rng.random() < 0.5 else []
    return {
        "metadata": {"name": name, "labels": labels},
        "spec": spec,
        "status": {"allocatable": resources, "images": images},
    }


def random_term(rng):
    selector = {"matchLabels": {"app": rng.choice("pqr")}}
    return {"topologyKey": rng.choice((ZONE, HOST)), "labelSelector": selector}


def random_pod(rng, name):
    requests = {}
    for resource, values in (("cpu", ("100m", "900m")), ("memory", ("200Mi", "1Gi")), ("example.com/gpu", ("1",))):
        if rng.random() < (0.15 if "/" in resource else 0.6):
            requests[resource] = rng.choice(values)
    container = {"name": "c", "image": "app:v1", "resources": {"requests": requests}}
    if rng.random() < 0.15:
        container["ports"] = [{"containerPort": 80, "hostPort": rng.choice((80, 81))}]
    spec = {"containers": [container], "priority": rng.choice((0, 0, 5))}
    if rng.random() < 0.4:
        spec["tolerations"] = [{"key": "dedicated", "operator": rng.choice(("Exists", "Equal")), "value": "x"}]
        if spec["tolerations"][0]["operator"] == "Exists":
            del spec["tolerations"][0]["value"]
    affinity = {}
    if rng.random() < 0.3:
        preference = {"matchExpressions": [{"key": "disk", "operator": "In", "values": ["ssd"]}]}
        affinity["nodeAffinity"] = {
            "preferredDuringSchedulingIgnoredDuringExecution": [{"weight": 7, "preference": preference}]
        }
    for kind in ("podAffinity", "podAntiAffinity"):
        rules = {}
        if rng.random() < 0.2:
            rules["requiredDuringSchedulingIgnoredDuringExecution"] = [random_term(rng)]
        if rng.random() < 0.3:
            weighted = {"weight": rng.randint(1, 50), "podAffinityTerm": random_term(rng)}
            rules["preferredDuringSchedulingIgnoredDuringExecution"] = [weighted]
        if rules:
            affinity[kind] = rules
    if affinity:
        spec["affinity"] = affinity
    constraints = []
    for action in ("DoNotSchedule", "ScheduleAnyway"):
        if rng.random() < 0.3:
            taints = {"nodeTaintsPolicy": "Honor"} if rng.random() < 0.3 else {}
            constraints.append(
                {**random_term(rng), "maxSkew": rng.randint(1, 3), "whenUnsatisfiable": action, **taints}
            )
    if constraints:
        spec["topologySpreadConstraints"] = constraints
    meta = {"name": name, "namespace": rng.choice(("one", "two")), "uid": name, "labels": {"app": rng.choice("pqr")}}
    return {"metadata": meta, "spec": spec}


def check(core, obj):
    """Compare one pod's columns with a loop over the nodes, on the state as it is now."""
    profile = core.profiles["default-scheduler"]
    nodes, pod, state = core.cache.nodes, core.cache.pod_info(obj), CycleState()
    _, rejection, _ = profile.run_pre_filter(state, pod)
    assert rejection is None
    mask = core.algorithm._mask(profile, pod, state)
    order = nodes.order
    expected = [profile.run_filters_with_nominated(state, pod, nodes.info(r)) for r in order.tolist()]
    assert [bool(mask[r]) for r in order] == [status is None for status in expected]
    rows = order[mask[order]]
    if len(rows) < 2:
        return
    fast = core.algorithm._fast_totals(profile, pod, state, rows)
    full, _ = core.algorithm._all_scores(profile, pod, state, rows)
    assert len(set((full - fast).tolist())) == 1, "the shared totals differ by more than a constant"
    for plugin in profile.scores:
        if not hasattr(plugin, "score") or plugin.name in ("DynamicResources",):
            continue
        columns = plugin.score_rows(state, pod, nodes, rows)
        assert columns.tolist() == [plugin.score(state, pod, nodes.info(r)) for r in rows.tolist()], plugin.name


@pytest.mark.parametrize("seed", range(12))
def test_columns_equal_a_loop_over_the_nodes(seed):
    rng = random.Random(seed)
    core = SchedulerCore(default_config(), registry(), lambda: 0.0)
    names = []
    shapes = [random_pod(rng, f"shape-{i}") for i in range(8)]
    for i in range(25):
        core.set_node(random_node(rng, f"n{i}"))
        names.append(f"n{i}")
    placed = []
    for step in range(120):
        roll = rng.random()
        if roll < 0.05 and len(names) > 5:
            name = names.pop(rng.randrange(len(names)))
            core.delete_node(name)
        elif roll < 0.1:
            names.append(f"m{step}")
            core.set_node(random_node(rng, names[-1]))
        elif roll < 0.15:
            core.set_node(random_node(rng, rng.choice(names)))
        elif roll < 0.25 and placed:
            core.delete_pod(placed.pop(rng.randrange(len(placed))))
        else:
            obj = rng.choice(shapes) if rng.random() < 0.7 else random_pod(rng, "")
            meta = {**obj["metadata"], "name": f"p{step}", "uid": f"p{step}"}
            obj = {**obj, "metadata": meta}
            check(core, obj)
            core.set_pod(obj)
            queued = core.queue.pop()
            result = core.run_cycle(queued)
            core.queue.done(queued.pod.uid)
            if isinstance(result, Assigned):
                placed.append(obj)
            else:
                core.end_preemption(result.profile, queued.pod)
                core.queue.delete(queued.pod.uid)
    assert placed


@given(st.lists(st.integers(0, 3), min_size=1, max_size=70))
@settings(max_examples=200, deadline=None)
def test_the_choice_among_equals_is_that_of_a_binary_heap(totals):
    heap = NodeHeap(totals)
    assert heap.pop() == best(np.array(totals))


@given(st.lists(st.integers(0, 9), min_size=1, max_size=40))
@settings(max_examples=100, deadline=None)
def test_the_heap_yields_scores_in_descending_order(totals):
    heap = NodeHeap(totals)
    popped = [totals[heap.pop()] for _ in totals]
    assert popped == heapq.nlargest(len(totals), totals)


def test_zones_take_turns_in_the_order_of_their_first_node():
    tree = NodeTree()
    for name, zone in (("a1", "a"), ("a2", "a"), ("b1", "b"), ("a3", "a"), ("c1", "c"), ("b2", "b")):
        tree.add(name, {ZONE: zone})
    assert tree.names() == ["a1", "b1", "c1", "a2", "b2", "a3"]
    tree.remove("b1")
    tree.add("a2", {ZONE: "c"})
    assert tree.names() == ["a1", "b2", "c1", "a3", "a2"]
