"""``python -m bowsprit.cluster NAME``: the supervisor's process, started by ``bowsprit up``."""

from __future__ import annotations

import gc
import importlib
import logging
import os
import sys

from bowsprit.cluster.components import Plan
from bowsprit.cluster.lifecycle import get_cluster
from bowsprit.cluster.process import ComponentProcess
from bowsprit.cluster.supervisor import Supervisor

# What the first component needs, and what the others need besides; imported before the fork, the pages stay shared.
_FIRST = ("uvloop", "bowsprit.controlplane.server")
_OTHERS = ("bowsprit.controllers.manager", "bowsprit.kubelet.kubelet", "bowsprit.scheduler.process")
_KONNECTIVITY = ("bowsprit.konnectivity.server", "bowsprit.konnectivity.agent")


def _preload(modules: tuple[str, ...]) -> None:
    for module in modules:
        importlib.import_module(module)
    gc.collect()
    gc.freeze()


def main() -> None:
    """Supervise one cluster until SIGTERM."""
    logging.basicConfig(
        stream=sys.stderr, level=logging.INFO, format="%(levelname).1s %(asctime)s %(name)s] %(message)s"
    )
    os.umask(0o077)
    state = get_cluster(sys.argv[1])
    plan = Plan(state.config, state.paths)
    plan.prepare()
    _preload(_FIRST)
    others = _OTHERS + (_KONNECTIVITY if state.config.konnectivity.enabled else ())
    processes = [
        ComponentProcess(name, build, state.paths.logs / f"{name}.log") for name, build in plan.components().items()
    ]
    try:
        Supervisor(state.paths, processes, preload=lambda: _preload(others)).run()
    except BlockingIOError:
        logging.getLogger(__name__).info("another supervisor already runs this cluster")


if __name__ == "__main__":
    main()
