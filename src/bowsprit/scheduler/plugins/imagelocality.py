"""ImageLocality: nodes that have the images already, weighted by how widely the images are spread."""

from __future__ import annotations

import numpy as np

from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import MAX_NODE_SCORE, CycleState, Ints
from bowsprit.scheduler.podinfo import PodInfo

_MIB = 1024 * 1024
MIN_THRESHOLD = 23 * _MIB
MAX_CONTAINER_THRESHOLD = 1000 * _MIB


def image_holders(nodes: NodeColumns) -> dict[str, tuple[Ints, int]]:
    """Rows that have an image, by normalised name, and its size: what the first node that came with it reported."""

    def build() -> dict[str, tuple[Ints, int]]:
        found: dict[str, tuple[list[int], int]] = {}
        for row in nodes.row_of.values():
            for image, size in nodes.info(row).images.items():
                found.setdefault(image, ([], size))[0].append(row)
        return {image: (np.array(rows, dtype=np.int64), size) for image, (rows, size) in found.items()}

    return nodes.derived("images", build)


class ImageLocality:
    name = "ImageLocality"
    local = True
    static = True  # depends on the node alone, not on its pods

    def score_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Ints:
        found = image_holders(nodes)
        sums = np.zeros(nodes.size, dtype=np.int64)
        if found:
            for image in pod.shape.images:
                if image in found:
                    holders, size = found[image]
                    sums[holders] += int(float(size) * (len(holders) / len(nodes)))
        return self._priority(sums, pod.shape.image_slots)[rows]

    @staticmethod
    def _priority(sums: Ints, slots: int) -> Ints:
        highest = MAX_CONTAINER_THRESHOLD * slots
        clamped = np.clip(sums, MIN_THRESHOLD, max(highest, MIN_THRESHOLD))
        return MAX_NODE_SCORE * (clamped - MIN_THRESHOLD) // max(highest - MIN_THRESHOLD, 1)
