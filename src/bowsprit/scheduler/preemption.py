"""Preemption: which pods must go so that one of higher priority fits (framework/preemption.Evaluator)."""

from __future__ import annotations

from collections.abc import Iterable
from dataclasses import dataclass, field
from typing import Any

from bowsprit.machinery.objects import Obj, find_condition
from bowsprit.machinery.selectors import LabelSelector
from bowsprit.scheduler.framework import Code, CycleState, NodeStatuses, Status, reasons_text, unresolvable
from bowsprit.scheduler.nodeinfo import NodeInfo
from bowsprit.scheduler.podinfo import PodInfo, by_importance
from bowsprit.scheduler.profile import Handle, Profile

NOT_HELPFUL = "Preemption is not helpful for scheduling"
NO_VICTIMS = "No preemption victims found for incoming pod"
REASON_PREEMPTION = "PreemptionByScheduler"


@dataclass(slots=True)
class Candidate:
    """A node and the pods that would have to go, most important first."""

    node: str
    victims: list[PodInfo]
    violations: int


@dataclass(slots=True)
class Preemption:
    """The decision of one PostFilter run, to be carried out by the caller."""

    candidate: Candidate
    lower_nominated: list[PodInfo] = field(default_factory=list)


def terminating_by_preemption(pod: PodInfo) -> bool:
    if not pod.terminating:
        return False
    condition = find_condition(pod.obj, "DisruptionTarget")
    return bool(condition and condition.get("status") == "True" and condition.get("reason") == REASON_PREEMPTION)


def eligible(pod: PodInfo, node: NodeInfo | None, nominated_status: Status | None) -> str:
    """PodEligibleToPreemptOthers: "" or why the pod may not preempt."""
    if pod.shape.preemption_policy == "Never":
        return "not eligible due to preemptionPolicy=Never."
    if pod.nominated:
        if nominated_status is not None and nominated_status.code == Code.UNSCHEDULABLE_AND_UNRESOLVABLE:
            return ""
        if node is not None and any(terminating_by_preemption(p) for p in node.lower_priority_pods(pod.priority)):
            return "not eligible due to a terminating pod on the nominated node."
    return ""


class Budgets:
    """PodDisruptionBudgets while victims are chosen on one node."""

    def __init__(self, budgets: Iterable[Obj]):
        self._items = [
            (
                pdb["metadata"].get("namespace", ""),
                LabelSelector.from_obj((pdb.get("spec") or {}).get("selector")),
                (pdb.get("status") or {}).get("disruptedPods") or {},
                int((pdb.get("status") or {}).get("disruptionsAllowed") or 0),
            )
            for pdb in budgets
        ]

    def split(self, pods: list[PodInfo]) -> tuple[list[PodInfo], list[PodInfo]]:
        """(violating, others): evicting the pods in this order, which ones break a budget?"""
        allowed = [item[3] for item in self._items]
        violating: list[PodInfo] = []
        others: list[PodInfo] = []
        for pod in pods:
            violates = False
            for position, (namespace, selector, disrupted, _) in enumerate(self._items):
                labels = pod.shape.labels
                if not labels or namespace != pod.namespace or selector.is_empty() or not selector.matches(labels):
                    continue
                if pod.name in disrupted:
                    continue
                allowed[position] -= 1
                violates |= allowed[position] < 0
            (violating if violates else others).append(pod)
        return violating, others


def select_victims(
    profile: Profile, state: CycleState, pod: PodInfo, node: NodeInfo, budgets: Budgets
) -> tuple[Candidate | None, Status | None]:
    """SelectVictimsOnNode: remove all pods of lower priority, then give back as many as fit, most important first."""
    potential = by_importance(node.lower_priority_pods(pod.priority))
    if not potential:
        return None, unresolvable(NO_VICTIMS)
    stripped, guess = node.clone(), state.clone()
    for victim in potential:
        stripped.remove_pod(victim)
        profile.remove_pod(guess, pod, victim, stripped)
    status = profile.run_filters_with_nominated(guess, pod, stripped)
    if status is not None:
        return None, status
    violating, others = budgets.split(potential)
    victims: list[PodInfo] = []
    violations = 0
    for group in (violating, others):
        for victim in group:
            stripped.add_pod(victim)
            profile.add_pod(guess, pod, victim, stripped)
            # what looks at the node alone has passed above
            if profile.run_filters_with_nominated(guess, pod, stripped, only_dynamic=True) is None:
                continue
            stripped.remove_pod(victim)
            profile.remove_pod(guess, pod, victim, stripped)
            victims.append(victim)
            violations += group is violating
    if violating and others:
        victims = by_importance(victims)
    return Candidate(node.name, victims, violations), None


