"""Which of the best nodes is taken: kube-scheduler pops a binary heap over the feasible nodes.

Among equal scores Init and Pop of Go's container/heap yield the node that comes first in pre-order of the implicit tree
(i, then 2i+1 and below, then 2i+2 and below). The relative order of two positions does not depend on how many there are.
"""

from __future__ import annotations

import numpy as np

from bowsprit.scheduler.framework import Ints

_ranks: Ints = np.zeros(0, dtype=np.int64)


def preorder_ranks(count: int) -> Ints:
    """rank[i] of heap position i: smaller comes first."""
    global _ranks
    if len(_ranks) < count:
        depth = max(count, 16).bit_length()
        size = 2**depth - 1
        ranks = np.zeros(size, dtype=np.int64)
        for level in range(1, depth):  # a left child follows its parent, a right one the parent's whole left subtree
            subtree = 2 ** (depth - level) - 1
            first = 2**level - 1
            parents = ranks[2 ** (level - 1) - 1 : first]
            ranks[first : first * 2 + 1 : 2] = parents + 1
            ranks[first + 1 : first * 2 + 1 : 2] = parents + 1 + subtree
        _ranks = ranks
    return _ranks[:count]


def best(totals: Ints) -> int:
    """The position of the chosen node."""
    candidates = np.flatnonzero(totals == totals.max())
    if len(candidates) == 1:
        return int(candidates[0])
    return int(candidates[preorder_ranks(len(totals))[candidates].argmin()])


class NodeHeap:
    """Positions in the order in which container/heap pops them, for lists that are used further (batching)."""

    def __init__(self, totals: list[int]):
        self._items = [(total, position) for position, total in enumerate(totals)]
        for start in range(len(self._items) // 2 - 1, -1, -1):
            self._down(start, len(self._items))

    def __len__(self) -> int:
        return len(self._items)

    def _down(self, start: int, end: int) -> None:
        items, i = self._items, start
        while (child := 2 * i + 1) < end:
            if child + 1 < end and items[child + 1][0] > items[child][0]:
                child += 1
            if not items[child][0] > items[i][0]:
                return
            items[i], items[child] = items[child], items[i]
            i = child

    def pop(self) -> int:
        items = self._items
        last = len(items) - 1
        items[0], items[last] = items[last], items[0]
        self._down(0, last)
        return items.pop()[1]
