"""Node selector terms: nodeSelector, node affinity and the topology of volumes.

Upstream: k8s.io/component-helpers/scheduling/corev1/nodeaffinity. Terms are ORed, what is inside a term is ANDed; an empty
term matches nothing. Each matcher answers for one node (labels) or for all rows at once over interned label columns.
"""

from __future__ import annotations

import re
from collections.abc import Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING

import numpy as np

from bowsprit.machinery.fielderrors import FieldError, aggregate, path
from bowsprit.machinery.objects import Obj
from bowsprit.scheduler.framework import Mask
from bowsprit.scheduler.termerrors import term_errors

if TYPE_CHECKING:
    from bowsprit.scheduler.columns import NodeColumns

_INTEGER = re.compile(r"[+-]?[0-9]+", re.ASCII)


def parse_int64(text: str) -> int | None:
    """strconv.ParseInt(text, 10, 64): None where it fails."""
    if not _INTEGER.fullmatch(text):
        return None
    value = int(text)
    return value if -(2**63) <= value < 2**63 else None


@dataclass(frozen=True, slots=True)
class Expression:
    """One requirement on a label or, for matchFields, on the node's name."""

    key: str
    operator: str
    values: tuple[str, ...]

    @classmethod
    def from_obj(cls, obj: Obj) -> Expression:
        return cls(obj.get("key", ""), obj.get("operator", ""), tuple(obj.get("values") or ()))

    def accepts(self, value: str | None) -> bool:
        """Whether a node whose label has this value (None: no such label) satisfies the requirement."""
        operator = self.operator
        if operator == "In":
            return value is not None and value in self.values
        if operator == "NotIn":
            return value is None or value not in self.values
        if operator == "Exists":
            return value is not None
        if operator == "DoesNotExist":
            return value is None
        if operator in ("Gt", "Lt") and value is not None and len(self.values) == 1:
            mine, bound = parse_int64(value), parse_int64(self.values[0])
            if mine is None or bound is None:
                return False
            return mine > bound if operator == "Gt" else mine < bound
        return False

    def rows(self, nodes: NodeColumns) -> Mask:
        column = nodes.topology(self.key)
        if self.operator in ("In", "NotIn"):
            table = np.full(len(column.values) + 1, self.operator == "NotIn")
            for value in self.values:
                position = column.index.get(value)
                if position is not None:
                    table[position] = self.operator == "In"
        else:
            table = np.array([self.accepts(value) for value in column.values] + [self.accepts(None)])
        return table[column.ids]  # a missing label has id -1: the last entry of the table


@dataclass(frozen=True, slots=True)
class Term:
    """A node selector term."""

    expressions: tuple[Expression, ...]
    fields: tuple[Expression, ...]
    broken: bool = False  # cannot be evaluated: matches nothing

    @classmethod
    def from_obj(cls, obj: Obj) -> Term:
        return cls(
            tuple(Expression.from_obj(e) for e in obj.get("matchExpressions") or ()),
            tuple(Expression.from_obj(e) for e in obj.get("matchFields") or ()),
            bool(term_errors(path(), obj)),
        )

    @property
    def is_empty(self) -> bool:
        return not self.expressions and not self.fields

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        return (
            not self.is_empty
            and not self.broken
            and all(e.accepts(labels.get(e.key)) for e in self.expressions)
            and all(e.key == "metadata.name" and e.accepts(name) for e in self.fields)
        )

    def rows(self, nodes: NodeColumns) -> Mask:
        if self.is_empty or self.broken:
            return np.zeros(nodes.size, dtype=bool)
        mask = np.ones(nodes.size, dtype=bool)
        for expression in self.expressions:
            mask &= expression.rows(nodes)
        for selector in self.fields:
            allowed = np.full(nodes.size, selector.operator == "NotIn")
            for value in selector.values:
                row = nodes.row_of.get(value)
                if row is not None:
                    allowed[row] = selector.operator == "In"
            mask &= allowed
        return mask


@dataclass(frozen=True, slots=True)
class NodeSelector:
    """ORed terms (v1.NodeSelector)."""

    terms: tuple[Term, ...]

    @classmethod
    def from_obj(cls, obj: Obj) -> NodeSelector:
        return cls(tuple(Term.from_obj(t) for t in obj.get("nodeSelectorTerms") or ()))

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        return any(term.matches(name, labels) for term in self.terms)

    def rows(self, nodes: NodeColumns) -> Mask:
        mask = np.zeros(nodes.size, dtype=bool)
        for term in self.terms:
            mask |= term.rows(nodes)
        return mask

    def node_names(self) -> frozenset[str] | None:
        """The only nodes that can match, by name, when every term names some by matchFields; else None."""
        names: set[str] = set()
        for term in self.terms:
            inside: set[str] | None = None
            for selector in term.fields:
                if selector.key == "metadata.name" and selector.operator == "In":
                    inside = set(selector.values) if inside is None else inside & set(selector.values)
            if inside is None:
                return None
            names |= inside
        return frozenset(names)


@dataclass(frozen=True, slots=True)
class RequiredNodeAffinity:
    """A pod's nodeSelector and required node affinity terms together (nodeaffinity.RequiredNodeAffinity)."""

    labels: tuple[tuple[str, str], ...] = ()
    selector: NodeSelector | None = None

    @classmethod
    def from_spec(cls, spec: Obj) -> RequiredNodeAffinity:
        required = ((spec.get("affinity") or {}).get("nodeAffinity") or {}).get(
            "requiredDuringSchedulingIgnoredDuringExecution"
        )
        labels = tuple(sorted((spec.get("nodeSelector") or {}).items()))
        return cls(labels, NodeSelector.from_obj(required) if required is not None else None)

    @property
    def is_empty(self) -> bool:
        return not self.labels and self.selector is None

    def matches(self, name: str, labels: Mapping[str, str]) -> bool:
        return all(labels.get(key) == value for key, value in self.labels) and (
            self.selector is None or self.selector.matches(name, labels)
        )

    def rows(self, nodes: NodeColumns) -> Mask:
        mask = np.ones(nodes.size, dtype=bool)
        for key, value in self.labels:
            mask &= Expression(key, "In", (value,)).rows(nodes)
        return mask if self.selector is None else mask & self.selector.rows(nodes)


@dataclass(frozen=True, slots=True)
class PreferredTerms:
    """Weighted preferred terms: the score of a node is the sum of the weights of those that match."""

    terms: tuple[tuple[int, Term], ...] = ()
    problem: str = ""  # a term that cannot be evaluated: scoring must fail

    @classmethod
    def from_obj(cls, items: list[Obj] | None) -> PreferredTerms:
        terms = []
        errors: list[FieldError] = []
        for i, item in enumerate(items or ()):
            weight, preference = int(item.get("weight") or 0), item.get("preference") or {}
            term = Term.from_obj(preference)
            if weight and not term.is_empty:
                terms.append((weight, term))
                errors += term_errors(path().index(i), preference)
        return cls(tuple(terms), aggregate(errors) if errors else "")

    def score(self, name: str, labels: Mapping[str, str]) -> int:
        return sum(weight for weight, term in self.terms if term.matches(name, labels))
