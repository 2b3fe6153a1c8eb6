"""Node selector terms that the API accepts but nobody can evaluate; victims that nothing tells apart."""

from __future__ import annotations

from bowsprit.scheduler.simulation import replay


def node(name, **labels):
    amounts = {"cpu": "4", "memory": "8Gi", "pods": "10"}
    return {"metadata": {"name": name, "labels": labels}, "status": {"allocatable": amounts}}


def pod(name, affinity=None, *, priority=0, cpu="100m", node_name=None):
    spec = {"containers": [{"name": "c", "image": "i", "resources": {"requests": {"cpu": cpu}}}], "priority": priority}
    spec["schedulerName"] = "default-scheduler"
    if affinity:
        spec["affinity"] = {"nodeAffinity": affinity}
    if node_name:
        spec["nodeName"] = node_name
    return {"metadata": {"name": name, "namespace": "default", "uid": name}, "spec": spec, "status": {}}


def term(operator, *values):
    return {"matchExpressions": [{"key": "cores", "operator": operator, "values": list(values)}]}


def test_a_preferred_term_that_cannot_be_evaluated_fails_the_attempt():
    preferred = [{"weight": 1, "preference": term("Exists")}, {"weight": 2, "preference": term("Gt", "many")}]
    wanted = pod("p", {"preferredDuringSchedulingIgnoredDuringExecution": preferred})
    for scores in (True, False):
        (result,) = replay({"nodes": [node("a", cores="4"), node("b")], "pods": [wanted]}, scores=scores)
        assert result["node"] is None
        assert result["condition"] == {
            "status": "False",
            "reason": "SchedulerError",
            "message": 'running PreScore plugin "NodeAffinity": [1].matchExpressions[0].values[0]: Invalid value: '
            "\"many\": for 'Gt', 'Lt' operators, the value must be an integer",
        }


def test_a_required_term_that_cannot_be_evaluated_matches_nothing():
    terms = {"nodeSelectorTerms": [term("NotIn", "not a label!"), term("In", "8")]}
    wanted = pod("p", {"requiredDuringSchedulingIgnoredDuringExecution": terms})
    (result,) = replay({"nodes": [node("a", cores="4"), node("b", cores="8")], "pods": [wanted]})
    assert result["node"] == "b"


def test_the_last_of_equal_victims_that_have_not_started_stays():
    """Upstream compares two pods without start times by the times at which it looks: the order is turned around."""
    running = [pod(f"low-{i}", cpu="2", node_name="a") for i in range(2)]
    scenario = {
        "nodes": [node("a")],
        "existing_pods": running,
        "pods": [pod("high", priority=10, cpu="2")],
        "procedure": {"victims": "removed once recorded"},
    }
    (result,) = replay(scenario)
    assert result["victims"] == ["default/low-0"]
