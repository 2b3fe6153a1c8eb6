"""Taints and tolerations (k8s.io/component-helpers/scheduling/corev1)."""

from __future__ import annotations

import re
from collections.abc import Iterable, Sequence
from dataclasses import dataclass

from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.nodeselector import parse_int64

_CANONICAL = re.compile(r"0|-?[1-9][0-9]*", re.ASCII)


@dataclass(frozen=True, slots=True)
class Taint:
    key: str
    value: str
    effect: str

    @classmethod
    def from_obj(cls, obj: Obj) -> Taint:
        return cls(obj.get("key", ""), obj.get("value") or "", obj.get("effect", ""))


@dataclass(frozen=True, slots=True)
class Toleration:
    key: str
    operator: str
    value: str
    effect: str

    @classmethod
    def from_obj(cls, obj: Obj) -> Toleration:
        return cls(obj.get("key") or "", obj.get("operator") or "", obj.get("value") or "", obj.get("effect") or "")

    def tolerates(self, taint: Taint, comparisons: bool = False) -> bool:
        """Toleration.ToleratesTaint; `comparisons` is the gate TaintTolerationComparisonOperators (Gt and Lt)."""
        if self.effect and self.effect != taint.effect:
            return False
        if self.key and self.key != taint.key:
            return False
        if self.operator in ("", "Equal"):
            return self.value == taint.value
        if self.operator == "Exists":
            return True
        if comparisons and self.operator in ("Gt", "Lt"):
            return self._compares(taint.value)
        return False

    def _compares(self, text: str) -> bool:
        if not _CANONICAL.fullmatch(self.value) or not _CANONICAL.fullmatch(text):
            return False  # "007" and "+7" are no numbers here
        mine, theirs = parse_int64(self.value), parse_int64(text)
        if mine is None or theirs is None:
            return False
        return theirs > mine if self.operator == "Gt" else theirs < mine


UNSCHEDULABLE_TAINT = Taint("node.kubernetes.io/unschedulable", "", "NoSchedule")


def tolerated(tolerations: Iterable[Toleration], taint: Taint, comparisons: bool = False) -> bool:
    return any(toleration.tolerates(taint, comparisons) for toleration in tolerations)


def first_untolerated(
    taints: Sequence[Taint], tolerations: Sequence[Toleration], effects: frozenset[str], comparisons: bool = False
) -> Taint | None:
    """FindMatchingUntoleratedTaint: the first taint with one of these effects that nothing tolerates."""
    for taint in taints:
        if taint.effect in effects and not tolerated(tolerations, taint, comparisons):
            return taint
    return None


SCHEDULING_EFFECTS = frozenset({"NoSchedule", "NoExecute"})
