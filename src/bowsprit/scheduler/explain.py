"""Why a pod is (not) placed on each node: every plugin's verdict, the scores, and the smallest change that would do."""

from __future__ import annotations

from typing import Any

import numpy as np

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.cycle import FitError
from bowsprit.scheduler.framework import Code, CycleError, CycleState
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podinfo import PodInfo
from bowsprit.scheduler.profile import Profile
from bowsprit.scheduler.requests import CPU
from bowsprit.scheduler.simulation import Simulation
from bowsprit.scheduler.tolerations import SCHEDULING_EFFECTS, first_untolerated


def explain_pod(snapshot: Obj, namespace: str, name: str, config: Obj) -> Obj | None:
    """The explanation as a plain object; None when the snapshot has no such pod.

    A pod that runs is judged as if it were pending again, with all others where they are.
    """
    wanted = (namespace, name)
    found: Obj | None = None
    others = []
    for obj in (*snapshot["existing_pods"], *snapshot["pods"]):
        if (obj["metadata"].get("namespace"), obj["metadata"]["name"]) == wanted:
            found = obj
        elif (obj.get("spec") or {}).get("nodeName"):
            others.append(obj)
    if found is None:
        return None
    simulation = Simulation.build(config, keep_scores=True)
    simulation.load(snapshot["objects"], snapshot["nodes"], others)
    current = (found.get("spec") or {}).get("nodeName") or ""
    spec = {key: value for key, value in found["spec"].items() if key != "nodeName"}
    pod = simulation.cache.pod_info({**found, "spec": spec})
    result: Obj = {"pod": pod.key, "schedulerName": pod.scheduler_name, "node": current or None}
    profile = simulation.profiles.get(pod.scheduler_name)
    if profile is None:
        served = ", ".join(sorted(simulation.profiles))
        result["message"] = f"no profile is called {pod.scheduler_name}: it is left to the scheduler of that name"
        result["hint"] = f"give its configuration with --config (this one has: {served})"
        return result
    gate = profile.run_pre_enqueue(pod)
    if gate is not None:
        return {**result, "message": gate.message, "plugin": gate.plugin}
    return _judge(simulation, profile, pod, result)


def _judge(simulation: Simulation, profile: Profile, pod: PodInfo, result: Obj) -> Obj:
    nodes = simulation.cache.nodes
    state = CycleState()
    names, rejection, limiting = profile.run_pre_filter(state, pod)
    if rejection is not None:
        return {**result, "message": rejection.message, "plugin": rejection.plugin, "nodes": []}
    rows: list[Obj] = []
    for row in nodes.order.tolist():
        info = nodes.info(row)
        verdicts = _verdicts(profile, state, pod, info)
        if names is not None and info.name not in names:
            plugin = min(limiting)
            verdicts.insert(0, {"plugin": plugin, "reasons": [f"node(s) didn't satisfy plugin(s) [{plugin}]"]})
        rows.append({"node": info.name, "fits": not verdicts, "rejections": verdicts})
    placement = None
    try:
        placement = simulation.algorithm.schedule(profile, pod, CycleState())
        result["best"] = placement.node
    except (FitError, CycleError) as error:
        result["message"] = str(error)
    if placement is not None and placement.scores is not None:
        for entry in rows:
            values = placement.scores.nodes.get(entry["node"])
            if values is not None:
                entry["scores"] = dict(zip(placement.scores.plugins, values, strict=True))
                entry["total"] = placement.scores.totals[entry["node"]]
    result["nodes"] = rows
    if placement is None and rows:
        result["change"] = _smallest_change(simulation, pod, rows)
    return result


def _verdicts(profile: Profile, state: CycleState, pod: PodInfo, info: NodeInfo) -> list[Obj]:
    """What every filter says of a node, not only the first that fails."""
    found = []
    for plugin in profile.filters:
        if plugin.name in state.skip_filter:
            continue
        status = plugin.filter(state, pod, info)
        if status is not None:
            resolvable = status.code != Code.UNSCHEDULABLE_AND_UNRESOLVABLE
            found.append({"plugin": plugin.name, "reasons": list(status.reasons), "preemptionMayHelp": resolvable})
    return found


