"""ImageLocality: nodes that have the images already, weighted by how widely the images are spread."""

from __future__ import annotations

import numpy as np

from bowsprit.scheduler.columns import NodeColumns
from bowsprit.scheduler.framework import MAX_NODE_SCORE, CycleState, Ints
from bowsprit.scheduler.podinfo import PodInfo

_MIB = 1024 * 1024
MIN_THRESHOLD = 23 * _MIB
MAX_CONTAINER_THRESHOLD = 1000 * _MIB


def image_sizes(nodes: NodeColumns) -> dict[str, tuple[Ints, Ints]]:
    """Rows and sizes by normalised image name."""

    def build() -> dict[str, tuple[Ints, Ints]]:
        found: dict[str, tuple[list[int], list[int]]] = {}
        for row, info in enumerate(nodes.infos):
            for image, size in info.images.items() if info is not None else ():
                rows, sizes = found.setdefault(image, ([], []))
                rows.append(row)
                sizes.append(size)
        return {image: (np.array(rows), np.array(sizes, dtype=np.int64)) for image, (rows, sizes) in found.items()}

    return nodes.derived("images", build)


class ImageLocality:
    name = "ImageLocality"
    local = True
    static = True  # depends on the node alone, not on its pods

    def score_rows(self, state: CycleState, pod: PodInfo, nodes: NodeColumns, rows: Ints) -> Ints:
        found = image_sizes(nodes)
        sums = np.zeros(nodes.size, dtype=np.int64)
        if found:
            for image in pod.shape.images:
                if image in found:
                    holders, sizes = found[image]
                    spread = len(holders) / len(nodes)
                    sums[holders] += (sizes * spread).astype(np.int64)
        return self._priority(sums, pod.shape.image_slots)[rows]

    @staticmethod
    def _priority(sums: Ints, slots: int) -> Ints:
        highest = MAX_CONTAINER_THRESHOLD * slots
        clamped = np.clip(sums, MIN_THRESHOLD, max(highest, MIN_THRESHOLD))
        return MAX_NODE_SCORE * (clamped - MIN_THRESHOLD) // max(highest - MIN_THRESHOLD, 1)