def pick(candidates: list[Candidate]) -> Candidate:
    """pickOneNodeForPreemption: the six rules in their order."""

    def highest(candidate: Candidate) -> int:
        return candidate.victims[0].priority if candidate.victims else -(2**31)

    def priorities(candidate: Candidate) -> int:
        return sum(victim.priority + 2**31 for victim in candidate.victims)

    def earliest_start(candidate: Candidate) -> float:
        top = highest(candidate)
        return min((v.start_order() for v in candidate.victims if v.priority == top), default=0.0)

    rules = (lambda c: c.violations, highest, priorities, lambda c: len(c.victims), lambda c: -earliest_start(c))
    for rule in rules:
        lowest = min(rule(candidate) for candidate in candidates)
        candidates = [candidate for candidate in candidates if rule(candidate) == lowest]
        if len(candidates) == 1:
            break
    return candidates[0]


class DefaultPreemption:
    """The PostFilter plugin, and the PreEnqueue one that holds preemptors while victims are deleted."""

    name = "DefaultPreemption"

    def __init__(self, args: Obj, handle: Handle):
        percentage, absolute = args.get("minCandidateNodesPercentage"), args.get("minCandidateNodesAbsolute")
        self._percentage = 10 if percentage is None else int(percentage)
        self._absolute = 100 if absolute is None else int(absolute)
        self._handle = handle
        self._offset = 0
        self.preempting: set[str] = set()  # uids of pods whose victims are being deleted

    def pre_enqueue(self, pod: PodInfo) -> Status | None:
        """Hold a preemptor until its victims' deletions are issued (asynchronous preemption)."""
        if pod.uid in self.preempting:
            return unresolvable("waiting for the preemption for this pod to be finished")
        return None

    def post_filter(self, state: CycleState, pod: PodInfo, statuses: NodeStatuses) -> tuple[str | None, Status | None]:
        nominated, status = self._preempt(state, pod, statuses)
        if status is not None and status.reasons:
            status = Status(status.code, (f"preemption: {status.message}",), self.name)
        return nominated, status

    def _preempt(self, state: CycleState, pod: PodInfo, statuses: NodeStatuses) -> tuple[str | None, Status | None]:
        nodes = self._handle.cache.nodes
        info = nodes.node(pod.nominated) if pod.nominated else None
        nominated_status = statuses.of_row(info.row) if info is not None else None
        reason = eligible(pod, info, nominated_status)
        if reason:
            return None, Status(Code.UNSCHEDULABLE, (reason,))
        found = NodeStatuses(absent=unresolvable(NOT_HELPFUL))
        candidates = self._candidates(state, pod, statuses, found)
        candidates = self._extend(pod, candidates)
        if not candidates:
            text = reasons_text(found.reasons(len(nodes)))
            return "", Status(Code.UNSCHEDULABLE, (f"0/{len(nodes)} nodes are available: {text}.",))
        best = candidates[0] if len(candidates) == 1 else pick(candidates)
        lower = [p for p in self._handle.nominator.pods_on(best.node) if p.priority < pod.priority]
        state.data[self.name] = Preemption(best, lower)
        return best.node, None

    def _candidates(
        self, state: CycleState, pod: PodInfo, statuses: NodeStatuses, found: NodeStatuses
    ) -> list[Candidate]:
        """Dry runs on the nodes where removing pods may help, in node order, until there are enough."""
        profile, nodes = self._handle.profile, self._handle.cache.nodes
        assert profile is not None
        helpful = set(statuses.rows_with(Code.UNSCHEDULABLE))
        if statuses.absent is not None and statuses.absent.code == Code.UNSCHEDULABLE:
            listed = {row for _, rows in statuses.groups for row in rows}
            helpful |= set(nodes.order.tolist()) - listed
        rows = [row for row in nodes.order.tolist() if row in helpful]
        if not rows:
            return []
        wanted = min(max(len(rows) * self._percentage // 100, self._absolute), len(rows))
        if wanted < len(rows):  # upstream begins at a random node: in turn is as fair, and can be repeated
            self._offset = (self._offset + wanted) % len(rows)
            rows = rows[self._offset :] + rows[: self._offset]
        budgets = Budgets(self._handle.cache.objects.list("PodDisruptionBudget"))
        candidates: list[Candidate] = []
        clean = False
        for row in rows:
            candidate, status = select_victims(profile, state, pod, nodes.info(row), budgets)
            if candidate is not None:
                candidates.append(candidate)
                clean |= candidate.violations == 0
                if len(candidates) >= wanted and clean:
                    break
            elif status is not None:
                found.add(status, [row])
        return candidates

    def _extend(self, pod: PodInfo, candidates: list[Candidate]) -> list[Candidate]:
        """Extenders may drop nodes and victims (callExtenders)."""
        for extender in self._handle.extenders:
            if not candidates or not extender.is_preempter or not extender.is_interested(pod):
                continue
            try:
                candidates = extender.preempt(pod, candidates)
            except Exception:
                if not extender.ignorable:
                    raise
        return candidates


def decision_of(state: CycleState) -> Preemption | None:
    """What DefaultPreemption decided in this cycle."""
    found: Any = state.data.get(DefaultPreemption.name)
    return found if isinstance(found, Preemption) else None