def _smallest_change(simulation: Simulation, pod: PodInfo, rows: list[Obj]) -> Obj:
    """The node with the fewest plugins against it, and what would have to change for each of them."""
    nodes = simulation.cache.nodes

    def cost(entry: Obj) -> tuple[int, float, str]:
        info = nodes.node(entry["node"])
        assert info is not None
        return len(entry["rejections"]), _shortfall(pod, info), entry["node"]

    entry = min(rows, key=cost)
    info = nodes.node(entry["node"])
    assert info is not None
    changes: list[str] = []
    for verdict in entry["rejections"]:
        changes += _change_for(pod, info, verdict)
    return {"node": entry["node"], "steps": changes}


def _shortfall(pod: PodInfo, info: NodeInfo) -> float:
    total = 0.0
    for name, amount in pod.shape.requests.items():
        free = info.allocatable.get(name, 0) - info.requested.get(name, 0)
        total += max(0, amount - free) / max(amount, 1)
    return total


def _amount(name: str, value: int) -> str:
    if name == CPU:
        return f"{value}m"
    return f"{-(-value // 2**20)}Mi" if name == "memory" or "storage" in name else str(value)


def _change_for(pod: PodInfo, info: NodeInfo, verdict: Obj) -> list[str]:
    plugin = verdict["plugin"]
    if plugin == "NodeResourcesFit":
        steps = []
        if len(info.pods) + 1 > info.allowed_pods:
            steps.append(f"remove {len(info.pods) + 1 - info.allowed_pods} pod(s) from {info.name}")
        for name, amount in pod.shape.requests.items():
            free = info.allocatable.get(name, 0) - info.requested.get(name, 0)
            if amount > free:
                steps.append(
                    f"free {_amount(name, amount - max(free, 0))} {name} on {info.name}, or request {_amount(name, max(free, 0))}"
                )
        return steps
    if plugin == "TaintToleration":
        taint = first_untolerated(info.taints, pod.shape.tolerations, SCHEDULING_EFFECTS)
        if taint is not None:
            value = f"={taint.value}" if taint.value else ""
            return [f"tolerate {taint.key}{value}:{taint.effect}, or remove that taint from {info.name}"]
    if plugin == "NodeUnschedulable":
        return [f"uncordon {info.name}"]
    if plugin == "NodeAffinity":
        missing = [f"{k}={v}" for k, v in pod.shape.node_affinity.labels if info.labels.get(k) != v]
        return [f"label {info.name} {' '.join(missing)}" if missing else f"let node affinity match {info.name}"]
    if plugin == "NodePorts":
        ports = ", ".join(str(port) for _, port, _ in pod.shape.ports)
        return [f"free host port(s) {ports} on {info.name}"]
    return [f"{plugin}: {'; '.join(verdict['reasons'])}"]


def render(found: Obj, wide: bool) -> str:
    """The explanation as text."""
    lines = [f"pod {found['pod']} (scheduler {found['schedulerName']})"]
    if found.get("node"):
        lines.append(f"runs on {found['node']}; judged as if it were pending")
    if found.get("best"):
        lines.append(f"would be placed on {found['best']}")
    if found.get("message"):
        lines.append(found["message"])
    if found.get("hint"):
        lines.append(f"hint: {found['hint']}")
    rows = [["NODE", "FITS", "TOTAL", "WHY"]]
    for entry in found.get("nodes") or ():
        rows.append([entry["node"], "yes" if entry["fits"] else "no", str(entry.get("total", "")), _why(entry, wide)])
    if len(rows) > 1:
        widths = np.array([[len(cell) for cell in row] for row in rows]).max(axis=0).tolist()
        lines.append("")
        lines += ["  ".join(c.ljust(w) for c, w in zip(row, widths, strict=True)).rstrip() for row in rows]
    change: dict[str, Any] | None = found.get("change")
    if change:
        lines += ["", f"smallest change that would let it fit (on {change['node']}):"]
        lines += [f"  - {step}" for step in change["steps"]]
    return "\n".join(lines)


def _why(entry: Obj, wide: bool) -> str:
    if entry["rejections"]:
        shown = entry["rejections"] if wide else entry["rejections"][:1]
        return "; ".join(f"{v['plugin']}: {', '.join(v['reasons'])}" for v in shown)
    if wide and entry.get("scores"):
        return " ".join(f"{plugin}={score}" for plugin, score in entry["scores"].items())
    return ""
